"""A whole run on real code paths at tiny size: stages, teacher, caches, evaluation, release, report, continuation."""

import csv
import json
import shutil

import pytest
import torch

from modalign import zoo
from modalign.trainers import load_recipe, train
from modalign.zoo.errors import RecipeError


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_a_whole_run(tiny_recipe, picture_of, capsys):
    run = train(tiny_recipe)
    assert {p.name for p in (run / "stages").iterdir()} == {"teacher", "inherit", "tune"}
    done = json.loads((run / "stages" / "inherit" / "done.json").read_text())
    assert done["steps"] == 10 and done["second_caption_share"] == 0.5
    result = json.loads((run / "stages" / "tune" / "eval.json").read_text())
    assert set(result) == {"task", "model", "data", "n", "metrics", "baselines", "by_language"}
    assert result["n"] == {"images": 50, "texts": 125} and list(result["by_language"]) == ["en", "de"]
    with (run / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(r["step"]) for r in rows if r["stage"] == "inherit"] == list(range(1, 11))
    report = (run / "report.html").read_text()
    assert (
        "Retrieved pictures" in report and "thing number 3" in report and "50.0% of the samples have a second caption" in report
    )
    assert "http" not in report.split("<pre>")[0].replace("http-equiv", "")  # self-contained

    model = zoo.load(run)
    vectors = model.encode_image([picture_of(1), picture_of(2)])
    assert vectors.shape == (2, 16) and torch.allclose(vectors.norm(dim=-1), torch.ones(2))
    assert model.encode_text(["thing number 3"]).shape == (1, 16)

    # stage 1 changes the projector and nothing else
    before, after = weights(run / "stages" / "teacher" / "release"), weights(run / "stages" / "inherit" / "release")
    assert all(torch.equal(before[name], after[name]) for name in after if name.startswith("image"))
    # the same command finds everything done
    capsys.readouterr()
    train(tiny_recipe)
    assert "stage tune: finished earlier" in capsys.readouterr().out


def test_a_run_folder_belongs_to_one_recipe(tiny_recipe):
    tiny_recipe["stages"] = {"teacher": tiny_recipe["stages"]["teacher"]}
    train(tiny_recipe)
    tiny_recipe["stages"]["teacher"]["train"]["head"] = 2e-3
    with pytest.raises(RecipeError, match=r"another recipe, which differs in stages.teacher.train.head"):
        train(tiny_recipe)


def test_what_does_not_bind_a_run(tiny_recipe, tmp_path):
    """Workers and devices may change; a run of a version without a setting goes on with its default."""
    import yaml

    tiny_recipe["stages"] = {"teacher": tiny_recipe["stages"]["teacher"]}
    run = train(tiny_recipe)
    saved = yaml.safe_load((run / "recipe.yaml").read_text())
    del saved["stages"]["teacher"]["accumulate"], saved["data"]["negatives"]
    (run / "recipe.yaml").write_text(yaml.safe_dump(saved))
    tiny_recipe["data"]["num_workers"] = 1
    tiny_recipe["trainer"]["log_every"] = 7
    assert train(tiny_recipe) == run


def test_a_stage_alone_needs_the_stages_it_builds_on(tiny_recipe):
    with pytest.raises(RecipeError, match="stage 'teacher' is not finished"):
        train(tiny_recipe, stage="inherit")
    with pytest.raises(RecipeError, match="did you mean 'inherit'"):
        train(tiny_recipe, stage="inherits")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stopped_run_goes_on_exactly(tiny_recipe, tmp_path, workers, monkeypatch):
    """Stops with an exception in the middle of stage tune, goes on with another worker count, and equals a run never stopped."""
    tiny_recipe["data"]["num_workers"] = 0
    whole = train(tiny_recipe | {"run_dir": str(tmp_path / "whole")})

    from modalign.trainers.task import TrainingTask

    original, calls = TrainingTask.training_step, []

    def stop_later(self, batch, index):
        calls.append(index)
        if len(calls) == 5 + 10 + 7:
            raise RuntimeError("power cut")
        return original(self, batch, index)

    monkeypatch.setattr(TrainingTask, "training_step", stop_later)
    with pytest.raises(RuntimeError, match="power cut"):
        train(tiny_recipe | {"run_dir": str(tmp_path / "part")})
    monkeypatch.setattr(TrainingTask, "training_step", original)
    part = train(load_recipe(tiny_recipe | {"run_dir": str(tmp_path / "part")}))
    for stage in ("teacher", "inherit", "tune"):
        ours, theirs = (weights(run / "stages" / stage / "release") for run in (part, whole))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        assert (part / "stages" / stage / "samples.csv").read_text() == (whole / "stages" / stage / "samples.csv").read_text()
    assert _losses(part) == _losses(whole)
    assert (
        json.loads((part / "stages/tune/done.json").read_text())["best"]
        == json.loads((whole / "stages/tune/done.json").read_text())["best"]
    )


