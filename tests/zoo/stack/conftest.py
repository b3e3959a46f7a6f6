"""Tiny stacks, and ranks to run them on."""

import importlib.util
from pathlib import Path

import pytest

from modalign.zoo.registry import FAMILIES

from . import written

_RANKS = importlib.util.spec_from_file_location("ranks_of_the_losses", Path(__file__).parents[1] / "losses" / "conftest.py")
_losses = importlib.util.module_from_spec(_RANKS)
_RANKS.loader.exec_module(_losses)
rank_pools, ranks, largest_tensor = _losses.rank_pools, _losses.ranks, _losses.largest_tensor


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """An image encoder of 4 by 4 patches."""
    return written.write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def language_folder(tmp_path_factory):
    """Kind -> a folder with a language model, written once."""
    made = {}

    def folder_of(kind="llama"):
        if kind not in made:
            made[kind] = written.write_language(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return folder_of


@pytest.fixture(scope="session")
def stack_settings(clip_folder, language_folder):
    """Settings of a tiny stack, changed by section."""

    def settings(language="llama", **sections):
        plain = {
            "image": {"name": f"local-dir:{clip_folder}"},
            "feature_layer": -2,
            "projector": {"name": "mlp"},
            "language": language if isinstance(language, dict) else {"name": f"local-dir:{language_folder(language)}"},
            "chat": {"template": "vicuna_v1", "max_length": 400},
        }
        return {**plain, **sections}

    return settings


@pytest.fixture(scope="session")
def stack(stack_settings):
    """Settings -> a stack in eval mode; of a family, `llava` if none is named."""
    import torch

    def build(family="llava", language="llama", **sections):
        torch.manual_seed(1)
        return FAMILIES.get(family).from_settings(stack_settings(language, **sections)).eval()

    return build
