"""What a model is: encoders, projectors, losses, metrics, families, checkpoints."""
