"""Channel tokens: a whole window of one channel is one token.

Source: CALF (arXiv 2403.07300), section on the cross-modal match module, and its code: `Linear(L -> D)`, then one post-norm transformer
layer over the channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import AssemblyError


class ChannelTokens(nn.Module):
    """`t = Transformer(W x_c + b)` for every channel c: no positions, every channel sees every other.

    Args:
        length: L, steps of a window.
        width: D.
        heads: Attention heads.
        ffn: Hidden width of the layer's feed-forward part.
        dropout: In the layer.
        known_length: L + H where there are known-future covariates, which get a linear map of their own.

    Raises:
        AssemblyError: If the heads do not divide the width.
    """

    def __init__(
        self, length: int, width: int, heads: int = 12, ffn: int = 2048, dropout: float = 0.1, known_length: int | None = None
    ) -> None:
        super().__init__()
        if width % heads:
            raise AssemblyError(f"model.heads: {heads} do not divide the language model's width {width}; take a divisor of it")
        self.length = length
        self.linear = nn.Linear(length, width)
        self.known: nn.Linear | None = None
        self.static: nn.Linear | None = None
        if known_length is not None:
            self.add_known(known_length)
        self.mixer = nn.TransformerEncoderLayer(width, heads, ffn, dropout, "relu", batch_first=True)

    def add_known(self, known_length: int) -> None:
        """Adds the map of known-future covariates, one for all of them.

        Args:
            known_length: L + H.
        """
        self.known = nn.Linear(known_length, self.linear.out_features)

    def add_static(self, count: int) -> None:
        """Adds the map of a series' static numbers, which together are one token.

        Args:
            count: S.
        """
        self.static = nn.Linear(count, self.linear.out_features)

    def forward(
        self, values: Tensor, targets: int | None = None, known: Tensor | None = None, static: Tensor | None = None
    ) -> Tensor:
        """Windows to tokens, covariates first: a causal model behind it lets the targets see them, not the other way round only.

        Args:
            values: (B, L, C), targets first, then past covariates.
            targets: How many channels are targets; all if not given.
            known: (B, L + H, K), known-future covariates.
            static: (B, S), scaled static numbers.

        Returns:
            (B, K + C, D): known-future covariates, past covariates, targets; with static numbers a token more, the first.

        Raises:
            AssemblyError: If a window has another length, or there are covariates the module has no map for.
        """
        if values.shape[1] != self.length:
            raise AssemblyError(
                f"the model looks back {self.length} steps, a window of {values.shape[1]} was given; give the last {self.length} steps"
            )
        count = values.shape[2] if targets is None else targets
        channels = self.linear(values.transpose(1, 2))
        tokens = [channels[:, count:], channels[:, :count]]
        if known is not None:
            if self.known is None or known.shape[1] != self.known.in_features:
                wanted = "none" if self.known is None else f"{self.known.in_features} steps"
                raise AssemblyError(f"known-future covariates of {known.shape[1]} steps were given, the model takes {wanted}")
            tokens = [self.known(known.transpose(1, 2)), *tokens]
        if static is not None:
            tokens = [self._static(static), *tokens]
        return self.mixer(torch.cat(tokens, 1))

    def _static(self, static: Tensor) -> Tensor:
        if self.static is None or static.shape[1] != self.static.in_features:
            wanted = "none" if self.static is None else str(self.static.in_features)
            raise AssemblyError(f"{static.shape[1]} static numbers were given, the model takes {wanted}")
        return self.static(static)[:, None]
