"""What methods add to a stack: one hook per file."""
