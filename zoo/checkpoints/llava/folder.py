"""What a LLaVA folder of transformers says: which family, which settings, how pictures are prepared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...encoders.image.hf_preprocess import preprocess_of
from ...encoders.image.preprocess import ImagePreprocess
from ...encoders.sources import read_json
from ...errors import ReleaseError
from ...stack.assemble import shown_as
from ..weights import read_weights

#: transformers' model type -> our family
FAMILIES = {"llava": "llava", "llava_next": "llava_next", "llava_onevision": "llava_onevision"}
_CLASS_TOKEN = ("clip_vision_model",)
_PADS = "LlavaImageProcessor"
_TILES = ("LlavaNextImageProcessor", "LlavaOnevisionImageProcessor")


@dataclass
class LlavaFolder:
    """A LLaVA folder, read but for its weights.

    Attributes:
        folder: Where it is.
        family: Of ours.
        vision: transformers' configuration of the image encoder.
        text: That of the language model.
        config: The whole of config.json.
    """

    folder: Path
    family: str
    vision: Any
    text: Any
    config: Any

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of a stack, but for its sources."""
        strategy = self.config.vision_feature_select_strategy
        has_class = self.vision.model_type in _CLASS_TOKEN
        if strategy == "default" and not has_class:
            raise ReleaseError(
                f"{self.folder}: vision_feature_select_strategy default drops the first token, and a {self.vision.model_type} has no class "
                "token: it would drop a piece of the picture"
            )
        if self.config.projector_hidden_act != "gelu" or not getattr(self.config, "multimodal_projector_bias", True):
            raise ReleaseError(
                f"{self.folder}: its projector has {self.config.projector_hidden_act} or no biases; LLaVA's has GELU and biases"
            )
        return {
            "feature_layer": self.config.vision_feature_layer,
            "keep_prefix": strategy == "full" and has_class,
            "picture": self._picture(),
            "projector": {"name": "mlp"},
            "chat": self._chat(),
        }

    def _picture(self) -> dict[str, Any]:
        if self.family == "llava":
            return {"mode": "pad" if self._pads() else "own"}
        side = self.vision.image_size
        grids = [[width // side, height // side] for height, width in self.config.image_grid_pinpoints]
        picture: dict[str, Any] = {"mode": "anyres", "grids": grids}
        if self.family == "llava_onevision":
            picture |= {"most": int(self.config.vision_aspect_ratio.removeprefix("anyres_max_")), "several": "whole"}
        return picture

    def _chat(self) -> dict[str, Any]:
        """The chat template that comes along; else what LLaVA used with the language model's kind."""
        if any((self.folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
            return {"template": "tokenizer"}
        tokenizer = self.folder / "tokenizer_config.json"
        if tokenizer.is_file() and read_json(tokenizer).get("chat_template"):
            return {"template": "tokenizer"}
        return {"template": {"mistral": "mistral_instruct", "qwen2": "qwen_1_5"}.get(self.text.model_type, "vicuna_v1")}

    def preprocess(self) -> ImagePreprocess:
        """How one tile is prepared.

        Raises:
            ReleaseError: If nothing says it, or it cannot be done here.
        """
        settings = self._processor()
        kind = str(settings.get("image_processor_type", "")).removesuffix("Fast").removesuffix("Pil")
        if kind not in _TILES and not self._pads():
            return preprocess_of(self.folder, str(self.folder.name), None)
        mean = tuple(settings["image_mean"])
        plain = ImagePreprocess(
            self.vision.image_size,
            mean,
            tuple(settings["image_std"]),
            {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}[int(settings.get("resample", 3))],
        )
        return shown_as(plain, "pad" if self._pads() else "squash")

    def _pads(self) -> bool:
        """Whether pictures are put on a square first."""
        settings = self._processor()
        return str(settings.get("image_processor_type", "")).startswith(_PADS) and bool(settings.get("do_pad"))

    def _processor(self) -> dict[str, Any]:
        for name in ("preprocessor_config.json", "processor_config.json"):
            if (self.folder / name).is_file():
                found = read_json(self.folder / name)
                return dict(found.get("image_processor", found))
        raise ReleaseError(
            f"{self.folder}: has no preprocessor_config.json, so nothing says how pictures are prepared; get the file that belongs to "
            "the weights"
        )

    def weights(self) -> dict[str, Any]:
        """All tensors of its files, by the names in them.

        Raises:
            ReleaseError: If there is none, or a file is damaged.
        """
        files = sorted(self.folder.glob("model*.safetensors")) or sorted(self.folder.glob("pytorch_model*.bin"))
        if not files:
            raise ReleaseError(f"{self.folder}: has no weights (model*.safetensors); get the folder again")
        return {name: tensor for file in files for name, tensor in read_weights(file).items()}


def is_llava_folder(folder: Path) -> bool:
    """Whether a folder's config.json is of one of transformers' LLaVA models."""
    path = folder / "config.json"
    if not path.is_file() or (folder / "release.json").is_file():
        return False
    values = read_json(path)
    return values.get("model_type") in FAMILIES and "vision_config" in values


def read_llava(folder: Path) -> LlavaFolder:
    """Reads a LLaVA folder of transformers.

    Raises:
        ReleaseError: If its configuration cannot be used.
    """
    from transformers import AutoConfig

    from ...encoders.sources import refuse_remote_code

    refuse_remote_code(folder)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ReleaseError(f"{folder}: its config.json cannot be used ({reason}); get the folder again") from error
    return LlavaFolder(folder, FAMILIES[config.model_type], config.vision_config, config.text_config, config)
