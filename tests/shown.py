"""Pages that do what they say: their commands and their Python are run, in order, in one folder with tiny models."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

from modalign.trainers.cli import main

ROOT = Path(__file__).resolve().parents[1]


class Block(NamedTuple):
    """A fenced block: its language and its text."""

    kind: str
    text: str


def blocks_of(page: str, *kinds: str) -> list[Block]:
    """The blocks of a page, in order; of some languages only where they are given."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [Block(*match) for match in re.findall(r"```(\w+)\n(.*?)```", text, re.S)]
    return [block for block in found if not kinds or block.kind in kinds]


def lines_of(block: Block) -> list[str]:
    """The commands of a block, without comments, lines continued with a backslash in one."""
    lines = [re.sub(r"\s+# .*", "", line).strip() for line in re.sub(r"\\\n\s*", " ", block.text).splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def run_line(line: str, *more: str) -> None:
    """Runs a command as it is shown, `modalign` in this process; `more` is put behind it."""
    words = shlex.split(line)
    if words[0] == "modalign":
        assert main([*words[1:], *more]) == 0, line
    else:
        subprocess.run(["bash", "-c", line], check=True)
