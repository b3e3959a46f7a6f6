"""Recall against the reference numbers, a slow oracle and the conventions of the specification."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from modalign.zoo.errors import AssemblyError, DataError
from modalign.zoo.metrics.retrieval import RetrievalMetric, chance_recall, flatten, rank_statistics, ranks, retrieval_recall


def slow_recall(image, text, rows, k):
    scores = (text @ image.T).numpy()
    t2i = np.mean([(scores[n] > scores[n, rows[n]]).sum() < k for n in range(len(text))])
    hits = []
    for i in sorted(set(rows.tolist())):
        best = np.argsort(-scores[:, i], kind="stable")[:k]
        hits.append(any(rows[n] == i for n in best))
    return 100 * t2i, 100 * np.mean(hits)


def test_multi_caption_reference(golden):
    data = golden("retrieval")
    image, text = torch.tensor(data["image_emb"]), torch.tensor(data["text_emb"])
    found = retrieval_recall(image, text, torch.tensor(data["caption_image_index"]), ks=(1, 3))
    for k in (1, 3):
        assert found["text_to_image"][f"R@{k}"] == pytest.approx(100 * data[f"image_retrieval_recall_at_{k}"], abs=1e-3)
        assert found["image_to_text"][f"R@{k}"] == pytest.approx(100 * data[f"text_retrieval_recall_at_{k}"], abs=1e-3)


def test_paired_reference(golden):
    data = golden("paired_metrics")
    image, text = torch.tensor(data["image"]), torch.tensor(data["text"])
    found = retrieval_recall(image, text, torch.arange(9))
    for way in ("image_to_text", "text_to_image"):
        for k in (1, 5, 10):
            assert found[way][f"R@{k}"] == pytest.approx(100 * data[f"{way}_R_at_{k}"], abs=1e-3)
    mean_rank = ranks(text, image, torch.arange(9)).double().mean().item() + 1
    assert mean_rank == pytest.approx(float(data["text_to_image_mean_rank"]))


@pytest.mark.parametrize("seed", range(3))
def test_against_a_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    image = F.normalize(torch.randn(9, 5, generator=generator), dim=-1)
    text = F.normalize(torch.randn(25, 5, generator=generator), dim=-1)
    rows = torch.randint(0, 9, (25,), generator=generator)
    for k in (1, 3):
        found = retrieval_recall(image, text, rows, ks=(k,))
        wanted = slow_recall(image, text, rows, k)
        assert found["text_to_image"][f"R@{k}"] == pytest.approx(wanted[0], abs=1e-3)
        assert found["image_to_text"][f"R@{k}"] == pytest.approx(wanted[1], abs=1e-3)


def test_equal_scores_do_not_give_a_free_hit():
    same = F.normalize(torch.ones(20, 4), dim=-1)
    found = retrieval_recall(same, same, torch.arange(20))
    assert found["text_to_image"] == {"R@1": 5.0, "R@5": 25.0, "R@10": 50.0}


def test_chunks_do_not_matter():
    generator = torch.Generator().manual_seed(3)
    queries, gallery = torch.randn(50, 6, generator=generator), torch.randn(30, 6, generator=generator)
    target = torch.randint(0, 30, (50,), generator=generator)
    assert torch.equal(ranks(queries, gallery, target, chunk=7), ranks(queries, gallery, target))


def test_metric_collects_batches_and_languages():
    vectors = F.normalize(torch.eye(4), dim=-1)
    metric = RetrievalMetric()
    for start in (0, 2):
        part = vectors[start : start + 2]
        texts = torch.cat([part, part.flip(0)])  # German captions are swapped within a batch
        batch = {"text_row": torch.tensor([0, 1, 0, 1]), "text_lang": ["en", "en", "de", "de"]}
        metric.update({"image_embedding": part, "text_embedding": texts}, batch)
    found = metric.compute()
    assert found["by_language"]["en"]["text_to_image"]["R@1"] == 100.0
    assert found["by_language"]["de"]["text_to_image"]["R@1"] == 0.0
    assert found["metrics"]["text_to_image"]["R@1"] == 50.0
    assert flatten(found["metrics"])["image_to_text/R@1"] == 50.0


def test_no_caption_is_an_error_and_chance_is_known():
    with pytest.raises(DataError, match="at least one caption"):
        retrieval_recall(torch.eye(2), torch.empty(0, 2), torch.empty(0, dtype=torch.long))
    assert chance_recall(197, 10) == pytest.approx(5.0761, abs=1e-4)


def test_vectors_that_are_no_numbers_are_refused():
    vectors = torch.eye(3)
    vectors[1, 1] = float("nan")
    with pytest.raises(DataError, match="not finite"):
        retrieval_recall(vectors, torch.eye(3), torch.arange(3))
    with pytest.raises(DataError, match="none in the languages"):
        metric = RetrievalMetric()
        metric.update(
            {"image_embedding": torch.eye(2), "text_embedding": torch.empty(0, 2)}, {"text_row": torch.empty(0), "text_lang": []}
        )
        metric.compute()


def test_true_recall_is_the_share_of_captions_found(golden):
    data = golden("retrieval")
    image, text = torch.tensor(data["image_emb"]), torch.tensor(data["text_emb"])
    rows = torch.tensor(data["caption_image_index"])
    found = retrieval_recall(image, text, rows, ks=(1, 3), recall="true")
    for k in (1, 3):
        assert found["image_to_text"][f"R@{k}"] == pytest.approx(100 * data[f"text_true_recall_at_{k}"], abs=1e-3)
        assert found["text_to_image"][f"R@{k}"] == pytest.approx(100 * data[f"image_retrieval_recall_at_{k}"], abs=1e-3)
    assert found["image_to_text"]["R@3"] < retrieval_recall(image, text, rows, ks=(3,))["image_to_text"]["R@3"]


def test_rank_statistics_are_open_clips(golden):
    data = golden("paired_metrics")
    image, text = torch.tensor(data["image"]), torch.tensor(data["text"])
    found = retrieval_recall(image, text, torch.arange(9), statistics=True)
    for way in ("image_to_text", "text_to_image"):
        assert found[way]["mean_rank"] == pytest.approx(float(data[f"{way}_mean_rank"]), abs=1e-4)
        assert found[way]["median_rank"] == float(data[f"{way}_median_rank"])


def test_median_of_an_even_number_is_floored():
    found = rank_statistics(torch.tensor([0, 1, 4, 9]))  # median 2.5
    assert found == {"mean_rank": 4.5, "median_rank": 3.0, "MRR": pytest.approx(100 * (1 + 1 / 2 + 1 / 5 + 1 / 10) / 4, abs=1e-4)}
    with pytest.raises(DataError, match="at least one query"):
        rank_statistics(torch.empty(0, dtype=torch.long))


@pytest.mark.parametrize("tile", [1, 4, 7, 100])
def test_tiles_of_the_gallery_do_not_matter(tile):
    """Also where every score is tied: integers, so that products are exact."""
    generator = torch.Generator().manual_seed(1)
    queries, gallery = (torch.randint(-1, 2, (n, 3), generator=generator).float() for n in (40, 30))
    target = torch.randint(0, 30, (40,), generator=generator)
    scores, own = queries @ gallery.T, target[:, None]
    right = scores.gather(1, own)
    slow = ((scores > right) | ((scores == right) & (torch.arange(30) < own))).sum(1)
    assert torch.equal(ranks(queries, gallery, target, chunk=9, tile=tile), slow)


def test_scores_are_never_held_at_once(largest_tensor):
    queries, gallery = torch.randn(600, 2), torch.randn(500, 2)
    with largest_tensor() as largest:
        ranks(queries, gallery, torch.zeros(600, dtype=torch.long), chunk=16, tile=64)
    assert largest.numel <= 1200  # the vectors themselves


def test_an_unknown_recall_is_refused():
    with pytest.raises(AssemblyError, match="did you mean 'true'"):
        retrieval_recall(torch.eye(2), torch.eye(2), torch.arange(2), recall="tru")
