"""One small hook for each place of a stack."""

import torch
from torch import nn

from modalign.zoo.registry import HOOKS
from modalign.zoo.stack.hooks import StackHook

EXTRA = 3  # tokens of `Coordinates`


class Nothing(StackHook):
    """Has a parameter, and defines no place."""

    def __init__(self, around):
        super().__init__(around)
        self.unused = nn.Parameter(torch.ones(3))


class Overlay(StackHook):
    """`pre_image`."""

    def __init__(self, around, strength: float = 1.0):
        super().__init__(around)
        side = around.preprocess.size
        self.picture = nn.Parameter(strength * torch.randn(3, side, side))

    def role_of(self, parameter):
        return "embedder"

    def pre_image(self, images):
        return images + self.picture


class Halves(StackHook):
    """`post_projector`: two neighbours become one."""

    def __init__(self, around):
        super().__init__(around)
        self.linear = nn.Linear(2 * around.width, around.width)

    def num_tokens(self, tokens):
        return tokens // 2

    def post_projector(self, features):
        return self.linear(features.reshape(len(features), features.shape[1] // 2, -1))


class Queries(StackHook):
    """`token_source`: two tokens a picture, which depend on the picture's own pixels."""

    extra_tokens = 2
    pixels_too = "small_image"

    def __init__(self, around):
        super().__init__(around)
        self.tokens = nn.Parameter(torch.randn(2, around.width))

    @property
    def preprocess(self):
        from dataclasses import replace

        return replace(self.around.preprocess, size=8)

    def token_source(self, batch, pictures):
        light = batch["small_image"].float().mean((1, 2, 3)) / 255
        return self.tokens * (1 + light[:, None, None].expand(pictures, -1, -1))


class Prefix(StackHook):
    """`sequence_prefix`: a vector of its own and the mean of the text."""

    prefix_tokens = 2

    def __init__(self, around, always: bool = False):
        super().__init__(around)
        self.prefix_always = always
        self.vector = nn.Parameter(torch.randn(around.width))

    def sequence_prefix(self, batch, embeddings, features):
        words = (batch["instruction"] & batch["mask"]).unsqueeze(-1)
        mean = (embeddings * words).sum(1) / words.sum(1).clamp(min=1)
        return torch.stack([self.vector.expand_as(mean), mean], dim=1)


class Coordinates(StackHook):
    """`extra_vocabulary`: three tokens beyond the table."""

    def __init__(self, around):
        super().__init__(around)
        self.first = nn.Parameter(torch.randn(EXTRA, around.width))
        self.last = nn.Parameter(torch.randn(EXTRA, around.width))

    def extra_vocabulary(self):
        return self.first, self.last


class Masks(StackHook):
    """`aux_heads`."""

    def __init__(self, around):
        super().__init__(around)
        self.head = nn.Linear(around.width, 5)

    def aux_heads(self, states, batch):
        return {"masks": self.head(states)}


ALL = {
    "test_nothing": Nothing,
    "test_overlay": Overlay,
    "test_halves": Halves,
    "test_queries": Queries,
    "test_prefix": Prefix,
    "test_coordinates": Coordinates,
    "test_masks": Masks,
}


def register():
    """Puts them into the registry."""
    for name, cls in ALL.items():
        if name not in HOOKS.names():
            HOOKS.register(name)(cls)


def forget():
    """Takes them out again."""
    for name in ALL:
        HOOKS._classes.pop(name, None)
