"""What a model is worth on a set of shards: one file per task, the vectors they share, results and report of a run."""
