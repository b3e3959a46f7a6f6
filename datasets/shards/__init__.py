"""Shards on disk: tars with an index and a manifest, ours and others'; `ShardSet` reads any sample of them by its number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .shard_set import ShardSet

__all__ = ["ShardSet"]


def __getattr__(name: str) -> Any:
    """Imports on first use: `datasets/remote` needs the manifest from here, and `ShardSet` needs `datasets/remote`."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .shard_set import ShardSet

    return ShardSet
