"""The wheel holds everything: every folder with code, the recipes, the cards; and it runs from an empty folder."""

import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import setuptools
import yaml

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("zoo", "trainers", "datasets", "configs")
PARTS = (*FOLDERS, "pyproject.toml", "setup.py", "README.md", "LICENSE")


def files_of(ending):
    """Files of the shipped folders, as paths inside the wheel."""
    return {f"modalign/{path.relative_to(ROOT)}" for folder in FOLDERS for path in (ROOT / folder).rglob(f"*{ending}")}


def test_package_list_holds_every_folder_with_code(monkeypatch):
    seen = {}
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(setuptools, "setup", lambda **settings: seen.update(settings))
    runpy.run_path("setup.py")
    wanted = {str(Path(name).parent).replace("/", ".") for name in files_of(".py") | files_of(".yaml")}
    assert wanted <= set(seen["packages"]), sorted(wanted - set(seen["packages"]))
    assert {name.split(".")[0] for name in seen["packages"]} == {"modalign"}
    assert not [name for name in seen["packages"] if name.split(".")[1] not in FOLDERS], "neither tests nor benchmarks"
    for package, folder in seen["package_dir"].items():
        assert (ROOT / folder).is_dir(), package


def test_datasets_has_no_init_at_its_top():
    """With one, `import datasets` from the root would find this folder instead of Hugging Face's package."""
    assert not (ROOT / "datasets" / "__init__.py").exists()


def run(*command, cwd, **environment):
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=kept | environment, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built in an environment of its own from a copy of the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "tree").mkdir()
    for part in PARTS:
        source, target = ROOT / part, folder / "tree" / part
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    code, out, error = run(sys.executable, "-m", "build", "--wheel", "--outdir", folder / "dist", folder / "tree", cwd=folder)
    if code and "setuptools>=" in out + error and "No matching distribution" in out + error:
        pytest.skip("the build tools cannot be fetched here")
    assert code == 0, (out + error)[-3000:]
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Python of a new environment with the wheel and, behind it, the packages of this one but not its editable install."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    code, out, error = run(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder
    )
    assert code == 0, (out + error)[-3000:]
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    # a folder that is named in a .pth file is searched, but its own .pth files, the editable finder among them, are not run
    (site / "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture
def empty(tmp_path):
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


@pytest.mark.slow
def test_wheel_holds_code_recipes_and_cards_only(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for ending in (".py", ".yaml"):
        assert files_of(ending) <= names, sorted(files_of(ending) - names)
    cards = {name for name in files_of(".md") if name.startswith("modalign/zoo/")}
    assert cards <= names, sorted(cards - names)
    strangers = [name for name in names if not name.startswith(("modalign/", "modalign-"))]
    assert not strangers, "nothing is installed beside the one import package"
    assert "modalign/datasets/__init__.py" not in names
    assert "modalign/__init__.py" not in names
    assert not [name for name in names if "__pycache__" in name]


@pytest.mark.slow
def test_modules_are_the_wheels(installed, empty):
    program = (
        "import modalign.datasets.loading.loader, modalign.datasets.assets.lookup, modalign.trainers.run, modalign.zoo as z\n"
        "import modalign.zoo.families.proclip.model as p, sys\n"
        "print(*sorted({m.__file__ for n, m in sys.modules.items() if n.startswith('modalign.') and m.__file__}), sep='\\n')\n"
        "from modalign.zoo.names import local_folder, parse_name\n"
        "from importlib.metadata import entry_points\n"
        "assert [e.name for e in entry_points(group='modalign.names')] == ['asset']\n"
    )
    code, out, error = run(installed, "-c", program, cwd=empty)
    assert code == 0, error[-3000:]
    site = str(installed.parents[1] / "lib")
    assert len(out.splitlines()) > 20
    assert [line for line in out.splitlines() if not line.startswith(site)] == []


@pytest.mark.slow
def test_commands_run_from_an_empty_folder(installed, empty):
    modalign = installed.parent / "modalign"
    code, out, error = run(modalign, "zoo", "list", cwd=empty, MODALIGN_HOME=str(empty / "home"))
    assert code == 0, error[-3000:]
    recipes = {str(path.relative_to(ROOT / "configs").with_suffix("")) for path in (ROOT / "configs").glob("*/*.yaml")}
    assert recipes
    for name in ("family:proclip", "loss:clip", "projector:linear", *(f"recipe:{recipe}" for recipe in recipes)):
        assert name in out, name
    for recipe in sorted(recipes):
        code, out, error = run(modalign, "train", recipe, "--print_config", cwd=empty, MODALIGN_HOME=str(empty / "home"))
        if "model" in yaml.safe_load((ROOT / "configs" / f"{recipe}.yaml").read_text()):
            assert code == 0, f"{recipe}: {error[-3000:]}"
            assert yaml.safe_load(out)["stages"], recipe
        else:
            assert (code, "init_from" in error) == (2, True), f"{recipe} starts from a release and has to say so: {error[-3000:]}"
    code, out, error = run(modalign, "zoo", "show", "proclip", cwd=empty)
    assert code == 0, error[-3000:]
    assert list(empty.iterdir()) == [], "none of them leaves anything behind"
