"""The commands of `modalign data` that only read."""
