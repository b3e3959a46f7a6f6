"""CLIP's text tower for long texts: its table of positions stretched, the well-trained first rows kept as they are.

Source: Long-CLIP (arXiv 2403.15378), section 3.2, and its official code.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoints.open_clip import CONFIG
from ...errors import AssemblyError
from .open_clip import OpenClipTextEncoder, causal_mask
from .open_clip_tokenize import ClipTokenize
from .positional_stretch import stretch_positions


class LongTextTower(OpenClipTextEncoder):
    """A text tower of CLIP that reads `keep + factor (T - keep)` tokens instead of T: 248 instead of 77.

    Positions below `keep` come from a frozen table (a buffer, so that no recipe can train it), the others from a trained one.

    Attributes:
        positions_kept: (keep, D) rows of the tower it was made of.
        positions_long: (rest, D) stretched rows, trained.
    """

    positions_kept: Tensor

    def __init__(self, tower: OpenClipTextEncoder, keep: int = 20, factor: int = 4) -> None:
        """Stretches a tower; it is taken over and not to be used any more.

        Args:
            tower: A text tower of CLIP's own kind.
            keep: Rows of its table that stay as they are.
            factor: How much longer the rest becomes.

        Raises:
            AssemblyError: If the tower is of another kind, or its table too short.
        """
        model: Any = tower.model
        _check(model, tower.model_cfg, getattr(tower.config, "name", "text_tower"))
        stretched = stretch_positions(model.positional_embedding.detach(), keep, factor)
        length = len(stretched)
        super().__init__(tower.config, model, tower.model_cfg, ClipTokenize(length, tower.tokenizer().prefix, _options(tower)))
        self.width = tower.width
        del model.positional_embedding
        model.attn_mask = causal_mask(length)
        model.context_length = model.num_pos = length
        self.keep, self.factor = keep, factor
        self.register_buffer("positions_kept", stretched[:keep].clone())
        self.positions_long = nn.Parameter(stretched[keep:].clone())

    def positions(self) -> Tensor:
        """The whole table (T, D): frozen rows, then trained ones."""
        return torch.cat((self.positions_kept, self.positions_long))

    def pooled_and_tokens(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """(N, T) ids -> vectors (N, D); as open_clip's tower, with the table put together from two."""
        from open_clip.transformer import text_global_pool

        model, length = self.model, ids.shape[1]
        cast = model.transformer.get_cast_dtype()
        hidden = model.token_embedding(ids).to(cast) + self.positions()[:length].to(cast)
        hidden = model.ln_final(model.transformer(hidden, attn_mask=model.attn_mask[:length, :length]))
        pooled = text_global_pool(hidden, ids, pool_type=model.pool_type, eos_token_id=model.eos_id)
        if isinstance(model.text_projection, nn.Linear):
            return model.text_projection(pooled), None
        return pooled if model.text_projection is None else pooled @ model.text_projection, None

    def identity(self) -> dict[str, Any]:
        """Settings that change the vectors."""
        return {**super().identity(), "keep": self.keep, "factor": self.factor}

    def no_weight_decay(self) -> set[str]:
        """Positions are not decayed, as in the tower they come from."""
        return {"positions_long"}

    def layer_of(self, parameter: str) -> int:
        """See `TextEncoder.layer_of`; positions lie with the embeddings."""
        return 0 if parameter == "positions_long" else super().layer_of(parameter)

    def plain_cfg(self) -> dict[str, Any]:
        """The description open_clip would have of a tower of this length."""
        cfg = copy.deepcopy(self.model_cfg)
        cfg["text_cfg"]["context_length"] = len(self.positions_kept) + len(self.positions_long)
        return cfg

    def save_processor(self, folder: Path) -> None:
        """Writes the description of the tower before it was stretched; `keep` and `factor` are settings of the family."""
        (folder / CONFIG).write_text(json.dumps({"model_cfg": self.model_cfg}, indent=2) + "\n", encoding="utf-8")


def _check(model: Any, model_cfg: dict[str, Any], name: str) -> None:
    if not hasattr(model, "positional_embedding"):
        raise AssemblyError(
            f"{name}: longclip stretches CLIP's own text tower; this one is of transformers, or stretched already"
        )
    if (
        model.cls_emb is not None
        or model.attn_mask is None
        or model.output_tokens
        or model_cfg["text_cfg"].get("hf_tokenizer_name")
    ):
        raise AssemblyError(
            f"{name}: longclip stretches CLIP's own text tower (causal, read off at the end token); this one is another kind"
        )


def _options(tower: OpenClipTextEncoder) -> dict[str, Any]:
    return dict(tower.model_cfg["text_cfg"].get("tokenizer_kwargs") or {})
