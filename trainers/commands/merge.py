"""`modalign merge MODEL --out FOLDER`: a whole release without adapters, that computes the same."""

from __future__ import annotations

from ..console import console
from ..data_kind import DIALOGUE
from ..kinds import only


def merge(model: str, out: str) -> None:
    """Folds LoRA into the language model and writes a whole release: base, projector and everything trained in one folder.

    It is checked that the merged model computes the same, and said which matrices changed.

    Args:
        model: A run folder or a release with LoRA.
        out: The folder; new, empty, or an older release.
    """
    from modalign import zoo
    from modalign.zoo.checkpoints.card import model_card
    from modalign.zoo.checkpoints.find import find_release
    from modalign.zoo.checkpoints.merging import merge_adapters

    loaded = only(zoo.load(model), DIALOGUE, "merge")
    changed = merge_adapters(loaded)
    card = model_card(loaded, f"{loaded.family}, adapters merged", started_from=[str(find_release(model).name)])
    folder = zoo.save_release(loaded, out, kind="full", card=card)
    console.print(
        f"written: {folder}   {len(changed)} matrices changed, such as {', '.join(changed[:3])}; logits are the same up to rounding"
    )
