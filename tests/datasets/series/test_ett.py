"""ETTh1 as it was published, against the protocol's facts."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from modalign.datasets.assets import catalogue
from modalign.datasets.assets.converters import etth1
from modalign.datasets.assets.fetch import fetch
from modalign.datasets.series.series_set import SeriesSet
from modalign.zoo.errors import AssetError

ROOT = Path(__file__).resolve().parents[3]
FACTS = json.loads((ROOT / "tests/golden/time_series/ett_protocol.json").read_text())["ETTh1"]


@pytest.fixture(scope="module")
def file():
    data = Path(os.environ.get("MODALIGN_DATA") or ROOT / ".." / "shared" / "data")
    path = data / "ett" / "ETTh1.csv"
    if not path.is_file():
        pytest.skip("ETTh1.csv is not in ../shared/data/ett nor in MODALIGN_DATA/ett")
    return path


def test_the_facts_of_the_protocol(file):
    found = SeriesSet.open(str(file))
    (one,) = found.series
    assert [*FACTS["columns"]] == ["date", *found.columns] and len(one) == FACTS["rows"] == 17420
    assert found.frequency == "h" and FACTS["step"] == ["0 days 01:00:00"] and found.notes == []
    assert [str(time)[:19].replace("T", " ") for time in one.times()[[0, -1]]] == [FACTS["first"], FACTS["last"]]
    assert int(np.isnan(one.values).sum()) == FACTS["nan"] == 0 and len(np.unique(one.times())) == FACTS["rows"]
    train = one.values[:8640]
    np.testing.assert_allclose(train.mean(axis=0), FACTS["mean"], rtol=1e-12)
    np.testing.assert_allclose(train.std(axis=0), FACTS["std"], rtol=1e-12)
    first, last = (str(one.times()[row])[:19].replace("T", " ") for row in (11520, 14399))
    assert (first, last) == (FACTS["first_test_target_date"], FACTS["last_test_target_date"])
    scaled = (one.values[11520] - FACTS["mean"]) / FACTS["std"]
    np.testing.assert_allclose(scaled, FACTS["first_test_y_row0"], rtol=1e-12)
    assert FACTS["rows"] - 14400 == FACTS["rows_unused_at_end"]


def test_the_asset_is_the_file_and_nothing_else(file, tmp_path, monkeypatch):
    assert hashlib.sha256(file.read_bytes()).hexdigest() == FACTS["sha256"] == etth1.SHA256
    monkeypatch.setenv("MODALIGN_DATA", str(file.parents[1]))
    fetch(catalogue.find("etth1"))
    packed = SeriesSet.open("asset:etth1")
    assert packed.fingerprint == SeriesSet.open(str(file)).fingerprint and packed.series[0].key == "ETTh1"


def test_another_file_under_its_name_is_refused(tmp_path):
    (tmp_path / "ETTh1.csv").write_text("date,OT\n2016-07-01,1\n2016-07-02,2\n")
    with pytest.raises(AssetError, match=f"that of the published file {FACTS['sha256']}"):
        etth1.convert({"local": tmp_path}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
