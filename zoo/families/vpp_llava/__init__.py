"""VPP-LLaVA: LLaVA with position prompts."""
