"""Every task of time series over two ranks gives what one process gives."""

import pytest

from modalign import zoo
from modalign.trainers import load_recipe, train
from modalign.trainers.evaluation.tasks import TASKS, build_task
from modalign.trainers.series.opening import series_subject

#: task -> what `eval` is told of the data, and its options
TOLD = {
    "forecast": ({}, {"dlinear": 0}),
    "imputation": ({"mask_rate": 0.3}, {}),
    "anomaly": ({"anomaly": "odd"}, {"ratio": 5.0}),
    "classification": ({"id": "shop", "label": "kind"}, {}),
    "short_term": ({"id": "shop", "ignore": ["kind"]}, {}),
}


def table_for(task, make_table, folder):
    """A table with what the task needs: a column of marks, or several series with a class each."""
    if task in ("classification", "short_term"):
        path = make_table(folder / "shops.csv", rows=60, series=("north", "south", "west", "east", "centre"))
        kinds = {"shop": "kind", "north": "big", "south": "small", "west": "big", "east": "small", "centre": "big"}
        path.write_text("\n".join(f"{line},{kinds[line.split(',')[0]]}" for line in path.read_text().splitlines()))
        return path
    path = make_table(folder / "town.csv")
    if task != "anomaly":
        return path
    head, *rows = path.read_text().splitlines()
    marked = [f"{row},{int(350 <= number < 356)}" for number, row in enumerate(rows)]
    path.write_text("\n".join([f"{head},odd", *marked]))
    return path


def recipe_for(task, recipe_of, table, run):
    recipe = recipe_of("calf-gpt2", table, run, epochs=None, steps=2, validate=None)
    recipe["model"] |= {"task": task}
    series = recipe["data"]["series"]
    if task == "anomaly":
        series |= {"anomaly": "odd"}
    if task in ("classification", "short_term"):
        series = {"id": "shop", "label": "kind"} | ({"scale": "none", "history": 2.0} if task == "short_term" else {})
        recipe["data"] |= {"batch_size": 3}
    if task == "classification":
        recipe["stages"]["forecast"] |= {"train": {"encoder": 1e-3, "head": 1e-3}, "losses": {"label_cross_entropy": {}}}
    recipe["data"] |= {"series": series}
    return load_recipe(recipe | {"evaluate": None})


def measured(release, data, task):
    told, options = TOLD[task]
    subject = series_subject(zoo.load(release), "m", data, told, None, over_ranks=True)
    return build_task(task, {**options, "batch_size": 4}, task).measure(subject)


def measure_on_rank(rank, world, *arguments):
    return measured(*arguments)


def leaves(value, path=""):
    """Path -> number or text, of a report."""
    if isinstance(value, dict):
        return {key: leaf for name, one in value.items() for key, leaf in leaves(one, f"{path}/{name}").items()}
    if isinstance(value, list):
        return {key: leaf for place, one in enumerate(value) for key, leaf in leaves(one, f"{path}/{place}").items()}
    return {path: value}


def test_no_task_is_left_out():
    assert set(TOLD) == {name for name in TASKS.names() if TASKS.get(name).kind == "series"}


@pytest.mark.parametrize("task", TOLD)
def test_two_ranks_measure_what_one_does(task, recipe_of, make_table, tmp_path, pool):
    table = table_for(task, make_table, tmp_path)
    run = train(recipe_for(task, recipe_of, table, tmp_path / "run"))
    alone = leaves(measured(str(run), str(table), task))
    assert len(alone) > 5
    for both in pool.run(__file__, "measure_on_rank", str(run), str(table), task):
        found = leaves(both)
        assert found.keys() == alone.keys()
        for path, value in alone.items():
            assert found[path] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value), path
