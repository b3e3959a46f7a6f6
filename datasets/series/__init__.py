"""Time series: tables and shards of them, windows as virtual samples, splits, scaler, loaders."""