def _losses(run):
    with (run / "metrics.csv").open() as stream:
        return [(r["stage"], r["step"], r.get("loss"), r.get("val/text_to_image/R@10")) for r in csv.DictReader(stream)]


def test_self_distillation_is_zero_at_the_start(tiny_recipe):
    stage = tiny_recipe["stages"]["tune"]
    stage |= {"steps": 1, "epochs": None, "validate": None, "warmup": 0.0, "data": {}}
    tiny_recipe["stages"] = {"tune": stage}
    run = train(tiny_recipe)
    with (run / "metrics.csv").open() as stream:
        row = next(csv.DictReader(stream))
    assert float(row["loss/instance"]) == 0.0 and float(row["loss/clip"]) > 0


@pytest.mark.parametrize(("decay", "follows"), [(1.0, False), (0.9, True)])
def test_teacher_is_frozen_or_follows(tiny_recipe, decay, follows, monkeypatch):
    from modalign.trainers.task import TrainingTask

    seen = {}

    def spy(self):
        seen["teacher"] = {name: value.clone() for name, value in self.teacher.state_dict().items()}
        seen["model"] = {name: value.clone() for name, value in self.model.state_dict().items()}

    stage = tiny_recipe["stages"]["tune"] | {"teacher_decay": decay, "validate": None, "epochs": 1}
    tiny_recipe["stages"] = {"tune": stage}
    first = {}
    monkeypatch.setattr(
        TrainingTask, "on_train_start", lambda self: first.update({n: v.clone() for n, v in self.teacher.state_dict().items()})
    )
    monkeypatch.setattr(TrainingTask, "on_train_end", spy)
    train(tiny_recipe)
    name = "text_projector.out.1.weight"
    assert not torch.equal(seen["model"][name], first[name])
    assert torch.equal(seen["teacher"][name], first[name]) is not follows
    assert all(torch.equal(seen["teacher"][n], first[n]) for n in first) is not follows


def test_bfloat16_trains_and_losses_stay_float32(tiny_recipe, monkeypatch):
    from modalign.trainers.task import TrainingTask

    seen = {}

    def spy(self, outputs, batch, batch_index):
        seen.update({name: value.dtype for name, value in self.latest.items() if name == "loss"})

    monkeypatch.setattr(TrainingTask, "on_train_batch_end", spy)
    tiny_recipe["stages"] = {"tune": tiny_recipe["stages"]["tune"] | {"epochs": 1, "validate": None}}
    tiny_recipe["evaluate"] = None
    tiny_recipe["trainer"]["precision"] = "bf16-mixed"
    run = train(tiny_recipe)
    assert seen == {"loss": torch.float32}
    assert all(torch.isfinite(value).all() for value in weights(run / "release").values())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_bfloat16_with_compiled_blocks(tiny_recipe):
    """On the CPU; each by itself is quick: above, and in test_training_options.py."""
    tiny_recipe["stages"] = {"tune": tiny_recipe["stages"]["tune"] | {"epochs": None, "steps": 2, "validate": None}}
    tiny_recipe["evaluate"] = None
    tiny_recipe["trainer"] |= {"precision": "bf16-mixed", "compile": True}
    run = train(tiny_recipe)
    with (run / "metrics.csv").open() as stream:
        losses = [float(row["loss"]) for row in csv.DictReader(stream)]
    assert len(losses) == 2 and all(loss == loss for loss in losses)


