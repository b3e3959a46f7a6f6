"""Encoders: one file per modality; each owns its preprocessing, which is saved with it."""
