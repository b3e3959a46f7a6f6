"""A trained model on other data: zero-shot with the target's own scaler, fine-tuned on one's own table; the rest is refused."""

import csv
import json

import numpy as np
import pytest
import torch

from modalign import zoo
from modalign.trainers import load_recipe, train
from modalign.trainers.commands.forecast import forecast
from modalign.trainers.evaluation.command import evaluate
from modalign.zoo.errors import AssemblyError, DataError

LOOK_BACK, HORIZON = 24, 6
NAMES = ("x", "y", "z", "u", "v")


@pytest.fixture(scope="module")
def runs(recipe_of, table, tmp_path_factory):
    """DLinear and CALF on the table of three columns, without validation."""
    folder = tmp_path_factory.mktemp("source")
    return {
        family: train(recipe_of(family, table, folder / family, epochs=1, validate=None) | {"evaluate": None})
        for family in ("dlinear", "calf-gpt2")
    }


@pytest.fixture(scope="module")
def others(make_table, tmp_path_factory):
    """Tables with fewer and with more columns than the model was trained on, at another level."""
    folder = tmp_path_factory.mktemp("others")
    return {count: make_table(folder / f"other{count}.csv", rows=300, columns=NAMES[:count], seed=5) for count in (1, 3, 5)}


def values_of(path):
    with path.open() as stream:
        return np.array([[float(cell) for cell in row[1:]] for row in list(csv.reader(stream))[1:]])


def measured(model, data, path, **settings):
    evaluate(str(model), str(data), json=str(path), device="cpu", **settings)
    return json.loads(path.read_text())


@pytest.mark.parametrize("family", ["dlinear", "calf-gpt2"])
@pytest.mark.parametrize("count", [1, 3, 5])
def test_zero_shot_uses_the_targets_own_scaler(runs, others, tmp_path, family, count):
    """By a plain loop: mean and deviation of the target's own training rows, all of its channels."""
    values = values_of(others[count])
    train_end, test_start = 210, 240
    mean, std = values[:train_end].mean(axis=0), values[:train_end].std(axis=0)
    scaled, model, errors = (values - mean) / std, zoo.load(runs[family]), []
    model.config.series.target = list(NAMES[:count])  # what the model calls its channels does not matter; how many there are does
    for first in range(test_start - LOOK_BACK, 300 - LOOK_BACK - HORIZON + 1):
        window = torch.tensor(scaled[first : first + LOOK_BACK], dtype=torch.float32)[None]
        with torch.no_grad():
            predicted = model.eval()({"values": window})["prediction"][0].double().numpy()
        assert predicted.shape == (HORIZON, count)
        errors.append(predicted - scaled[first + LOOK_BACK : first + LOOK_BACK + HORIZON])
    report = measured(runs[family], others[count], tmp_path / "e.json", dlinear=0)
    assert report["metrics"]["mse"] == pytest.approx((np.array(errors) ** 2).mean(), rel=1e-5)
    assert report["metrics"]["original"]["mae"] == pytest.approx(np.abs(np.array(errors) * std).mean(), rel=1e-5)
    assert report["n"] == {"windows": 55, "series": 1, "channels": count, "elements": 55 * 6 * count, "series_without_window": 0}
    assert list(report["metrics"]["by_channel"]) == list(NAMES[:count])


def test_other_data_that_a_model_cannot_read_is_refused(runs, others, make_table, tmp_path):
    """More channels than its language model has positions; known-future columns it was trained without."""
    wide = make_table(tmp_path / "wide.csv", rows=150, columns=[f"c{number}" for number in range(65)])
    with pytest.raises(AssemblyError, match="65 channels are more than the 64 positions of the language model"):
        evaluate(str(runs["calf-gpt2"]), str(wide), device="cpu", dlinear=0)
    with pytest.raises(AssemblyError, match=r"^--known: this calf was trained without known-future columns, .* read y"):
        evaluate(str(runs["calf-gpt2"]), str(others[3]), device="cpu", target=["x", "z"], known=["y"])
    with pytest.raises(AssemblyError, match=r"^--past: dlinear makes no use of such columns \(y\)"):
        evaluate(str(runs["dlinear"]), str(others[3]), device="cpu", target=["x", "z"], past=["y"])


def test_without_windows_to_fit_it_on_dlinear_is_left_out(runs, make_table, tmp_path):
    """The fitted baseline needs training and validation windows that the model itself does not."""
    short = make_table(tmp_path / "short.csv", rows=120)
    split = {"train": 0.2, "val": 0.0, "test": 0.8}
    report = measured(runs["calf-gpt2"], short, tmp_path / "e.json", split=split)
    assert "the train part has no window" in report["notes"][0] and "dlinear (seed 0)" not in report["baselines"]
    alone = measured(runs["calf-gpt2"], short, tmp_path / "f.json", split=split, dlinear=0)
    assert alone["n"]["windows"] == 96 - 6 + 1 and alone["metrics"] == report["metrics"] and "notes" not in alone


