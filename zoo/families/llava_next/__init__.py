"""LLaVA-1.6: pictures at their own resolution, as tiles."""
