"""Settings of Context-Alignment (FSCA)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ...errors import RecipeError
from ...language.loading import LanguageModelConfig, LanguageSwitch
from ...series.base import SeriesModelConfig

_SIZES = ("patch_size", "stride", "segments", "read_width", "coarse_width")


@dataclass
class FscaConfig(SeriesModelConfig):
    """Settings of FSCA; the defaults are those of the official script for ETTh1 at horizon 96.

    Attributes:
        look_back: L.
        language: The frozen language model and how many of its blocks are used.
        llm: What stands in its place: itself (`pretrained`), random weights, one `attention` layer, or `none`.
        patch_size: Steps of a patch.
        stride: Steps from one patch to the next.
        patch_width: Width of a patch token if it is to be narrower than the language model; zeros fill the rest.
        segments: s, into how many segments the series is split; each but the last is an example for the next. 1 is VCA, the vanilla
            form: series and prompt.
        demonstrations: Classification: put a labelled series of every class in front.
        demonstration_keys: Classification: keys of those series, which are not to be trained on; set when they are chosen.
        prompt: Text of the prompt; default the authors' for the task.
        prompt_ids: Its token ids; default the language model's own tokenizer's. Set when the model is built.
        label_ids: Classification: first token of every class name; default the tokenizer's. Set when the model is built.
        fine_points: Before which blocks the fine graph's convolution stands; the number of blocks is behind the last one, before the
            final norm.
        coarse_points: At which of them the coarse graph's states are added.
        layer_index: Instead of blocks and both lists: the official `blocks*fine points*coarse points`, as `4*0_2_4*0_2_4`.
        read_width: `d_ff`: how many coordinates of each position the head reads.
        coarse_width: `d_l_comp`: how many coordinates of a coarse state are used.
        coarse_weight: Weight of the coarse path; null learns it from 0.5.
        revin: Instance norm with one trained pair of scale and shift for all channels.
        in_dropout: Of patch tokens.
        out_dropout: Of the forecast, behind the head.
        strict_reference: Reproduce the official code where it is doubtful; the card lists where.
    """

    look_back: int = 512
    language: LanguageModelConfig = field(default_factory=lambda: LanguageModelConfig(blocks=4))
    llm: LanguageSwitch = "pretrained"
    patch_size: int = 48
    stride: int = 48
    patch_width: int | None = None
    segments: int = 2
    demonstrations: bool = False
    demonstration_keys: list[str] | None = None
    prompt: str | None = None
    prompt_ids: list[int] | None = None
    label_ids: list[int] | None = None
    fine_points: list[int] = field(default_factory=lambda: [0, 2, 4])
    coarse_points: list[int] = field(default_factory=lambda: [0, 2, 4])
    layer_index: str | None = None
    read_width: int = 256
    coarse_width: int = 128
    coarse_weight: float | None = 1e-4
    revin: bool = False
    in_dropout: float = 0.0
    out_dropout: float = 0.1
    strict_reference: bool = False

    def __post_init__(self) -> None:
        """Reads `layer_index` and checks what types cannot say.

        Raises:
            RecipeError: If a size is below one, a dropout is no share, a point is at no place, a coarse point is no fine point, or examples
                are asked of a task without labels.
        """
        super().__post_init__()
        if self.layer_index is not None:
            self.language.blocks, self.fine_points, self.coarse_points = parse_layer_index(self.layer_index)
            self.layer_index = None  # the lists say it from now on
        for name in _SIZES:
            if not 1 <= getattr(self, name) <= 2**20:
                raise RecipeError(f"model.{name}: {getattr(self, name)} must be a whole number from 1 to {2**20}")
        for name in ("in_dropout", "out_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise RecipeError(f"model.{name}: {getattr(self, name)} must be from 0 to below 1")
        self._check_points()
        if self.demonstrations and self.task != "classification":
            raise RecipeError(
                "model.demonstrations: only classification has labelled examples; in forecasting segments are the examples"
            )

    def _check_points(self) -> None:
        for name in ("fine_points", "coarse_points"):
            points = getattr(self, name)
            if wrong := [point for point in points if not 0 <= point <= self.language.blocks]:
                raise RecipeError(
                    f"model.{name}: there is no place {wrong[0]} in {self.language.blocks} blocks (model.language.blocks)"
                )
            setattr(self, name, sorted(set(points)))
        if apart := sorted(set(self.coarse_points) - set(self.fine_points)):
            raise RecipeError(
                f"model.coarse_points: {apart[0]} is not among model.fine_points; coarse states are added there only"
            )


def parse_layer_index(text: str) -> tuple[int, list[int], list[int]]:
    """Reads the official scripts' `layer_index`.

    Args:
        text: Blocks, fine points and coarse points with `*` between them, points with `_`: `4*0_2_4*0_2_4`.

    Returns:
        Blocks, fine points, coarse points.

    Raises:
        RecipeError: If it is not of that form.
    """
    if not re.fullmatch(r"\d{1,4}(\*\d{1,4}(_\d{1,4})*){2}", text):
        raise RecipeError(f"model.layer_index: {text!r} is not blocks*fine points*coarse points, as in 4*0_2_4*0_2_4")
    blocks, fine, coarse = text.split("*")
    return int(blocks), [int(point) for point in fine.split("_")], [int(point) for point in coarse.split("_")]
