"""A model and a set of conversations as a command line names them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from modalign.datasets.remote.access import remote_of
from modalign.datasets.shards import ShardSet
from modalign.zoo.configure import fill

from ..console import track
from ..recipe.dialogue_settings import DialogueConfig
from .subject import DialogueSubject


def dialogue_subject(
    model: Any,
    name: str,
    data: str,
    settings: Mapping[str, Any],
    allow_remote: list[str] | None = None,
    *,
    over_ranks: bool = False,
) -> DialogueSubject:
    """What `modalign eval` measures.

    Args:
        model: A stack.
        name: What results call it.
        data: Shards.
        settings: `languages`, and settings of `DialogueConfig` that stand for what the model was trained on.
        allow_remote: Schemes or origins that shards may be read from.
        over_ranks: The ranks share the work.
    """
    open_set = partial(ShardSet, remote=remote_of(allow_remote))
    asked = {key: value for key, value in settings.items() if key != "languages"}
    trained = dict(getattr(model.config, "asked", None) or {})
    config = fill(DialogueConfig, {**trained, **asked}, "data.dialogue")
    return DialogueSubject(
        model,
        name,
        open_set(data),
        data,
        config,
        settings.get("languages"),
        over_ranks=over_ranks,
        progress=track,
        open=open_set,
    )
