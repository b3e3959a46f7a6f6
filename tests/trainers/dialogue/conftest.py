"""Tiny shards of conversations, boxes and documents, a tiny stack, and a run on them."""

import io

import pytest

from modalign.datasets.shards.writer import write_shards
from modalign.trainers import train

from ...zoo.stack import written

WORDS = ("apple", "bird", "table", "wire", "lamp", "boat", "cup", "hat")


def picture(number, size=(40, 30)):
    """The bytes of a PNG."""
    stream = io.BytesIO()
    written.photo(*size, seed=number).save(stream, "PNG")
    return stream.getvalue()


def sample(number):
    """A picture with everything that can be asked about it."""
    word, other = WORDS[number % len(WORDS)], WORDS[(number + 3) % len(WORDS)]
    left = 2 + number % 5
    return {
        "key": f"s{number:02d}",
        "image": picture(number),
        "image_ext": "png",
        "captions": {"en": [f"A red {word}.", f"One {word} on a table."], "de": [f"Ein {word}."]},
        "conversations": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "\nWhat is it?"}]},
            {"role": "assistant", "content": f"A red {word}."},
            {"role": "user", "content": "Where?"},
            {"role": "assistant", "content": [{"type": "box", "box": [left, 3, left + 20, 25]}]},
        ],
        "regions": [
            {"box": [left, 3, left + 20, 25], "phrase": f"the {word}", "category": word},
            {"box": [0, 0, 10, 10], "phrase": f"the {other}", "category": other},
        ],
        "fields": {"name": word, "total": f"{number}.50"},
    }


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """(first, end) -> a folder of shards with those samples, written once."""
    made = {}

    def folder(first=0, end=16):
        if (first, end) not in made:
            made[first, end] = tmp_path_factory.mktemp("shards") / "s"
            write_shards(map(sample, range(first, end)), made[first, end], samples_per_shard=6)
        return str(made[first, end])

    return folder


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    """Folders of an image encoder and a language model with a chat template."""
    root = tmp_path_factory.mktemp("parts")
    written.write_clip(root / "clip")
    written.write_language(root / "lm", words=written.tokenizer(chat_template=written.CHATML, start=False))
    return root


@pytest.fixture(scope="session")
def model_settings(parts):
    """Settings of a tiny llava."""

    def settings(**more):
        return {
            "family": "llava",
            "image": {"name": str(parts / "clip")},
            "feature_layer": -2,
            "language": {"name": str(parts / "lm")},
            "chat": {"template": "tokenizer", "max_length": 200},
            **more,
        }

    return settings


@pytest.fixture(scope="session")
def recipe_of(model_settings, shards):
    """A recipe of two stages; further values by dotted names, with `__` for the dots."""

    def recipe(run_dir, model=None, dialogue=None, **stage):
        settings = {"losses": {"next_token": {}}, "steps": 3, "warmup": 0.0, "weight_decay": 0.0, **stage}
        return {
            "model": model or model_settings(lora={"rank": 2}),
            "data": {"train": shards(), "batch_size": 4, "dialogue": dialogue or {"ask": "conversations"}},
            "stages": {
                "align": {"train": {"projector": 1e-3}, **settings},
                "tune": {"train": {"projector": 1e-4, "adapter": 1e-3}, **settings},
            },
            "trainer": {"progress": False, "log_every": 1, "record_samples": True},
            "run_dir": str(run_dir),
        }

    return recipe


@pytest.fixture(scope="session")
def run(tmp_path_factory, recipe_of, shards):
    """A finished run that was validated and measured."""
    recipe = recipe_of(tmp_path_factory.mktemp("run") / "run", validate={"every_epochs": 0.5})
    recipe["data"] |= {"val": shards(16, 20), "test": shards(20, 24)}
    recipe["evaluate"] = {"task": ["caption", "grounding", "vqa", "pope"], "options": {}}
    for task in ("caption", "grounding", "vqa"):
        recipe["evaluate"]["options"][task] = {"max_new_tokens": 4, "train_data": shards()}
    recipe["evaluate"]["options"]["pope"] = {"per_picture": 2, "max_new_tokens": 3}
    return train(recipe)
