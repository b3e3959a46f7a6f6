"""The command line as users type it: results, help, and one sentence for everything that is the input's fault."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from modalign.trainers.cli import COMMANDS, main


@pytest.fixture
def run(tiny_recipe, tmp_path):
    """A finished run of one stage."""
    tiny_recipe["stages"] = {"tune": tiny_recipe["stages"]["tune"] | {"epochs": 1, "validate": None}}
    tiny_recipe["evaluate"] = None
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe, sort_keys=False))
    assert main(["train", str(path)]) == 0
    return tmp_path / "run"


def test_eval_embed_search_and_show(run, tiny_shards, tmp_path, capsys):
    out = tmp_path / "out.json"
    assert main(["eval", str(run), "--task", "retrieval", "--data", str(tiny_shards), "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert set(result["metrics"]) == {"text_to_image", "image_to_text"} and set(result["by_language"]) == {"en", "de"}
    assert all(0 <= value <= 100 for table in result["metrics"].values() for value in table.values())

    vectors = tmp_path / "vectors.npz"
    assert main(["embed", str(run), "--data", str(tiny_shards), "--out", str(vectors)]) == 0
    with np.load(vectors, allow_pickle=False) as file:
        assert file["image"].shape == (50, 16) and file["text"].shape == (125, 16) and len(file["keys"]) == 50
        assert np.allclose(np.linalg.norm(file["image"], axis=1), 1, atol=1e-5)
        again = [
            int((file["image"] @ file["text"][n] > file["image"][r] @ file["text"][n]).sum())
            for n, r in enumerate(file["text_row"])
        ]
        german = [again[n] < 10 for n in range(125) if file["text_lang"][n] == "de"]
    assert 100 * np.mean(german) == pytest.approx(result["by_language"]["de"]["text_to_image"]["R@10"], abs=2.1)

    sheet = tmp_path / "hits.png"
    capsys.readouterr()
    assert main(["search", str(run), "--data", str(tiny_shards), "thing number 7", "--out", str(sheet), "--top", "3"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("thing number") >= 4 and Image.open(sheet).width > 100
    assert main(["zoo", "show", str(run)]) == 0
    assert "a full release of family proclip" in capsys.readouterr().out


@pytest.fixture
def far(tiny_shards):
    """The same shards on another machine, as far as fsspec is concerned."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(f"{tiny_shards}/", "/far/tiny/", recursive=True)
    yield "memory://far/tiny"
    memory.rm("/far", recursive=True)


def test_commands_read_remote_shards_when_allowed(run, far, tiny_shards, tmp_path, capsys):
    for command in (
        ["eval"],
        ["embed", "--out", str(tmp_path / "v.npz")],
        ["search", "a thing", "--out", str(tmp_path / "s.png")],
    ):
        asked = [command[0], str(run), *command[1:], "--data", far]
        assert main(asked) == 2 and "allow_remote" in capsys.readouterr().err
        assert main([*asked, "--allow_remote", "[memory]"]) == 0
    with np.load(tmp_path / "v.npz") as file:
        assert len(file["keys"]) == 50


def test_a_run_evaluates_on_remote_shards(tiny_recipe, far):
    from modalign.trainers import train

    tiny_recipe["stages"] = {"tune": tiny_recipe["stages"]["tune"] | {"epochs": 1}}
    tiny_recipe["data"] |= {"train": far, "val": far, "test": far, "allow_remote": ["memory"]}
    tiny_recipe["evaluate"]["task"] = ["retrieval", "crosslingual"]
    tiny_recipe["evaluate"]["options"] = {"crosslingual": {"train_data": far}}
    folder = train(tiny_recipe)
    assert json.loads((folder / "results.json").read_text())["stages"]["tune"]["also"]["crosslingual"]["n"]
    assert (folder / "queries.png").exists() and "Retrieved pictures" in (folder / "report.html").read_text()


def test_a_device_that_is_not_there(run, tiny_shards, capsys):
    missing = "mps" if torch.cuda.is_available() else "cuda"
    for device in ("cudda", missing):
        assert main(["eval", str(run), "--data", str(tiny_shards), "--device", device]) == 2
        assert f"--device {device}" in capsys.readouterr().err


