"""LLaVA folders of others: transformers' three layouts and the original one, in and out."""
