"""Time series in training: which windows a stage reads, how it validates, what it is worth, and what the report shows."""