def test_a_mixture_draws_by_weight(tiny_recipe, tiny_shards, tmp_path):
    """Two sources, three to one: every step's samples are recorded, and the shares are exact over an epoch."""
    import io

    from PIL import Image

    from modalign.datasets.shards.writer import write_shards

    def others():
        stream = io.BytesIO()
        Image.new("RGB", (40, 40)).save(stream, "PNG")
        for number in range(30):
            yield {
                "key": f"other{number}",
                "image": stream.getvalue(),
                "image_ext": "png",
                "captions": {"en": [f"item {number}"]},
            }

    write_shards(others(), tmp_path / "others")
    tiny_recipe["data"] |= {"train": {str(tiny_shards): 3.0, str(tmp_path / "others"): 1.0}, "samples_per_epoch": 40}
    tiny_recipe["stages"] = {"tune": tiny_recipe["stages"]["tune"] | {"epochs": 2, "validate": None}}
    tiny_recipe["evaluate"] = None
    run = train(tiny_recipe)
    lines = (run / "stages" / "tune" / "samples.csv").read_text().splitlines()
    for epoch in (lines[:4], lines[4:]):
        keys = [key for line in epoch for key in line.split(",")[1].split()]
        assert len(keys) == 40 and sum(key.startswith("other") for key in keys) == 10


def test_half_written_results_are_made_again(tiny_recipe):
    tiny_recipe["stages"] = {"teacher": tiny_recipe["stages"]["teacher"]}
    run = train(tiny_recipe)
    path = run / "stages" / "teacher" / "eval.json"
    wanted = path.read_text()
    path.write_text(wanted[:50])
    train(tiny_recipe)
    assert path.read_text() == wanted


def test_other_evaluation_settings_are_measured_again(tiny_recipe):
    tiny_recipe["stages"] = {"teacher": tiny_recipe["stages"]["teacher"]}
    run = train(tiny_recipe)
    tiny_recipe["evaluate"]["languages"] = ["de"]
    train(tiny_recipe)
    assert list(json.loads((run / "stages" / "teacher" / "eval.json").read_text())["by_language"]) == ["de"]


def test_bad_samples_are_skipped_counted_and_named(tiny_recipe, picture_of, tmp_path, capsys):
    from modalign.datasets.shards.writer import write_shards

    def samples():
        for number in range(40):
            picture_of(number).save(tmp_path / "p.png")
            image = (tmp_path / "p.png").read_bytes()
            yield {
                "key": f"k{number}",
                "image": image[:60] + bytes(40) if number == 13 else image,
                "image_ext": "png",
                "captions": {"en": [f"thing {number}"]},
            }

    write_shards(samples(), tmp_path / "bad")
    stage = tiny_recipe["stages"]["tune"] | {"epochs": 1, "validate": None, "data": {}}
    tiny_recipe |= {"stages": {"tune": stage}, "evaluate": None}
    tiny_recipe["data"] |= {"train": str(tmp_path / "bad"), "on_error": "skip"}
    run = train(tiny_recipe)
    done = json.loads((run / "stages/tune/done.json").read_text())
    assert done["skipped_samples"] == 1 and done["skipped_by_shard"] == {str(tmp_path / "bad" / "000000.tar"): 1}
    assert f"{tmp_path / 'bad' / '000000.tar'}: 1" in capsys.readouterr().out
    assert "k13" in (run / "stages/tune/quarantine.jsonl").read_text()
    assert "k13" not in (run / "stages/tune/samples.csv").read_text()


@pytest.mark.parametrize("seed", [20261122, 2**40, 0])
def test_any_seed(tiny_recipe, seed):
    tiny_recipe |= {
        "stages": {"teacher": tiny_recipe["stages"]["teacher"] | {"epochs": None, "steps": 1}},
        "evaluate": None,
        "seed": seed,
    }
    assert (train(tiny_recipe) / "release").is_dir()
