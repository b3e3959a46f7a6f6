"""Text encoders: the contract, one file per library, tokenizers, pooling."""
