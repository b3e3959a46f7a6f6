"""ProCLIP: a language model's embedder takes the place of CLIP's text tower, in two stages."""
