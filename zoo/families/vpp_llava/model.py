"""VPP-LLaVA: LLaVA-1.5 with a learnable picture of axes over the picture, and the object queries of a detector behind its tokens.

Source: VPP-LLaVA (arXiv 2503.15426) and its official code. The hooks are `zoo/stack/methods/vpp_global.py` and `vpp_local.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..llava.model import LlavaConfig, LlavaModel


@dataclass
class VppLlavaConfig(LlavaConfig):
    """Settings of LLaVA-1.5, with both prompts unless `hooks` says otherwise (`{}` is LLaVA-1.5)."""

    hooks: dict[str, dict[str, Any]] = field(default_factory=lambda: {"vpp_global": {}, "vpp_local": {}})


class VppLlavaModel(LlavaModel):
    """See `StackModel`."""

    family = "vpp_llava"
    Config = VppLlavaConfig
