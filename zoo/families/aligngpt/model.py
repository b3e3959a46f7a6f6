"""AlignGPT: LLaVA-1.5 with one vector behind the start token that says how well picture and text fit.

Source: AlignGPT (arXiv 2405.14129) and its official code. The hook is `zoo/stack/methods/alignment_levels.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..llava.model import LlavaConfig, LlavaModel


@dataclass
class AlignGptConfig(LlavaConfig):
    """Settings of LLaVA-1.5, with alignment levels unless `hooks` says otherwise (`{}` is LLaVA-1.5)."""

    hooks: dict[str, dict[str, Any]] = field(default_factory=lambda: {"alignment_levels": {}})


class AlignGptModel(LlavaModel):
    """See `StackModel`."""

    family = "aligngpt"
    Config = AlignGptConfig
