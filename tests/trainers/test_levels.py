"""`modalign data levels`: buckets by two rules, the file it writes, and the trainer that reads it."""

import io
import json

import numpy as np
import pytest
import torch

from modalign import zoo
from modalign.datasets.shards import ShardSet
from modalign.datasets.shards.writer import write_shards
from modalign.trainers.cli import main
from modalign.trainers.commands.levels import by_count, by_width, similarities
from modalign.trainers.dialogue.levels import read_levels
from modalign.zoo.checkpoints.release import save_release
from modalign.zoo.errors import DataError
from modalign.zoo.registry import FAMILIES


@pytest.fixture(scope="module")
def clip_release(tmp_path_factory):
    """A tiny CLIP."""
    torch.manual_seed(0)
    settings = {
        "embed_dim": 16,
        "image": {"name": "timm:test_efficientnet", "image_size": 32, "pretrained": False},
        "text_tower": {"context_length": 12, "width": 16, "heads": 2, "layers": 1, "embed_dim": 16},
        "text_projector": None,
    }
    return save_release(FAMILIES.get("clip").from_settings(settings), tmp_path_factory.mktemp("clip") / "release")


def drawn(count, seed=0):
    return {f"k{number:03d}": float(score) for number, score in enumerate(np.random.default_rng(seed).normal(size=count))}


def sizes(found, levels):
    return [list(found.values()).count(level) for level in range(levels)]


@pytest.mark.parametrize("count", [8, 9, 15, 16, 100, 1001])
@pytest.mark.parametrize("levels", [2, 3, 8])
def test_by_count_sizes_differ_by_one_and_levels_rise(count, levels):
    scores = drawn(count)
    found, edges = by_count(scores, levels)
    assert max(sizes(found, levels)) - min(sizes(found, levels)) <= 1 and min(sizes(found, levels)) >= 1
    order = sorted(scores, key=scores.get)
    assert [found[key] for key in order] == sorted(found.values())
    for level in range(levels):
        assert edges[level] == min(scores[key] for key in scores if found[key] == level)
    assert edges[levels] == max(scores.values())


def test_ties_go_by_key():
    scores = {key: 0.5 for key in ("d", "b", "a", "c")}
    assert by_count(scores, 2)[0] == {"a": 0, "b": 0, "c": 1, "d": 1}


def test_by_width_divides_the_range():
    scores = {"a": 0.0, "b": 0.24, "c": 0.26, "d": 0.5, "e": 0.99, "f": 1.0}
    found, edges = by_width(scores, 4)
    assert found == {"a": 0, "b": 0, "c": 1, "d": 2, "e": 3, "f": 3}
    assert edges == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize("rule", [by_count, by_width])
def test_order_of_the_samples_does_not_matter(rule):
    scores = drawn(50)
    turned = dict(reversed(scores.items()))
    assert rule(scores, 8)[0] == rule(turned, 8)[0] and rule(scores, 8)[1] == rule(turned, 8)[1]


def test_what_cannot_be_divided():
    with pytest.raises(DataError, match="7 samples do not fill 8 levels"):
        by_count(drawn(7), 8)
    with pytest.raises(DataError, match="all 3 similarities are the same"):
        by_width({"a": 0.1, "b": 0.1, "c": 0.1}, 8)


def test_similarity_is_the_cosine_of_picture_and_first_caption(clip_release, tiny_shards, picture_of):
    model = zoo.load(clip_release)
    found = similarities(model, ShardSet(tiny_shards), ["de", "en"])
    assert [*found] == [f"k{number:03d}" for number in range(50)]
    for number in (3, 20):
        picture = model.encode_image([picture_of(number)])[0]
        text = model.encode_text([f"Ding Nummer {number}"])[0]
        assert found[f"k{number:03d}"] == pytest.approx(float(picture @ text), abs=1e-5)
    english = similarities(model, ShardSet(tiny_shards), ["en"])
    expected = model.encode_image([picture_of(3)])[0] @ model.encode_text(["thing number 3"])[0]
    assert english["k003"] == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("by", ["count", "width"])
def test_the_command_writes_what_the_trainer_reads(by, clip_release, tiny_shards, tmp_path, capsys):
    out = tmp_path / "new" / "levels.json"
    call = ["data", "levels", str(tiny_shards), "--model", str(clip_release), "--out", str(out), "--by", by, "--languages", "en"]
    assert main([*call, "--levels", "6"]) == 0
    assert "50 samples in 6 levels" in " ".join(capsys.readouterr().out.split())
    content = json.loads(out.read_text())
    assert {*content} == {"levels", "edges", "model", "data", "by"} and content["by"] == by and len(content["edges"]) == 7
    assert content["data"] == str(tiny_shards) and content["model"] == str(clip_release)
    found = read_levels(str(out))
    scores = similarities(zoo.load(clip_release), ShardSet(tiny_shards), ["en"])
    assert found == (by_count if by == "count" else by_width)(scores, 6)[0]


def test_a_sample_without_a_caption_is_named(clip_release, tmp_path, picture_of):
    def samples():
        for number in range(3):
            stream = io.BytesIO()
            picture_of(number).save(stream, "PNG")
            captions = {"de": ["Ding"]} if number == 1 else {"en": ["thing"], "de": ["Ding"]}
            yield {"key": f"k{number}", "image": stream.getvalue(), "image_ext": "png", "captions": captions}

    write_shards(samples(), tmp_path / "shards")
    with pytest.raises(DataError, match="sample 'k1' has no caption in en"):
        similarities(zoo.load(clip_release), ShardSet(tmp_path / "shards"), ["en"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--levels", "1"], "--levels 1: there must be 2 or more"),
        (["--out", "levels.txt"], "--out levels.txt: levels are written as a .json file"),
        (["--by", "size"], "--by"),
        (["--languages", "fr"], "no caption in 'fr'"),
    ],
)
def test_mistakes_get_one_sentence(arguments, said, clip_release, tiny_shards, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "levels", str(tiny_shards), "--model", str(clip_release), *arguments]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert said in error and "Traceback" not in error


def test_only_models_of_pairs(tmp_path, tiny_shards, capsys):
    release = save_release(FAMILIES.get("patchtst").from_settings({"look_back": 96, "horizon": 2}), tmp_path / "release")
    assert main(["data", "levels", str(tiny_shards), "--model", str(release)]) == 2
    assert "modalign data levels: this patchtst is a model of time series" in " ".join(capsys.readouterr().err.split())
