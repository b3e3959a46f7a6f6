"""Nothing in a recipe, a part's options or a release's settings can name code: tried at every place there is, with a module that tells."""

import contextlib
import json
import sys
import typing
from collections.abc import Mapping, Sequence

import pytest

from modalign.trainers.evaluation.tasks import TASKS
from modalign.trainers.recipe import Recipe, load_recipe
from modalign.zoo.checkpoints.release import load, save_release
from modalign.zoo.configure import _dataclass_in, _options, constructor_types, fill, is_plain
from modalign.zoo.errors import ModalignError
from modalign.zoo.registry import FAMILIES, LOSSES, PROJECTORS

PAYLOADS = {
    "words": "telltale.Thing",
    "class_path": {"class_path": "telltale.Thing"},
    "with arguments": {"class_path": "telltale.Thing", "init_args": {"a": 1}},
    "inside a list": [{"class_path": "telltale.Thing"}],
    "words inside a list": ["telltale.Thing"],
    "inside a table": {"x": {"class_path": "telltale.Thing"}},
    "words inside a table": {"x": "telltale.Thing"},
}


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """A module that leaves a file when it is imported and another when its class is built."""
    marker = tmp_path / "imported"
    (tmp_path / "telltale.py").write_text(
        f"open({str(marker)!r}, 'w')\nclass Thing:\n    def __init__(self, *a, **b):\n        open({str(marker)!r}, 'w')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield marker
    sys.modules.pop("telltale", None)


def places(cls, prefix=(), depth=0):
    """The path of every setting that can be reached from a class, through its dataclasses, lists and tables."""
    for name, hint in constructor_types(cls).items():
        yield (*prefix, name)
        for option in _options(hint):
            arguments = typing.get_args(option)
            inner, step = _dataclass_in(option), ()
            if inner is None and arguments:
                inner, step = _dataclass_in(arguments[-1]), ("entry",)
            if inner is not None and depth < 4:
                yield from places(inner, (*prefix, name, *step), depth + 1)


def nested(path, value):
    for name in reversed(path):
        value = {name: value}
    return value


CLASSES = {
    "recipe": Recipe,
    **{f"family {name}": FAMILIES.get(name).Config for name in FAMILIES.names()},
    **{f"loss {name}": LOSSES.get(name) for name in LOSSES.names()},
    **{f"projector {name}": PROJECTORS.get(name) for name in PROJECTORS.names()},
    **{f"task {name}": TASKS.get(name) for name in TASKS.names()},
}


def test_the_payload_would_run_otherwise(marker):
    """jsonargparse by itself does what a `class_path` says: the marker is a real test."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--x", type=typing.Any)
    parser.instantiate_classes(parser.parse_object({"x": PAYLOADS["class_path"]}))
    assert marker.exists()


@pytest.mark.parametrize("of", CLASSES)
def test_no_setting_imports_what_it_names(of, marker):
    found = list(places(CLASSES[of]))
    assert found or of.startswith(("loss", "task", "projector"))
    for path in found:
        for payload in PAYLOADS.values():
            with contextlib.suppress(ModalignError, TypeError, ValueError):
                fill(CLASSES[of], nested(path, payload), of)
            assert "telltale" not in sys.modules and not marker.exists(), path


def test_places_reach_into_everything():
    """The walk above sees nested settings, tables and optional ones."""
    found = set(places(Recipe))
    assert {("evaluate", "task"), ("stages", "entry", "validate"), ("data", "augment")} <= found
    assert ("text_embedder", "name") in set(places(FAMILIES.get("clip").Config))


def test_recipe_from_a_file(marker, tmp_path, tiny_recipe):
    for path in [
        ("evaluate",),
        ("stages", "tune", "validate"),
        ("model", "image"),
        ("trainer",),
        ("stages", "tune", "losses", "clip"),
    ]:
        for payload in PAYLOADS.values():
            recipe = json.loads(json.dumps(tiny_recipe, default=str))
            place = recipe
            for name in path[:-1]:
                place = place[name]
            place[path[-1]] = payload
            try:
                loaded = load_recipe(recipe)
                FAMILIES.get(loaded.model["family"]).from_settings(
                    {k: v for k, v in loaded.model.items() if k != "family"}, "model"
                )
            except (ModalignError, TypeError, ValueError):
                pass
            assert "telltale" not in sys.modules and not marker.exists(), (path, payload)


def test_a_release_of_somebody_else(marker, tmp_path, tiny_model):
    folder = tmp_path / "release"
    save_release(FAMILIES.get("proclip").from_settings({k: v for k, v in tiny_model.items() if k != "family"}), folder)
    config = json.loads((folder / "config.json").read_text())
    for path in places(FAMILIES.get("proclip").Config):
        for payload in PAYLOADS.values():
            model = config["model"] | nested(path, payload)
            if len(path) > 1:  # the other settings beside it stay
                model[path[0]] = (config["model"][path[0]] or {}) | nested(path[1:], payload)
            (folder / "config.json").write_text(json.dumps(config | {"model": model}))
            with contextlib.suppress(ModalignError, TypeError, ValueError):
                load(folder)
            assert "telltale" not in sys.modules and not marker.exists(), path


def test_every_type_is_plain_a_dataclass_or_untyped():
    """A part whose constructor took a class or a callable could not be set from a recipe: none of ours does."""

    def fits(hint):
        arguments = typing.get_args(hint)
        if is_plain(hint) or hint in (typing.Any, dict, list) or _dataclass_in(hint) is hint:
            return True
        known = typing.get_origin(hint) in (list, dict, tuple, Sequence, Mapping) or len(_options(hint)) > 1
        return known and all(fits(argument) for argument in arguments)

    for of, cls in CLASSES.items():
        for name, hint in constructor_types(cls).items():
            assert fits(hint), (of, name, hint)
