"""The loss of the tokens to be learnt: against transformers' own, loops, and one process for several ranks; and what it never makes."""

import pytest
import torch
import torch.nn.functional as F

from modalign.zoo.errors import AssemblyError, RecipeError
from modalign.zoo.losses.next_token import NextTokenLoss, next_token_sum
from modalign.zoo.registry import LOSSES

TOKENS, WIDTH, WORDS = 23, 6, 11
IGNORE = -100


def outputs_of(tokens=TOKENS, bias=False, logits=False, dtype=torch.float64):
    """What a stack gives: tokens of four samples, of which the third has none."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()

    labels = torch.randint(0, WORDS, (tokens,), generator=generator)
    rows = torch.tensor([0, 1, 1, 3, 3, 3]).repeat(tokens // 6 + 1)[:tokens].sort().values
    found = {"token_labels": labels, "token_rows": rows}
    if logits:
        return found | {"token_logits": draw(tokens, WORDS)}
    found |= {"token_states": draw(tokens, WIDTH), "head_weight": draw(WORDS, WIDTH)}
    return found | ({"head_bias": draw(WORDS)} if bias else {})


def slow_log_probabilities(outputs):
    """One token at a time."""
    found = []
    for place, label in enumerate(outputs["token_labels"].tolist()):
        if "token_logits" in outputs:
            row = outputs["token_logits"][place]
        else:
            row = outputs["head_weight"] @ outputs["token_states"][place] + outputs.get("head_bias", 0.0)
        found.append(row[label] - row.exp().sum().log())
    return torch.stack(found)


def leaves_of(outputs):
    return {name: value for name, value in outputs.items() if value.is_leaf and value.requires_grad}


def check(loss, wanted, outputs):
    """Value and all gradients."""
    torch.testing.assert_close(loss, wanted, rtol=1e-10, atol=1e-12)
    leaves = leaves_of(outputs)
    for name, have, want in zip(
        leaves, torch.autograd.grad(loss, leaves.values()), torch.autograd.grad(wanted, leaves.values()), strict=True
    ):
        torch.testing.assert_close(have, want, rtol=1e-9, atol=1e-12, msg=name)


SHAPES = {"states": {}, "with a bias": {"bias": True}, "logits": {"logits": True}}


@pytest.mark.parametrize("chunk", [1, 4, 23, 1000])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_mean_over_tokens_is_the_loops(shape, chunk):
    outputs = outputs_of(**SHAPES[shape])
    check(NextTokenLoss(chunk=chunk)(outputs, {}).value, -slow_log_probabilities(outputs).mean(), outputs)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mean_over_samples_is_the_loops(shape):
    outputs = outputs_of(**SHAPES[shape])
    each = [-slow_log_probabilities(outputs)[outputs["token_rows"] == row].mean() for row in (0, 1, 3)]
    check(NextTokenLoss("samples")(outputs, {}).value, torch.stack(each).mean(), outputs)
    assert NextTokenLoss("samples")(outputs, {}).value != NextTokenLoss()(outputs, {}).value


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sum_over_chosen_tokens(shape):
    outputs = outputs_of(**SHAPES[shape])
    chosen = outputs["token_rows"] == 1
    check(next_token_sum(outputs, chosen, 3), -slow_log_probabilities(outputs)[chosen].sum(), outputs)


@pytest.mark.parametrize("mean_over", ["tokens", "samples"])
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_to_learn_is_0_with_a_graph(shape, mean_over):
    outputs = outputs_of(0, **SHAPES[shape])
    value = NextTokenLoss(mean_over)(outputs, {}).value
    value.backward()
    assert value.item() == 0.0 and all(leaf.grad is not None and not leaf.grad.any() for leaf in leaves_of(outputs).values())


# transformers' own


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    from ..stack import written  # here, for the ranks load this file alone

    return lambda kind: written.write_language(tmp_path_factory.mktemp(kind), kind)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "cohere", "gemma2"])
def test_it_is_transformers_own_loss_of_the_same_model(folder_of, kind):
    from transformers import AutoModelForCausalLM

    from modalign.zoo.registry import FAMILIES

    folder = folder_of(kind)
    image = {"name": "timm:test_vit", "image_size": 160, "pretrained": False}
    model = FAMILIES.get("llava").from_settings(
        {"image": image, "language": {"name": f"local-dir:{folder}"}, "chat": {"template": "vicuna_v1"}}
    )
    model.eval()
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(6, 300, (3, 9), generator=generator)
    labels = torch.where(torch.rand(3, 9, generator=generator) < 0.6, ids, IGNORE)
    batch = {"ids": ids, "labels": labels, "mask": torch.ones_like(ids, dtype=torch.bool)}
    loss = NextTokenLoss()(model(batch), batch).value
    wanted = theirs(ids, labels=labels).loss
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)
    loss.backward(), wanted.backward()
    own = dict(model.language.model.named_parameters())
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(own[name].grad, parameter.grad, rtol=1e-4, atol=1e-6, msg=name)
    labels[:2] = IGNORE  # one sample alone has something to learn
    wanted = theirs(ids[2:], labels=labels[2:]).loss
    for how in ("tokens", "samples"):
        torch.testing.assert_close(NextTokenLoss(how)(model(batch), batch).value, wanted, rtol=1e-5, atol=1e-6)


def test_padding_and_precision_do_not_change_it():
    exact = outputs_of()
    half = {name: value.detach().to(torch.bfloat16) if value.is_floating_point() else value for name, value in exact.items()}
    whole = {name: value.float() if value.is_floating_point() else value for name, value in half.items()}
    value = NextTokenLoss()(half, {}).value
    assert value.dtype == torch.float32 and value.item() == pytest.approx(NextTokenLoss()(whole, {}).value.item(), rel=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert NextTokenLoss()(whole, {}).value.item() == NextTokenLoss()(whole, {}).value.item()
        assert NextTokenLoss()(whole, {}).value.dtype == torch.float32


# memory


@pytest.mark.parametrize("mean_over", ["tokens", "samples"])
def test_no_tensor_as_large_as_the_logits_is_ever_made(largest_tensor, kept_for_backward, mean_over):
    tokens, width, words, chunk = 512, 8, 1000, 16
    states = torch.randn(tokens, width, requires_grad=True)
    weight = torch.randn(words, width, requires_grad=True)
    rows = torch.arange(tokens) // 64
    outputs = {"token_states": states, "head_weight": weight, "token_labels": torch.arange(tokens), "token_rows": rows}
    with largest_tensor() as seen:
        NextTokenLoss(mean_over, chunk)(outputs, {}).value.backward()
    assert seen.numel == max(chunk * words, words * width) < tokens * words / 10
    assert kept_for_backward(lambda: NextTokenLoss(mean_over, chunk)(outputs, {})) < 2 * (words * width + tokens * width)
    with largest_tensor() as seen:
        F.cross_entropy(states @ weight.T, outputs["token_labels"]).backward()
    assert seen.numel == tokens * words, "otherwise nothing would be measured"


# ranks


def on_a_rank(rank, world, mean_over, shape, cuts):
    """This rank's tokens alone; (value, gradients of its states, of the head)."""
    outputs = outputs_of(**SHAPES[shape])
    mine = slice(([0, *cuts])[rank], ([*cuts, TOKENS])[rank])
    own = {name: value.detach()[mine] if name.startswith("token") else value.detach() for name, value in outputs.items()}
    leaves = [value.requires_grad_() for value in own.values() if value.is_floating_point()]
    value = NextTokenLoss(mean_over)(own, {}).value
    value.backward()
    return value.item(), [leaf.grad.numpy() for leaf in leaves]


