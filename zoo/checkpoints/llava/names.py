"""Names of weights: transformers' LLaVA folders, old and new, and original LLaVA's -> a stack's, and back to what transformers writes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from ...errors import ReleaseError

_PROJECTOR = {"linear_1": "0", "linear_2": "3"}  # of `MlpProjector.layers`: dropout lies between
_ORIGINAL_PROJECTOR = {"0": "0", "2": "3"}
#: pattern -> name in a stack; the language model's own names follow its architecture
_RULES: tuple[tuple[str, str], ...] = (
    (r"(?:model\.)?vision_tower\.(?:vision_tower\.)?(?:vision_model\.)?(?P<rest>.+)", "image.model.{rest}"),
    (r"(?:model\.)?multi_modal_projector\.(?P<layer>linear_[12])\.(?P<rest>.+)", "projector.layers.{layer}.{rest}"),
    (r"(?:model\.)?mm_projector\.(?P<layer>\d+)\.(?P<rest>.+)", "projector.layers.{layer}.{rest}"),
    (r"(?:model\.)?image_newline", "newline"),
    (r"(?:language_model\.)?lm_head\.(?P<rest>.+)", "language_base.lm_head.{rest}"),
    (r"language_model\.model\.(?P<rest>.+)", "language_base.{body}.{rest}"),
    (r"model\.language_model\.(?P<rest>.+)", "language_base.{body}.{rest}"),
    (r"language_model\.(?P<rest>.+)", "language_base.{body}.{rest}"),
    (r"model\.(?P<rest>(?:embed_tokens|layers|norm)\..+)", "language_base.{body}.{rest}"),
)
_COMPILED = tuple((re.compile(pattern), target) for pattern, target in _RULES)


def is_original(names: Iterable[str]) -> bool:
    """Whether weights are original LLaVA's: its projector has another name than transformers'.

    Raises:
        ReleaseError: If there is a projector of both names.
    """
    names = list(names)
    original = any("mm_projector." in name for name in names)
    theirs = any("multi_modal_projector." in name for name in names)
    if original and theirs:
        raise ReleaseError(
            "the weights hold both mm_projector and multi_modal_projector: two projectors of one model; get them again"
        )
    return original


def stack_name(name: str, body: str = "model") -> str | None:
    """The name in a stack of a weight of a LLaVA folder; None for one that has no place in it.

    Args:
        name: As the file has it.
        body: Name of the language model without its output layer (`base_model_prefix`).
    """
    for pattern, target in _COMPILED:
        if (found := pattern.fullmatch(name)) is not None:
            groups = found.groupdict()
            if "layer" in groups:
                layer = _PROJECTOR.get(groups["layer"]) or _ORIGINAL_PROJECTOR.get(groups["layer"])
                return None if layer is None else target.format(layer=layer, rest=groups["rest"])
            return target.format(body=body, **groups)
    return None


def to_stack(state: Mapping[str, Tensor], body: str, shown: str) -> dict[str, Tensor]:
    """Weights of a LLaVA folder under the names of a stack.

    Args:
        state: As the files have them.
        body: See `stack_name`.
        shown: What messages call the folder.

    Raises:
        ReleaseError: Naming weights that have no place in a stack.
    """
    is_original(state)
    renamed = {name: stack_name(name, body) for name in state}
    foreign = [name for name, own in renamed.items() if own is None]
    if foreign:
        raise ReleaseError(f"{shown}: no part of LLaVA has a weight {foreign[0]!r} ({len(foreign)} such); it is another model")
    return {str(own): state[name] for name, own in renamed.items()}


def runtime_name(name: str, body: str = "model") -> str | None:
    """The name in transformers' LLaVA models of a weight of a stack; None for what they do not have.

    Args:
        name: In the stack.
        body: See `stack_name`.
    """
    layers = {own: theirs for theirs, own in _PROJECTOR.items()}
    if name == "newline":
        return "model.image_newline"
    if name.startswith("image.model."):
        return f"model.vision_tower.{name.removeprefix('image.model.')}"
    if name.startswith("language_base.lm_head."):
        return name.removeprefix("language_base.")
    if name.startswith(f"language_base.{body}."):
        return f"model.language_model.{name.removeprefix(f'language_base.{body}.')}"
    if (found := re.fullmatch(r"projector\.layers\.(\d+)\.(.+)", name)) is not None and found[1] in layers:
        return f"model.multi_modal_projector.{layers[found[1]]}.{found[2]}"
    return None
