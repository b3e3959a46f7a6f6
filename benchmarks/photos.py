"""Photographs for the data benchmarks: real ones where the small data sets are (MODALIGN_DATA), else textured pictures made here."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image


def photos(count: int, side: int | None = None, quality: int = 85) -> tuple[list[bytes], str]:
    """JPEG files and what they are.

    Args:
        count: How many.
        side: Resize to this many pixels a side (square); None keeps real photographs as they are.
        quality: Of JPEGs that are written here.
    """
    folder = Path(os.environ.get("MODALIGN_DATA", "")) / "flickr8k_multilingual" / "images"
    files = sorted(folder.glob("*.jpg")) if os.environ.get("MODALIGN_DATA") else []
    if not files:
        return [_written(_texture(number, side or 256), quality) for number in range(count)], f"made pictures of {side or 256} px"
    data = [files[number % len(files)].read_bytes() for number in range(count)]
    if side is not None:
        data = [_written(Image.open(io.BytesIO(one)).convert("RGB").resize((side, side)), quality) for one in data]
    return data, "photographs of flickr8k_multilingual" + (f" at {side} px" if side else ", about 200 px, as they are")


def large_photos(count: int, width: int, height: int, quality: int = 90) -> list[bytes]:
    """JPEGs of a size like a camera's, from smaller ones."""
    data, _ = photos(count)
    return [_written(Image.open(io.BytesIO(one)).convert("RGB").resize((width, height), 3), quality) for one in data]


def mosaics(count: int, width: int, height: int, quality: int = 90) -> list[bytes]:
    """JPEGs of photographs side by side as they are: as large as a camera's, with detail at every pixel, which enlarged ones lack."""
    data, _ = photos(max(count, 200))
    pictures = [Image.open(io.BytesIO(one)).convert("RGB") for one in data]
    return [_written(_mosaic(pictures, number, width, height), quality) for number in range(count)]


def _mosaic(pictures: list[Image.Image], number: int, width: int, height: int) -> Image.Image:
    """Rows of pictures, each beginning with another one; what sticks out is cut off."""
    canvas, top, turn = Image.new("RGB", (width, height)), 0, 97 * number
    while top < height:
        left, tallest = 0, height
        while left < width:
            one = pictures[turn % len(pictures)]
            canvas.paste(one, (left, top))
            left, tallest, turn = left + one.width, min(tallest, one.height), turn + 1
        top += tallest
    return canvas


def _written(image: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _texture(number: int, side: int) -> Image.Image:
    """Noise at several scales: compresses and decodes about like a photograph."""
    rng = np.random.default_rng(number)
    image = np.zeros((side, side, 3))
    for scale in (4, 16, 64):
        coarse = Image.fromarray(rng.integers(0, 256, (scale, scale, 3), dtype=np.uint8))
        image += np.asarray(coarse.resize((side, side), 3), dtype=float) / 3
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def samples(pictures: list[bytes]) -> list[dict]:
    """Pictures as `write_shards` takes them, with captions and a few fields."""
    return [
        {
            "key": f"p{number:06d}",
            "image": data,
            "image_ext": "jpg",
            "captions": {"en": [f"a photograph with the number {number}, to be read and thrown away"]},
            "group": f"g{number // 5}",
        }
        for number, data in enumerate(pictures)
    ]
