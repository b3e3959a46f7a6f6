"""LLaVA: pictures through a projector into a language model."""
