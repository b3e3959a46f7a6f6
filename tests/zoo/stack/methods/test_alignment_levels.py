"""Alignment levels in a stack: where the vector stands, what it is in both stages, and LLaVA to the bit without it."""

import math

import pytest
import torch

from modalign.trainers.roles import freeze, select
from modalign.zoo.encoders.image.preprocess import ImagePreprocess
from modalign.zoo.errors import AssemblyError, RecipeError
from modalign.zoo.language.encode import IGNORE, IMAGE_PLACEHOLDER, PREFIX_PLACEHOLDER
from modalign.zoo.stack.generate import Decoding, Prompt, answers
from modalign.zoo.stack.hooks import Surroundings
from modalign.zoo.stack.methods.alignment_levels import AlignmentLevels

ASKED = [(1, "What is it?"), (0, "How many birds are there?"), (1, "How many birds sit on the wire?")]


@pytest.fixture
def aligned(stack):
    """Settings of the hook -> a stack with it."""
    return lambda **settings: stack("aligngpt", hooks={"alignment_levels": settings})


def vectors(model, batch):
    """The vectors at their places, a row at a time."""
    with torch.no_grad():
        embedded = model.embed(batch)
    return [embedded[row][batch["ids"][row] == PREFIX_PLACEHOLDER] for row in range(len(embedded))]


def slow_vector(model, batch, row, number, *, gate_text):
    """The vector of a row in plain loops."""
    hook = model.hooks["alignment_levels"]
    with torch.no_grad():
        picture = model.projected(batch)[number]
        ids, table = batch["ids"][row].tolist(), model.language.table
        place = ids.index(PREFIX_PLACEHOLDER)
        if gate_text == "instruction":
            words = [id_ for id_, own in zip(ids, batch["instruction"][row].tolist()) if own]
        else:
            words = [id_ for at, id_ in enumerate(ids) if at > place and id_ >= 0 and batch["mask"][row, at]]
        text = sum(table[id_] for id_ in words) / len(words)
        products = torch.stack([token @ text for token in picture])
        first, _, second = hook.gate.layers
        hidden = torch.nn.functional.gelu(first.weight @ products + first.bias)
        scores = [math.exp(value) for value in (second.weight @ hidden + second.bias).tolist()]
        levels = hook.table
        return levels[-1] + sum(score / sum(scores) * levels[i] for i, score in enumerate(scores))


def test_the_sequence_is_one_longer_behind_the_start_token(aligned, stack, batch_of):
    plain, model = stack("llava"), aligned()
    before, after = batch_of(plain, ASKED), batch_of(model, ASKED)
    for row, (pictures, _) in enumerate(ASKED):
        old = before["ids"][row][before["mask"][row]].tolist()
        new = after["ids"][row][after["mask"][row]].tolist()
        assert new == ([old[0], PREFIX_PLACEHOLDER, *old[1:]] if pictures else old)
        assert after["labels"][row][after["ids"][row] == PREFIX_PLACEHOLDER].tolist() == [IGNORE] * pictures
    assert before["ids"][0, 0] == model.language.tokenizer.bos_token_id


def test_without_the_vector_it_is_llava_to_the_bit(aligned, stack, like, batch_of, logits_of):
    plain = stack("llava")
    model = like(plain, aligned(insert=False))
    batch = batch_of(model, ASKED)
    assert torch.equal(batch["ids"], batch_of(plain, ASKED)["ids"])
    assert torch.equal(logits_of(plain, batch), logits_of(model, batch))


def test_a_known_level_is_its_row_of_the_table(aligned, batch_of):
    model = aligned()
    batch = batch_of(model, ASKED, levels=[5, 0, 7])
    found, table = vectors(model, batch), model.hooks["alignment_levels"].table
    assert torch.equal(found[0], table[5:6]) and torch.equal(found[2], table[7:8])
    assert len(found[1]) == 0


