"""Task `alignment` where a language has few pairs: with k = n - 1 all others are neighbours, and a share of 1 would say nothing."""

from types import SimpleNamespace

import pytest
import torch

from modalign.trainers.evaluation.alignment import AlignmentTask
from modalign.trainers.evaluation.task import Subject
from modalign.zoo.errors import DataError
from modalign.zoo.metrics.neighbours import mutual_knn
from modalign.zoo.metrics.rows import unit


class Pairs:
    """A subject with pairs of random vectors, so many of each language."""

    data = "some shards"
    name = "some model"
    report = Subject.report

    def __init__(self, **counts):
        generator = torch.Generator().manual_seed(1)
        self.made = SimpleNamespace(
            keys=[str(n) for n in range(max(counts.values()))],
            image=unit(torch.randn(max(counts.values()), 6, generator=generator)),
            text=unit(torch.randn(sum(counts.values()), 6, generator=generator)),
            texts=[str(n) for n in range(sum(counts.values()))],
            text_lang=[lang for lang, count in counts.items() for _ in range(count)],
            text_row=torch.tensor([row for count in counts.values() for row in range(count)]),
        )
        self.made.image_features = self.made.image.flip(1) ** 2
        self.texts = SimpleNamespace(features=lambda texts: torch.stack([self.made.text[int(text)] ** 3 for text in texts]))

    def vectors(self, *_args, **_settings):
        return self.made


def cells(report):
    """Language -> its row of the table of spaces, by column."""
    table = AlignmentTask.tables(report)[1]
    return table.title, list(table.header), {row[0]: list(row) for row in table.rows}


def test_the_k_used_is_in_the_report():
    report = AlignmentTask().measure(Pairs(en=20, de=13))
    assert report["settings"] == {"neighbours": 10, "sigma": 1.0, "most_pairs": 4096} and "note" not in report
    asked = AlignmentTask(neighbours=3, sigma=0.5, most_pairs=9).measure(Pairs(en=20))
    assert asked["settings"] == {"neighbours": 3, "sigma": 0.5, "most_pairs": 9}


@pytest.mark.parametrize(("count", "there"), [(11, False), (12, True)])
def test_it_is_left_out_exactly_where_all_others_are_neighbours(count, there):
    pairs = Pairs(en=count)
    report = AlignmentTask().measure(pairs)
    assert ("mutual_knn" in report["metrics"]) == there == ("note" not in report)
    assert {"cka", "cka_unbiased", "cka_rbf", "modality_gap"} <= set(report["metrics"])
    title, header, rows = cells(report)
    assert ("kNN" in header) == there and all(len(row) == len(header) for row in rows.values())
    if there:
        wanted = mutual_knn(pairs.made.image, pairs.made.text, 10)
        assert report["metrics"]["mutual_knn"] == pytest.approx(wanted, abs=1e-4) and wanted < 1
    else:
        assert report["note"] == f"no mutual kNN, because all others are among the 10 nearest, in en ({count})"
        assert title.endswith(report["note"])


def test_only_the_small_language_is_left_out():
    report = AlignmentTask().measure(Pairs(en=20, de=8))
    assert report["note"].endswith("in de (8)")
    assert (
        "mutual_knn" not in report["by_language"]["de"]
        and "mutual_knn" not in report["baselines"]["encoders"]["by_language"]["de"]
    )
    assert report["metrics"]["mutual_knn"] == report["by_language"]["en"]["mutual_knn"]
    _, header, rows = cells(report)
    assert rows["de"][header.index("kNN")] == "" and rows["en"][header.index("kNN")] != ""
    assert rows["mean"][-1] == rows["en"][-1] != ""


@pytest.mark.parametrize(("count", "most"), [(20, 4096), (50, 20)])
def test_a_k_asked_for_that_is_too_large_is_refused(count, most):
    with pytest.raises(
        DataError, match=r"neighbours: 19 are too many for the pairs of some shards.* 20 at most.* give 18 or fewer"
    ):
        AlignmentTask(neighbours=19, most_pairs=most).measure(Pairs(en=count))
    assert "mutual_knn" in AlignmentTask(neighbours=18, most_pairs=most).measure(Pairs(en=count))["metrics"]


def test_a_k_asked_for_that_one_language_allows_is_measured_there():
    report = AlignmentTask(neighbours=12).measure(Pairs(en=20, de=8))
    assert report["note"].endswith("the 12 nearest, in de (8)") and "mutual_knn" in report["by_language"]["en"]


def test_a_result_of_before_is_still_shown():
    report = AlignmentTask().measure(Pairs(en=20))
    del report["settings"]
    assert cells(report)[1].count("kNN") == 1
