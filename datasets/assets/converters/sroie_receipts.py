"""sroie_receipts: scanned receipts with their lines, key fields and the lines that hold them, a local folder as train/, dev/, test/.

The data of the ICDAR 2019 competition SROIE (Huang et al. 2019). The company stands in no line of every third receipt: its name there is
part of a logo, or the line reads it otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .annotated_folder import Row, write_parts


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Writes the three parts.

    Args:
        sources: The raw folder under ``"local"``.
        out: The folder to fill.

    Raises:
        AssetError: If a line or a scan is missing or wrong; the message names it.
    """
    write_parts(sources["local"], out, ("key", "lines", "answer_lines"), _sample, "ICDAR 2019 SROIE")


def _sample(row: Row, image: bytes) -> dict[str, Any]:
    lines = [{"text": line["text"], "box": line["box"]} for line in row["lines"]]
    return {"fields": row["key"], "lines": lines, "answer_lines": row["answer_lines"]}
