"""Context graphs against the reference's ids, edges, groups and weights, and against loops."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from modalign.zoo.errors import AssemblyError
from modalign.zoo.graphs.context_graph import (
    ContextGraph,
    Node,
    assignment,
    context_edges,
    example_nodes,
    forecast_nodes,
    places,
    segment_lengths,
)
from modalign.zoo.graphs.directed_gcn import DirectedGcn

GOLDEN = Path(__file__).parents[2] / "golden" / "time_series"
META = json.loads((GOLDEN / "fsca_meta.json").read_text())
PROMPT = 8


def ids(nodes):
    return [number + 1 for number, node in enumerate(nodes) for _ in range(node.tokens)]


@pytest.mark.parametrize("case", sorted(META))
def test_reference_ids_edges_groups(case):
    meta = META[case]
    nodes = forecast_nodes(meta["patch_num"], meta["cfg"]["split_len"], PROMPT)
    assert ids(nodes) == meta["sequence"]
    edges = context_edges(nodes)
    assert [edges.source, edges.target] == meta["edges"]
    assert edges.group == meta["mask"]
    coarse = context_edges([Node(node.kind, 1) for node in nodes])
    assert [coarse.source, coarse.target] == meta["l_edges"]


def test_reference_weights():
    """Of the case without affine norm; the other's stored tokens are those before it, and its weights are tested with the model."""
    data, nodes = np.load(GOLDEN / "fsca_split2_io.npz"), forecast_nodes(9, 2, PROMPT)
    patches, prompt = torch.tensor(data["patch_tokens"]), torch.tensor(data["prompt_embeddings"]).expand(6, -1, -1)
    first, second = patches.split(segment_lengths(patches.shape[1], 2), 1)
    weights = ContextGraph(nodes).weights(torch.cat([first, prompt, second, prompt], 1))
    torch.testing.assert_close(weights.flatten(), torch.tensor(data["edge_weights_norm"]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", ["split2", "split2_oddpatches_revin"])
def test_reference_assignment(case):
    data = np.load(GOLDEN / f"fsca_{case}_io.npz")
    torch.testing.assert_close(assignment(forecast_nodes(META[case]["patch_num"], 2, PROMPT)), torch.tensor(data["allocation"]))


def test_number_of_fine_edges():
    for tokens, segments in ((9, 2), (12, 3), (11, 4), (5, 1)):
        lengths = segment_lengths(tokens, segments)
        expected = sum(sum(lengths[: j + 1]) for j in range(segments)) + sum(lengths[j + 1] for j in range(segments - 1))
        assert len(context_edges(forecast_nodes(tokens, segments, 3)).source) == expected
    assert len(context_edges(forecast_nodes(9, 2, 8)).source) == 18


def test_three_segments_by_hand():
    """Segments of 2, 2 and 3 tokens, a prompt of 2: positions 01 23 45 67 89A BC."""
    edges = context_edges(forecast_nodes(7, 3, 2))
    by_group = [
        {(s, t) for s, t, g in zip(edges.source, edges.target, edges.group, strict=True) if g == group}
        for group in range(edges.groups)
    ]
    assert by_group == [
        {(0, 2), (1, 2)},
        {(3, 4), (3, 5)},
        {(0, 6), (1, 6), (4, 6), (5, 6)},
        {(7, 8), (7, 9), (7, 10)},
        {(t, 11) for t in (0, 1, 4, 5, 8, 9, 10)},
    ]


def test_two_labelled_examples_by_hand():
    """Two patches, a prompt of 2, a label: 01 23 4, 56 78 9, AB CD."""
    nodes = example_nodes(2, 2, 2)
    assert ids(nodes) == [1, 1, 2, 2, 3, 4, 4, 5, 5, 6, 7, 7, 8, 8]
    edges = context_edges(nodes)
    found = list(zip(edges.source, edges.target, edges.group, strict=True))
    assert found == [(0, 2, 0), (1, 2, 0), (3, 4, 1), (5, 7, 2), (6, 7, 2), (8, 9, 3), (10, 12, 4), (11, 12, 4)]
    coarse = context_edges([Node(node.kind, 1) for node in nodes])
    assert list(zip(coarse.source, coarse.target, strict=True)) == [(0, 1), (1, 2), (3, 4), (4, 5), (6, 7)]


def test_vanilla_form_is_series_and_prompt():
    assert example_nodes(4, 0, 3) == forecast_nodes(4, 1, 3)
    assert context_edges(forecast_nodes(4, 1, 3)).target == [4, 4, 4, 4]


def slow_weights(tokens, edges):
    found = np.zeros((len(tokens), len(edges.source)))
    for row, states in enumerate(tokens.double().numpy()):
        for number, (s, t) in enumerate(zip(edges.source, edges.target, strict=True)):
            found[row, number] = 1 + states[s] @ states[t] / np.linalg.norm(states[s]) / np.linalg.norm(states[t])
        for group in range(edges.groups):
            inside = [n for n, g in enumerate(edges.group) if g == group]
            found[row, inside] /= found[row, inside].sum()
    return found


def test_weights_against_loops_and_their_invariants():
    nodes, torch_rows = forecast_nodes(7, 3, 2), torch.randn(4, 13, 6, generator=torch.Generator().manual_seed(0))
    graph, edges = ContextGraph(nodes), context_edges(nodes)
    weights = graph.weights(torch_rows)
    np.testing.assert_allclose(weights.numpy(), slow_weights(torch_rows, edges), rtol=1e-5, atol=1e-6)
    for group in range(edges.groups):
        sums = weights[:, torch.tensor(edges.group) == group].sum(1)
        torch.testing.assert_close(sums, torch.ones(4))
    scaled = torch_rows * torch.rand(4, 13, 1, generator=torch.Generator().manual_seed(1)).add(0.1) * 7
    torch.testing.assert_close(graph.weights(scaled), weights, rtol=1e-4, atol=1e-5)
    same = graph.weights(torch.ones(1, 13, 6))[0]
    for group in range(edges.groups):
        inside = same[torch.tensor(edges.group) == group]
        torch.testing.assert_close(inside, torch.full_like(inside, 1 / len(inside)))


def test_opposite_tokens_give_no_nan():
    nodes = forecast_nodes(1, 1, 1)
    tokens = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]], requires_grad=True)
    weights = ContextGraph(nodes).weights(tokens)
    weights.sum().backward()
    assert weights.isfinite().all() and tokens.grad.isfinite().all()