def test_without_a_split_the_models_own_scaler_is_used(runs, make_table, tmp_path):
    """All windows of a table of new rows of the same columns, where there is nothing to fit a scaler on."""
    new = make_table(tmp_path / "new.csv", rows=40, seed=9)
    report = measured(runs["dlinear"], new, tmp_path / "e.json", split="none")
    assert report["n"]["windows"] == 40 - 30 + 1 and "dlinear (seed 0)" not in report["baselines"]
    model, values = zoo.load(runs["dlinear"]), values_of(new)
    mean, std = np.array(list(model.config.series.scale.values())).T
    zero = ((values[24:] - mean) / std) ** 2
    windows = [zero[first : first + 6] for first in range(11)]
    assert report["baselines"]["train_mean"]["mse"] == pytest.approx(np.mean(windows), rel=1e-6)


@pytest.mark.parametrize("count", [1, 5])
def test_fine_tuning_on_ones_own_table(runs, others, recipe_of, tmp_path, count):
    """`--init_from MODEL --data.train my.csv`: weights go on, columns and scaler are those of the new table."""
    recipe = recipe_of("calf-gpt2", others[count], tmp_path / "tuned", epochs=1, validate=None)
    del recipe["model"]
    tuned = train(load_recipe(recipe, {"init_from": str(runs["calf-gpt2"]), "data.train": str(others[count])}))
    before, after, values = zoo.load(runs["calf-gpt2"]), zoo.load(tuned), values_of(others[count])
    assert before.config.series.target == ["load", "wind", "price"] and after.config.series.target == list(NAMES[:count])
    np.testing.assert_allclose(
        np.array(list(after.config.series.scale.values())).T, [values[:210].mean(axis=0), values[:210].std(axis=0)], rtol=1e-9
    )
    first, second = before.state_dict(), after.state_dict()
    assert first.keys() == second.keys()
    frozen = [name for name in first if name.startswith("pretrained.")]
    assert frozen and all(torch.equal(first[name], second[name]) for name in frozen)
    moved = (first["head.linear.weight"] - second["head.linear.weight"]).abs().max() if "head.linear.weight" in first else None
    changed = [name for name in first if not torch.equal(first[name], second[name])]
    assert changed and (moved is None or 0 < moved < 0.05), "it goes on from where it was"
    forecast(str(tuned), str(others[count]), out=str(tmp_path / "f.csv"), device="cpu")
    assert (tmp_path / "f.csv").read_text().splitlines()[0] == ",".join(["time", *NAMES[:count]])
    report = json.loads((tuned / "stages/forecast/eval.json").read_text())
    assert report["n"]["channels"] == count


def test_past_covariates(recipe_of, table, tmp_path, make_table):
    """Seen and not predicted; baselines are of the targets, DLinear too, which knows no covariates."""
    recipe = recipe_of("calf-gpt2", table, tmp_path / "run", epochs=1)
    recipe["data"]["series"] |= {"target": ["price"], "past": ["load", "wind"]}
    run = train(recipe)
    report = json.loads((run / "stages/forecast/eval.json").read_text())
    assert report["n"]["channels"] == 1 and list(report["metrics"]["by_channel"]) == ["price"]
    alone = measured(run, table, tmp_path / "e.json")
    assert alone["metrics"] == report["metrics"] and "dlinear (seed 0)" in alone["baselines"]

    with torch.no_grad():
        model, window = zoo.load(run).eval(), torch.randn(1, 24, 3)
        other = window.clone()
        other[..., 1:] = other[..., 1:].flip(1)
        assert not torch.equal(model({"values": window})["prediction"], model({"values": other})["prediction"])

    forecast(str(run), str(table), out=str(tmp_path / "f.csv"), device="cpu")
    assert (tmp_path / "f.csv").read_text().splitlines()[0] == "time,price"
    with pytest.raises(DataError, match=r"there is no column '(load|wind)', .*covariates"):
        evaluate(str(run), str(make_table(tmp_path / "p.csv", columns=("price", "sun", "rain"))), device="cpu")


def test_the_dlinear_beside_covariates_is_the_one_of_the_targets_alone(recipe_of, table, tmp_path):
    reports = []
    for number, roles in enumerate(({"target": ["price"], "past": ["load"]}, {"target": ["price"], "ignore": ["load", "wind"]})):
        recipe = recipe_of("calf-gpt2", table, tmp_path / f"run{number}", epochs=None, steps=1, validate=None)
        recipe["data"]["series"] |= roles
        run = train(recipe)
        reports.append(json.loads((run / "stages/forecast/eval.json").read_text())["baselines"]["dlinear (seed 0)"])
    assert reports[0] == reports[1]


