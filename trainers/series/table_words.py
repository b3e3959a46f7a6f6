"""What is wrong with a table, in the words of who named it: a recipe has settings where `modalign data series` has options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from modalign.zoo.errors import DataError

_LISTS = {"ignore": "ignore", "missing": "missing_marks"}
_OF_PACKING = re.compile(r"--(decimal|delimiter|variable|value)\b")


@contextmanager
def table_words(*, recipe: bool) -> Iterator[None]:
    """Rewrites options in the message of a `DataError`.

    Args:
        recipe: `--ignore 'note'` becomes `data.series.ignore: [note]`; otherwise only options that packing alone has are pointed to.
    """
    try:
        yield
    except DataError as error:
        said = told = str(error)
        if recipe:
            told = re.sub(r"--(ignore|missing) '([^']*)'", lambda found: f"data.series.{_LISTS[found[1]]}: [{found[2]}]", told)
            told = re.sub(r"--(ignore|missing)\b", lambda found: f"data.series.{_LISTS[found[1]]}", told)
            told = re.sub(r"--(time_format|time|id|label|layout|frequency|static)\b", r"data.series.\1", told)
        if _OF_PACKING.search(told):
            told += " (an option of modalign data series: pack the table with it, and take the shards)"
        if told == said:
            raise
        raise DataError(told) from None
