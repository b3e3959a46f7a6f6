"""ETTh1 of the Electricity Transformer data set: the local file, unmodified, as shards of one series.

The file is CC BY-ND: it is read where the user has put it and never part of this project; shards made of it stay in the user's cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modalign.zoo.errors import AssetError

from ..record import sha256_of

SHA256 = "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066"
SOURCE = "ETT-small/ETTh1.csv of zhouhaoyi/ETDataset (CC BY-ND 4.0)"


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Writes the one series.

    Args:
        sources: The folder with ``ETTh1.csv`` under ``"local"``.
        out: The folder to fill.

    Raises:
        AssetError: If the file is not the published one.
    """
    from ...series.series_set import SeriesSet
    from ...series.stored import write_series

    file = sources["local"] / "ETTh1.csv"
    found = sha256_of(file)
    if found != SHA256:
        raise AssetError(
            f"{file}: its sha256 is {found}, that of the published file {SHA256}; get ETT-small/ETTh1.csv unmodified"
        )
    write_series(SeriesSet.open(str(file)).series, out, source=SOURCE)
