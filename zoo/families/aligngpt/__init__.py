"""AlignGPT: LLaVA with alignment levels."""
