"""Rules of the tree that no single file can check: who imports whom, sizes, documentation, and what must not be in it."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from modalign.zoo.registry import FAMILIES, LOSSES, METRICS, PROJECTORS

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("zoo", "trainers", "datasets")
FORBIDDEN = {"zoo": ("trainers", "datasets"), "datasets": ("trainers",), "trainers": ()}
MAX_FILE, MAX_FUNCTION = 400, 80


def sources(*folders):
    files = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    assert files
    return files


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path, tree, root=ROOT):
    """(line, level, full module name) of every import; relative ones are resolved to `modalign.…`."""
    here = ["modalign", *path.relative_to(root).parent.parts]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, 0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            module = [*base, *((node.module or "").split(".") if node.module else [])]
            if node.level and len(base) < 1:
                raise AssertionError(f"{path}:{node.lineno}: the relative import leaves the package")
            for alias in node.names:  # `from modalign import zoo` names its module in the alias
                yield node.lineno, node.level, ".".join([*module, alias.name])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                level = 1 if node.args[0].value.startswith(".") else 0
                yield node.lineno, level, node.args[0].value


def broken_rules(path, tree, root=ROOT):
    """What a file's imports do against the rules, as lines to read."""
    folder = path.relative_to(root).parts[0]
    for line, level, name in imported(path, tree, root):
        where = f"{path.relative_to(root)}:{line}"
        for other in FORBIDDEN[folder]:
            if name == f"modalign.{other}" or name.startswith(f"modalign.{other}."):
                yield f"{where}: {folder} must not import {name}"
        own = name == f"modalign.{folder}" or name.startswith(f"modalign.{folder}.")
        if own and not level:
            yield f"{where}: inside {folder} imports are relative, not {name}"
        if level and name.startswith("modalign") and not own:
            yield f"{where}: across folders imports are absolute: {name}"
        if name.split(".")[0] in ("zoo", "trainers", "configs"):
            yield f"{where}: {name} is imported as modalign.{name}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_import_rules(folder):
    broken = [line for path in sources(folder) for line in broken_rules(path, tree_of(path))]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("file", "line", "found"),
    [
        ("zoo/a.py", "from modalign.datasets import x", "must not import"),
        ("zoo/a.py", "import modalign.trainers.cli", "must not import"),
        ("zoo/a.py", "from modalign import datasets", "must not import"),
        ("zoo/a/b.py", "from ...datasets import x", "must not import"),
        ("zoo/a.py", "def f():\n    from modalign.trainers import x", "must not import"),
        ("zoo/a.py", "import_module('modalign.datasets.packing.pack')", "must not import"),
        ("datasets/a.py", "from modalign.trainers.task import x", "must not import"),
        ("datasets/a.py", "from modalign.datasets.loading.order import x", "imports are relative"),
        ("trainers/a.py", "from ..zoo import x", "across folders imports are absolute"),
        ("trainers/a.py", "from zoo.errors import x", "is imported as modalign.zoo"),
        ("zoo/a/b.py", "from ..errors import x\nfrom .c import d\nimport datasets", None),
        ("datasets/a.py", "from modalign.zoo.errors import x\nfrom . import b", None),
        ("trainers/a.py", "from modalign.datasets.loading.loader import x\nfrom modalign import zoo", None),
    ],
)
def test_import_rules_are_seen_to_be_broken(file, line, found):
    broken = list(broken_rules(ROOT / file, ast.parse(line)))
    assert (not broken) if found is None else (broken and found in broken[0]), broken


def run_python(program, cwd, **environment):
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_datasets_from_the_root_finds_hugging_faces_package(tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("WHOSE = 'theirs'\n")
    program = (
        "import sys\n"
        f"root, site = sys.path.index(''), sys.path.index({str(tmp_path)!r})\n"
        "assert root < site, 'the root must come first, else nothing is tested'\n"
        "import datasets, modalign.datasets.loading.order\n"
        "print(datasets.WHOSE, modalign.datasets.loading.order.__name__)"
    )
    assert run_python(program, ROOT, PYTHONPATH=str(tmp_path)).split() == ["theirs", "modalign.datasets.loading.order"]


def lines_of(path, node):
    """Lines of a function; of a command those of its body: its signature and its docstring are its options and their help."""
    if (path.relative_to(ROOT).with_suffix("").as_posix(), node.name) in command_functions():
        return (node.end_lineno or 0) - node.body[0].end_lineno
    return (node.end_lineno or 0) - node.lineno + 1


def command_functions():
    from modalign.trainers.cli import COMMANDS

    return {(module.removeprefix("modalign.").replace(".", "/"), function) for module, function, *_ in COMMANDS.values()}


def test_files_and_functions_stay_short():
    long = []
    for path in sources(*FOLDERS):
        count = len(path.read_text(encoding="utf-8").splitlines())
        if count > MAX_FILE:
            long.append(f"{path.relative_to(ROOT)}: {count} lines")
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = lines_of(path, node)
                if length > MAX_FUNCTION:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has {length} lines")
    assert not long, "\n".join(long)


def public_definitions(body):
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body)


