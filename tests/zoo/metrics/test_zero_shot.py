"""Prompt ensembles, accuracy and templates."""

import json

import pytest
import torch
import torch.nn.functional as F

from modalign.zoo.errors import DataError
from modalign.zoo.metrics.templates import Templates, load_templates
from modalign.zoo.metrics.zero_shot import chance_accuracy, class_vectors, logits, zero_shot_accuracy


def test_class_vectors_average_directions_not_lengths():
    prompts = torch.tensor([[[10.0, 0.0], [0.0, 1.0]], [[0.0, 0.5], [0.0, 2.0]]])
    assert torch.allclose(class_vectors(prompts), torch.tensor([[0.5**0.5, 0.5**0.5], [0.0, 1.0]]))


def test_accuracy_against_a_loop(unit):
    image, classes = unit(60, 4, 1), unit(12, 4, 2)
    label = torch.randint(0, 11, (60,), generator=torch.Generator().manual_seed(3))  # class 11 has no picture
    best = logits(image, classes).argsort(1, descending=True)
    top1, top5 = (sum(label[i] in best[i, :k] for i in range(60)) / 0.6 for k in (1, 5))
    each = [sum(best[i, 0] == c for i in range(60) if label[i] == c) / (label == c).sum() for c in label.unique()]
    found = zero_shot_accuracy(image, classes, label)
    assert found["top1"] == pytest.approx(float(top1), abs=1e-3) and found["top5"] == pytest.approx(float(top5), abs=1e-3)
    assert found["mean_per_class"] == pytest.approx(100 * float(sum(each)) / len(each), abs=1e-3)
    assert found["mean_per_class"] != pytest.approx(found["top1"], abs=0.1)


def test_logits_are_a_hundred_cosines(unit):
    image, classes = unit(3, 4, 1), unit(5, 4, 2)
    assert torch.allclose(logits(image, classes), 100 * image @ classes.T)
    with pytest.raises(DataError, match="labels from 0 to 4"):
        zero_shot_accuracy(image, classes, torch.tensor([0, 1, 5]))


def test_chance():
    assert chance_accuracy(20) == {"top1": 5.0, "top5": 25.0, "mean_per_class": 5.0}
    assert chance_accuracy(3)["top5"] == 100.0
    same = F.normalize(torch.ones(20, 4), dim=-1)
    assert zero_shot_accuracy(same, same, torch.arange(20)) == chance_accuracy(20)


def test_named_templates_are_open_clips():
    import open_clip

    openai = load_templates("imagenet").of("en")
    assert len(openai) == 80 and openai[0] == open_clip.OPENAI_IMAGENET_TEMPLATES[0]("{}") and len(set(openai)) == 80
    assert len(load_templates("simple").of("de")) == 7 and load_templates("name").of("si") == ["{}"]
    assert load_templates("imagenet").prompts("red {apple}", "en")[0] == openai[0].replace("{}", "red {apple}")


def test_templates_from_files(tmp_path):
    (tmp_path / "a.txt").write_text("a drawing of {}\n\n{} on white\n", encoding="utf-8")
    assert load_templates(str(tmp_path / "a.txt")).of("xx") == ["a drawing of {}", "{} on white"]
    (tmp_path / "b.yaml").write_text("en: ['a drawing of {}']\nde: ['eine Zeichnung von {}']\n", encoding="utf-8")
    by_language = load_templates(str(tmp_path / "b.yaml"))
    assert by_language.prompts("Katze", "de") == ["eine Zeichnung von Katze"] and by_language.of("si") == ["{}"]
    (tmp_path / "c.json").write_text(json.dumps({"en": ["a {}"], "other": ["{}!"]}))
    assert load_templates(str(tmp_path / "c.json")).of("si") == ["{}!"]
    assert Templates({}).of("en") == ["{}"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "no place\n", "exactly one {}"),
        ("a.txt", "{} and {}\n", "exactly one {}"),
        ("a.txt", "", "list of sentences"),
        ("a.json", "{", "cannot be read"),
        ("a.yaml", "en: 'a {}'", "list of sentences"),
        ("a.json", "[1]", "exactly one {}"),
    ],
)
def test_bad_templates_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        load_templates(str(tmp_path / name))
    assert name in str(caught.value)


def test_an_unknown_list_is_suggested():
    with pytest.raises(DataError, match="did you mean 'imagenet'"):
        load_templates("imagnet")
