"""Small pictures on disk, and samples made of nothing but their JSON."""

import json

import pytest
from PIL import Image

from modalign.datasets.decoding.sample import Sample, decode_sample
from modalign.datasets.packing.pack import pack
from modalign.datasets.shards import ShardSet

SIZES = {"a.png": (40, 30), "b.jpg": (20, 50), "sub/c.png": (16, 16)}


@pytest.fixture
def photos(tmp_path):
    """A folder with three pictures of known sizes."""
    folder = tmp_path / "photos"
    for number, (name, size) in enumerate(SIZES.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (40 * number, 90, 200)).save(path)
    return folder


@pytest.fixture
def sample():
    """Makes a decoded sample with pictures of 40x30 and 20x50 pixels (as many as asked for) and these fields."""

    def make(meta, pictures=1, **extras):
        images = [Image.new("RGB", size) for size in ((40, 30), (20, 50))[:pictures]]
        return Sample("k", images, meta=meta, extras={name.replace("_", "."): value for name, value in extras.items()})

    return make


@pytest.fixture
def packed(tmp_path):
    """Writes content as JSON (or JSON lines), packs it and returns the decoded samples by key, with the manifest's task."""

    def run(content, name="in.json", **settings):
        path = tmp_path / name
        lines = name.endswith("l")
        path.write_text("\n".join(map(json.dumps, content)) if lines else json.dumps(content), encoding="utf-8")
        out = tmp_path / f"out-{len(list(tmp_path.glob('out-*')))}"
        pack(str(path), str(out), **settings)
        shards = ShardSet(out)
        return {raw.key: decode_sample(raw) for raw in shards.samples()}, shards.manifest.task

    return run
