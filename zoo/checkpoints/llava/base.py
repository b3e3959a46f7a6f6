"""A stack that starts from a LLaVA folder: its shape, its weights, and the parts of it that an adapter names as its base."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...encoders.sources import open_source
from ...errors import ReleaseError
from ...registry import FAMILIES
from ..weights import load_strictly
from .folder import LlavaFolder, is_llava_folder, read_llava
from .names import to_stack

_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template.*", "vocab.*", "merges.txt")


@dataclass
class Base:
    """A LLaVA folder while a stack is built from it.

    Attributes:
        shape: A folder in the form of a release, without weights.
        preprocess: Of its image encoder.
        folder: The folder itself.
    """

    shape: Path
    preprocess: dict[str, Any]
    folder: LlavaFolder


def open_base(name: str) -> LlavaFolder:
    """The LLaVA folder that a name stands for.

    Raises:
        ReleaseError: If it holds no LLaVA of transformers.
        NameGrammarError: If the name is wrong.
    """
    source = open_source(name)
    if source.name.scheme == "hf":
        source = source.with_weights((("model*.safetensors", "*.json", "*.jinja", "*.model"),))
    folder = source.files()
    if not is_llava_folder(folder):
        raise ReleaseError(f"{name}: config.json is of no LLaVA that transformers has (llava, llava_next, llava_onevision)")
    return read_llava(folder)


@contextmanager
def shape_of(name: str) -> Iterator[Base]:
    """What a stack is built from, while it is built."""
    found = open_base(name)
    place = Path(tempfile.mkdtemp(prefix="modalign-"))
    try:
        for part, config in (("image", found.vision), ("language", found.text)):
            config.save_pretrained(place / part)
        for pattern in _TOKENIZER:
            for file in found.folder.glob(pattern):
                shutil.copy(file, place / "language" / file.name)
        yield Base(place, found.preprocess().to_dict(), found)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def base_state(found: LlavaFolder, model: Any) -> dict[str, Tensor]:
    """A folder's weights under the names of a stack, float32.

    Raises:
        ReleaseError: If a weight has no place in it.
    """
    body = model.language.model.base_model_prefix
    state = to_stack(found.weights(), body, str(found.folder))
    return {name: tensor.to(torch.float32) if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def fill_from(found: LlavaFolder, model: Any, *, projector: bool = True) -> None:
    """Loads encoder, language model, projector and newline of a stack from a folder; nothing of them may be missing.

    Args:
        found: The folder.
        model: The stack.
        projector: Off for a stack with another projector than the folder's, which starts anew.

    Raises:
        ReleaseError: Naming what is missing, left over, or of another shape.
    """
    state = base_state(found, model)
    own = model.state_dict()
    if "language_base.lm_head.weight" not in own:  # tied to the token table
        state.pop("language_base.lm_head.weight", None)
    parts = ("image.", "language_base.", *(("projector.", "newline") if projector else ()))
    wanted = {name for name in own if name.startswith(parts)}
    given = {name: tensor for name, tensor in state.items() if name.startswith(parts)}
    missing, left = sorted(wanted - set(given)), sorted(set(given) - wanted)
    wrong = [name for name in sorted(wanted & set(given)) if own[name].shape != given[name].shape]
    if missing or left or wrong:
        said = (("missing", missing), ("not wanted", left), ("of another shape", wrong))
        what = "; ".join(f"{how}: {', '.join(names[:3])}" for how, names in said if names)
        raise ReleaseError(f"{found.folder}: its weights do not fill the model ({what}); a part is never left at random")
    model.load_state_dict(given, strict=False)


def fill_part(found: LlavaFolder, part: Any, prefix: str, body: str) -> None:
    """Loads one part of a stack from a folder.

    Args:
        found: The folder.
        part: The part.
        prefix: Of its weights in a stack.
        body: Name of the language model without its output layer.

    Raises:
        ReleaseError: If a weight of it is missing or of another shape.
    """
    state = to_stack(found.weights(), body, str(found.folder))
    own = part.state_dict()
    mine = {name.removeprefix(prefix): tensor.to(torch.float32) for name, tensor in state.items() if name.startswith(prefix)}
    load_strictly(part, {name: tensor for name, tensor in mine.items() if name in own}, str(found.folder))


def load_llava(name: str | Path, overrides: Mapping[str, Any] | None = None) -> Any:
    """A LLaVA folder of transformers as a model of ours.

    Args:
        name: Of the name grammar, or a path.
        overrides: Settings of the stack that stand for what the folder says.

    Raises:
        ReleaseError: If it is none, or its weights do not fill the model.
    """
    text = str(name)
    text = text if ":" in text or text.startswith(("./", "../", "/")) else f"./{text}"
    found = open_base(text)
    settings = {**found.settings, "base": text, **_sources(text), **(overrides or {})}
    return FAMILIES.get(found.family).from_settings(settings, f"{text}: model").eval()


def _sources(text: str) -> dict[str, Any]:
    return {"image": {"name": text, "kind": "transformers"}, "language": {"name": text}}
