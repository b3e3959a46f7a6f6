"""The first blocks of a causal language model as a backbone: vectors in, the states of every depth out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from ..encoders.hf_loading import longest_text
from ..errors import AssemblyError
from .blocks import ParameterKind, anatomy, parameter_kinds

Between = Mapping[int, Callable[[Tensor], Tensor]]


class Backbone(nn.Module):
    """What stands in the place of the language model: tokens (B, T, D) -> N + 1 states of the same shape.

    Attributes:
        width: D.
        num_blocks: N.
        max_positions: Largest T.
    """

    width: int
    num_blocks: int
    max_positions: int

    def forward(self, tokens: Tensor, between: Between | None = None) -> tuple[Tensor, ...]:
        """Runs it.

        Args:
            tokens: (B, T, D), without positions.
            between: k -> function of a state (B, T, D), applied before block k; k = N stands behind the last block, before the final norm.

        Returns:
            `[h_0, h_1, …, h_{N-1}, norm(h_N)]`: h_0 is the tokens with positions (where the model adds some) and dropout, h_k what
            block k is given, after `between[k]`.

        Raises:
            AssemblyError: If there are more tokens than positions, or `between` names a place there is not.
        """
        raise NotImplementedError

    def kinds(self) -> dict[str, ParameterKind]:
        """Parameter name -> its kind, for roles."""
        raise NotImplementedError

    def check(self, tokens: int, what: str = "tokens") -> None:
        """Refuses more tokens than positions.

        Raises:
            AssemblyError: Giving both numbers.
        """
        if tokens > self.max_positions:
            raise AssemblyError(
                f"{tokens} {what} are more than the {self.max_positions} positions of the language model; take fewer, or a model "
                "with more positions"
            )

    def _places(self, tokens: Tensor, between: Between | None) -> Between:
        self.check(tokens.shape[1])
        places = between or {}
        if wrong := sorted(set(places) - set(range(self.num_blocks + 1))):
            raise AssemblyError(
                f"there is no place {wrong[0]} between {self.num_blocks} blocks; places are 0 to {self.num_blocks}"
            )
        return places


class DecoderBackbone(Backbone):
    """The body of any causal language model of transformers, fed with vectors instead of token ids.

    The causal mask, positions (GPT-2's and OPT's learned table, rotary ones elsewhere) and dropout are the model's own. The token
    table is dropped, for it is not used.

    Args:
        body: A transformers model without output layer, from `load_decoder`.
        shown: What messages call it.

    Raises:
        AssemblyError: If its blocks cannot be found, or it is not causal.
    """

    def __init__(self, body: Any, shown: str = "the language model") -> None:
        super().__init__()
        self._anatomy = anatomy(body, shown)
        body.set_input_embeddings(nn.Identity())
        self.model = body
        self.width = int(body.config.hidden_size)
        self.num_blocks = int(body.config.num_hidden_layers)
        self.max_positions = longest_text(body)

    @property
    def blocks(self) -> nn.ModuleList:
        """Its N blocks."""
        found: Any = self.model.get_submodule(self._anatomy.blocks)
        return found

    def forward(self, tokens: Tensor, between: Between | None = None) -> tuple[Tensor, ...]:
        """See `Backbone.forward`."""
        places = self._places(tokens, between)
        states: list[Tensor] = []
        norm = self._anatomy.final_norm
        with ExitStack() as hooks:
            for number, block in enumerate(self.blocks):
                _watch(hooks, block, places.get(number), states)
            if norm is not None:
                _watch(hooks, self.model.get_submodule(norm), places.get(self.num_blocks), None)
            last = self.model(inputs_embeds=tokens, use_cache=False).last_hidden_state
        if norm is None and self.num_blocks in places:
            last = places[self.num_blocks](last)
        return (*states, last)

    def kinds(self) -> dict[str, ParameterKind]:
        """See `Backbone.kinds`."""
        return {f"model.{name}": kind for name, kind in parameter_kinds(self.model).items()}


def _watch(hooks: ExitStack, module: nn.Module, change: Callable[[Tensor], Tensor] | None, states: list[Tensor] | None) -> None:
    """Until the stack closes: changes the first input of a module, and notes it."""

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        state: Tensor = args[0] if args else kwargs["hidden_states"]
        if change is not None:
            state = change(state)
        if states is not None:
            states.append(state)
        return ((state, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": state})

    hooks.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)


class AttentionBackbone(Backbone):
    """One trainable self-attention layer in the language model's place: `norm(x + attention(x))`, all tokens seeing all.

    Source: the ablation "LLM2Attn" of "Are Language Models Actually Useful for Time Series Forecasting?" (arXiv 2406.16964),
    which replaces the language model by a single attention layer of random weights. Residual and norm are added here, so that its
    output has the scale of a language model's. States are `[x, norm(x + attention(x))]`: N = 1; positions are none.

    Args:
        width: D.
        heads: Attention heads.
        max_positions: Largest T, as of the model it stands for.
    """

    def __init__(self, width: int, heads: int, max_positions: int) -> None:
        super().__init__()
        self.width, self.num_blocks, self.max_positions = width, 1, max_positions
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, between: Between | None = None) -> tuple[Tensor, ...]:
        """See `Backbone.forward`."""
        places = self._places(tokens, between)
        first = places[0](tokens) if 0 in places else tokens
        last = first + self.attention(first, first, first, need_weights=False)[0]
        return first, self.norm(places[1](last) if 1 in places else last)

    def kinds(self) -> dict[str, ParameterKind]:
        """See `Backbone.kinds`."""
        return {name: "attention" for name, _ in self.named_parameters()}


class NoBackbone(Backbone):
    """Nothing in the language model's place: states are `[x, x]`, N = 1.

    Args:
        width: D.
        max_positions: Largest T, as of the model it stands for.
    """

    def __init__(self, width: int, max_positions: int) -> None:
        super().__init__()
        self.width, self.num_blocks, self.max_positions = width, 1, max_positions

    def forward(self, tokens: Tensor, between: Between | None = None) -> tuple[Tensor, ...]:
        """See `Backbone.forward`."""
        places = self._places(tokens, between)
        first = places[0](tokens) if 0 in places else tokens
        return first, places[1](first) if 1 in places else first

    def kinds(self) -> dict[str, ParameterKind]:
        """See `Backbone.kinds`: there are none."""
        return {}
