"""The stack: image encoder, projector, language model, and what methods add to them.

Here it is assembled and prepares its input; `computing.py` is the way of a batch through it, `keeping.py` what its releases need.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from ..checkpoints.llava.base import fill_from, shape_of
from ..configure import fill
from ..encoders.image.build import build_image_encoder
from ..encoders.image.preprocess import ImagePreprocess
from ..errors import AssemblyError
from ..language.causal import build_causal
from ..language.encode import DialogueEncoder
from ..language.lora import add_lora
from ..language.templates import ChatTemplate
from .assemble import build_stack_projector, lora_for, shown_as
from .box_frame import BoxFrame
from .computing import StackComputing
from .config import StackConfig
from .generate import Decoding
from .hooks import Surroundings, build_hooks
from .keeping import StackKeeping, plain_name, store_of
from .parts import STORED
from .pictures import PictureLayout
from .prepare import StackCollate, StackPrepare

__all__ = ["StackModel", "plain_name", "shown_as"]


class StackModel(StackComputing, StackKeeping):
    """Pictures and text through one language model.

    `forward` takes a batch of `StackCollate` and returns named outputs. Where the batch has `labels`, states are returned of the
    positions alone that predict a token to be learnt; logits of a whole batch are never held.

    Roles: `encoder`, `projector` (and the newline token), `language` (the language model's own weights, its output layer too), `adapter`
    (LoRA), and what the hooks say of theirs, `aux` if nothing else.

    Args:
        config: Settings.
        release: Folder of a release that supplies weights and processors; then no source is read.
        preprocess: The release's image preprocessing.

    Raises:
        AssemblyError: If parts do not fit together.
    """

    family = "stack"
    data_kind = "dialogue"
    Config: type[Any] = StackConfig
    parts: Mapping[str, tuple[str, ...]] = {
        "image": ("image.",),
        "projector": ("projector.", "newline"),
        "language": (f"{STORED}.", "language."),
        "hooks": ("hooks.",),
    }

    #: part that holds weights -> part that computes with them
    runs: Mapping[str, str] = {STORED: "language"}

    def __init__(self, config: Any, *, release: Path | None = None, preprocess: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.config = config
        with ExitStack() as opened:
            base = opened.enter_context(shape_of(config.base)) if config.base is not None and release is None else None
            if base is not None:
                release, preprocess = base.shape, base.preprocess
            self._build(release, preprocess)
        if base is not None:
            fill_from(base.folder, self)

    def _build(self, release: Path | None, preprocess: dict[str, Any] | None) -> None:
        """All parts, from their sources or, with a release, their shapes alone."""
        config = self.config
        shape = None if release is None else release / "image"
        self.image = build_image_encoder(config.image, load_weights=release is None, preprocess=preprocess, folder=shape)
        if preprocess is None:
            self.image.preprocess = shown_as(self.image.preprocess, config.picture.mode)
        language = build_causal(config.language, release)
        side = self.image.preprocess.size
        tokens, grid = self._grid(side)
        self.projector = build_stack_projector(config.projector, self.feature_width, language.width, tokens)
        left = self.projector.num_tokens(tokens)
        around = Surroundings(language.width, self.image.preprocess, left, release)
        self.hooks: Any = build_hooks(config.hooks, around)
        self.newline = nn.Parameter(torch.randn(language.width) / math.sqrt(language.width)) if config.has_newline else None
        if config.lora is not None:
            add_lora(language.body, lora_for(config.lora, language.body), config.language.shown)
        setattr(self, STORED, store_of(language))  # before the language model, so that it gives shared parameters their names
        self.language = language
        self.layout = self._layout(left, grid)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], where: str = "model", **build: Any) -> Any:
        """Builds from plain values (a recipe's `model` or a release's config)."""
        return cls(fill(cls.Config, settings, where), **build)

    def _grid(self, side: int) -> tuple[int, tuple[int, int] | None]:
        """V of a tile, and (rows, columns) where its tokens are a square grid."""
        tokens = self.image.num_tokens((side, side)) - (0 if self.config.keep_prefix else self.image.prefix_tokens)
        root = math.isqrt(tokens)
        return tokens, (root, root) if root * root == tokens and not self.config.keep_prefix else None

    def _layout(self, left: int, grid: tuple[int, int] | None) -> PictureLayout:
        out = None if grid is None else self.projector.out_grid(grid)
        for hook in self.hooks.values():
            left = hook.num_tokens(left)
        if out is not None and out[0] * out[1] != left:
            out = None  # a hook packs tokens together, and no grid of them is left
        extra = sum(hook.extra_tokens for hook in self.hooks.values())
        return PictureLayout(self.config.picture, self.image.preprocess, left, out, extra, self.config.has_newline)

    def role_of(self, parameter: str) -> str:
        """The one role of a parameter, by its name in `named_parameters`."""
        part, _, rest = parameter.partition(".")
        if part == "hooks":
            name, _, inner = rest.partition(".")
            return str(self.hooks[name].role_of(inner))
        if part == "language":
            return "adapter" if ".lora_" in parameter else "language"
        if part == STORED and not self.get_parameter(parameter).is_floating_point():
            return "quantized"  # 4 bits of a matrix, which cannot train
        return {"image": "encoder", "projector": "projector", "newline": "projector", STORED: "language"}[part]

    def prepare(self) -> StackPrepare:
        """What turns conversations and pictures into examples; for data workers."""
        return StackPrepare(self.encoder(), self.layout, self._more_pixels())

    def template(self) -> ChatTemplate:
        """How conversations are written."""
        chat = self.config.chat
        return ChatTemplate(chat.template, self.language.tokenizer, chat.system, self.config.language.shown)

    def encoder(self) -> DialogueEncoder:
        """What turns conversations into ids and labels."""
        chat, hooks = self.config.chat, list(self.hooks.values())
        return DialogueEncoder(
            self.language.tokenizer,
            self.template(),
            self.layout.tokens,
            self.box_frame,
            min(chat.max_length, self.language.max_positions),
            prefix=sum(hook.prefix_tokens for hook in hooks),
            prefix_always=any(hook.prefix_always for hook in hooks),
            pictures_first=chat.pictures_first,
        )

    def collate(self, side: Any = "right", pixels: bool = True, packs: bool = False) -> StackCollate:
        """What turns examples into batches.

        Args:
            side: Where padding stands: `right` to learn, `left` to go on from.
            pixels: Off where features are kept already.
            packs: Several conversations in a row.

        Raises:
            AssemblyError: If a hook puts a prefix in front of a row, which then would have to be several.
        """
        if packs and any(hook.prefix_tokens for hook in self.hooks.values()):
            raise AssemblyError(
                "data.dialogue.batching: packed: a hook puts a prefix in front of every conversation; take bucketed"
            )
        size = self.image.preprocess.size
        more = {name: torch.zeros(3, make.size, make.size, dtype=torch.uint8) for name, make in self._more_pixels().items()}
        blank = torch.zeros(3, size, size, dtype=torch.uint8) if pixels else None
        return StackCollate(int(self.language.tokenizer.pad_token_id), side, blank, more, packs)

    def answer(self, question: str, images: Sequence[Image.Image] = (), decoding: Decoding | None = None) -> str:
        """Answers a question about pictures.

        Args:
            question: The question.
            images: The pictures, in the order they are shown.
            decoding: How tokens are chosen; default the likeliest, 128 at most.

        Raises:
            DataError: If the conversation does not fit the model.
        """
        from .talk import Talk

        talk = Talk(self.eval(), decoding)
        for number, image in enumerate(images):
            talk.show(image, f"picture {number}")
        return talk.ask(question)

    @property
    def box_frame(self) -> BoxFrame:
        """How boxes are written."""
        return BoxFrame(self.config.picture.mode == "pad", self.config.chat.box_decimals)

    def _more_pixels(self) -> dict[str, ImagePreprocess]:
        return {hook.pixels_too: hook.preprocess for hook in self.hooks.values() if hook.pixels_too is not None}
