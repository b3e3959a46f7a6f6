"""What a model is worth: retrieval now; grounding, forecasts, speech and representation diagnostics as the zoo grows."""
