"""Many processes: which strategy, how a model is cut into shards, what a failed neighbour looks like."""
