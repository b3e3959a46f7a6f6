"""What methods add to a stack: nothing where they add nothing, each place where it does, gradients, answers, releases."""

import pytest
import torch

from modalign import zoo
from modalign.zoo.checkpoints.release import save_release
from modalign.zoo.errors import AssemblyError, RecipeError
from modalign.zoo.language.encode import IMAGE_PLACEHOLDER, PREFIX_PLACEHOLDER
from modalign.zoo.losses.next_token import NextTokenLoss
from modalign.zoo.stack.generate import Decoding, generate

from . import tiny_hooks
from .test_model import SAMPLES, V, batch_of, examples_of, logits_of, total_of

EVERY = ("test_overlay", "test_halves", "test_queries", "test_prefix", "test_coordinates", "test_masks")


@pytest.fixture(scope="module", autouse=True)
def registered():
    tiny_hooks.register()
    yield
    tiny_hooks.forget()


@pytest.fixture
def hooked(stack):
    """A plain stack and the same with hooks: every part they share has the same weights."""

    def build(*names, family="llava", language="llama", **settings):
        plain = stack(family, language)
        model = stack(family, language, hooks={name: settings.get(name, {}) for name in names})
        missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
        assert not unexpected and all(name.startswith("hooks.") for name in missing)
        return plain, model

    return build


# off


@pytest.mark.parametrize("family", ["llava", "llava_next", "llava_onevision"])
def test_a_hook_that_defines_nothing_changes_no_bit(hooked, family):
    plain, model = hooked("test_nothing", family=family)
    assert torch.equal(logits_of(model, batch_of(model)), logits_of(plain, batch_of(plain)))
    assert torch.equal(total_of(model, batch_of(model)), total_of(plain, batch_of(plain)))
    for one, other in zip(examples_of(model), examples_of(plain), strict=True):
        assert {name: value for name, value in one.items() if name != "image"} == {
            name: value for name, value in other.items() if name != "image"
        }


@pytest.mark.parametrize("language", ["llama", "gpt2"])
def test_a_stack_without_hooks_is_its_parts_one_after_another(stack, language):
    """The slow way, without anything of the stack but its parts."""
    model = stack("llava", language)
    batch = batch_of(model, ["two"])
    with torch.no_grad():
        hidden = model.image.model(pixel_values=model.image.normalise(batch["image"]), output_hidden_states=True).hidden_states[
            -2
        ]
        features = model.projector(hidden[:, 1:])
        rows, picture, place = [], 0, 0
        for id_ in batch["ids"][0].tolist():
            if id_ == IMAGE_PLACEHOLDER:
                rows.append(features[picture, place])
                picture, place = (picture, place + 1) if place + 1 < V else (picture + 1, 0)
            else:
                rows.append(model.language.table[id_])
        wanted = model.language.model(inputs_embeds=torch.stack(rows)[None]).logits
    assert torch.equal(logits_of(model, batch), wanted)


def test_an_overlay_of_zero_and_tokens_that_no_text_has_change_nothing(hooked):
    plain, model = hooked("test_overlay", "test_coordinates", test_overlay={"strength": 0.0})
    found, wanted = logits_of(model, batch_of(model)), logits_of(plain, batch_of(plain))
    torch.testing.assert_close(found[..., :336], wanted, rtol=1e-5, atol=1e-5)
    assert found.shape[-1] == 336 + tiny_hooks.EXTRA


# each place


def test_pre_image_is_given_normalised_pictures(hooked):
    plain, model = hooked("test_overlay")
    batch = batch_of(model)
    shown = plain.image.normalise(batch["image"]) + model.hooks["test_overlay"].picture
    torch.testing.assert_close(model.features(batch["image"]), plain.image.tokens_of(shown, -2)[:, 1:], rtol=0, atol=0)
    moved = (total_of(model, batch) - total_of(plain, batch)).abs()
    assert moved[0] == 0 and moved[1:].min() > 1e-4, "the text alone is as it was"


