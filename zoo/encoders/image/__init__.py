"""Image encoders: the contract, one file per library, and the preprocessing that each brings along."""
