"""CLIP: two encoders trained by the symmetric contrastive loss."""
