"""The README's commands are commands: each parses against the real options, names real recipes and existing files.

What they do is tested at tiny size in tests/trainers; the demo runs them at full size.
"""

import ast
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from modalign.trainers.cli import COMMANDS, _parse
from modalign.trainers.commands.train import _split
from modalign.trainers.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
CARDS = sorted((ROOT / "zoo" / "families").glob("*/README.md"))
PAGES = [ROOT / "README.md", *CARDS]


def commands():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"```bash\n(.*?)```", text, re.S) + re.findall(r"Command: `([^`]+)`", text)
        for block in blocks:
            yield from (line.split("#")[0].strip() for line in block.splitlines() if line.startswith("modalign "))


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_command(line):
    words = shlex.split(line)[1:]
    if words[0] == "train":
        recipe, options = _split([word.replace("S", "0") if word in ("S", "runs/seed-S") else word for word in words[1:]])
        options.pop("stage", None)
        assert (ROOT / recipe).is_file()
        assert load_recipe(ROOT / recipe, options).stages
        return
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    module, function, positional, _ = COMMANDS[name]
    values = _parse(getattr(import_module(module), function), positional, name, words[len(name.split()) :])
    source = values.get("source")
    assert source is None or (ROOT / source).exists()


def test_there_are_commands():
    assert len(set(commands())) >= 10


def test_python_lines_parse_and_name_existing_files():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", text, re.S).group(1)
    ast.parse(block)
    for path in re.findall(r'open\("([^"]+)"\)', block) + re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (ROOT / path).is_file(), path


def test_links_between_pages():
    assert len(CARDS) >= 6
    for page in [*PAGES, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks" / "results").glob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
