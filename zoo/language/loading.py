"""From a name to the first blocks of a causal language model, as transformers builds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ..encoders.hf_loading import load_checked
from ..encoders.sources import trusted_source
from ..errors import AssemblyError, RecipeError, ReleaseError, nearest

__all__ = ["LanguageModelConfig", "LanguageSwitch", "load_decoder", "read_config", "token_table"]
#: what stands where the language model stands: itself, the same with random weights, one attention layer, or nothing
LanguageSwitch = Literal["pretrained", "random", "attention", "none"]
WEIGHTS = (("model*.safetensors",), ("pytorch_model*.bin",))
_REFUSED = ("auto_map", "_name_or_path", "quantization_config")


@dataclass
class LanguageModelConfig:
    """Settings of the language model inside a model of time series.

    Attributes:
        name: `asset:NAME`, `hf:ORG/NAME` or a folder of transformers that holds a causal language model.
        architecture: Instead of a name: a transformers configuration as plain values (`{model_type: gpt2, n_embd: 64, …}`), for random
            weights.
        blocks: N, how many of its first blocks are kept; the others are not even read.
    """

    name: str | None = "asset:smollm2-135m-instruct"
    architecture: dict[str, Any] = field(default_factory=dict)
    blocks: int = 6

    def __post_init__(self) -> None:
        """Checks what types cannot say.

        Raises:
            RecipeError: If no block is kept, or the model is given twice or not at all.
        """
        if self.blocks < 1:
            raise RecipeError(f"model.language.blocks: {self.blocks} must be 1 or more")
        if bool(self.name) == bool(self.architecture):
            raise RecipeError("model.language: give either name or architecture (then with name: null)")

    @property
    def shown(self) -> str:
        """What messages call it."""
        return self.name or f"an architecture of type {self.architecture.get('model_type')!r}"


class NamedModel(Protocol):
    """What is read of settings that say which language model is meant."""

    @property
    def name(self) -> str | None:
        """Of the name grammar."""

    @property
    def architecture(self) -> dict[str, Any]:
        """Instead of a name."""

    @property
    def blocks(self) -> int | None:
        """How many of the first blocks; None is all."""

    @property
    def shown(self) -> str:
        """What messages call it."""


def read_config(config: NamedModel, folder: Path | None = None) -> Any:
    """The transformers configuration, cut to its first N blocks.

    Args:
        config: Which model.
        folder: A release's folder to read it from instead of the name.

    Raises:
        ReleaseError: If config.json cannot be used.
        RecipeError: If the architecture cannot.
        AssemblyError: If the model has fewer blocks, or is no decoder.
    """
    from transformers import AutoConfig

    own = bool(config.architecture) and folder is None
    with _said(config, own):
        if own:
            found = _from_values(config.architecture)
        else:
            found = AutoConfig.from_pretrained(trusted_source(config.name or "", folder).files(), trust_remote_code=False)
    if getattr(found, "is_encoder_decoder", False) or not isinstance(getattr(found, "num_hidden_layers", None), int):
        raise AssemblyError(
            f"{config.shown}: not a causal language model of one stack of blocks; take a decoder such as GPT-2 or Llama"
        )
    return _cut(found, config)


def _from_values(values: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    if asked := [key for key in _REFUSED if key in values]:
        raise RecipeError(f"model.language.architecture: {asked[0]} has no place here; take it out")
    settings = dict(values)
    kind = settings.pop("model_type", "")
    plain = AutoConfig.for_model(kind)
    known = {*plain.to_dict(), *plain.attribute_map}
    if unknown := sorted(set(settings) - known):  # transformers would keep it and never look at it
        raise RecipeError(f"model.language.architecture: {kind} has no setting {unknown[0]!r}{nearest(unknown[0], known)}")
    return AutoConfig.for_model(kind, **settings)


@contextmanager
def _said(config: NamedModel, own: bool) -> Iterator[None]:
    """Says in one sentence that transformers cannot build something of a configuration: the recipe's `own`, or that of a folder."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if own:
            raise RecipeError(f"model.language.architecture: transformers cannot build it ({reason}); change it") from error
        raise ReleaseError(f"{config.shown}: its configuration cannot be used ({reason}); get the folder again") from error


def _cut(found: Any, config: NamedModel) -> Any:
    """Lowers the number of blocks, and shortens lists that hold one entry per block."""
    have = found.num_hidden_layers
    found.use_cache = False  # states of whole sequences are wanted, never a cache to go on from
    if config.blocks is None:
        return found
    if config.blocks > have:
        raise AssemblyError(f"model.language.blocks: {config.blocks}, but {config.shown} has {have}; take {have} or fewer")
    per_block = {k: v for k, v in found.to_dict().items() if isinstance(v, list) and len(v) == have and "layer" in k}
    found.num_hidden_layers = config.blocks
    for key, value in per_block.items():
        setattr(found, key, value[: config.blocks])
    if getattr(found, "layerdrop", 0.0):
        found.layerdrop = 0.0  # a block that is left out would leave a state out
    return found


def load_decoder(
    config: NamedModel, hf_config: Any, *, pretrained: bool, head: bool = False, more: dict[str, Any] | None = None
) -> Any:
    """The body of the model: float32, on the CPU, with its token table.

    Args:
        config: Which model.
        hf_config: Its configuration from `read_config`.
        pretrained: Read its weights; False starts from random ones.
        head: With its output layer.
        more: Further arguments of `from_pretrained`.

    Raises:
        RecipeError: If weights are asked of an architecture without a name, or the architecture cannot be built.
        ReleaseError: If a weight is missing or damaged.
    """
    from transformers import AutoModel, AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM if head else AutoModel
    if not pretrained:
        with _said(config, bool(config.architecture)):
            return auto.from_config(hf_config, dtype=torch.float32, trust_remote_code=False)
    if config.name is None:
        raise RecipeError(
            "model.llm: pretrained needs model.language.name; an architecture alone has random weights (llm: random)"
        )
    folder = trusted_source(config.name).with_weights(WEIGHTS).files()
    with _without_report():
        return load_checked(auto, folder, config.name, {"config": hf_config, **(more or {})})


@contextmanager
def _without_report() -> Iterator[None]:
    """Keeps transformers from listing the blocks that are left out on purpose; what is missing is checked by `load_checked`."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def token_table(body: Any) -> Tensor:
    """The input embeddings (V, D) of a body, detached."""
    return body.get_input_embeddings().weight.detach()
