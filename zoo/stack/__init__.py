"""Encoder, projector and language model in one stack, with places for what methods add."""
