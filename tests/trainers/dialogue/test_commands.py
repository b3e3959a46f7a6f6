"""chat, ground, merge, export, convert and fine-tuning, as they are typed."""

import json
import sys

import pytest
import torch
from PIL import Image

from modalign import zoo
from modalign.trainers.cli import main
from modalign.zoo.language.turns import ImagePart, TextPart, conversation
from modalign.zoo.stack.generate import Decoding, Prompt, answers
from modalign.zoo.stack.talk import Talk

from ...zoo.stack import written
from . import conftest as made


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "x.png"
    path.write_bytes(made.picture(3, (60, 40)))
    return str(path)


def run_command(capsys, *words):
    code = main(list(words))
    return code, capsys.readouterr()


def test_one_question(run, photo, capsys):
    model = zoo.load(run)
    question = conversation(("user", [ImagePart(0), TextPart("\nWhat is it?")]))
    wanted = answers(model, [Prompt(question, [Image.open(photo)])], Decoding(6))[0]
    for stream in ("true", "false"):
        code, said = run_command(
            capsys, "chat", str(run), "--image", photo, "What is it?", "--max_new_tokens", "6", "--stream", stream
        )
        assert code == 0 and said.out.strip() == wanted
    assert model.answer("What is it?", [Image.open(photo)], Decoding(6)) == wanted


def test_a_conversation_at_the_terminal(run, photo, capsys, monkeypatch):
    lines = iter([f"/image {photo}\n", "What is it?\n", "And now?\n", "/image nowhere.png\n", "/new\n", "Hello\n", "\n"])
    monkeypatch.setattr(sys, "stdin", type("Typed", (), {"readline": staticmethod(lambda: next(lines))}))
    code, said = run_command(capsys, "chat", str(run), "--max_new_tokens", "5")
    assert code == 0 and said.out.count("> ") == 7
    assert "nowhere.png: there is no such file" in said.err


def test_a_talk_remembers_what_was_said(run):
    model, image = zoo.load(run), written.photo(40, 30, 1)
    talk = Talk(model, Decoding(5))
    talk.show(image)
    first = talk.ask("What is it?")
    second = talk.ask("Why?")
    whole = conversation(("user", [ImagePart(0), TextPart("\nWhat is it?")]), ("assistant", first), ("user", "Why?"))
    assert second == answers(model, [Prompt(whole, [image])], Decoding(5))[0]
    assert "".join(Talk(model, Decoding(5)).stream("Hello")).strip() == Talk(model, Decoding(5)).ask("Hello")
    talk.forget()
    assert talk.ask("Hello") == Talk(model, Decoding(5)).ask("Hello")


def test_many_prompts_are_answered_as_each_alone(run):
    model = zoo.load(run)
    prompts = []
    for number, words in enumerate(
        ["What is it?", "Where is the hat, the boat and the cup of tea?", "Hello", "Say more about the lamp."]
    ):
        pictures = number % 3
        shown = [*(ImagePart(n) for n in range(pictures)), TextPart(f"\n{words}")]
        prompts.append(Prompt(conversation(("user", shown)), [written.photo(30 + n, 40, n) for n in range(pictures)]))
    together = answers(model, prompts, Decoding(8), batch_size=4)
    assert together == [answers(model, [prompt], Decoding(8))[0] for prompt in prompts]
    assert together == answers(model, prompts, Decoding(8), batch_size=2)
    assert answers(model, prompts[:2], Decoding(8, beams=3)) == [
        answers(model, [p], Decoding(8, beams=3))[0] for p in prompts[:2]
    ]


def test_generation_equals_choosing_the_likeliest_token_by_hand(run):
    model, words = zoo.load(run), conversation(("user", [ImagePart(0), TextPart("\nWhat is it?")]))
    example = model.prepare()("x", words, [written.photo(40, 30, 1)], prompt=True)
    ids, stops = list(example["ids"]), model.encoder().template.stops()
    chosen = []
    for _ in range(6):
        batch = model.collate("left")([{**example, "ids": ids, "labels": [-100] * len(ids), "instruction": [False] * len(ids)}])
        batch.pop("labels")
        with torch.no_grad():
            token = int(model(batch)["logits"][0, -1].argmax())
        if token in stops:
            break
        chosen.append(token)
        ids = [*ids, token]
    wanted = model.language.tokenizer.decode(chosen, skip_special_tokens=True).strip()
    assert answers(model, [Prompt(words, [written.photo(40, 30, 1)])], Decoding(6))[0] == wanted


