"""FSCA: context alignment of patches and a frozen language model."""
