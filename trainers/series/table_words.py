"""What is wrong with data, in the words of who named it: a recipe has settings where a command has options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from modalign.zoo.errors import AssemblyError, DataError, RecipeError

_LISTS = {"ignore": "ignore", "missing": "missing_marks"}
_OF_PACKING = re.compile(r"--(decimal|delimiter|variable|value)\b")
_PACK = " (an option of modalign data series: pack the table with it, and take the shards)"
_OPTIONS = "target|past|known|split|anomaly|mask_rate|time_format|time|id|layout|frequency|ignore"


@contextmanager
def table_words(*, recipe: bool) -> Iterator[None]:
    """Rewrites names of settings in the message of an error.

    Args:
        recipe: `--ignore 'note'` becomes `data.series.ignore: [note]`; otherwise `data.series.target` becomes `--target`. Of options that
            packing alone has it is said so either way.
    """
    try:
        yield
    except (AssemblyError, DataError, RecipeError) as error:
        said = str(error)
        told = _as_settings(said) if recipe else _as_options(said)
        if _OF_PACKING.search(told) and _PACK not in told:
            told += _PACK
        if told == said or type(error) not in (AssemblyError, DataError, RecipeError):  # others hold more than their message
            raise
        raise type(error)(told) from None


def _as_settings(text: str) -> str:
    text = re.sub(r"--(ignore|missing) '([^']*)'", lambda found: f"data.series.{_LISTS[found[1]]}: [{found[2]}]", text)
    text = re.sub(r"--(ignore|missing)\b", lambda found: f"data.series.{_LISTS[found[1]]}", text)
    return re.sub(r"--(time_format|time|id|label|layout|frequency|static)\b", r"data.series.\1", text)


def _as_options(text: str) -> str:
    text = re.sub(r"--(\w+) \(data\.series\.\1\)", r"--\1", text)  # said both ways already
    text = re.sub(r"\bdata\.series\.missing_marks\b", "--missing", text)
    return re.sub(rf"\bdata\.series\.({_OPTIONS})\b", r"--\1", text)