def test_a_module_is_imported_only_when_allowed(run, tiny_shards, tmp_path, monkeypatch, capsys):
    (tmp_path / "my_parts.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    assert main(["eval", str(run), "--data", str(tiny_shards), "--allow_module", "my_partz"]) == 2
    assert "no module named 'my_partz'" in capsys.readouterr().err.lower() and not (tmp_path / "ran").exists()
    assert main(["zoo", "list", "--allow_module=my_parts"]) == 0 and (tmp_path / "ran").exists()


def test_the_same_command_says_it_is_finished(run, tmp_path, capsys):
    assert main(["train", str(tmp_path / "recipe.yaml")]) == 0
    assert "finished earlier" in capsys.readouterr().out


def test_print_config_is_a_recipe(capsys):
    assert main(["train", "configs/proclip/openmoji.yaml", "--print_config", "--data.batch_size", "64", "--seed=3"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["data"]["batch_size"] == 64 and printed["seed"] == 3 and "tune" in printed["stages"]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command, capsys):
    try:
        code = main([*command.split(), "--help"])
    except SystemExit as stop:
        code = stop.code
    assert code == 0 and len(capsys.readouterr().out) > 60


@pytest.mark.parametrize("command", ["zoo list", "assets list"])
def test_lists(command, capsys):
    assert main(command.split()) == 0
    out = capsys.readouterr().out
    assert ("loss:clip" if command == "zoo list" else "openmoji") in out


def sentence(capsys, *arguments):
    """The one line an error prints."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "Traceback" not in error
    return error


@pytest.fixture
def recipe_file(tiny_recipe, tmp_path):
    """Writes the tiny recipe's last stage with changes; returns its path."""

    def write(**data):
        tiny_recipe["stages"] = {"tune": tiny_recipe["stages"]["tune"] | {"epochs": 1, "validate": None, "cache": {}}}
        tiny_recipe["evaluate"] = None
        tiny_recipe["data"] |= data
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(tiny_recipe, sort_keys=False))
        return path

    return write


def test_faults_name_the_culprit(recipe_file, tiny_shards, tmp_path, capsys):
    text = sentence(capsys, "train", recipe_file(), "--data.batch_sise", "4")
    assert "'batch_sise'; did you mean 'batch_size'" in text
    assert "nowhere" in sentence(capsys, "train", recipe_file(train="nowhere"))
    assert "no caption in 'fr'" in sentence(capsys, "train", recipe_file(train=str(tiny_shards), languages=["fr"]))
    assert "holds neither" in sentence(capsys, "eval", tmp_path, "--data", tiny_shards)
    assert "did you mean 'eval'" in sentence(capsys, "evel", tmp_path)
    assert "did you mean 'zoo list'" in sentence(capsys, "zoo", "lisst")


def test_wrong_places_and_devices_are_one_sentence(run, tiny_shards, tmp_path, capsys):
    assert "is a folder" in sentence(capsys, "embed", run, "--data", tiny_shards, "--out", tmp_path)
    if not torch.cuda.is_available():
        assert "device cuda" in sentence(capsys, "eval", run, "--data", tiny_shards, "--device", "cuda")
    assert "or auto for all there are" in sentence(
        capsys, "train", tmp_path / "recipe.yaml", "--run_dir", tmp_path / "other", "--trainer.devices", "two"
    )
    assert "no caption" in sentence(capsys, "eval", run, "--data", tiny_shards, "--languages", "[fr]").replace(
        "there is none", "no caption"
    )


def test_a_truncated_shard_is_named(recipe_file, tiny_shards, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_shards, broken, ignore=shutil.ignore_patterns(".features"))
    shard = broken / "000001.tar"
    shard.write_bytes(shard.read_bytes()[:-3000])
    assert "000001.tar" in sentence(capsys, "train", recipe_file(train=str(broken)))
    assert "000001.tar" in sentence(capsys, "data", "check", broken)


def test_a_broken_image_and_a_missing_caption_are_named(recipe_file, picture_of, tmp_path, capsys):
    from modalign.datasets.shards.writer import write_shards

    def samples(bad_image):
        for number in range(20):
            picture_of(number).save(tmp_path / "p.png")
            image = (tmp_path / "p.png").read_bytes()
            if number == 13 and bad_image:
                image = image[:60] + bytes(40)
            captions = {"de": ["Ding"]} if number == 13 and not bad_image else {"en": ["thing"]}
            yield {"key": f"k{number}", "image": image, "image_ext": "png", "captions": captions}

    write_shards(samples(True), tmp_path / "image")
    write_shards(samples(False), tmp_path / "caption")
    text = sentence(capsys, "train", recipe_file(train=str(tmp_path / "image")))
    assert "'k13'" in text and "png" in text and "000000.tar" in text
    assert "'k13'" in sentence(capsys, "data", "check", tmp_path / "image")
    text = sentence(capsys, "train", recipe_file(train=str(tmp_path / "caption")))
    assert "'k13'" in text and "no caption in en (there are: de)" in text


def test_bad_overrides_are_one_sentence(recipe_file, capsys):
    assert "needs a value" in sentence(capsys, "train", recipe_file(), "--seed")
    assert "give one recipe" in sentence(capsys, "train", "--seed", "1")
    assert "batch_size" in sentence(capsys, "train", recipe_file(), "--data.batch_size", "many")
    assert "is not a name" in sentence(capsys, "train", recipe_file(), "--model.image.name", "resnet50")
    assert "did you mean 'clip'" in sentence(capsys, "train", recipe_file(), "--model.family", "clipp")
    assert "no role 'projektor'" in sentence(capsys, "train", recipe_file(), "--stages.tune.train", "{projektor: 1e-3}")
    assert "blocks.99" in sentence(
        capsys,
        "train",
        recipe_file(),
        "--stages.tune.cache.image",
        "blocks.99",
        "--stages.tune.data",
        "{augment: {scale: 1.0, flip: 0.0}}",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("export x --out y --to onnx", "--to is 'onnx'; it can be open_clip, transformers or inference"),
        ("completion tcsh", "SHELL is 'tcsh'; it can be bash, zsh or fish"),
        ("eval x --data y --recall all", "--recall is 'all'; it can be hit or true"),
        ("eval x --data y --num_workers two", "--num_workers is 'two'; it can be a whole number"),
        ("eval x --data y --sigma wide", "--sigma is 'wide'; it can be a number"),
        ("eval x --data y --cache=perhaps", "--cache is 'perhaps'; it can be true or false"),
        ("eval x --data y --languages en,,de", "--languages is 'en,,de'; it can be words with commas between them, such as a,b"),
        ("data split x --out y --fractions half", "--fractions is 'half'; it can be a map, such as {a: 1, b: 2}"),
    ],
)
def test_a_value_of_the_wrong_type_is_one_sentence(arguments, message, capsys):
    assert sentence(capsys, *arguments.split()) == f"error: {message}"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["--languages", "en"], ["en"]),
        (["--languages=en"], ["en"]),
        (["--languages", "en,de"], ["en", "de"]),
        (["--languages", "en, no"], ["en", "no"]),
        (["--languages", "[en,de]"], ["en", "de"]),
        (["--languages", '["en"]'], ["en"]),
        (["--languages", "3"], ["3"]),
        (["--languages", "null"], None),
        (["--allow_remote", "https", "--languages", "en"], ["en"]),
        ([], None),
    ],
)
def test_lists_are_words_with_commas(given, wanted):
    from modalign.trainers.cli import _parse
    from modalign.trainers.commands.embed import embed

    values = _parse(embed, ("model",), "modalign embed", ["m", "--data", "d", *given])
    assert values["languages"] == wanted and values["data"] == "d"
    assert values["allow_remote"] == (["https"] if "--allow_remote" in given else None)


