"""Callbacks: validation, logs, progress."""
