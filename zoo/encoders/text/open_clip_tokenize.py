"""open_clip's tokenizers as picklable callables for data workers."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import ReleaseError, nearest


class ClipTokenize:
    """Byte-pair tokenisation with CLIP's vocabulary; built anew in each process, so that it costs nothing to send.

    Args:
        context_length: Length every text is cut or padded to.
        prefix: Put before every text.
        options: Further settings of open_clip's tokenizer.
    """

    def __init__(self, context_length: int, prefix: str = "", options: dict[str, Any] | None = None) -> None:
        self.context_length, self.prefix, self.options = context_length, prefix, options or {}

    @property
    def inner(self) -> Any:
        """open_clip's own tokenizer, one per process for the same settings: reading its vocabulary takes a third of a second."""
        return _simple_tokenizer(self.context_length, json.dumps(self.options, sort_keys=True))

    def __call__(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """N strings -> ids (N, T) padded with 0 to the context length, and a mask up to the end token."""
        ids = self.inner([self.prefix + text for text in texts])
        ends = (ids == self.inner.eot_token_id).int().argmax(1, keepdim=True)
        return {"ids": ids, "mask": (torch.arange(ids.shape[1])[None] <= ends).long()}


@functools.cache
def _simple_tokenizer(context_length: int, options: str) -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=context_length, **json.loads(options))


class HfClipTokenize:
    """A transformers tokenizer as open_clip calls it: cleaned text, padded to the context length.

    Args:
        inner: open_clip's `HFTokenizer`.
        pad_id: What its text tower takes for padding.
        prefix: Put before every text.
    """

    def __init__(self, inner: Any, pad_id: int, prefix: str = "") -> None:
        self.inner, self.pad_id, self.prefix = inner, pad_id, prefix

    def __call__(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """N strings -> ids (N, T) and the mask of what is no padding."""
        ids = self.inner([self.prefix + text for text in texts])
        return {"ids": ids, "mask": (ids != self.pad_id).long()}


def build_tokenize(text_cfg: dict[str, Any], folder: Path | None, pad_id: int, prefix: str, shown: str) -> Any:
    """The tokenizer that belongs to a text tower.

    Args:
        text_cfg: open_clip's settings of the tower.
        folder: Where tokenizer files lie; None asks for `hf_tokenizer_name`.
        pad_id: What the tower takes for padding.
        prefix: Put before every text.
        shown: What messages call the model.

    Raises:
        ReleaseError: If tokenizer files are missing, or the settings ask for something a tokenizer's settings may not.
    """
    length = int(text_cfg.get("context_length", 77))
    named = text_cfg.get("hf_tokenizer_name")
    options = _allowed_options(text_cfg, bool(named), shown)
    if not named:
        return ClipTokenize(length, prefix, options)
    from open_clip.tokenizer import HFTokenizer

    place = _tokenizer_folder(str(named), folder)
    try:
        mode = text_cfg.get("tokenizer_mode")
        inner = HFTokenizer(str(place), context_length=length, tokenizer_mode=mode, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        raise ReleaseError(f"{shown}: its tokenizer cannot be read from {place} ({str(error).splitlines()[0][:160]})") from None
    return HfClipTokenize(inner, pad_id, prefix)


#: What `tokenizer_kwargs` may hold. open_clip hands them on to transformers as they are, where `trust_remote_code` runs code of the folder,
#: and its own tokenizer would read any gzip file as its vocabulary (`bpe_path`): so everything else is refused.
_SHARED = {"clean": ("canonicalize", "lower", "whitespace")}
_OF_HF: dict[str, Any] = _SHARED | {"strip_sep_token": bool, "language": str}
_OF_CLIP: dict[str, Any] = _SHARED | {
    "reduction_mask": ("", "simple", "random", "shuffle", "syntax"),
    "additional_special_tokens": list,
}


def _allowed_options(text_cfg: dict[str, Any], of_hf: bool, shown: str) -> dict[str, Any]:
    options, known = text_cfg.get("tokenizer_kwargs") or {}, _OF_HF if of_hf else _OF_CLIP
    where = f"{shown}: tokenizer_kwargs"
    if not isinstance(options, dict):
        raise ReleaseError(f"{where}: expected a table, got {options!r}")
    for key, value in options.items():
        if key not in known:
            raise ReleaseError(
                f"{where}: {key!r} is not followed here{nearest(str(key), known)}; take it out of open_clip_config.json"
            )
        expected = known[key]
        fits = value in expected if isinstance(expected, tuple) else isinstance(value, expected)
        if not fits or (isinstance(value, list) and not all(isinstance(token, str) for token in value)):
            raise ReleaseError(f"{where}.{key}: {value!r} is no value for it")
    if text_cfg.get("tokenizer_mode") not in (None, "", "clips"):
        raise ReleaseError(f"{shown}: tokenizer_mode {text_cfg['tokenizer_mode']!r} is unknown; it can be clips")
    return dict(options)


def _tokenizer_folder(named: str, folder: Path | None) -> Path:
    from ..sources import refuse_remote_code

    if folder is None and not Path(named).is_dir():
        from ...checkpoints.hub import fetch

        folder = fetch(named)
    place = folder if folder is not None else Path(named)
    refuse_remote_code(place)
    return place
