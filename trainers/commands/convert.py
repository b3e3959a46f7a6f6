"""`modalign convert FOLDER --out RELEASE`: a release of what the original LLaVA code wrote."""

from __future__ import annotations

from pathlib import Path

from ..console import console


def convert(folder: str, out: str, language: str | None = None, vision: str | None = None) -> None:
    """Makes a release of a folder of the original LLaVA code: a whole model, a projector alone, or LoRA.

    Folders in transformers' layout need no conversion: every command takes them as they are.

    Args:
        folder: The folder.
        out: The release; new, empty, or an older one.
        language: The language model (hf:ORG/NAME, a folder of transformers), where the folder holds none.
        vision: The image encoder, where it is not to be had by the name in config.json.
    """
    from modalign import zoo
    from modalign.zoo.checkpoints.card import model_card
    from modalign.zoo.checkpoints.llava.original import load_original, read_original

    found = read_original(Path(folder), language, vision)
    model = load_original(found)
    card = model_card(model, f"LLaVA, converted from {Path(folder).name}")
    written = zoo.save_release(model, out, kind="full", card=card)
    console.print(f"written: {written}   language model {found.language or 'of the folder'}, image encoder {found.vision}")
