"""The generated model card: front matter that hubs can read, and the numbers of the evaluation in its table."""

import re

import pytest
import yaml

from modalign.zoo.checkpoints.card import model_card
from modalign.zoo.registry import FAMILIES

WAYS = ("text_to_image", "image_to_text")


def table(start):
    return {way: {f"R@{k}": start + 10 * i + k / 10 for k in (1, 5, 10)} for i, way in enumerate(WAYS)}


EVALUATION = {
    "task": "retrieval",
    "data": "asset:openmoji/test",
    "n": {"images": 197, "texts": 2758},
    "metrics": table(20.0),
    "by_language": {"en": table(40.0), "de": table(30.0), "no": table(10.0)},
    "baselines": {"chance": {"text_to_image": {"R@1": 0.5, "R@5": 2.5, "R@10": 5.1}}},
}


@pytest.fixture(scope="module")
def model(tiny_model):
    return FAMILIES.get("proclip").from_settings({key: value for key, value in tiny_model.items() if key != "family"})


def front_matter(card):
    start, front, rest = card.split("---\n", 2)
    assert start == "", "front matter is the very first thing"
    return yaml.safe_load(front), rest


def test_front_matter_is_yaml_that_hubs_read(model):
    from huggingface_hub import ModelCard

    card = model_card(model, "Names of drawings: 14 languages", EVALUATION, {"asset:openmoji/train": "CC BY-SA 4.0"})
    front, rest = front_matter(card)
    assert front["library_name"] == "modalign"
    assert "proclip" in front["tags"]
    assert front["language"] == ["de", "en", "no"], "`no` stays a word: bare, YAML reads it as false"
    assert front["pipeline_tag"] == "zero-shot-image-classification"
    assert rest.lstrip().startswith("# Names of drawings: 14 languages\n")
    assert ModelCard(card).data.library_name == "modalign"


def test_table_holds_every_number(model):
    card = model_card(model, "t", EVALUATION)
    rows = {}
    for line in card.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and re.fullmatch(r"[\d.]+", cells[1]):
            rows[cells[0]] = [float(cell) for cell in cells[1:]]
    wanted = {**EVALUATION["by_language"], "mean": EVALUATION["metrics"]}
    assert rows == {
        name: [round(values[way][f"R@{k}"], 1) for way in WAYS for k in (1, 5, 10)] for name, values in wanted.items()
    }
    header = next(line for line in card.splitlines() if line.startswith("| language"))
    assert header.count("|") == 8
    assert header.index("text→image") < header.index("image→text"), "in the order of the numbers"
    assert "197 pictures" in card
    assert "2758 captions of" in card
    assert "2758 captions (the first of each language) of" in model_card(
        model, "t", EVALUATION | {"settings": {"first_caption": True}}
    )
    assert "`asset:openmoji/test`" in card
    assert "R@10 5.1" in card


def test_one_language_without_breakdown(model):
    evaluation = {key: value for key, value in EVALUATION.items() if key != "by_language"}
    front, rest = front_matter(model_card(model, "t", evaluation))
    assert "language" not in front
    assert "| mean | 20.1 | 20.5 | 21.0 | 30.1 | 30.5 | 31.0 |" in rest


def test_without_evaluation_it_says_so(model):
    front, rest = front_matter(model_card(model))
    assert "language" not in front
    assert "Not evaluated" in rest
    assert "# proclip\n" in rest
    assert "Trained on" not in rest


def test_parts_sources_and_licences(model):
    card = model_card(model, "t", EVALUATION, {"asset:openmoji/train": "CC BY-SA 4.0", "mine": "licence not stated"})
    assert "- text: started from `local-dir:embedder" in card, "a local part is named, its folder on this machine is not"
    assert "- image:" not in card, "the image encoder started from random weights"
    assert "`asset:openmoji/train` (CC BY-SA 4.0); `mine` (licence not stated)" in card
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert f"{count:.1f} M parameters, joint space of width 16" in card


def test_bases_on_the_hub_are_listed_for_the_hub(model, monkeypatch):
    monkeypatch.setattr(
        model, "sources", lambda: {"image.": "hf:timm/test_vit.r160_in1k", "text.": "asset:multilingual-e5-small"}
    )
    front, _ = front_matter(model_card(model))
    assert front["base_model"] == ["timm/test_vit.r160_in1k"]
    front, rest = front_matter(model_card(model, started_from=["hf:me/clip", "/srv/runs/one"]))
    assert front["base_model"] == ["me/clip", "timm/test_vit.r160_in1k"]
    assert "- weights: started from `hf:me/clip`\n- weights: started from `local-dir:one`" in rest and "/srv" not in rest
    monkeypatch.setattr(model, "sources", dict)
    front, rest = front_matter(model_card(model))
    assert "base_model" not in front
    assert "- from random weights" in rest


def test_the_lines_of_use_run(model, picture_of, tmp_path, monkeypatch):
    """The Python of the card, as it stands, on a saved release."""
    from modalign.zoo.checkpoints.release import save_release

    card = model_card(model, "t", EVALUATION)
    save_release(model, tmp_path / "PATH", card=card)
    program = card.split("```python\n")[1].split("```")[0].replace('"PATH"', repr(str(tmp_path / "PATH")))
    names = {"picture": picture_of(3)}
    exec(program, names)
    assert names["scores"].shape == (1, 1)


def test_a_title_stays_one_line_of_plain_words(model):
    card = model_card(model, "a\n---\nlicense: x <script>alert(1)</script> [here](http://evil) | b")
    line = next(line for line in card.splitlines() if line.startswith("# "))
    assert line == r"# a --- license: x \<script\>alert(1)\</script\> \[here\](http://evil) \| b"
    assert card.count("\n---\n") == model_card(model, "plain").count("\n---\n")
