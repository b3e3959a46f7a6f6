"""How deep a parameter lies: what layer-wise learning rates ask of an encoder."""

from __future__ import annotations

import re

from torch import nn

#: parts that work after the blocks although a library registers some of them before
_AFTER = re.compile(
    r"^(proj|text_projection)(\.|$)|(^|\.)(final\w*|post\w*|head\w*|pooler|attn_pool\w*|attnpool|ln_post|ln_final|project_out)(\.|$)"
)


class Depths:
    """Layer number of every parameter of a body of repeated blocks.

    Layer 0 is what lies before the blocks (embeddings, stem), layer i + 1 is block i, the last layer is what follows (norm, pooling,
    projection). The blocks are the members of the outermost `ModuleList` (or of `blocks`) that holds most parameters.

    Args:
        body: The network.
        blocks: Names of the sub-modules that are the blocks, in order; found by themselves if not given.
    """

    def __init__(self, body: nn.Module, blocks: list[str] | None = None) -> None:
        names = [name for name, _ in body.named_parameters()]
        found = _blocks(body) if blocks is None else blocks
        depth = {f"{name}.": number + 1 for number, name in enumerate(found)}
        self.count = len(found) + 2
        self._of: dict[str, int] = {}
        seen = False
        for name in names:
            inside = next((number for prefix, number in depth.items() if name.startswith(prefix)), None)
            seen = seen or inside is not None
            after = self.count - 1 if seen or (_AFTER.search(name) and "embed" not in name) else 0
            self._of[name] = after if inside is None else inside

    def __getitem__(self, parameter: str) -> int:
        return self._of[parameter]


def _blocks(body: nn.Module) -> list[str]:
    """Names of the members of the largest outermost list of modules; none where there is no list."""
    lists = {name: module for name, module in body.named_modules() if isinstance(module, nn.ModuleList) and len(module) > 0}
    outermost = {
        name: m for name, m in lists.items() if not any(name.startswith(f"{other}.") for other in lists if other != name)
    }
    if not outermost:
        return []
    largest = max(outermost, key=lambda name: sum(parameter.numel() for parameter in outermost[name].parameters()))
    return [f"{largest}.{number}" for number in range(len(outermost[largest]))]
