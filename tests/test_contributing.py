"""The worked examples of CONTRIBUTING.md: every file it shows is written, every command it shows is run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


@pytest.fixture
def package(tmp_path):
    """A folder with everything the page shows."""
    from PIL import Image

    for block in [*blocks("python"), *blocks("yaml")]:
        name = re.match(r"# (\S+)", block).group(1)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(block, encoding="utf-8")
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid" / "colour_grid.json").write_text(blocks("json")[0])
    (tmp_path / "pairs.csv").write_text(blocks("csv")[0], encoding="utf-8")
    for colour in ("red", "blue"):
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"{colour}.png")
    return tmp_path


def run(arguments, folder):
    command = [sys.executable, "-m", "modalign.trainers.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.timeout(280)
def test_the_examples_work_together(package):
    assert {"losses.py", "encoders.py", "families.py", "forecasters.py", "__init__.py"} == {
        path.name for path in (package / "my_pkg").glob("*.py")
    }
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    assert [line.split()[1] for line in lines] == ["data", "train", "-c", "train", "forecast"]
    for line in lines:
        if line.startswith("python "):
            subprocess.run(["bash", "-c", line.replace("python", shlex.quote(sys.executable), 1)], cwd=package, check=True)
            continue
        done = run(shlex.split(line)[1:], package)
        assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    forecast = (package / "forecast.csv").read_text().splitlines()
    assert forecast[0] == "row,up,down" and [line.split(",")[0] for line in forecast[1:]] == ["200", "201", "202"]
    assert "fixed_scale" in (package / "runs" / "my_recipe" / "release" / "config.json").read_text()
    metrics = (package / "runs" / "my_recipe" / "metrics.csv").read_text()
    assert "loss/cosine" in metrics

    # the release loads by itself, where its package is imported
    code = (
        "import my_pkg, torch\nfrom PIL import Image\nfrom modalign import zoo\n"
        "model = zoo.load('./runs/my_recipe')\nassert abs(model.logit_scale.item() - 2.6593) < 1e-3\n"
        "print(model.encode_image([Image.open('red.png')]).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=package, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "torch.Size([1, 32])", done.stderr[-3000:]


def test_without_permission_no_code_runs(package):
    done = run(["train", "my_recipe.yaml"], package)
    assert done.returncode == 2 and "fixed_scale" in done.stderr
    done = run(["train", "my_recipe.yaml", "--allow_module", "my_pkgg"], package)
    assert done.returncode == 2 and "no module named" in done.stderr.lower()
