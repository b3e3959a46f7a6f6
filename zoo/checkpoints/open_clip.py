"""What an open_clip checkpoint is: its settings, its preprocessing, its weights, and whether they go together.

Sources: `open_clip:MODEL/TAG` (a built-in architecture with published weights), `open_clip:MODEL` (the architecture alone), and folders
or hub repositories with `open_clip_config.json`. Nothing is taken for granted: an activation, a size or a normalisation that config
and weights do not agree on is an error, because the model would load and be silently wrong.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import NameGrammarError, ReleaseError, nearest
from .weights import read_weights, safetensors_metadata, weight_names

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
#: open_clip's own order of preference
WEIGHT_FILES = (
    WEIGHTS,
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
HUB_CHOICES = tuple((name,) for name in WEIGHT_FILES)
#: parts of a checkpoint -> prefix of their tensors, once text keys are gathered under `text.`
PARTS: dict[str, str | tuple[str, ...]] = {
    "image": "visual.",
    "text": "text.",
    "decoder": "text_decoder.",
    "scalars": ("logit_scale", "logit_bias"),
}
#: left over from older files
_STALE = ("text.transformer.embeddings.position_ids", "text.attn_mask", "input_resolution", "context_length", "vocab_size")
_NATIVE_TEXT = ("text_projection", "positional_embedding", "token_embedding", "transformer", "ln_final", "cls_emb")
_PREPROCESS = ("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")


@dataclass(frozen=True)
class OpenClipCheckpoint:
    """Settings and weights that belong together.

    Attributes:
        name: What messages call it.
        model_cfg: The `model_cfg` of open_clip: embed_dim, vision_cfg, text_cfg, quick_gelu …
        preprocess_cfg: Mean, std, interpolation, resize_mode … as the checkpoint states them.
        weights: Its file; None for an architecture alone.
        folder: Where tokenizer files and a text tower's configuration may lie.
    """

    name: str
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    weights: Path | None
    folder: Path | None

    def file(self) -> Path:
        """Its file of weights.

        Raises:
            ReleaseError: If it has none.
        """
        if self.weights is None:
            raise ReleaseError(f"{self.name} has no weights; pretrained: false starts from random ones{_tags_of(self.name)}")
        return self.weights

    def part(self, part: str) -> dict[str, Tensor]:
        """The tensors of one part (`image`, `text`, `decoder`, `scalars`), named as in its module.

        Raises:
            ReleaseError: If there are no weights, the file is damaged, or a tensor belongs to no part.
        """
        prefix = PARTS[part]
        state = read_weights(self.file(), lambda name: gathered_name(name).startswith(prefix))
        named = {gathered_name(name): tensor for name, tensor in state.items()}
        cut = prefix if isinstance(prefix, str) else ""
        return {
            name.removeprefix(cut): tensor for name, tensor in named.items() if name.startswith(prefix) and name not in _STALE
        }

    def check_names(self) -> None:
        """Refuses a file with tensors that belong to no part of an open_clip model.

        Raises:
            ReleaseError: Naming the first.
        """
        known = tuple(
            prefix for prefixes in PARTS.values() for prefix in ((prefixes,) if isinstance(prefixes, str) else prefixes)
        )
        named = {gathered_name(name): name for name in weight_names(self.file())}
        stray = [name for gathered, name in named.items() if not gathered.startswith(known) and gathered not in _STALE]
        if stray:
            raise ReleaseError(f"{self.file()}: {stray[0]!r} is of no part of an open_clip model; is it another model's file?")


def gathered_name(name: str) -> str:
    """Name of a tensor with text keys under `text.`: open_clip's `CLIP` keeps its text modules at the top."""
    name = name.removeprefix("module.")
    return f"text.{name}" if name.startswith(_NATIVE_TEXT) else name


def is_open_clip_folder(folder: Path) -> bool:
    """Whether a folder is in open_clip's layout."""
    return (folder / CONFIG).is_file()


def folder_checkpoint(folder: Path, name: str, *, weights: bool) -> OpenClipCheckpoint:
    """The checkpoint in a folder with `open_clip_config.json`.

    Args:
        folder: The folder.
        name: What messages call it.
        weights: Whether weights are wanted; then there must be a file of them.

    Raises:
        ReleaseError: If the description is missing or not whole, contradicts the weights, or a wanted file is not there.
    """
    from ..encoders.sources import read_json

    values = read_json(folder / CONFIG)
    model_cfg, preprocess_cfg = values.get("model_cfg"), values.get("preprocess_cfg", {})
    if not isinstance(model_cfg, dict) or "embed_dim" not in model_cfg:
        raise ReleaseError(f"{folder / CONFIG}: has no model_cfg with embed_dim; get the file again")
    file = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if weights and file is None:
        raise ReleaseError(f"{name}: has {CONFIG} but no weights; open_clip keeps them in {WEIGHTS}")
    found = OpenClipCheckpoint(name, model_cfg, preprocess_cfg, file if weights else None, folder)
    if found.weights is not None:
        _check_activation(found)
    return found


