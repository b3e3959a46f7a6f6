"""Making shards: of tables and folders, and of other shards."""
