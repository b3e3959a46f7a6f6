"""What stands in FSCA's sequence for a task, and which positions the head reads."""

from __future__ import annotations

from collections.abc import Sequence

from ...graphs.context_graph import Node, example_nodes, forecast_nodes, places
from ...series.description import SeriesDescription
from .config import FscaConfig


def sequence_nodes(config: FscaConfig, patches: int, classes: int) -> list[Node]:
    """The nodes, in order.

    Args:
        config: Settings, with the prompt's ids.
        patches: N.
        classes: Number of classes; 0 where series are forecast.

    Raises:
        AssemblyError: If there are fewer patches than segments.
    """
    prompt = len(config.prompt_ids or ())
    if classes:
        return example_nodes(patches, classes if config.demonstrations else 0, prompt)
    return forecast_nodes(patches, config.segments, prompt)


def read_positions(config: FscaConfig, nodes: Sequence[Node], patches: int) -> slice:
    """Positions that the head reads when it forecasts.

    The official code takes the last N positions, N the number of patches, whatever stands there. Here it is all of the last segment
    and the prompt behind it: the positions that see the whole history, for attention is causal.

    Args:
        config: Settings.
        nodes: The sequence.
        patches: N.
    """
    length = sum(node.tokens for node in nodes)
    return slice(length - patches if config.strict_reference else places(nodes)[-2].start, length)


def class_count(config: FscaConfig) -> int:
    """Number of classes; 0 for other tasks."""
    return len(config.series.labels) if config.task == "classification" and config.series is not None else 0


def shape(description: SeriesDescription) -> tuple[int, tuple[str, ...]]:
    """Channels and classes: what a classifier is built for."""
    return len(description.channels), tuple(description.labels)