def test_assignment_columns_and_rows():
    nodes = forecast_nodes(7, 3, 2)
    matrix = assignment(nodes)
    torch.testing.assert_close(matrix.sum(0), torch.ones(6))
    assert (matrix > 0).sum(1).eq(1).all()
    plain = assignment(nodes, normalised=False)
    assert plain.sum(1).eq(1).all() and plain.sum(0).tolist() == [2, 2, 2, 2, 3, 2]


def small_graph(edge_index, tokens):
    graph = ContextGraph(forecast_nodes(tokens - 1, 1, 1))
    graph.tokens = tokens
    graph.source, graph.target = edge_index
    graph.members = torch.ones(edge_index.shape[1], 1)
    return graph


def test_gcn_reference():
    data = {name: torch.tensor(value) for name, value in np.load(GOLDEN / "gcn_reference.npz").items()}
    gcn, graph = DirectedGcn(3), small_graph(data["edge_index"], 4)
    gcn.load_state_dict({"weight": data["lin_weight"], "bias": data["bias"]})
    x = data["x"][None]
    torch.testing.assert_close(gcn(x, graph.adjacency(data["edge_weight"][None]))[0], data["out_weighted"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gcn(x, graph.adjacency())[0], data["out_unweighted"], rtol=1e-5, atol=1e-6)


def test_gcn_without_edges_is_linear_and_rows_are_independent():
    gcn, rows = DirectedGcn(5), torch.randn(3, 4, 5)
    empty = small_graph(torch.zeros(2, 0, dtype=torch.long), 4)
    torch.testing.assert_close(gcn(rows, empty.adjacency(torch.zeros(3, 0))), F.linear(rows, gcn.weight, gcn.bias))
    graph = ContextGraph(forecast_nodes(3, 1, 1))
    whole = gcn(rows, graph.adjacency(graph.weights(rows)))
    other = rows.clone()
    other[1] += 1
    changed = gcn(other, graph.adjacency(graph.weights(other)))
    assert torch.equal(whole[[0, 2]], changed[[0, 2]]) and not torch.allclose(whole[1], changed[1])
    alone = gcn(rows[:1], graph.adjacency(graph.weights(rows[:1])))
    torch.testing.assert_close(alone, whole[:1])


def slow_gcn(states, weight, bias, edges, strengths):
    out = []
    degree = [1 + sum(w for (_, t), w in zip(edges, strengths, strict=True) if t == i) for i in range(len(states))]
    for i in range(len(states)):
        total = weight @ states[i] / degree[i]
        for (s, t), w in zip(edges, strengths, strict=True):
            if t == i:
                total = total + w / (degree[s] * degree[i]) ** 0.5 * (weight @ states[s])
        out.append(total + bias)
    return torch.stack(out)


def test_gcn_against_loops():
    nodes = forecast_nodes(7, 3, 2)
    graph, edges, gcn = ContextGraph(nodes), context_edges(nodes), DirectedGcn(6)
    tokens = torch.randn(2, 13, 6, generator=torch.Generator().manual_seed(3))
    weights = graph.weights(tokens)
    found = gcn(tokens, graph.adjacency(weights))
    pairs = list(zip(edges.source, edges.target, strict=True))
    for row in range(2):
        slow = slow_gcn(tokens[row], gcn.weight, gcn.bias, pairs, weights[row].tolist())
        torch.testing.assert_close(found[row], slow, rtol=1e-5, atol=1e-5)


def test_graph_has_nothing_of_a_batch_and_nothing_to_save():
    graph = ContextGraph(forecast_nodes(7, 3, 2))
    assert not graph.state_dict() and len(graph.source) == len(context_edges(forecast_nodes(7, 3, 2)).source)
    before = graph.source.clone()
    graph.weights(torch.randn(5, 13, 4))
    graph.weights(torch.randn(2, 13, 4))
    assert torch.equal(graph.source, before)


def test_too_few_patches_for_the_segments():
    with pytest.raises(AssemblyError, match="3 patches cannot be split into 4 segments"):
        segment_lengths(3, 4)


def test_places_are_contiguous():
    assert [list(place) for place in places(forecast_nodes(3, 2, 2))] == [[0], [1, 2], [3, 4], [5, 6]]
