"""LLaVA-OneVision: tiles in any grid up to 6 by 6, one encoder for pictures alone and together."""
