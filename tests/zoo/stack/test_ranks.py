"""Two ranks, of which one shows no picture: a step ends, and its gradients are those of one process; plain and sharded."""

import pytest
import torch

from . import rank_steps
from .test_model import batch_of

FILE = rank_steps.__file__
SPLITS = {
    "one rank shows none": (["text"], ["one", "two"]),
    "none shows one": (["text"], ["text", "text"]),
    "both": (["two"], ["one"]),
}
CASES = [("llava", "llama", {}), ("llava_onevision", "gpt2", {}), ("llava_next", "llama", {"lora": {"rank": 2, "dropout": 0.0}})]


@pytest.fixture(scope="module")
def alone(stack_settings):
    """One process over everything: loss and gradients."""
    made = {}

    def run(family, language, sections, names):
        key = (family, language, names)
        if key not in made:
            settings = stack_settings(language, **sections)
            model = rank_steps.built(family, settings)
            batch = batch_of(model, names)
            loss = rank_steps.NextTokenLoss()(model(batch), batch).value
            loss.backward()
            made[key] = (loss.item(), rank_steps.gradients(model), settings, model)
        return made[key]

    return run


def compare(found, wanted, names):
    for name in names:
        have, want = found[name], wanted[name]
        assert have is not None, f"{name} was not reached"
        torch.testing.assert_close(have, torch.zeros_like(have) if want is None else want, rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.timeout(280)  # a rank imports all libraries first
@pytest.mark.parametrize("how", ["ddp", "fsdp"])
@pytest.mark.parametrize(("family", "language", "sections"), CASES)
@pytest.mark.parametrize("split", SPLITS)
def test_a_step_of_two_ranks_is_that_of_one_process(ranks, alone, split, family, language, sections, how):
    parts = SPLITS[split]
    loss, wanted, settings, model = alone(family, language, sections, tuple(name for part in parts for name in part))
    batches = [batch_of(model, part) for part in parts]
    found = ranks(2).run(FILE, "step", how, family, settings, batches)
    assert sum(own for own, _ in found) / 2 == pytest.approx(loss, rel=1e-10)
    assert found[0][1].keys() == wanted.keys()
    for _, grads in found:
        compare(grads, wanted, wanted)
    assert any(grad is not None and grad.any() for name, grad in wanted.items() if name.startswith("language"))
    assert any(grad.any() for name, grad in wanted.items() if name.startswith("projector")) == (split != "none shows one")


@pytest.mark.timeout(280)  # a rank imports all libraries first
@pytest.mark.parametrize(("family", "language", "sections"), CASES)
def test_a_sharded_stack_moves_and_is_saved_as_a_whole_one(ranks, alone, family, language, sections):
    _, wanted, settings, model = alone(family, language, sections, ("text", "one", "two"))
    batches = [batch_of(model, ["text"]), batch_of(model, ["one", "two"])]
    one, two = ranks(2).run(FILE, "state_behind_a_step", family, settings, batches)
    before = model.state_dict()
    assert one.keys() == two.keys() == before.keys()
    for name, value in before.items():
        moved = value - 0.1 * wanted[name] if wanted.get(name) is not None else value
        torch.testing.assert_close(one[name], moved, rtol=1e-8, atol=1e-10, msg=name)
        assert torch.equal(one[name], two[name])
