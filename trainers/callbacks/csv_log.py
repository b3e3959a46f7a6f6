"""metrics.csv: one file per run that survives interruption; a resumed run cuts off what it does again and goes on."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class CsvLog(Logger):
    """A Lightning logger that keeps `stage, step, ...` rows of all stages in one file.

    Lightning's own CSVLogger deletes what an earlier process wrote.

    Args:
        path: The file.
        stage: Name of the stage that logs now.
    """

    def __init__(self, path: Path, stage: str) -> None:
        super().__init__()
        self.path, self.stage = path, stage
        self.rows: list[dict[str, Any]] = _read(path)
        self._header: list[str] = []  # columns of the file as it is; empty means it must be written anew
        self._written = 0

    @property
    def name(self) -> str:
        """Required by Lightning."""
        return self.stage

    @property
    def version(self) -> str:
        """Required by Lightning."""
        return ""

    @property
    def save_dir(self) -> str:
        """Where Lightning may put other files of this logger."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the resolved recipe is saved with the run."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Adds a row; written to disk every few rows, before every checkpoint and at the end."""
        values = {key: f"{float(value):.6g}" for key, value in metrics.items() if key != "epoch"}
        self.rows.append({"stage": self.stage, "step": str(step if step is not None else 0), **values})
        if len(self.rows) - self._written >= 20:
            self.save()

    def cut(self, step: int) -> None:
        """Forgets this stage's rows after a step: they will be made again."""
        self.rows = [row for row in self.rows if row["stage"] != self.stage or int(row["step"]) <= step]
        self._header = []

    @rank_zero_only
    def save(self) -> None:
        """Appends the new rows; a new column rewrites the file, all or nothing."""
        new = self.rows[self._written :] if self._header else self.rows
        if not new:
            return
        columns = list(dict.fromkeys([*self._header, *(key for row in new for key in row)]))
        if columns == self._header:
            with self.path.open("a", newline="") as stream:
                csv.DictWriter(stream, columns).writerows(new)
        else:
            self._rewrite(columns)
        self._header, self._written = columns, len(self.rows)

    def _rewrite(self, columns: list[str]) -> None:
        staging = self.path.with_name(f"{self.path.name}.tmp-{os.getpid()}")
        with staging.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(staging, self.path)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes the last rows."""
        self.save()


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]  # a killed process may leave half a line
    return [{key: value for key, value in row.items() if value} for row in csv.DictReader(whole)]
