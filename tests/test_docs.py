"""Every command the pages under docs/ show is one that exists, with options that exist; tests and files they name are there."""

import re
import shlex
from pathlib import Path

import pytest

from modalign.trainers.cli import COMMANDS, main
from modalign.trainers.commands.completion import candidates
from modalign.trainers.commands.train import _split
from modalign.trainers.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / "zoo" / "families").rglob("*.md")])


def commands():
    """(page, words after `modalign`) of every command line shown."""
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
            for line in re.sub(r"\\\n\s*", " ", block).splitlines():
                line = line.split(" # ")[0].strip().replace("torchrun", "X", 1)
                if line.startswith("modalign "):
                    yield page, shlex.split(line, comments=True)[1:]
                elif " modalign.trainers.cli " in line:
                    yield page, shlex.split(line.split(" modalign.trainers.cli ")[1], comments=True)


@pytest.mark.parametrize("page, words", [pytest.param(*item, id=" ".join(item[1])[:80]) for item in commands()])
def test_shown_commands_exist(page, words):
    name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in COMMANDS), None)
    assert name is not None, f"{page.name}: there is no command {' '.join(words[:2])}"
    rest = words[len(name.split()) :]
    if name == "train" and not any(word.isupper() or word.startswith(("my", "RECIPE")) for word in rest[:1]):
        recipe, options = _split(rest)
        stage_keys = {key for key in options if key.startswith("stages.NAME")}
        plain = {k: v for k, v in options.items() if k not in ("stage", "print_config", "strict", "allow_module", *stage_keys)}
        load_recipe(recipe, plain)
        return
    known = set(candidates([*name.split(), "--"]))
    for word in rest:
        if word.startswith("--") and name != "train" and not (" " in word and "=" not in word.split()[0]):
            assert word.split("=")[0] in known, f"{page.name}: {name} has no option {word}"


RECIPES = sorted((ROOT / "configs").glob("*/*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_s_own_command_is_one(path):
    """The command in a recipe's header trains that recipe; others there are commands."""
    lines = re.findall(r"^#   modalign (.+?)(?:\s{3,}\(.*)?$", path.read_text(encoding="utf-8"), re.M)
    trained = [shlex.split(line)[1:] for line in lines if line.startswith("train ")]
    assert trained and {words[0] for words in trained} == {f"configs/{path.parent.name}/{path.name}"}
    for words in trained:
        options = {key: value for key, value in _split(words)[1].items() if key != "stage"}
        assert load_recipe(ROOT / words[0], options).stages
    for line in lines:
        name = next(" ".join(line.split()[:n]) for n in (2, 1) if " ".join(line.split()[:n]) in COMMANDS)
        known = {*candidates([*name.split(), "--"])}
        if name != "train":
            assert {word.split("=")[0] for word in shlex.split(line) if word.startswith("--")} <= known


def test_every_recipe_is_on_the_pages_that_list_them():
    for page in ("README.md", "MODEL_CARD.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for path in RECIPES:
            assert f"`{path.parent.name}/{path.stem}`" in text, f"{page} does not name {path.parent.name}/{path.stem}"


def test_shown_slurm_files_are_written(tmp_path, monkeypatch):
    shown = [words for page, words in commands() if words[:2] == ["launch", "slurm"]]
    assert shown
    monkeypatch.chdir(tmp_path)
    for words in shown:
        assert main(words) == 0
    assert "--partition=gpu" in (tmp_path / "flickr8k.sbatch").read_text()


def test_named_files_and_tests_are_there():
    """`path/file.py` or `path/file.py::test_name` in a page, in back quotes or parentheses, is a file, and the test is in it."""
    for page in [
        *PAGES,
        *ROOT.glob("*.md"),
        *(ROOT / "configs").glob("*/*.yaml"),
        *(ROOT / "benchmarks" / "results").glob("*.md"),
    ]:
        text = page.read_text(encoding="utf-8")
        for path, test in re.findall(
            r"\b((?:tests|benchmarks|zoo|trainers|datasets|configs|docs)/[\w/\-.]+\.(?:py|yaml|md|json))(?:::(\w+))?", text
        ):
            if "NAME" in path or "FAMILY" in path:
                continue
            assert (ROOT / path).exists(), f"{page.relative_to(ROOT)} names {path}, which is not there"
            if test:
                assert f"def {test}(" in (ROOT / path).read_text(), (
                    f"{page.relative_to(ROOT)} names {path}::{test}, which is not there"
                )