@pytest.mark.parametrize("gate_text", ["instruction", "all"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_combined_vector_in_plain_loops(aligned, batch_of, gate_text, side):
    model = aligned(gate_text=gate_text)
    batch = batch_of(model, ASKED, side)
    found = vectors(model, batch)
    for row, number in ((0, 0), (2, 1)):
        expected = slow_vector(model, batch, row, number, gate_text=gate_text)
        assert torch.allclose(found[row][0], expected, atol=1e-5)
    assert len(found[1]) == 0


def test_the_instruction_does_not_see_the_answer_and_all_does(aligned, batch_of):
    for gate_text, same in (("instruction", True), ("all", False)):
        model = aligned(gate_text=gate_text)
        learnt, asked = batch_of(model), batch_of(model, prompt=True)
        assert torch.allclose(vectors(model, learnt)[0], vectors(model, asked)[0], atol=1e-6) is same


def test_only_levels_of_the_batch_get_gradient(aligned, batch_of):
    model = aligned()
    model(batch_of(model, ASKED, levels=[5, 1, 2]))["token_states"].square().sum().backward()
    table = model.hooks["alignment_levels"].table
    assert table.grad.any(1).nonzero().flatten().tolist() == [2, 5]  # level 1 is of the row without a picture
    assert all(parameter.grad is None for parameter in model.hooks["alignment_levels"].gate.parameters())


def test_the_second_stage_freezes_the_table_and_trains_the_gate(aligned, batch_of):
    model = aligned()
    freeze(model, select(model, {"projector": 1e-3, "aux:alignment_levels.gate.*": 1e-3}, "stages.tune"))
    model(batch_of(model, ASKED))["token_states"].square().sum().backward()
    hook = model.hooks["alignment_levels"]
    assert hook.table.grad is None
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in hook.gate.parameters())


@pytest.mark.parametrize("levels", [None, [3]])
def test_a_batch_without_pictures_keeps_every_parameter_in_the_graph(aligned, batch_of, levels):
    model = aligned()
    model(batch_of(model, [(0, "How many birds?")], levels=levels))["token_states"].sum().backward()
    hook = model.hooks["alignment_levels"]
    wanted = hook.parameters() if levels is None else [hook.table]
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in wanted)


def test_several_pictures_in_a_row_are_refused(aligned, batch_of):
    model = aligned()
    with pytest.raises(AssemblyError, match="sample 'k1': 2 pictures or tiles share one conversation"):
        model(batch_of(model, [(1, "What is it?"), (2, "What is it?")]))


def test_or_their_products_are_averaged(aligned, batch_of):
    model = aligned(several="average")
    batch = batch_of(model, [(2, "What is it?"), (1, "How many birds?")])
    hook = model.hooks["alignment_levels"]
    with torch.no_grad():
        tiles, embedded = model.projected(batch), model.embed_ids(batch["ids"])
        text = embedded[0][batch["instruction"][0]].mean(0)
        weights = hook.gate(((tiles[0] + tiles[1]) / 2 @ text)[None])
        expected = hook.table[-1] + weights[0] @ hook.table[:-1]
    assert torch.allclose(vectors(model, batch)[0][0], expected, atol=1e-5)


def test_tiles_count_as_pictures(stack, batch_of):
    model = stack("aligngpt", picture={"mode": "anyres", "grids": [[1, 2], [2, 1]]}, hooks={"alignment_levels": {}})
    with pytest.raises(AssemblyError, match="3 pictures or tiles"):
        model(batch_of(model))


def test_the_table_starts_xavier_uniform():
    hook = AlignmentLevels(Surroundings(4096, ImagePreprocess(28, (0.5,) * 3, (0.5,) * 3), 576))
    bound = math.sqrt(6 / (8 + 4096))
    assert hook.table.shape == (8, 4096) and float(hook.table.detach().abs().max()) <= bound
    assert float(hook.table.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_generation_uses_the_combined_vector(aligned, photo):
    model = aligned()
    prompts = [Prompt(_asked(), [photo(40, 30)])]
    before = answers(model, prompts, Decoding(max_new_tokens=6))
    with torch.no_grad():
        model.hooks["alignment_levels"].table[-1] += 50 * torch.randn(model.language.width)
    assert answers(model, prompts, Decoding(max_new_tokens=6)) != before


def _asked():
    from modalign.zoo.language.turns import Dialogue, ImagePart, TextPart, Turn

    return Dialogue((Turn("user", (ImagePart(0), TextPart(" What is it?"))),))


def test_what_a_batch_may_not_have(aligned, batch_of):
    model = aligned(levels=4)
    with pytest.raises(AssemblyError, match="sample 'k1': level 4 is none of the 4 there are"):
        model(batch_of(model, [(1, "What is it?")] * 2, levels=[3, 4]))
    batch = batch_of(model)
    with pytest.raises(AssemblyError, match="do not pack rows"):
        model.hooks["alignment_levels"].sequence_prefix({n: v for n, v in batch.items() if n != "mask"}, None, None)
    with pytest.raises(AssemblyError, match="made for 16 tokens of a tile, but another hook makes them 9"):
        features = torch.randn(1, 9, 16)
        model.hooks["alignment_levels"].sequence_prefix(batch, model.embed_ids(batch["ids"]), features)


@pytest.mark.parametrize("settings", [{"levels": 1}, {"hidden": 0}])
def test_what_is_refused(aligned, settings):
    with pytest.raises(RecipeError, match="alignment_levels"):
        aligned(**settings)


def test_beside_the_prompts_of_positions(stack, batch_of, local_settings):
    model = stack("aligngpt", hooks={"vpp_global": {}, "vpp_local": local_settings, "alignment_levels": {}})
    batch = batch_of(model, ASKED)
    assert (batch["ids"] == IMAGE_PLACEHOLDER).sum(1).tolist() == [21, 0, 21]
    assert torch.allclose(vectors(model, batch)[0][0], slow_vector(model, batch, 0, 0, gate_text="instruction"), atol=1e-5)
