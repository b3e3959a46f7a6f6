"""`modalign export MODEL --to open_clip | transformers | inference --out FOLDER`: a model in another library's layout, or its slim form."""

from __future__ import annotations

from typing import Any, Literal

from ..console import console
from ..data_kind import DIALOGUE, PAIRS, SERIES
from ..kinds import only

Layout = Literal["open_clip", "transformers", "inference"]


def export(model: str, out: str, to: Layout = "open_clip", hf_name: str | None = None) -> None:
    """Writes a model as a folder that another library loads, or in the slim form that only predicts.

    It is checked that what was written computes the same.

    Args:
        model: A run folder, a release or a name.
        out: The folder; new or empty.
        to: The library: open_clip, which then loads it as local-dir:FOLDER; transformers, for stacks, as a LLaVA that
            AutoModelForImageTextToText loads; or inference: a release without what only training needs (of
            CALF the word dictionary, the text branch and the feature heads).
        hf_name: Hub name under which open_clip shall look for the configuration of a transformers text tower; default its own.
    """
    from modalign import zoo
    from modalign.zoo.checkpoints.open_clip_export import export_open_clip

    if to == "inference":
        export_slim(model, out)
        return
    if to == "transformers":
        from modalign.zoo.checkpoints.llava.export import export_transformers

        folder = export_transformers(only(zoo.load(model), DIALOGUE, "export --to transformers"), out)
        console.print(f"written: {folder}   transformers.AutoModelForImageTextToText.from_pretrained('{folder}')")
        return
    folder = export_open_clip(only(zoo.load(model), PAIRS, "export --to open_clip"), out, hf_name=hf_name)
    console.print(f"written: {folder}   open_clip.create_model_and_transforms('local-dir:{folder}')")


def export_slim(model: str, out: str) -> None:
    """Writes the slim release of a model, and says how much smaller it is.

    Raises:
        AssemblyError: If the family has none, or it does not predict exactly the same.
    """
    from modalign import zoo
    from modalign.zoo.checkpoints.card import model_card
    from modalign.zoo.checkpoints.find import find_release
    from modalign.zoo.errors import AssemblyError

    loaded = only(zoo.load(model), SERIES, "export --to inference")
    if not hasattr(loaded, "export_inference"):
        raise AssemblyError(f"{model}: a {loaded.family} has no slim form: all of it is needed to predict")
    slim = loaded.export_inference()
    _check_same(loaded, slim)
    card = model_card(slim, f"{loaded.family}, slim form for inference", started_from=[str(find_release(model).name)])
    folder = zoo.save_release(slim, out, kind="full", card=card)
    before, after = (sum(p.numel() for p in one.parameters()) / 1e6 for one in (loaded, slim))
    console.print(f"written: {folder}   {after:.1f} of {before:.1f} million parameters; predictions are the same to the last bit")


def _check_same(whole: Any, slim: Any) -> None:
    import torch

    from modalign.zoo.errors import AssemblyError

    generator = torch.Generator().manual_seed(0)
    series = whole.config.series
    values = torch.randn(2, whole.config.look_back, len(series.channels), generator=generator)
    batch = {"values": values}
    if series.known:
        batch["known"] = torch.randn(2, whole.config.look_back + whole.config.horizon, len(series.known), generator=generator)
    if series.static:
        batch["static"] = torch.randn(2, len(series.static), generator=generator)
    with torch.no_grad():
        first, second = (model.eval()(batch) for model in (whole, slim))
    for name, value in second.items():
        if not torch.equal(value, first[name]):
            raise AssemblyError(f"the slim form gives another {name} than the whole model; it is not written")
