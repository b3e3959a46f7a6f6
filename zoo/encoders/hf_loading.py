"""Loading transformers models so that nothing is missing, nothing is run, and float32 is float32."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ..checkpoints.weights import check_safetensors
from ..errors import AssemblyError, ReleaseError
from .sources import read_json

NO_LIMIT = 10**6


def load_checked(auto_class: Any, folder: Path, shown: str, settings: dict[str, Any]) -> Any:
    """`from_pretrained` of a local folder, which refuses weights that do not fill the model.

    Args:
        auto_class: An `Auto…` class.
        folder: The folder.
        shown: What messages call the model.
        settings: Further arguments.

    Raises:
        ReleaseError: If a weight is missing or has another shape, or the file is damaged.
    """
    for file in folder.glob("*.safetensors"):
        check_safetensors(file)
    try:
        model, report = auto_class.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=False, weights_only=True, output_loading_info=True, **settings
        )
    except (OSError, ValueError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise ReleaseError(f"{shown}: cannot be loaded ({_first_line(error)}); get the folder again") from error
    missing = sorted(report["missing_keys"]) + sorted(str(entry[0]) for entry in report["mismatched_keys"])
    if missing:
        few = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise ReleaseError(f"{shown}: its weights lack {few}; they are of another model than config.json describes")
    return model


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def checkpoint_body(model: Any, what: str, enable: bool) -> None:
    """Turns transformers' recomputation of activations on or off; it works in training mode only.

    Args:
        model: A transformers model.
        what: What messages call it.
        enable: On or off.

    Raises:
        AssemblyError: If the model has none.
    """
    if enable and not getattr(model, "supports_gradient_checkpointing", False):
        raise AssemblyError(f"{what} cannot recompute activations (gradient checkpointing); turn it off")
    if hasattr(model, "activation_checkpointing_enable"):  # transformers 5.2x names it so
        call = model.activation_checkpointing_enable if enable else model.activation_checkpointing_disable
    else:
        call = model.gradient_checkpointing_enable if enable else model.gradient_checkpointing_disable
    call({"use_reentrant": False}) if enable else call()


def load_body(folder: Path, shown: str, *, pretrained: bool) -> Any:
    """A transformers model of token states: the whole model, or the encoder of one with a decoder.

    Args:
        folder: A transformers folder.
        shown: What messages call the model.
        pretrained: Load its weights.

    Raises:
        ReleaseError: If the model cannot be built, or a weight is missing.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding

    try:
        hf_config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ReleaseError(f"{shown}: its config.json cannot be used ({reason}); get the folder again") from error
    auto: Any = AutoModelForTextEncoding if getattr(hf_config, "is_encoder_decoder", False) else AutoModel
    hf_config.use_cache = False  # states of whole texts are wanted, never a cache to go on from
    settings = {"config": hf_config, **_without_pooler(hf_config)}
    if pretrained:
        return load_checked(auto, folder, shown, settings)
    return auto.from_config(dtype=torch.float32, trust_remote_code=False, **settings)


def takes_text(folder: Path) -> bool:
    """Whether a folder's config.json is of a model of token ids that transformers has."""
    from transformers import MODEL_MAPPING, AutoConfig

    if "model_type" not in read_json(folder / "config.json"):
        return False
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, KeyError):
        return False
    if getattr(config, "vision_config", None) is not None or type(config) not in MODEL_MAPPING:
        return False
    model_class: Any = MODEL_MAPPING[type(config)]
    return model_class.main_input_name == "input_ids"


def longest_text(body: Any) -> int:
    """Most tokens a model has positions for; a large number where nothing limits it."""
    longest = getattr(body.config, "max_position_embeddings", None)
    return longest if isinstance(longest, int) and longest > 0 else NO_LIMIT


def _without_pooler(hf_config: Any) -> dict[str, bool]:
    """Leaves out BERT's pooling layer where there is one: it is not used, and a part not used would never get a gradient."""
    from transformers import MODEL_MAPPING

    model_class: Any = MODEL_MAPPING[type(hf_config)]
    arguments = inspect.signature(model_class).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in arguments else {}
