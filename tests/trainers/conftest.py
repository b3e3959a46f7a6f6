"""A tiny recipe with every feature of a stage, and ways to run it."""

import copy
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for launching.py


@pytest.fixture
def tiny_recipe(tiny_model, tiny_shards, own_home, tmp_path):
    """Returns plain values of a two-stage ProCLIP recipe; a fresh copy at each use."""
    teacher = {
        "family": "clip",
        "embed_dim": 16,
        "image": tiny_model["image"],
        "text_tower": {"context_length": 12, "width": 16, "heads": 2, "layers": 1, "embed_dim": 16},
        "text_projector": None,
    }
    recipe = {
        "title": "tiny",
        "model": tiny_model,
        "data": {
            "train": str(tiny_shards),
            "val": str(tiny_shards),
            "test": str(tiny_shards),
            "batch_size": 10,
            "languages": ["en"],
        },
        "stages": {
            "teacher": {
                "model": teacher,
                "train": {"embedder": 1e-3, "head": 1e-3, "aux": 1e-3},
                "losses": {"clip": {"label_smoothing": 0.1}},
                "epochs": 1,
            },
            "inherit": {
                "init_from": "teacher",
                "take": ["image", "scale"],
                "teacher": "teacher",
                "train": {"projector": 1e-3},
                "losses": {
                    "instance": {
                        "loss": "feature_distillation",
                        "student": "text_embedding",
                        "teacher": "teacher_text_embedding",
                    },
                    "second": {
                        "loss": "feature_distillation",
                        "student": "second_text_embedding",
                        "teacher": "teacher_second_text_embedding",
                        "mask": "has_second_text",
                    },
                    "structure": {
                        "loss": "structure_distillation",
                        "student": "text_embedding",
                        "teacher": "teacher_text_embedding",
                    },
                },
                "cache": {"text": True, "teacher_text": True},
                "epochs": 2,
            },
            "tune": {
                "teacher": "self",
                "teacher_decay": 0.9,
                "train": {"encoder": 1e-3, "head": 1e-3, "projector": 1e-3, "aux": 1e-3},
                "losses": {"clip": {}, "instance": {"loss": "feature_distillation", "weight": 0.01}},
                "data": {"augment": {"scale": 0.6, "flip": 0.5}},
                "cache": {"text": True},
                "validate": {"every_epochs": 1.0},
                "epochs": 3,
            },
        },
        "evaluate": {"languages": ["en", "de"], "queries": ["thing number 3"]},
        "trainer": {"checkpoint_every": 4, "log_every": 1, "record_samples": True, "accelerator": "cpu"},
        "run_dir": str(tmp_path / "run"),
    }
    return copy.deepcopy(recipe)


@pytest.fixture
def pair_recipe(tiny_recipe):
    """One stage with everything that crosses ranks: CLIP over the gathered batch, a gathered and an averaging self-teacher."""
    stage = {
        "model": tiny_recipe["stages"]["teacher"]["model"],
        "teacher": "self",
        "teacher_decay": 0.9,
        "train": {"encoder": 1e-3, "embedder": 1e-3, "head": 1e-3, "aux": 1e-2},
        "losses": {
            "clip": {},
            "instance": {"loss": "feature_distillation", "weight": 0.1, "gather": True},
            "structure": {"loss": "structure_distillation", "weight": 0.1, "gather": True},
        },
        "epochs": 4,
    }
    tiny_recipe |= {"stages": {"pair": stage}, "evaluate": None}
    tiny_recipe["model"]["image"]["name"] = stage["model"]["image"]["name"] = "timm:test_vit"
    del stage["model"]["image"]["image_size"]
    tiny_recipe["data"] |= {"batch_size": 8}
    tiny_recipe["trainer"] |= {"checkpoint_every": 10**6, "progress": False}
    return tiny_recipe
