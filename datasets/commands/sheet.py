"""Contact sheets: pictures with captions in any script, drawn with the fonts that are installed."""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modalign.zoo.errors import DataError

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

CELL, MARGIN, FONT_SIZE, LINES = 190, 8, 13, 4
_LINE = FONT_SIZE + 5
# tried first, if installed: wide coverage, one look
_PREFERRED = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "NotoSansDevanagari-Regular.ttf")
_IGNORED_NAMES = ("Math", "Sym", "cmr", "cmsy", "cmmi", "cmex", "STIX", "Bold", "Italic", "Oblique", "Emoji", "LastResort")


def sheet_path(out: str, default: str) -> Path:
    """Where a command writes its sheet: the file that was asked for, else the first free of NAME.png, NAME-2.png, NAME-3.png ...

    Args:
        out: What `--out` says; "" if it was not given. The file is written as asked, also over one that is there.
        default: The name without `--out`. A file of that name may be the user's own, so it is left alone.

    Raises:
        DataError: If `out` does not end in .png.
    """
    if out:
        if Path(out).suffix.lower() != ".png":
            raise DataError(f"--out {out}: the sheet is a PNG; give the name of a file that ends in .png")
        return Path(out)
    first = Path(default)
    names = itertools.chain([first], (first.with_stem(f"{first.stem}-{number}") for number in itertools.count(2)))
    return next(path for path in names if not path.exists() and not path.is_symlink())


def contact_sheet(
    images: Sequence[Image.Image],
    captions: Sequence[str],
    out: str | Path,
    title: str = "",
    columns: int = 0,
    *,
    cell: int = CELL,
) -> Path:
    """Draws pictures in a grid with a caption under each, and writes it as PNG.

    Every word is drawn in the first installed font that has all its characters. A character that no font has is written as
    its code point (U+732B), and a line at the bottom says so: nothing is drawn as an empty box.

    Args:
        images: RGB pictures of any size; shrunk to fit their cells, never enlarged more than four times.
        captions: One per picture; wrapped, and cut after four lines.
        out: Path of the PNG; its folder is made.
        title: Drawn on top.
        columns: Pictures per row; 0 = by their number.
        cell: Width and height of the space for a picture, in pixels.

    Returns:
        The path written.
    """
    from PIL import Image, ImageDraw

    if len(images) != len(captions):
        raise ValueError(f"{len(images)} images but {len(captions)} captions")
    columns = columns or max(1, min(len(images), 4 if len(images) <= 16 else 6))
    rows = -(-len(images) // columns)
    step_x, step_y = cell + MARGIN, cell + LINES * _LINE + MARGIN
    head = _LINE * 2 if title else MARGIN
    without_font = missing_glyphs("".join([title, *captions]))
    foot = _LINE + MARGIN if without_font else 0
    sheet = Image.new("RGB", (columns * step_x + MARGIN, head + rows * step_y + foot), "white")
    draw = ImageDraw.Draw(sheet)
    if title:
        draw_line(draw, (MARGIN, MARGIN), fit(title, 1, sheet.width - 2 * MARGIN)[0], "black")
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = MARGIN + number % columns * step_x, head + number // columns * step_y
        _draw_cell(sheet, draw, image, caption, (left, top), cell)
    if foot:
        note = f"No installed font has {len(without_font)} of the characters; they are shown as code points."
        draw_line(draw, (MARGIN, sheet.height - foot), note, "firebrick")
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, "PNG")
    return out


def missing_glyphs(text: str) -> set[str]:
    """Returns the characters of a text that no installed font has."""
    return {char for char in set(text) if not _invisible(char) and not any(ord(char) in table for _, table in _fonts())}


