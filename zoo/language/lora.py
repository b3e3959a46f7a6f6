"""LoRA on the query, key and value projections of a language model.

Source: Hu et al. 2021 (arXiv 2106.09685): `y = W x + (alpha / r) B A dropout(x)`, A Kaiming-uniform (a = √5), B zero, so that a fresh
adapter changes nothing. The layers are peft's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from ..errors import AssemblyError, RecipeError, nearest

#: names of the projections that make queries, keys and values, separate or fused; the first set of which a model has a member is taken
_QKV = (
    ("q_proj", "k_proj", "v_proj"),
    ("c_attn",),
    ("query_key_value",),
    ("qkv_proj",),
    ("Wqkv",),
    ("query", "key", "value"),
)


@dataclass
class LoraSettings:
    """Settings of LoRA.

    Attributes:
        rank: r.
        alpha: The update is scaled by alpha / r.
        dropout: On the adapter's input.
        targets: Names of the layers that are adapted; default the query, key and value projections of attention.
    """

    rank: int = 8
    alpha: float = 32.0
    dropout: float = 0.1
    targets: list[str] | None = None

    def __post_init__(self) -> None:
        """Checks what types cannot say.

        Raises:
            RecipeError: If the rank is below one, or the dropout no probability.
        """
        if self.rank < 1 or not 0 <= self.dropout < 1:
            raise RecipeError(f"model.lora: rank {self.rank} must be 1 or more, dropout {self.dropout} within [0, 1)")


def add_lora(body: nn.Module, settings: LoraSettings, shown: str = "the language model") -> None:
    """Puts adapters beside the projections, in place; what was there keeps its weights, under `….base_layer`.

    Raises:
        AssemblyError: If the model has no layer of those names.
    """
    from peft import LoraConfig, inject_adapter_in_model

    layers = _layers(body)
    targets = settings.targets or next((list(names) for names in _QKV if set(names) & set(layers)), [])
    if not targets or (missing := sorted(set(targets) - set(layers))):
        asked = missing[0] if targets else "q_proj"
        raise AssemblyError(f"model.lora.targets: {shown} has no layer {asked!r}; name its own{nearest(asked, layers)}")
    transposed = {type(layers[name]).__name__ == "Conv1D" for name in targets}  # GPT-2 stores its matrices the other way round
    if len(transposed) > 1:
        raise AssemblyError(f"model.lora.targets: {', '.join(targets)} are layers of two kinds; adapt one kind")
    alpha: Any = settings.alpha  # peft says whole numbers, and takes any
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
        fan_in_fan_out=transposed.pop(),
        bias="none",
    )
    inject_adapter_in_model(config, body)
    body.train(body.training)  # new layers follow the mode of the old ones
    for parameter in body.parameters():  # peft freezes all that is not its own; what trains is the family's to say
        parameter.requires_grad_(parameter.is_floating_point())  # numbers in 4 bits cannot


def merge_lora(body: nn.Module) -> None:
    """Adds every adapter to the matrix beside it and takes it away, in place; outputs stay the same up to rounding."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(body.named_modules()):
        for child_name, child in list(module.named_children()):
            if isinstance(child, LoraLayer):
                plain: Any = child
                plain.merge()
                setattr(body.get_submodule(name), child_name, plain.get_base_layer())


def _layers(body: nn.Module) -> dict[str, nn.Module]:
    """Last name -> one of the affine layers of that name."""
    return {
        name.rpartition(".")[2]: module
        for name, module in body.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    }
