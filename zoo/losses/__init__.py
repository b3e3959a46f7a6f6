"""Alignment losses, one family per file: a pure function of tensors first, then a module that reads named entries of a step."""
