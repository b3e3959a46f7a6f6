"""`modalign train --help` lists every key there is, and yes-or-no settings need no value."""

import dataclasses
import typing

import pytest

from modalign.trainers.cli import _parse, main
from modalign.trainers.commands.train import _split
from modalign.trainers.commands.train_help import type_name
from modalign.trainers.recipe import Recipe, load_recipe
from modalign.trainers.switches import is_switch_of, with_values


def keys(cls, prefix=""):
    """Every key below a dataclass, at any depth; stages by the name NAME."""
    for field in dataclasses.fields(cls):
        hint = typing.get_type_hints(cls)[field.name]
        inner = [option for option in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(option)]
        name = f"{prefix}{field.name}" + (".NAME" if f"{prefix}{field.name}" == "stages" else "")
        yield from keys(inner[0], f"{name}.") if inner else [name]


def test_every_key_of_a_recipe_is_listed_with_type_and_default(capsys):
    assert main(["train", "--help"]) == 0
    printed = capsys.readouterr().out
    listed = {line.split()[0].removeprefix("--") for line in printed.splitlines() if line.startswith("  --")}
    wanted = set(keys(Recipe))
    assert {"data.augment.flip", "stages.NAME.cache.image", "stages.NAME.validate.patience", "evaluate.task"} <= wanted
    assert wanted <= listed, wanted - listed
    for line in (
        "  --data.batch_size  int  (default 256)",
        "  --data.augment.flip  float  (default 0.0)",
        "  --stages.NAME.schedule  cosine | constant | cosine_by_epoch | halved_by_epoch  (default cosine)",
        "  --stages.NAME.train  mapping of str to float  (required)",
        "  --stages.NAME.clip_norm  float or null  (default 1.0)",
        "  --trainer.deterministic  true | false  (default false)",
        "  --allow_module M",
        "  --strict",
    ):
        assert line in printed.splitlines(), line


def test_a_recipe_shows_what_it_sets_and_its_models_keys(capsys):
    assert main(["train", "siglip/flickr8k", "--run_dir", "elsewhere", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  --data.batch_size  int  (default 256, here 128)" in lines
    assert "  --stages.align.epochs  float or null  (default null, here 100.0)" in lines
    assert "  --model.image.image_size  int or null  (default null, here 224)" in lines
    assert "  --model.logit_bias_init  float or null  (default -10.0)" in lines
    described = lines[lines.index("  --model.embed_dim  int  (default 512, here 384)") + 1]
    assert described.strip() == "D of the joint space.", "said by the class that the family's settings inherit from"


def test_types_in_the_words_of_yaml():
    assert type_name(list[str] | None) == "list of str or null" and type_name(dict[str, float]) == "mapping of str to float"


def test_bare_switches_reach_any_depth():
    recipe, options = _split(
        ["--strict", "clip/flickr8k", "--trainer.deterministic", "--stages.align.cache.text", "false", "--trainer.progress=false"]
    )
    assert recipe == "clip/flickr8k" and options["strict"] is True
    loaded = load_recipe(recipe, {key: value for key, value in options.items() if key != "strict"})
    assert (loaded.trainer.deterministic, loaded.trainer.progress, loaded.stages["align"].cache.text) == (True, False, False)
    assert _split(["clip/flickr8k", "--evaluate.first_caption"])[1] == {"evaluate.first_caption": True}
    assert _split(["clip/flickr8k", "--strict=false", "--print_config"])[1] == {"strict": False, "print_config": True}


@pytest.mark.parametrize(
    ("key", "switch"),
    [
        ("trainer.progress", True),
        ("stages.anything.cache.text", True),
        ("stages.anything.ignore_bias", True),
        ("evaluate.first_caption", True),
        ("stages.anything.losses.clip.gather", False),
        ("stages.anything.epochs", False),
        ("cache.text", False),
        ("trainer", False),
        ("no.such.key", False),
    ],
)
def test_what_is_a_switch(key, switch):
    assert is_switch_of(Recipe, key) is switch


def test_a_switch_does_not_swallow_the_word_behind_it():
    words = ["--dry_run", "model", "--private", "true", "--repo", "me/it", "--dry_run"]
    found = with_values(words, lambda name: name in ("dry_run", "private"))
    assert found == ["--dry_run=true", "model", "--private", "true", "--repo", "me/it", "--dry_run=true"]


def test_commands_take_bare_switches():
    def call(model: str, dry_run: bool = False, detailed: bool | None = None, count: int = 1) -> None:
        """Does nothing.

        Args:
            model: A model.
            dry_run: Only say.
            detailed: More.
            count: How many.
        """

    def parsed(*words):
        return _parse(call, ("model",), "modalign call", list(words))

    assert parsed("--dry_run", "m", "--count", "2") == {"model": "m", "dry_run": True, "detailed": None, "count": 2}
    assert parsed("m", "--detailed", "--dry_run") == {"model": "m", "dry_run": True, "detailed": True, "count": 1}
    assert parsed("m", "--dry_run", "false", "--detailed", "null")["dry_run"] is False
