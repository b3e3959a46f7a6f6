"""`modalign export MODEL --to open_clip --out FOLDER`: a model in another library's layout."""

from __future__ import annotations

from typing import Literal

from ..console import console

Layout = Literal["open_clip"]


def export(model: str, out: str, to: Layout = "open_clip", hf_name: str | None = None) -> None:
    """Writes a model as a folder that another library loads, and checks that it computes the same vectors there.

    Args:
        model: A run folder, a release or a name.
        out: The folder; new or empty.
        to: The library: open_clip, which then loads it as local-dir:FOLDER.
        hf_name: Hub name under which open_clip shall look for the configuration of a transformers text tower; default its own.
    """
    from modalign import zoo
    from modalign.zoo.checkpoints.open_clip_export import export_open_clip

    folder = export_open_clip(zoo.load(model), out, hf_name=hf_name)
    console.print(f"written: {folder}   open_clip.create_model_and_transforms('local-dir:{folder}')")