def test_ground_draws_the_box_it_found(run, photo, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("modalign.zoo.stack.talk.answers", lambda *_: ["It is at [0.25, 0.2, 0.75, 0.8]."])
    out = tmp_path / "boxed.png"
    code, said = run_command(capsys, "ground", str(run), photo, "the hat", "--out", str(out))
    assert code == 0
    found = json.loads(said.out.splitlines()[0])
    assert found["box"] == [15.0, 2.0, 45.0, 38.0], "of the square of 60 pixels that a picture of 60 by 40 was padded to"
    drawn = Image.open(out)
    assert drawn.size == (60, 40) and drawn.getpixel((45, 30)) == (208, 40, 40)


def test_ground_says_what_the_model_said_instead_of_a_place(run, photo, capsys):
    code, said = run_command(capsys, "ground", str(run), photo, "the hat", "--max_new_tokens", "2")
    assert code == 2 and "the model named no place of 'the hat'; it said:" in said.err


def test_merge_keeps_the_logits(run, tmp_path, capsys):
    code, said = run_command(capsys, "merge", str(run), "--out", str(tmp_path / "whole"))
    assert code == 0 and "14 matrices changed" in said.out
    before, after = zoo.load(run), zoo.load(tmp_path / "whole")
    assert after.config.lora is None and not [name for name in after.state_dict() if "lora" in name]
    example = before.prepare()(
        "x", conversation(("user", [ImagePart(0), TextPart("What?")])), [written.photo(40, 30, 1)], prompt=True
    )
    batch = before.collate()([example])
    batch.pop("labels")
    with torch.no_grad():
        first, second = before(batch)["logits"], after(batch)["logits"]
    assert not torch.equal(first, zoo.load(run / "stages" / "align" / "release")(batch)["logits"])
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5 * float(first.abs().max()))
    code, said = run_command(capsys, "merge", str(tmp_path / "whole"), "--out", str(tmp_path / "again"))
    assert code == 2 and "the model has no LoRA to fold in" in said.err


def test_export_to_transformers_gives_the_same_logits(run, tmp_path, capsys):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    code, _ = run_command(capsys, "export", str(run), "--to", "transformers", "--out", str(tmp_path / "hf"))
    assert code == 0
    theirs, processor = (
        AutoModelForImageTextToText.from_pretrained(tmp_path / "hf").eval(),
        AutoProcessor.from_pretrained(tmp_path / "hf"),
    )
    model = zoo.load(run)
    example = model.prepare()(
        "x", conversation(("user", [ImagePart(0), TextPart("\nWhat?")])), [written.photo(40, 30, 1)], prompt=True
    )
    batch = model.collate()([example])
    batch.pop("labels")
    ids = batch["ids"].masked_fill(batch["ids"] == -200, theirs.config.image_token_id)
    with torch.no_grad():
        ours = model(batch)["logits"]
        other = theirs(input_ids=ids, pixel_values=model.image.normalise(batch["image"])).logits
    torch.testing.assert_close(ours, other[..., : ours.shape[-1]], rtol=0, atol=1e-5 * float(ours.abs().max()))
    asked = [{"role": "user", "content": "<image>\nWhat?"}]
    text = processor.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    made_by_theirs = processor(images=written.photo(40, 30, 1), text=text, return_tensors="pt")
    assert made_by_theirs["input_ids"].tolist() == ids.tolist()
    pixels = model.image.normalise(batch["image"])
    assert float((made_by_theirs["pixel_values"] - pixels).abs().mean()) < 0.02, "two implementations of one filter"


def test_what_transformers_has_no_place_for_is_refused(tmp_path, model_settings, capsys):
    from modalign.zoo.families.llava.model import LlavaModel

    odd = LlavaModel.from_settings({k: v for k, v in model_settings(projector={"name": "linear"}).items() if k != "family"})
    zoo.save_release(odd, tmp_path / "odd", public=False)
    code, said = run_command(capsys, "export", str(tmp_path / "odd"), "--to", "transformers", "--out", str(tmp_path / "out"))
    assert code == 2 and "its projector is not LLaVA's" in said.err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", [None, "full"])
def test_fine_tuning_a_folder_of_transformers(run, shards, tmp_path, capsys, stage, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["merge", str(run), "--out", "whole"]) == 0
    assert main(["export", "whole", "--to", "transformers", "--out", "hf"]) == 0
    words = ["--init_from", "local-dir:hf", "--data.train", shards(), "--data.batch_size", "4", "--trainer.progress", "false"]
    name = stage or "lora"
    words += [f"--stages.{name}.steps", "2", f"--stages.{name}.epochs", "null", *(["--stage", stage] if stage else [])]
    if stage is None:
        words += ["--stages.lora.lora.rank", "2"]
    assert main(["train", "configs/llava/finetune.yaml", *words]) == 0
    tuned = zoo.load(tmp_path / "runs" / ("llava-finetune-full" if stage else "llava-finetune"))
    assert (tuned.config.lora is None) == (stage == "full")
    base = zoo.load("local-dir:hf").state_dict()
    moved = {
        name.split(".")[0] for name, value in tuned.state_dict().items() if name not in base or not torch.equal(base[name], value)
    }
    assert moved == ({"projector", "language_base"} if stage else {"projector", "language"})


