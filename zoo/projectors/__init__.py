"""Projectors: features of one width to features of another, one file each."""
