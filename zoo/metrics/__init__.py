"""What a model is worth: retrieval, zero-shot classification, how two spaces are alike, how languages align, how classes separate.

Pure functions over tensors, with their formula, units and source. Nothing here holds an N x N matrix of N samples: what compares all
with all does so in chunks, and where a set is large also over ranks.
"""
