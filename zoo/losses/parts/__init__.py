"""What several losses are made of: rows, tiles, targets, and the exchange between ranks."""
