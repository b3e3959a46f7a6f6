"""What a model learns of a sample, shown: `data show --model` and `data inspect`."""

import re

import pytest
import yaml

from modalign import zoo
from modalign.trainers.cli import main
from modalign.trainers.dialogue.tokens import coloured


def learnt(text):
    """What stands between the brackets."""
    return re.findall(r"⟦(.*?)⟧", text.replace("\n", " "))


def test_show_marks_exactly_what_is_learnt(run, shards, tmp_path, capsys):
    assert main(["data", "show", shards(20, 24), "--out", str(tmp_path / "s.png"), "--n", "2", "--model", str(run)]) == 0
    said = capsys.readouterr().out
    assert (tmp_path / "s.png").is_file() and said.count("<picture: 16 tokens>") == 2
    answers = learnt(said)
    assert answers[0] == "A red lamp.<|im_end|>" and re.fullmatch(
        r"\[0\.\d{3}, 0\.\d{3}, 0\.\d{3}, 0\.\d{3}\]<\|im_end\|>", answers[1]
    )
    assert len(answers) == 4


def test_show_can_ask_otherwise_and_names_samples_without_an_answer(run, shards, tmp_path, capsys):
    words = ["data", "show", shards(20, 24), "--out", str(tmp_path / "s.png"), "--n", "1", "--model", str(run), "--ask", "fields"]
    assert main(words) == 0
    assert learnt(capsys.readouterr().out)[0] in ("lamp<|im_end|>", "20.50<|im_end|>")


@pytest.mark.parametrize("batching", ["padded", "packed"])
def test_inspect_shows_conversations(recipe_of, tmp_path, capsys, batching):
    recipe = recipe_of(tmp_path / "run", dialogue={"ask": "conversations", "batching": batching})
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["data", "inspect", str(tmp_path / "r.yaml"), "--rows", "2"]) == 0
    said = capsys.readouterr().out
    assert len(learnt(said)) == 4 and all(text.endswith("<|im_end|>") for text in learnt(said))


def test_colours_are_where_brackets_are(run):
    tokenizer = zoo.load(run).language.tokenizer
    ids = tokenizer("USER: x ASSISTANT: a bird", add_special_tokens=False)["input_ids"]
    found = coloured(tokenizer, [-200, -200, *ids], [-100, -100, *[-100] * (len(ids) - 2), *ids[-2:]])
    assert found.plain.startswith("<picture: 2 tokens>") and found.plain.count("⟦") == 1
    assert [found.plain[span.start : span.end] for span in found.spans if "green" in str(span.style)] == [
        f"⟦{tokenizer.decode(ids[-2:])}⟧"
    ]