def test_a_list_without_its_value_keeps_the_usage(capsys):
    for arguments in (["--languages"], ["--languages", "--cache"]):
        with pytest.raises(SystemExit):
            main(["eval", "x", "--data", "y", *arguments])
        assert "usage: modalign eval" in capsys.readouterr().err


def test_a_picture_of_ones_own_is_not_written_over(run, tiny_shards, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands = {
        "batch": ["data", "inspect", str(tiny_shards), "--rows", "2"],
        "contact_sheet": ["data", "show", str(tiny_shards), "--n", "2"],
        "search": ["search", str(run), "a thing", "--data", str(tiny_shards), "--top", "2"],
    }
    for name, command in commands.items():
        own = tmp_path / f"{name}.png"
        own.write_text("mine")
        for number in (2, 3):
            assert main(command) == 0
            assert f"written: {name}-{number}.png" in capsys.readouterr().out and (tmp_path / f"{name}-{number}.png").is_file()
        assert own.read_text() == "mine"
        assert main([*command, "--out", str(own)]) == 0 and Image.open(own).width > 100
        own.unlink()
        capsys.readouterr()
        assert main(command) == 0 and f"written: {name}.png" in capsys.readouterr().out
        assert "ends in .png" in sentence(capsys, *command, "--out", tmp_path / "x.jpg") and not (tmp_path / "x.jpg").exists()


def test_single_items_are_refused_in_words(run, picture_of):
    from modalign import zoo
    from modalign.zoo.errors import AssemblyError

    model = zoo.load(run)
    with pytest.raises(AssemblyError, match=r"encode_text\(\[text\]\)"):
        model.encode_text("a red apple")
    with pytest.raises(AssemblyError, match=r"encode_image\(\[picture\]\)"):
        model.encode_image(picture_of(1))
