"""Shards on disk: tars with an index and a manifest, ours and others'; `ShardSet` reads any sample of them by its number."""

from .shard_set import ShardSet

__all__ = ["ShardSet"]
