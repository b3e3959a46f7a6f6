"""Heads: from hidden states of a time-series model to what is predicted."""
