"""What was skipped is counted once: over epochs, resumes, ranks, and files that a kill cut short."""

import json

import pytest

from modalign.datasets.loading.loader import Loader
from modalign.datasets.loading.plan import BatchPlan
from modalign.datasets.loading.quarantine import Quarantine, Skipped
from modalign.datasets.shards import ShardSet
from modalign.datasets.shards.writer import write_shards
from modalign.zoo.errors import DataError


def entry(sample, shard="s/0.tar", source=0):
    return Skipped(source, sample, shard, f"k{sample}", "png", f"{shard}: sample 'k{sample}' is bad")


def test_counts_by_shard(tmp_path):
    one = Quarantine(1000, 0.01, tmp_path / "q.jsonl")
    one.add([entry(1), entry(2, "s/1.tar"), entry(1), entry(3, "s/1.tar")])
    one.add([entry(2, "s/1.tar")])
    assert one.by_shard() == {"s/1.tar": 2, "s/0.tar": 1} and list(one.by_shard()) == ["s/1.tar", "s/0.tar"]
    assert one.summary().splitlines()[0] == f"3 bad samples were skipped (the budget is 10), listed in {tmp_path / 'q.jsonl'}"
    assert json.loads((tmp_path / "q.jsonl").read_text().splitlines()[0]) == {
        "source": 0,
        "sample": 1,
        "shard": "s/0.tar",
        "key": "k1",
        "field": "png",
        "reason": "s/0.tar: sample 'k1' is bad",
        "data": "",
    }
    assert Quarantine(10).summary() == ""


def test_counts_survive_a_resume(tmp_path):
    path = tmp_path / "q.jsonl"
    Quarantine(1000, 0.003, path).add([entry(1), entry(2)])
    again = Quarantine(1000, 0.003, path)
    again.add([entry(2), entry(1)])
    assert len(again.entries) == 2 and len(path.read_text().splitlines()) == 2
    again.add([entry(3)])
    with pytest.raises(DataError, match="4 bad samples were skipped, more than the budget of 3"):
        again.add([entry(4)])
    assert again.entries[0, 4].reason in path.read_text(), "what broke the budget is listed too"


def test_ranks_share_one_budget(tmp_path):
    path = tmp_path / "q.jsonl"
    ranks = [Quarantine(1000, 0.003, path, rank) for rank in range(2)]
    ranks[0].add([entry(1)])
    ranks[1].add([entry(1), entry(2)])
    ranks[0].add([entry(3)])
    assert set(ranks[0].entries) == {(0, 1), (0, 2), (0, 3)}
    with pytest.raises(DataError, match="4 bad samples"):
        ranks[1].add([entry(4)])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["q-rank1.jsonl", "q.jsonl"]
    assert len(Quarantine(1000, 0.01, path, 5).entries) == 4, "another number of ranks goes on"


def test_a_line_that_a_kill_cut_short(tmp_path):
    path = tmp_path / "q.jsonl"
    Quarantine(1000, 0.01, path).add([entry(1), entry(2)])
    whole = path.read_bytes()
    for size in range(len(whole) - 1, whole.index(b"\n"), -7):
        path.write_bytes(whole[:size])
        again = Quarantine(1000, 0.01, path)
        assert set(again.entries) == {(0, 1)}
        again.add([entry(2)])
        assert path.read_bytes() == whole


def test_other_data_and_other_files(tmp_path):
    path = tmp_path / "q.jsonl"
    Quarantine(1000, 0.01, path, data="old").add([entry(1)])
    assert Quarantine(1000, 0.01, path, data="new").entries == {}
    for line in (
        "no json",
        '{"source": 0}',
        '{"source": "0", "sample": 1, "shard": "", "key": "", "field": "", "reason": ""}',
        "[1]",
    ):
        path.write_text(line + "\n")
        with pytest.raises(DataError, match=r"q\.jsonl: a line is not an entry of a quarantine list .*move the file away"):
            Quarantine(1000, 0.01, path)
    with pytest.raises(DataError, match=r"error_budget is 1\.5"):
        Quarantine(1000, 1.5)


def example(sample, rng):
    return {"size": sample.images[0].size}


def test_a_run_that_is_stopped_and_goes_on(tmp_path, samples):
    """The same bad samples, met in two epochs, by one rank before and two ranks after a resume."""
    made = [{**s, "image": b"bad"} if n in (7, 33, 41) else s for n, s in enumerate(samples(60))]
    write_shards(made, tmp_path / "s", samples_per_shard=20)
    source = ShardSet(tmp_path / "s")

    def loader(rank=0, world=1, budget=0.05):
        plan = BatchPlan([source.shard_sizes], None, 12, 3)
        settings = {"on_error": "skip", "error_budget": budget, "quarantine_file": tmp_path / "run" / "quarantine.jsonl"}
        return Loader([source], plan, example, lambda rows: {}, rank=rank, world_size=world, **settings)

    one = loader()
    stream = iter(one)
    for _ in range(3):
        next(stream)
    state = one.state_dict()
    ranks = [loader(rank, 2) for rank in range(2)]
    for part in ranks:
        part.load_state_dict(state)
        for _ in range(2):
            list(part)
    final = loader()
    assert set(final.quarantine.entries) == {(0, 7), (0, 33), (0, 41)}
    assert final.quarantine.by_shard() == {
        f"{tmp_path}/s/000001.tar": 1,
        f"{tmp_path}/s/000000.tar": 1,
        f"{tmp_path}/s/000002.tar": 1,
    }
    lines = [json.loads(line) for file in (tmp_path / "run").iterdir() for line in file.read_text().splitlines()]
    assert sorted(line["key"] for line in lines) == ["k0007", "k0033", "k0041"], "listed once, by whoever met it first"
    assert {line["field"] for line in lines} == {"png"}
    with pytest.raises(DataError, match="more than the budget of 2"):
        for _ in range(2):
            list(loader(budget=0.02))