def test_known_future_columns(recipe_of, table, make_table, tmp_path):
    """Read for the horizon; `modalign forecast` asks for them, and says which."""
    recipe = recipe_of("calf-gpt2", table, tmp_path / "run", epochs=1)
    recipe["data"]["series"] |= {"target": ["load", "price"], "known": ["wind"]}
    run = train(recipe)
    lines = table.read_text().splitlines()
    (tmp_path / "history.csv").write_text("\n".join(lines[:301]))
    (tmp_path / "future.csv").write_text("\n".join([lines[0], *lines[301:307]]))
    forecast(
        str(run), str(tmp_path / "history.csv"), out=str(tmp_path / "f.csv"), future=str(tmp_path / "future.csv"), device="cpu"
    )
    assert (tmp_path / "f.csv").read_text().splitlines()[0] == "time,load,price"
    changed = [lines[0], *(",".join([*line.split(",")[:2], "70", line.split(",")[3]]) for line in lines[301:307])]
    (tmp_path / "other.csv").write_text("\n".join(changed))
    forecast(
        str(run), str(tmp_path / "history.csv"), out=str(tmp_path / "o.csv"), future=str(tmp_path / "other.csv"), device="cpu"
    )
    assert (tmp_path / "f.csv").read_text() != (tmp_path / "o.csv").read_text(), "what is known of the future is read"
    with pytest.raises(DataError, match=r"the model also reads wind for the horizon; give them with --future TABLE"):
        forecast(str(run), str(tmp_path / "history.csv"), out=str(tmp_path / "n.csv"), device="cpu")
    (tmp_path / "short.csv").write_text("\n".join([lines[0], *lines[301:304]]))
    with pytest.raises(DataError, match="--future has 3 rows of wind for the horizon, the model needs 6"):
        forecast(
            str(run), str(tmp_path / "history.csv"), out=str(tmp_path / "s.csv"), future=str(tmp_path / "short.csv"), device="cpu"
        )
    evaluate(str(run), str(table), device="cpu")


def test_known_future_rows_of_another_number_are_refused(table):
    """Whoever calls `predict` with a few rows too few would get a forecast of other steps."""
    from modalign.zoo.families.calf.model import CalfModel
    from modalign.zoo.series.description import SeriesDescription
    from modalign.zoo.series.predict import predict

    architecture = {"model_type": "gpt2", "vocab_size": 40, "n_positions": 16, "n_embd": 8, "n_head": 2, "n_layer": 1}
    settings = {"look_back": 5, "horizon": 3, "heads": 2, "ffn": 8, "dictionary": 4, "llm": "random"}
    settings["language"] = {"name": None, "architecture": architecture, "blocks": 1}
    model = CalfModel.from_settings(settings)
    model.describe(SeriesDescription(["a"], [], ["plan"], [], "h", {"a": [0.0, 1.0], "plan": [0.0, 1.0]}))
    history, plan = torch.randn(9, 1).double(), torch.randn(12, 1).double()
    whole = predict(model, history, known=plan).values
    assert torch.equal(whole, predict(model, history, known=plan[-8:]).values)
    for wrong in (plan[:11], plan[-7:], plan[:3], None):
        with pytest.raises(DataError, match=r"plan for the horizon too: .* \(8 or 12 rows, there are"):
            predict(model, history, known=wrong)


def test_a_future_that_does_not_follow_the_history_is_refused(recipe_of, table, tmp_path):
    """Its rows would be read for the wrong hours."""
    recipe = recipe_of("calf-gpt2", table, tmp_path / "run", epochs=None, steps=1, validate=None) | {"evaluate": None}
    recipe["data"]["series"] |= {"target": ["load"], "known": ["wind"], "ignore": ["price"]}
    run, lines = train(recipe), table.read_text().splitlines()
    (tmp_path / "history.csv").write_text("\n".join(lines[:301]))
    for name, rows in (("late", lines[303:309]), ("early", lines[290:320])):
        (tmp_path / f"{name}.csv").write_text("\n".join([lines[0], *rows]))
        with pytest.raises(DataError, match=r"--future.*must begin at 2023-03-11 12:00:00"):
            forecast(
                str(run),
                str(tmp_path / "history.csv"),
                out=str(tmp_path / "f.csv"),
                future=str(tmp_path / f"{name}.csv"),
                device="cpu",
            )


def test_a_model_that_was_never_trained_is_refused(table, tmp_path):
    from modalign.zoo.checkpoints.release import save_release
    from modalign.zoo.families.dlinear.model import DLinearModel

    model = DLinearModel.from_settings({"look_back": 24, "horizon": 6})
    folder = save_release(model, tmp_path / "raw", kind="full", card="")
    with pytest.raises(AssemblyError, match="was never trained"):
        evaluate(str(folder), str(table), device="cpu")
    with pytest.raises(AssemblyError, match="does not forecast time series"):
        forecast(str(folder), str(table), out=str(tmp_path / "f.csv"), device="cpu")