def fit(text: str, lines: int, width: int = CELL) -> list[str]:
    """Wraps a text to a width in pixels, as it is drawn, and cuts it after some lines with an ellipsis."""
    shown = _with_code_points(" ".join(text.split()))
    wrapped: list[str] = [""]
    for word in shown.split(" "):
        longer = f"{wrapped[-1]} {word}".strip()
        if line_width(longer) <= width:
            wrapped[-1] = longer
            continue
        if wrapped[-1]:
            wrapped.append("")
        while line_width(word) > width:  # a word (or a text without spaces) that is wider than a line
            cut = next((n for n in range(len(word) - 1, 0, -1) if line_width(word[:n]) <= width), 1)
            wrapped[-1], word = word[:cut], word[cut:]
            wrapped.append("")
        wrapped[-1] = word
    if len(wrapped) > lines:
        last = wrapped[lines - 1]
        while last and line_width(last + "…") > width:
            last = last[:-1]
        wrapped = [*wrapped[: lines - 1], last.rstrip() + "…"]
    return wrapped


def _draw_cell(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, image: Image.Image, caption: str, place: tuple[int, int], cell: int
) -> None:
    left, top = place
    scale = min(cell / image.width, cell / image.height, 4.0)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    sheet.paste(image.convert("RGB").resize(size), (left + (cell - size[0]) // 2, top + (cell - size[1]) // 2))
    for number, line in enumerate(fit(caption, LINES, cell)):
        draw_line(draw, (left, top + cell + 2 + number * _LINE), line, "black")


def draw_line(draw: ImageDraw.ImageDraw, place: tuple[int, int], line: str, color: str) -> None:
    """Draws one line of text, its left upper corner at ``place``; every run of it in a font that has its characters."""
    left, top = place
    for piece, font in _pieces(line):
        draw.text((left, top), piece, fill=color, font=font)
        left += round(font.getlength(piece))


def line_width(line: str) -> float:
    """Returns how wide a line of text is drawn, in pixels."""
    return sum(font.getlength(piece) for piece, font in _pieces(line))


@functools.lru_cache(maxsize=4096)
def _pieces(line: str) -> list[tuple[str, ImageFont.FreeTypeFont]]:
    """Cuts a line into runs that one font can draw (right-to-left runs stay whole, so that they are shaped together)."""
    fonts = _fonts()
    pieces: list[tuple[str, ImageFont.FreeTypeFont]] = []
    for char in line:
        last = pieces[-1][1] if pieces else None
        covering = [font for font, table in fonts if ord(char) in table or _invisible(char)]
        font = last if last in covering or (last and not covering) else (covering or [fonts[0][0]])[0]
        assert font is not None
        if font is last:
            pieces[-1] = (pieces[-1][0] + char, font)
        else:
            pieces.append((char, font))
    return pieces


def _with_code_points(text: str) -> str:
    lacking = missing_glyphs(text)
    return "".join(f"U+{ord(char):04X} " if char in lacking else char for char in text) if lacking else text


def _invisible(char: str) -> bool:
    """True for spaces, controls, joiners and variation selectors: nothing to draw, whatever the font."""
    return char.isspace() or unicodedata.category(char) in ("Cf", "Cc") or "\ufe00" <= char <= "\ufe0f"


@functools.lru_cache(maxsize=1)
def _fonts() -> list[tuple[ImageFont.FreeTypeFont, frozenset[int]]]:
    """Returns the usable fonts, preferred ones first, with the code points each has (matplotlib brings DejaVu Sans)."""
    from fontTools.ttLib import TTFont
    from matplotlib import font_manager, get_data_path
    from PIL import ImageFont

    found = {Path(path).name: path for path in font_manager.findSystemFonts()}
    found["DejaVuSans.ttf"] = str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    others = sorted(name for name in found if name not in _PREFERRED and not any(part in name for part in _IGNORED_NAMES))
    fonts, covered = [], set[int]()
    for name in [*(name for name in _PREFERRED if name in found), *others]:
        try:
            with TTFont(found[name], fontNumber=0, lazy=True) as opened:
                table = frozenset(opened.getBestCmap() or ())
            if table - covered:  # a font that adds nothing is not opened
                fonts.append((ImageFont.truetype(found[name], FONT_SIZE), table))
                covered |= table
        except Exception:
            continue
    return fonts
