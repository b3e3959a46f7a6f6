"""The causal language model: its first blocks as a backbone, adapters, and a dictionary of its words' embeddings."""