def named_checkpoint(rest: str, *, weights: bool) -> OpenClipCheckpoint:
    """The checkpoint of a built-in name, `MODEL/TAG` or `MODEL`.

    Args:
        rest: What follows `open_clip:`.
        weights: Whether weights are wanted; then a tag must be given.

    Raises:
        NameGrammarError: If there is no such model or tag, or its tag's activation is not the config's.
        ReleaseError: If weights are wanted and none are named.
        AssetError: If they cannot be fetched.
    """
    import open_clip

    model, _, tag = rest.partition("/")
    config = open_clip.get_model_config(model)
    if config is None:
        raise NameGrammarError(f"open_clip:{rest}: open_clip has no model {model!r}{nearest(model, open_clip.list_models())}")
    model_cfg = copy.deepcopy(config)
    if not tag:
        if weights:
            raise ReleaseError(f"open_clip:{rest} names no weights; pretrained: false starts from random ones{_tags_of(rest)}")
        return OpenClipCheckpoint(f"open_clip:{rest}", model_cfg, _defaults(), None, None)
    about = open_clip.pretrained.get_pretrained_cfg(model, tag)
    if not about:
        known = open_clip.list_pretrained_tags_by_model(model)
        raise NameGrammarError(f"open_clip:{rest}: {model} has no weights {tag!r}{nearest(tag, known)}")
    _check_tag(model, tag, model_cfg, about)
    preprocess = {key: about[key] for key in _PREPROCESS if key in about}
    file = _fetch(about, rest) if weights else None
    return OpenClipCheckpoint(f"open_clip:{rest}", model_cfg, preprocess, file, None)


def _defaults() -> dict[str, Any]:
    """How open_clip prepares pictures for an architecture without weights."""
    from dataclasses import asdict

    from open_clip.transform import PreprocessCfg

    return {key: value for key, value in asdict(PreprocessCfg()).items() if key != "size"}


def _tags_of(name: str) -> str:
    import open_clip

    model = name.removeprefix("open_clip:").partition("/")[0]
    tags = open_clip.list_pretrained_tags_by_model(model)
    return f"; published weights: {', '.join(f'open_clip:{model}/{tag}' for tag in tags[:4])}" if tags else ""


def _check_tag(model: str, tag: str, model_cfg: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Refuses weights trained with OpenAI's QuickGELU in a network without it, and the other way round.

    A tag that says nothing is taken at the word of the architecture that was made for it (roberta-ViT-B-32).
    """
    import open_clip

    stated = about.get("quick_gelu", model_cfg.get("quick_gelu", False))
    if bool(stated) == bool(model_cfg.get("quick_gelu", False)):
        return
    other = f"{model}-quickgelu"
    fits = f"; write open_clip:{other}/{tag}" if other in open_clip.list_models() else ""
    raise NameGrammarError(
        f"open_clip:{model}/{tag}: these weights were trained with {'QuickGELU' if stated else 'GELU'}, and {model} computes "
        f"{'GELU' if stated else 'QuickGELU'}: every vector would be silently off{fits}"
    )


def _check_activation(checkpoint: OpenClipCheckpoint) -> None:
    """A file of weights that says which activation it was trained with must be in a network that has it."""
    if checkpoint.weights is None or checkpoint.weights.suffix != ".safetensors":
        return
    stated = safetensors_metadata(checkpoint.weights).get("quick_gelu")
    has = bool(checkpoint.model_cfg.get("quick_gelu", False))
    if stated is not None and (stated == "true") != has:
        raise ReleaseError(
            f"{checkpoint.name}: the weights say they were trained with {'QuickGELU' if not has else 'GELU'}, {CONFIG} says quick_gelu: "
            f"{str(has).lower()}: every vector would be silently off; get the config that belongs to the weights"
        )


def _fetch(about: Mapping[str, Any], rest: str) -> Path:
    """The weights of a tag, from the hub."""
    from .hub import fetch_first

    if about.get("file"):
        return Path(about["file"])
    place = about.get("hf_hub", "")
    if not place:
        raise ReleaseError(
            f"open_clip:{rest}: open_clip knows no hub repository for it; download {about.get('url')} and give a folder"
        )
    repo, _, file = place.rpartition("/")
    safe = (f"{file.rsplit('.', 1)[0]}.safetensors",) if file else ()
    choices = ((*safe,), (file,)) if file else (("open_clip_model.safetensors",), ("open_clip_pytorch_model.bin",))
    folder = fetch_first(repo, choices)
    found = next((folder / name for names in choices for name in names if (folder / name).is_file()), None)
    if found is None:
        raise ReleaseError(f"open_clip:{rest}: the copy of {repo} in the cache has no weights, and the hub cannot be reached")
    return found
