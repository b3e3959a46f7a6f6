"""Shards on other machines: who may be asked, and what is kept of the answers."""
