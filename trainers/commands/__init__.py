"""One file per command of `modalign`; `modalign.trainers.cli` has the table."""
