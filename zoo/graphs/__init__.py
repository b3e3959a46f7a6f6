"""Graphs over the tokens of a sequence, and the convolution on them."""
