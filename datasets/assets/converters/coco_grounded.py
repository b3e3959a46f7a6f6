"""coco_grounded: photographs of COCO 2017 with boxes of 80 classes and captions, a local folder as shards train/, dev/, test/.

Every object is a region with its category. Where a category occurs once in its photograph and is no crowd, it also has a phrase that
refers to it: "the dog". Boxes are rounded to a tenth of a pixel; what sticks out by that is cut at the edge. Each photograph has its own
licence, in the field ``license``; two photographs with neither objects nor captions are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .annotated_folder import Row, write_parts


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Writes the three parts.

    Args:
        sources: The raw folder under ``"local"``.
        out: The folder to fill.

    Raises:
        AssetError: If a line or a photograph is missing or wrong; the message names it.
    """
    write_parts(
        sources["local"], out, ("captions", "license"), _sample, "COCO 2017 (annotations CC BY 4.0, photographs: see license)"
    )


def regions_of_objects(objects: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> list[dict[str, Any]]:
    """Returns the regions of a photograph.

    Args:
        objects: Its objects: ``label``, ``bbox`` [x, y, width, height], ``iscrowd``.
        size: (width, height) of the photograph.

    Raises:
        DataError: If a box is wrong.
    """
    from ...dialogue.boxes import corners

    counts = Counter(one["label"] for one in objects)
    regions = []
    for one in objects:
        region = {"box": corners(one["bbox"], "xywh", size)[0], "category": one["label"]}
        if one["iscrowd"]:
            region["crowd"] = True
        elif counts[one["label"]] == 1:
            region["phrase"] = f"the {one['label']}"
        regions.append(region)
    return regions


def _sample(row: Row, image: bytes) -> dict[str, Any] | None:
    """A sample; `regions` is absent where nobody looked for objects, and empty where none was found."""
    from ...decoding.table import decode_image

    captions = [text.strip() for text in row["captions"] if text.strip()]
    if not captions and not row.get("objects"):
        return None
    kept = {name: row[name] for name in ("coco_id", "license", "flickr_url") if row.get(name)}
    sample: dict[str, Any] = {"captions": {"en": captions} if captions else {}, **kept}
    if "objects" in row:
        sample["regions"] = regions_of_objects(row["objects"], decode_image(image).size)
    return sample
