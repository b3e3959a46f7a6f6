"""Shards of ours in others' hands: plain webdataset of both generations, and open_clip's own trainer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modalign.datasets.shards.writer import write_shards

from .test_foreign import jpeg

OLD = "0.2.86"  # the last that open_clip 3.3.0's trainer reads with

WRITE = """
import json, sys, webdataset
from importlib.metadata import version
from modalign.datasets.shards.writer import write_shards
from modalign.datasets.shards import ShardSet
from modalign.datasets.commands.bench import bench
samples = [{**one, "image": bytes.fromhex(one["image"])} for one in json.load(open(sys.argv[1]))]
write_shards(samples, sys.argv[2], samples_per_shard=7)
print(webdataset.__version__, len([raw for raw in ShardSet(sys.argv[2]).samples()]))
bench(sys.argv[2], n=20, size=16, batch_size=4, rounds=1)
"""

READ = """
import glob, json, sys, webdataset
tars = sorted(glob.glob(sys.argv[1] + "/*.tar"))
found = []
for sample in webdataset.WebDataset(tars, shardshuffle=False).decode("pil"):
    members = sorted(name for name in sample if name[0] != "_")
    found.append([sample["__key__"], sample["txt"], sample["json"]["captions"], list(sample["jpg"].size), members])
pairs = webdataset.WebDataset(tars, shardshuffle=False).decode("pil").to_tuple("jpg", "txt")
batches = list(pairs.map_tuple(lambda picture: picture.size, str).batched(4))
print(json.dumps({"version": webdataset.__version__, "found": found, "batches": [len(batch[1]) for batch in batches]}))
"""

OPEN_CLIP = """
import sys
from open_clip_train.main import main
main(sys.argv[1:])
"""


def installed(folder, *packages):
    """A folder with packages of their own, to be put in front of what is installed."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "--no-deps",
        "--timeout",
        "15",
        "--retries",
        "1",
    ]
    done = subprocess.run([*command, "--target", str(folder), *packages], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(
            f"pip cannot deliver {' '.join(packages)}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else '?'}"
        )
    return folder


@pytest.fixture(scope="module")
def old_webdataset(tmp_path_factory):
    return installed(tmp_path_factory.mktemp("old"), f"webdataset=={OLD}")


@pytest.fixture(params=["installed", OLD])
def packages(request):
    return "" if request.param == "installed" else str(request.getfixturevalue("old_webdataset"))


def run(program, *arguments, packages="", cwd=None):
    environment = {**os.environ, "PYTHONPATH": packages, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def made(count):
    for number in range(count):
        captions = {"en": [f"caption {number}", "other"], "de": [f"Straße {number}"]}
        yield {"key": f"k{number:03d}", "image": jpeg(number), "image_ext": "jpg", "captions": captions}


def test_plain_webdataset_reads_ours(tmp_path, packages):
    write_shards(made(20), tmp_path / "s", samples_per_shard=7)
    found = json.loads(run(READ, tmp_path / "s", packages=packages))
    assert (found["version"] == OLD) == bool(packages)
    assert found["batches"] == [4] * 5
    assert found["found"] == [
        [one["key"], one["captions"]["en"][0], one["captions"], [20, 16], ["jpg", "json", "txt"]] for one in made(20)
    ]


def test_either_webdataset_writes_the_same_bytes(tmp_path, packages):
    """What of webdataset we use (its writer, and its reader in `data bench`) is there in both generations."""
    write_shards(made(20), tmp_path / "here", samples_per_shard=7)
    (tmp_path / "samples.json").write_text(json.dumps([{**one, "image": one["image"].hex()} for one in made(20)]))
    out = run(WRITE, tmp_path / "samples.json", tmp_path / "there", packages=packages)
    assert out.split()[1] == "20" and (out.split()[0] == OLD) == bool(packages) and "webdataset, read" in out
    names = sorted(path.name for path in (tmp_path / "here").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "there").iterdir())
    assert all((tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes() for name in names)


@pytest.mark.slow
def test_open_clip_trains_on_ours(tmp_path, tmp_path_factory):
    """`open_clip_train` as it comes, in an environment with the webdataset and pandas that it wants."""
    packages = installed(
        tmp_path_factory.mktemp("open_clip"), f"webdataset=={OLD}", "pandas", "python-dateutil", "pytz", "tzdata", "six"
    )
    write_shards(made(64), tmp_path / "s", samples_per_shard=16)
    tower = {"layers": 1, "width": 32}
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "head_width": 16, **tower},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "heads": 2, **tower},
    }
    program = f"import json, open_clip\nfrom pathlib import Path\nopen_clip.add_model_config(Path('tiny.json'))\n{OPEN_CLIP}"
    (tmp_path / "tiny.json").write_text(json.dumps(config))
    shards = f"{tmp_path}/s/{{000000..000003}}.tar"
    arguments = [
        "--dataset-type",
        "webdataset",
        "--train-data",
        shards,
        "--train-num-samples",
        "64",
        "--model",
        "tiny",
        "--device",
        "cpu",
    ]
    arguments += [
        "--epochs",
        "1",
        "--batch-size",
        "8",
        "--workers",
        "1",
        "--precision",
        "fp32",
        "--warmup",
        "1",
        "--name",
        "tiny",
    ]
    arguments += ["--logs", str(tmp_path / "logs")]
    run(program, *arguments, packages=str(packages), cwd=tmp_path)
    log = (tmp_path / "logs" / "tiny" / "out.log").read_text()
    assert "[64/64 (100%)]" in log and "Contrastive_loss" in log
    assert Path(tmp_path / "logs" / "tiny" / "checkpoints" / "epoch_1.pt").is_file()
