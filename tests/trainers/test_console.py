"""What is printed is printed as it is: captions, names and messages may hold brackets that other consoles take for commands."""

import pytest

from modalign.trainers import loggers
from modalign.trainers.console import console, print_table, track, warn

HOSTILE = "a [red]fox[/] [/x] [link=file:///etc/passwd]here[/link] [/]"


def test_tables_and_lines_keep_brackets(capsys):
    print_table(HOSTILE, ("caption",), [(HOSTILE,)])
    console.print(HOSTILE)
    warn(HOSTILE)
    assert capsys.readouterr().out.count(HOSTILE) == 4
    assert list(track(range(8), 8, HOSTILE)) == list(range(8))
    assert HOSTILE in capsys.readouterr().out


def test_a_tracker_s_message_keeps_brackets(capsys):
    class Inner:
        def log_metrics(self, *args, **kwargs):
            raise ConnectionError(HOSTILE)

    logger = loggers.Guarded("tracker", Inner())
    logger.log_metrics({"loss": 1.0}, step=1)
    logger.log_metrics({"loss": 1.0}, step=2)
    assert capsys.readouterr().out.count(HOSTILE) == 1


@pytest.mark.parametrize("command", ["search", "show"])
def test_captions_with_brackets(command, tmp_path, tiny_model, own_home, capsys):
    from PIL import Image

    from modalign.datasets.shards.writer import write_shards
    from modalign.trainers.cli import main
    from modalign.zoo.checkpoints.release import save_release
    from modalign.zoo.registry import FAMILIES

    (tmp_path / "a.png").parent.mkdir(exist_ok=True)
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    samples = [
        {"key": f"k{n}", "image": (tmp_path / "a.png").read_bytes(), "image_ext": "png", "captions": {"en": [HOSTILE]}}
        for n in range(3)
    ]
    write_shards(samples, tmp_path / "shards")
    sheet = str(tmp_path / "sheet.png")
    if command == "show":
        assert main(["data", "show", str(tmp_path / "shards"), "--out", sheet]) == 0
        return
    save_release(FAMILIES.get("proclip").from_settings({k: v for k, v in tiny_model.items() if k != "family"}), tmp_path / "m")
    assert main(["search", str(tmp_path / "m"), HOSTILE, "--data", str(tmp_path / "shards"), "--out", sheet]) == 0
    assert HOSTILE in capsys.readouterr().out