def test_post_projector_packs_tokens_and_the_text_leaves_fewer_places(hooked):
    plain, model = hooked("test_halves")
    assert [example["lengths"] for example in examples_of(model)] == [[], [V // 2], [V // 2] * 2]
    batch = batch_of(model)
    tiles = plain.projected(batch_of(plain))
    wanted = model.hooks["test_halves"].linear(torch.cat([tiles[:, 0::2], tiles[:, 1::2]], dim=-1))
    torch.testing.assert_close(model.embed(batch)[batch["ids"] == IMAGE_PLACEHOLDER], wanted.flatten(0, 1))


def test_packed_tokens_leave_no_grid_to_tile(stack):
    with pytest.raises(AssemblyError, match=r"no grid of them is left .*a hook"):
        stack("llava_next", hooks={"test_halves": {}})


@pytest.mark.parametrize("family", ["llava", "llava_next", "llava_onevision"])
def test_a_token_source_stands_behind_each_pictures_own_tokens(hooked, family):
    plain, model = hooked("test_queries", family=family)
    examples, before = examples_of(model), examples_of(plain)
    assert examples[2]["small_image"].shape == (2, 3, 8, 8) and "small_image" not in examples[0]
    batch, hook = model.collate()(examples), model.hooks["test_queries"]
    assert batch["image_lengths"].tolist() == [length + 2 for example in before for length in example["lengths"]]
    found, own = model.embed(batch)[batch["ids"] == IMAGE_PLACEHOLDER], plain.embed(plain.collate()(before))
    own = own[plain.collate()(before)["ids"] == IMAGE_PLACEHOLDER]
    queries, place, first = hook.token_source(batch, 3), 0, 0
    for number, length in enumerate(batch["image_lengths"].tolist()):
        assert torch.equal(found[place : place + length - 2], own[first : first + length - 2])
        assert torch.equal(found[place + length - 2 : place + length], queries[number])
        place, first = place + length, first + length - 2


def test_a_prefix_stands_behind_the_start_token_of_rows_with_pictures(hooked):
    _, model = hooked("test_prefix")
    batch = batch_of(model)
    assert (batch["ids"] == PREFIX_PLACEHOLDER).sum(1).tolist() == [0, 2, 2]
    embeddings, hook = model.embed(batch), model.hooks["test_prefix"]
    for row in (1, 2):
        words = model.language.table[batch["ids"][row][batch["instruction"][row]]].mean(0)
        torch.testing.assert_close(embeddings[row, 1:3], torch.stack([hook.vector, words]))
        assert batch["ids"][row, 0] == 1
    assert torch.equal(embeddings[0, 0], model.language.table[1])


def test_a_prefix_for_all(hooked):
    _, model = hooked("test_prefix", test_prefix={"always": True})
    batch = batch_of(model)
    assert (batch["ids"] == PREFIX_PLACEHOLDER).sum(1).tolist() == [2, 2, 2]
    assert torch.equal(model.embed(batch)[0, 1], model.hooks["test_prefix"].vector)
    alone = torch.cat([total_of(model, batch_of(model, [name])) for name in SAMPLES])
    torch.testing.assert_close(total_of(model, batch), alone, rtol=1e-5, atol=1e-5)


def test_a_prefix_of_another_length_is_an_error_that_names_the_sample(hooked):
    _, model = hooked("test_prefix")
    batch = batch_of(model)
    batch["ids"][1, 2] = 9
    with pytest.raises(AssemblyError, match="sample 'one': 1 placeholders for a prefix of 2 vectors"):
        model(batch)


def test_a_prefix_needs_its_pictures_features(hooked):
    _, model = hooked("test_prefix", test_prefix={"always": True})
    batch = model.collate(pixels=False)(examples_of(model, ["text"], pixels=False))
    with pytest.raises(AssemblyError, match="placeholders for pictures or a prefix, but no pictures"):
        model(batch)


@pytest.mark.parametrize("language", ["llama", "gpt2", "cohere", "gemma2"])
def test_extra_ids_are_read_written_and_learnt(hooked, language):
    plain, model = hooked("test_coordinates", language=language)
    hook, batch = model.hooks["test_coordinates"], batch_of(model, ["text"])
    batch["ids"][0, 3], batch["ids"][0, -2] = 337, 338
    batch["labels"][0, -2] = 338
    embeddings = model.embed(batch)
    assert torch.equal(embeddings[0, 3], hook.first[1]) and torch.equal(
        embeddings[0, 4], plain.language.embed(batch["ids"][:, 4])[0]
    )
    with torch.no_grad():
        states = model.language.states(embeddings)
    plainly = states @ hook.last.T
    scale = {"cohere": lambda x: x * 0.25, "gemma2": lambda x: 0.5 * torch.tanh(x / 0.5)}.get(language, lambda x: x)
    torch.testing.assert_close(logits_of(model, batch)[..., 336:], scale(plainly), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits_of(model, batch)[..., :336], plain.logits(states), rtol=1e-5, atol=1e-5)
    logits = logits_of(model, batch)
    places = (batch["labels"][0, 1:] != -100).nonzero()[:, 0]
    wanted = torch.nn.functional.cross_entropy(logits[0, places], batch["labels"][0, places + 1])
    loss = NextTokenLoss()(model(batch), batch).value
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)
    loss.backward()
    assert hook.first.grad[1].abs().max() > 0 and not hook.first.grad[0].any() and hook.last.grad.abs().amin(1).min() > 0


@pytest.mark.parametrize("language", ["llama", "gpt2", "gemma2"])
def test_extra_ids_are_generated_and_gone_on_from(hooked, language):
    """Greedy answers against a loop that runs the whole sequence for every token."""
    plain, model = hooked("test_coordinates", language=language)
    hook = model.hooks["test_coordinates"]
    prepare = model.prepare()
    dialogue, images = SAMPLES["one"]
    batch = model.collate("left")([prepare("one", type(dialogue)(dialogue.turns[:1]), images, prompt=True)])
    with torch.no_grad():
        hook.last.copy_(3 * hook.last / hook.last.norm(dim=1, keepdim=True) * model.head()[0][:336].norm(dim=1).max())
    found = generate(model, {name: value for name, value in batch.items() if name != "labels"}, Decoding(max_new_tokens=6))[0]
    ids, wanted = batch["ids"], []
    while len(wanted) < 6:
        more = {**batch, "ids": ids, "mask": torch.ones_like(ids, dtype=torch.bool)}
        wanted.append(int(logits_of(model, more)[0, -1].argmax()))
        ids = torch.cat([ids, torch.tensor([wanted[-1:]])], dim=1)
    assert found == wanted[: wanted.index(2)] if 2 in wanted else found == wanted
    assert any(id_ >= 336 for id_ in found), "otherwise nothing would be shown"
    assert model.language.model.get_input_embeddings().weight is model.language.table and plain.language.vocabulary == 336
    assert model.language.head()[0].shape[0] == 336


def test_aux_heads_are_given_the_states_and_add_named_tensors(hooked):
    plain, model = hooked("test_masks")
    batch = batch_of(model)
    outputs = model(batch)
    states = plain.language.states(plain.embed(batch), batch["mask"])
    torch.testing.assert_close(outputs["masks"], model.hooks["test_masks"].head(states))
    assert torch.equal(outputs["token_states"], plain(batch)["token_states"])
    outputs["masks"].sum().backward()
    assert model.hooks["test_masks"].head.weight.grad.abs().max() > 0


# together


@pytest.mark.parametrize("names", [("text",), ("text", "one"), tuple(SAMPLES)])
def test_every_hook_is_reached_whatever_the_batch_shows(hooked, names):
    _, model = hooked(*EVERY)
    batch = batch_of(model, names)
    outputs = model(batch)
    (NextTokenLoss()(outputs, batch).value + outputs["masks"].square().sum()).backward()
    grads = {name: p.grad for name, p in model.named_parameters() if name.startswith("hooks.")}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    shows = len(batch["image_rows"]) > 0
    for name, grad in grads.items():
        reached = shows or name.split(".")[1] in ("test_masks", "test_coordinates")
        if name != "hooks.test_coordinates.first":
            assert bool(grad.any()) == reached, name


def test_a_batch_with_every_hook_is_its_samples_alone(hooked):
    _, model = hooked(*EVERY)
    for side in ("right", "left"):
        alone = torch.cat([total_of(model, batch_of(model, [name])) for name in SAMPLES])
        torch.testing.assert_close(total_of(model, batch_of(model, side=side)), alone, rtol=1e-5, atol=1e-5)


def test_roles_are_the_hooks_own_or_aux(hooked):
    _, model = hooked(*EVERY)
    roles = {name: model.role_of(name) for name, _ in model.named_parameters() if name.startswith("hooks.")}
    assert {role for name, role in roles.items() if "overlay" in name} == {"embedder"}
    assert {role for name, role in roles.items() if "overlay" not in name} == {"aux"}


def test_a_release_holds_the_hooks_and_their_settings(hooked, tmp_path):
    _, model = hooked(*EVERY, test_prefix={"always": True})
    model.eval()
    save_release(model, tmp_path / "release")
    loaded = zoo.load(tmp_path / "release")
    assert list(loaded.hooks) == list(EVERY) and loaded.hooks["test_prefix"].prefix_always
    batch = batch_of(model)
    found = batch_of(loaded)
    assert all(torch.equal(batch[name], found[name]) for name in batch if isinstance(batch[name], torch.Tensor))
    assert torch.equal(logits_of(loaded, found), logits_of(model, batch))
    assert torch.equal(loaded(found)["masks"], model(batch)["masks"])


def test_after_a_step_every_hook_is_told(hooked):
    _, model = hooked("test_nothing", "test_masks")
    told = []
    for name, hook in model.hooks.items():
        hook.after_step = lambda name=name: told.append(name)
    model.after_step()
    assert told == ["test_nothing", "test_masks"]


def test_a_wrong_setting_of_a_hook_is_named(stack):
    with pytest.raises(RecipeError, match=r"model\.hooks\.test_overlay.*strenght"):
        stack(hooks={"test_overlay": {"strenght": 1.0}})
