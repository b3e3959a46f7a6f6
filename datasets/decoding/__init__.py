"""From the bytes of a sample to values: for bytes that nobody vouches for."""
