"""DLinear."""
