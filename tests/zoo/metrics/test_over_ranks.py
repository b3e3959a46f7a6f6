"""Metrics over two gloo processes: bit for bit those of one, for sets of 1, 7 and 50, and where a rank has nothing to do."""

import pytest
import torch
import torch.nn.functional as F

from modalign.zoo.metrics.over_ranks import agreed, gathered, gathered_rows, share, summed
from modalign.zoo.metrics.ranked_lists import Relevance, ranked_lists
from modalign.zoo.metrics.retrieval import RetrievalMetric, ranks
from modalign.zoo.metrics.zero_shot import zero_shot_accuracy


def some_vectors(count):
    """Pictures, two captions each (some equal), as float32 unit vectors."""
    generator = torch.Generator().manual_seed(count)
    image = F.normalize(torch.randn(count, 6, generator=generator), dim=-1)
    text = F.normalize(image.repeat_interleave(2, 0) + 0.9 * torch.randn(2 * count, 6, generator=generator), dim=-1)
    text[1::4] = text[0::4][: len(text[1::4])]  # duplicates: ties
    return image, text, torch.arange(count).repeat_interleave(2)


def measured(count, over_ranks, chunk=4):
    image, text, rows = some_vectors(count)
    metric = RetrievalMetric(statistics=True, over_ranks=over_ranks)
    metric.settings["chunk"] = chunk
    languages = ["en" if i % 2 else "de" for i in range(len(text))]
    metric.update({"image_embedding": image, "text_embedding": text}, {"text_row": rows, "text_lang": languages})
    relevant = Relevance(torch.arange(len(text)), rows, 1.0 + torch.arange(len(text)) % 3)
    return {
        "ranks": ranks(text, image, rows, chunk, tile=3, over_ranks=over_ranks).tolist(),
        "recall": metric.compute(),
        "lists": ranked_lists(text, image, relevant, chunk=chunk, over_ranks=over_ranks),
        "zero shot": zero_shot_accuracy(text, image, rows, chunk=chunk, over_ranks=over_ranks),
    }


def on_rank(rank, world, count):
    return measured(count, over_ranks=True)


def collectives(rank, world):
    """Rank 1 has no rows."""
    own = torch.arange(6.0).reshape(3, 2) if rank == 0 else torch.empty(0, 2)
    rows = gathered_rows(own)
    return {
        "rows": [part.tolist() for part in rows],
        "empty": [tuple(part.shape) for part in gathered_rows(torch.empty(0, 5))],
        "values": gathered(f"rank {rank}"),
        "agreed": agreed({"from": rank}),
        "sum": summed(torch.tensor([rank + 1])).tolist(),
        "share": [(part.start, part.stop) for part in share(10, 3, True)],
        "all": [(part.start, part.stop) for part in share(10, 3, False)],
    }


@pytest.mark.parametrize("count", [1, 7, 50])
def test_two_ranks_equal_one(ranks, count):
    alone = measured(count, over_ranks=False)
    assert ranks(2).run(__file__, "on_rank", count) == [alone, alone]


def test_one_process_needs_no_group():
    assert measured(7, over_ranks=True) == measured(7, over_ranks=False)
    assert gathered("x") == ["x"] and agreed(3) == 3 and summed(torch.ones(2)).tolist() == [1, 1]


def test_collectives_with_uneven_and_empty_ranks(ranks):
    first, second = ranks(2).run(__file__, "collectives")
    for found in (first, second):
        assert found["rows"] == [[[0, 1], [2, 3], [4, 5]], []] and found["empty"] == [(0, 5), (0, 5)]
        assert found["values"] == ["rank 0", "rank 1"] and found["agreed"] == {"from": 0} and found["sum"] == [3]
        assert found["all"] == [(0, 3), (3, 6), (6, 9), (9, 10)]
    assert first["share"] == [(0, 3), (6, 9)] and second["share"] == [(3, 6), (9, 10)]