@pytest.mark.parametrize("cuts", [[6], [20], [23]])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean_over", ["tokens", "samples"])
def test_ranks_with_different_numbers_of_tokens_are_one_process(ranks, mean_over, shape, cuts):
    """Their values' mean is its value, the mean of the head's gradients its gradient; a rank may hold nothing. Rows are whole samples."""
    outputs = outputs_of(**SHAPES[shape])
    rows = outputs["token_rows"].tolist()
    cuts = [next(place for place in range(cut, TOKENS + 1) if place == TOKENS or rows[place] != rows[place - 1]) for cut in cuts]
    value = NextTokenLoss(mean_over)(outputs, {}).value
    value.backward()
    found = ranks(2).run(__file__, "on_a_rank", mean_over, shape, cuts)
    assert sum(own for own, _ in found) / 2 == pytest.approx(value.item(), rel=1e-12)
    leaves = list(leaves_of(outputs).values())
    states = torch.cat([torch.from_numpy(grads[0]) for _, grads in found]) / 2
    torch.testing.assert_close(states, leaves[0].grad, rtol=1e-10, atol=1e-13)
    for number, leaf in enumerate(leaves[1:], 1):
        mean = sum(torch.from_numpy(grads[number]) for _, grads in found) / 2
        torch.testing.assert_close(mean, leaf.grad, rtol=1e-10, atol=1e-13)


# what is refused


def test_a_missing_entry_is_named_with_what_there_is():
    outputs = outputs_of()
    for name in ("token_labels", "token_states", "head_weight"):
        with pytest.raises(AssemblyError, match=rf"loss NextTokenLoss needs '{name}'.*this step provides: .*token_rows"):
            NextTokenLoss()({key: value for key, value in outputs.items() if key != name}, {})
    with pytest.raises(AssemblyError, match="needs 'token_rows'"):
        NextTokenLoss("samples")({key: value for key, value in outputs.items() if key != "token_rows"}, {})


def test_settings_come_from_the_registry_and_wrong_ones_are_refused():
    loss = LOSSES.get("next_token")(mean_over="samples", chunk=7)
    assert (loss.mean_over, loss.chunk) == ("samples", 7)
    for chunk in (0, -1):
        with pytest.raises(RecipeError, match="chunk"):
            NextTokenLoss(chunk=chunk)
