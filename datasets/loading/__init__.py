"""Batches: which samples, in which order, read by which worker, skipped for what reason."""
