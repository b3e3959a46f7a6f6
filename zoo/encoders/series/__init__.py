"""Encoders of time series: instance norm, and tokens of channels or of patches."""
