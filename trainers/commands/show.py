"""`modalign data show`: a contact sheet of shards, and what a model learns of them."""

from __future__ import annotations

from typing import Any


def show(
    shards: str,
    out: str = "",
    n: int = 16,
    *,
    lang: str = "",
    seed: int = -1,
    allow_remote: list[str] | None = None,
    model: str | None = None,
    ask: str | None = None,
) -> None:
    """Draws samples with their captions on a contact sheet and prints the captions; with a model also the tokens of conversations.

    Boxes are drawn into the pictures, with their phrases or categories; below a picture with a conversation stand its first words. Tokens
    that are learnt are green, and stand between double brackets.

    Args:
        shards: The folder of shards.
        out: Path of the PNG; default contact_sheet.png, or the next free of contact_sheet-2.png, contact_sheet-3.png ...
        n: How many samples.
        lang: Show captions of this language only; else the primary caption and the language of each.
        seed: -1: the first samples; else a random choice with this seed.
        allow_remote: Schemes or origins that shards may be read from, such as `[https]`; default what `MODALIGN_ALLOW_REMOTE` says.
        model: A model of conversations, whose template and tokenizer are used.
        ask: What is made of a sample: conversations, captions, regions or fields; default as the model was trained.
    """
    from modalign.datasets.commands.show import show as draw

    samples = draw(shards, out, n, lang=lang, seed=seed, allow_remote=allow_remote)
    if model is not None:
        _tokens(samples, model, ask)


def _tokens(samples: list[Any], name: str, ask: str | None) -> None:
    import numpy as np

    from modalign import zoo
    from modalign.zoo.configure import fill
    from modalign.zoo.errors import DataError

    from ..console import console
    from ..data_kind import DIALOGUE
    from ..dialogue.asking import Asker
    from ..dialogue.tokens import coloured
    from ..examples import CaptionChoice
    from ..kinds import only
    from ..recipe.dialogue_settings import DialogueConfig

    model = only(zoo.load(name), DIALOGUE, "data show --model")
    trained = {} if ask else dict(model.config.asked or {})
    asker = Asker(
        fill(DialogueConfig, {**trained, **({"ask": ask} if ask else {})}, "--ask"), CaptionChoice(None, "first", False)
    )
    encoder, rng = model.encoder(), np.random.default_rng(0)
    for sample in samples:
        try:
            encoded = encoder(asker.conversation(sample, rng), [image.size for image in sample.images])
        except DataError as error:
            console.print(f"{sample.key}: {error}")
            continue
        learnt = sum(label >= 0 for label in encoded.labels)
        console.print(f"{sample.key}: {len(encoded.ids)} tokens, {learnt} learnt")
        console.print(coloured(model.language.tokenizer, encoded.ids, encoded.labels))