def is_overload(node):
    return any("overload" in ast.unparse(decorator) or ".setter" in ast.unparse(decorator) for decorator in node.decorator_list)


def test_everything_public_is_documented():
    bare = []
    for path in sources(*FOLDERS):
        tree = tree_of(path)
        if not ast.get_docstring(tree):
            bare.append(f"{path.relative_to(ROOT)}: the module")
        for node in public_definitions(tree.body):
            if not ast.get_docstring(node) and not is_overload(node):
                bare.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}")
    assert not bare, "\n".join(bare)


def tracked_texts():
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listing.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if b"\0" not in content[:8192]:
                yield name, content.decode("utf-8", errors="replace")


# written in pieces, so that this file does not hold what it looks for
PRIVATE = re.compile(r"(?<![\w.])/(?:wo" + r"rk|ro" + r"ot|ho" + r"me|Us" + r"ers|mnt|media)/(?!someone\b)[\w.-]+")
HOSTS = re.compile(
    "|".join(("py" + "pi\\.org", "python" + "hosted\\.org", "reg" + "istry\\.npmjs", "ana" + "conda\\.org", "crates" + "\\.io"))
)


@pytest.mark.parametrize(
    ("pattern", "what"),
    [(PRIVATE, "a folder of one machine"), (HOSTS, "a package registry's host")],
    ids=["machine", "registry"],
)
def test_tracked_files_name_no(pattern, what):
    found = [f"{name}: {match.group()}" for name, text in tracked_texts() for match in pattern.finditer(text)]
    assert not found, f"{what}:\n" + "\n".join(found)


def test_what_the_patterns_see():
    for text in ("/wo" + "rk/main", "open('/ro" + "ot/x')", "file:///ho" + "me/me"):
        assert PRIVATE.search(text), text
    for text in ("shards/wo" + "rk/x", "../ho" + "me/x", "https://example.org/ho" + "me/x"):
        assert not PRIVATE.search(text), text
    assert HOSTS.search("https://py" + "pi.org/simple")


@pytest.mark.parametrize("registry", [FAMILIES, PROJECTORS, LOSSES, METRICS], ids=lambda registry: registry.kind)
def test_every_registered_name_is_a_documented_class(registry):
    assert registry.names()
    for name in registry.names():
        cls = registry.get(name)
        assert isinstance(cls, type) or (registry is METRICS and callable(cls)), name  # metrics are functions
        assert (cls.__doc__ or "").strip(), name


HEAVY = ("torch", "transformers", "timm", "lightning", "matplotlib", "open_clip")
WITHOUT = "import sys\n{call}\nprint([name for name in HEAVY if name in sys.modules])".replace("HEAVY", repr(HEAVY))


@pytest.mark.parametrize(
    "call",
    [
        "import modalign.zoo, modalign.zoo.names, modalign.zoo.errors, modalign.zoo.registry",
        "from modalign.trainers.cli import main; assert main(['assets', 'list']) == 0",
        "from modalign.trainers.cli import main; assert main(['--help']) == 0",
    ],
    ids=["zoo", "assets-list", "help"],
)
def test_light_commands_import_nothing_heavy(call, tmp_path):
    out = run_python(WITHOUT.format(call=call), tmp_path, MODALIGN_HOME=str(tmp_path))
    assert out.splitlines()[-1] == "[]"


def test_zoo_names_are_there_on_first_use(tmp_path):
    import modalign.zoo

    for name in modalign.zoo.__all__:
        assert getattr(modalign.zoo, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = modalign.zoo.lod


def test_every_module_can_be_imported_first(tmp_path):
    """No circle of imports that only holds if somebody else was imported before."""
    names = [".".join(("modalign", *path.relative_to(ROOT).with_suffix("").parts)) for path in sources(*FOLDERS)]
    names = [name.removesuffix(".__init__") for name in names]
    program = (
        "import sys, importlib, torch, transformers, lightning.pytorch, open_clip\n"
        f"for name in {names!r}:\n"
        "    for other in [m for m in sys.modules if m.startswith('modalign.')]:\n"
        "        del sys.modules[other]\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except ImportError as error:\n"
        "        print(name, error)\n"
    )
    assert run_python(program, tmp_path) == ""
