"""Names, the table and the commands."""

import re
import subprocess
import sys

import pytest

from modalign.datasets.assets import catalogue, commands, lookup
from modalign.datasets.assets.fetch import fetch
from modalign.zoo.errors import AssetError


def test_catalogue_is_whole():
    assert len(catalogue.CATALOGUE) == len(catalogue._ASSETS)
    for asset in catalogue.CATALOGUE.values():
        assert asset.what and asset.licence and asset.files
        assert asset.packages or asset.raw, f"{asset.name} has no source without a hub"
        for package in asset.packages:
            assert re.fullmatch(r"[0-9a-f]{64}", package.sha256)
            assert re.fullmatch(r"[0-9][0-9a-z.+-]*", package.version) and package.members


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(AssetError, match="did you mean 'openmoji'"):
        catalogue.find("openemoji")
    with pytest.raises(AssetError, match="no asset 'opnmoji'; did you mean 'openmoji'"):
        lookup.folder_of("opnmoji/train")
    with pytest.raises(AssetError, match=r"known: .*smollm2"):
        commands.where("zzz")


def test_part_of_an_asset(toy):
    folder = fetch(toy)
    assert lookup.folder_of("toy/part") == (folder / "part").resolve()
    with pytest.raises(AssetError, match="'toy' has no folder 'prt'; did you mean 'part'"):
        lookup.folder_of("toy/prt")
    with pytest.raises(AssetError, match="has no folder"):
        lookup.folder_of("toy/../..")


def test_where_fetches_nothing(toy, capsys):
    with pytest.raises(AssetError, match="modalign assets get toy"):
        commands.where("toy")
    folder = fetch(toy)
    commands.where("toy")
    assert capsys.readouterr().out.splitlines()[-1] == str(folder)


def test_get_prints_the_folder(toy, home, capsys):
    commands.get("toy")
    assert capsys.readouterr().out == f"{home / 'assets' / 'toy'}\n"


def test_get_all_takes_what_it_can(toy, home, monkeypatch, capsys):
    for name in list(catalogue.CATALOGUE):
        if name not in ("toy", "flickr8k_multilingual"):
            monkeypatch.delitem(catalogue.CATALOGUE, name)
    with pytest.raises(AssetError, match="left out: flickr8k_multilingual"):
        commands.get("all")
    captured = capsys.readouterr()
    assert captured.out == f"{home / 'assets' / 'toy'}\n"


def test_list_shows_the_state(toy, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")

    def row(name):
        commands.list_assets()
        return next(line for line in capsys.readouterr().out.splitlines() if f" {name} " in line)

    assert "absent" in row("toy")
    folder = fetch(toy)
    assert "present" in row("toy") and "CC0-1.0" in row("toy")
    (folder / "big.txt").unlink()
    assert "damaged" in row("toy")


def test_list_imports_nothing_heavy():
    script = "import sys; from modalign.datasets.assets import commands; commands.list_assets(); "
    script += "print(sorted({'torch', 'transformers', 'timm', 'huggingface_hub', 'webdataset', 'numpy'} & set(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"
