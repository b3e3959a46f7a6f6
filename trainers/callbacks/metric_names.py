"""The names validation can decide by, known before anything trains."""

from __future__ import annotations

from modalign.zoo.errors import RecipeError, nearest


def check_metric(name: str, where: str) -> None:
    """Refuses the name of a metric that validation does not measure.

    Args:
        name: As in a recipe's `validate.metric`.
        where: Dotted place in the recipe, for the message.

    Raises:
        RecipeError: With the nearest name there is.
    """
    import torch

    from modalign.zoo.metrics.retrieval import RetrievalMetric, flatten

    metric, pairs = RetrievalMetric(), torch.eye(2)  # measured on two pairs: names do not depend on the data
    metric.update({"image_embedding": pairs, "text_embedding": pairs}, {"text_row": torch.arange(2), "text_lang": ["", ""]})
    known = flatten(metric.compute()["metrics"])
    if name not in known:
        raise RecipeError(f"{where}: there is no {name!r}{nearest(name, known)}")