def original_folder(model, folder, *, lora=False, whole=False):
    """What the original code writes: config.json with `mm_…`, and the trained parts under its names."""
    folder.mkdir()
    state = model.state_dict()
    about = json.loads(json.dumps(model.language.model.config.to_dict()))
    about |= {"model_type": "llava_llama", "mm_vision_tower": model.config.image.name, "mm_projector_type": "mlp2x_gelu"}
    about |= {"mm_vision_select_layer": -2, "mm_vision_select_feature": "patch", "image_aspect_ratio": "pad"}
    (folder / "config.json").write_text(json.dumps(about))
    theirs = {"0": "0", "3": "2"}
    projector = {
        f"model.mm_projector.{theirs[name.split('.')[2]]}.{name.split('.')[3]}": value
        for name, value in state.items()
        if name.startswith("projector.")
    }
    if whole:
        language = {
            name.removeprefix("language_base."): value for name, value in state.items() if name.startswith("language_base.")
        }
        model.language.tokenizer.save_pretrained(folder)
        torch.save({**language, **projector}, folder / "pytorch_model.bin")
    elif lora:
        torch.save({f"base_model.{name}": value for name, value in projector.items()}, folder / "non_lora_trainables.bin")
        adapters = {
            "base_model." + name.removeprefix("language.").replace(".default.weight", ".weight"): value
            for name, value in state.items()
            if name.startswith("language.")
        }
        torch.save(adapters, folder / "adapter_model.bin")
        settings = model.config.lora
        targets = sorted({name.split(".lora_")[0].rpartition(".")[2] for name in adapters})
        about = {"r": settings.rank, "lora_alpha": settings.alpha, "lora_dropout": 0.0, "target_modules": targets}
        (folder / "adapter_config.json").write_text(json.dumps({**about, "base_model_name_or_path": model.config.language.name}))
    else:
        torch.save(projector, folder / "mm_projector.bin")
    return folder


@pytest.mark.parametrize("kind", ["projector", "lora", "whole"])
def test_folders_of_the_original_code_become_releases(run, parts, tmp_path, capsys, kind):
    model = zoo.load(run if kind == "lora" else run / "stages" / "align" / "release")
    model.config.image.name, model.config.language.name = str(parts / "clip"), str(parts / "lm")
    folder = original_folder(model, tmp_path / "original", lora=kind == "lora", whole=kind == "whole")
    words = [] if kind == "whole" else ["--language", str(parts / "lm")]
    code, said = run_command(capsys, "convert", str(folder), "--out", str(tmp_path / "release"), *words)
    assert code == 0, said.err
    converted = zoo.load(tmp_path / "release")
    assert converted.config.chat.template == "vicuna_v1" and converted.config.picture.mode == "pad"
    example = model.prepare()(
        "x", conversation(("user", [ImagePart(0), TextPart("\nWhat?")])), [written.photo(40, 30, 1)], prompt=True
    )
    batch = model.collate()([example])
    batch.pop("labels")
    with torch.no_grad():
        torch.testing.assert_close(converted(batch)["logits"], model(batch)["logits"], rtol=0, atol=0)


def test_an_original_folder_is_named_as_such_and_never_filled_at_random(run, parts, tmp_path, capsys):
    model = zoo.load(run / "stages" / "align" / "release")
    model.config.image.name = str(parts / "clip")
    folder = original_folder(model, tmp_path / "original")
    code, said = run_command(capsys, "chat", str(folder), "Hello")
    assert code == 2 and "modalign convert makes a release of it" in said.err
    torch.save({"model.mm_projector.0.weight": torch.zeros(16, 16)}, folder / "mm_projector.bin")
    code, said = run_command(capsys, "convert", str(folder), "--out", str(tmp_path / "r"), "--language", str(parts / "lm"))
    assert code == 2 and "without it answers would be at random" in said.err
    torch.save({"model.mm_projector.0.weight": torch.zeros(3, 16)}, folder / "mm_projector.bin")
    code, said = run_command(capsys, "convert", str(folder), "--out", str(tmp_path / "r"), "--language", str(parts / "lm"))
    assert code == 2 and "missing" in said.err


@pytest.mark.parametrize(
    ("task", "more"),
    [
        ("caption", ["--question", "Say."]),
        ("vqa", ["--ask", "fields"]),
        ("grounding", []),
        ("pope", ["--per_picture", "2", "--split", "popular"]),
    ],
)
def test_every_task_from_the_command_line(run, shards, tmp_path, capsys, task, more):
    words = ["eval", str(run), "--task", task, "--data", shards(20, 24), "--limit", "6", "--max_new_tokens", "3"]
    code, said = run_command(capsys, *words, "--json", str(tmp_path / "out.json"), *more)
    assert code == 0, said.err
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["task"] == task and found["metrics"] and found["baselines"]


def test_a_task_of_another_kind_is_refused(run, shards, capsys):
    code, said = run_command(capsys, "eval", str(run), "--task", "retrieval", "--data", shards(20, 24))
    assert code == 2 and "is a model of conversations about pictures; what can be measured of it is" in said.err
    code, said = run_command(capsys, "embed", str(run), "--data", shards(20, 24))
    assert code == 2 and "give one of pictures and texts" in said.err
