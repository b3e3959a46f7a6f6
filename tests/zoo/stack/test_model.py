"""A stack's invariants: lengths, labels, batches of any mixture, padding on either side, text alone, counts, packed rows, roles."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from modalign.zoo.errors import AssemblyError, DataError, RecipeError, ReleaseError
from modalign.zoo.language.encode import IGNORE, IMAGE_PLACEHOLDER
from modalign.zoo.language.turns import BoxPart, ImagePart, TextPart, conversation
from modalign.zoo.losses.next_token import NextTokenLoss, next_token_sum
from modalign.zoo.projectors.mlp import MlpProjector
from modalign.zoo.stack.prepare import StackCollate

from .written import photo, tokenizer

V = 16  # tokens of a picture without tiles
TEXT = conversation(("user", "What is it?"), ("assistant", "A red apple on a table."))
ONE = conversation(
    ("user", [ImagePart(0), TextPart("\nWhat is it?")]), ("assistant", "Two birds."), ("user", "Red?"), ("assistant", "No.")
)
TWO = conversation(("user", [ImagePart(0), TextPart(" or "), ImagePart(1), TextPart("?")]), ("assistant", "A table."))
SAMPLES = {"text": (TEXT, []), "one": (ONE, [photo(40, 30)]), "two": (TWO, [photo(20, 60, 1), photo(30, 30, 2)])}
FAMILIES = ("llava", "llava_next", "llava_onevision")


def examples_of(model, names=tuple(SAMPLES), **settings):
    prepare = model.prepare()
    return [prepare(name, *SAMPLES[name], **settings) for name in names]


def batch_of(model, names=tuple(SAMPLES), side="right"):
    return model.collate(side)(examples_of(model, names))


def without_labels(batch):
    return {name: value for name, value in batch.items() if name != "labels"}


@torch.no_grad()
def logits_of(model, batch):
    return model(without_labels(batch))["logits"]


def total_of(model, batch):
    """The summed loss of each row."""
    outputs = model(batch)
    return torch.stack([next_token_sum(outputs, outputs["token_rows"] == row) for row in range(len(batch["ids"]))])


@pytest.fixture(scope="module")
def model_of(stack):
    made = {}

    def model(family="llava", language="llama"):
        if (family, language) not in made:
            made[family, language] = stack(family, language)
        return made[family, language]

    return model


# sequences and labels


def test_a_sequence_is_its_text_and_its_pictures(model_of):
    model = model_of()
    words = model.language.tokenizer
    for name, pictures in (("text", 0), ("one", 1), ("two", 2)):
        (example,) = examples_of(model, [name])
        text = [id_ for id_ in example["ids"] if id_ != IMAGE_PLACEHOLDER]
        assert len(example["ids"]) == len(text) + V * pictures and example["lengths"] == [V] * pictures
        learnt = [id_ for id_ in example["labels"] if id_ != IGNORE]
        answers = [turn.text for turn in SAMPLES[name][0].turns if turn.role == "assistant"]
        assert len(learnt) == sum(len(words(f" {answer}</s>", add_special_tokens=False)["input_ids"]) for answer in answers)
        assert all(label == IGNORE for id_, label in zip(example["ids"], example["labels"]) if id_ == IMAGE_PLACEHOLDER)


@pytest.mark.parametrize("family", FAMILIES)
def test_features_stand_in_their_places_and_text_in_its_own(model_of, family):
    model = model_of(family)
    batch = batch_of(model)
    embeddings, ids = model.embed(batch), batch["ids"]
    text = model.language.embed(ids.clamp(min=0))
    assert torch.equal(embeddings[ids >= 0], text[ids >= 0])
    tiles = model.projected(batch)
    found, first = embeddings[ids == IMAGE_PLACEHOLDER], 0
    for tile, length in zip((batch["image_tiles"].cumsum(0) - batch["image_tiles"]).tolist(), batch["image_lengths"].tolist()):
        torch.testing.assert_close(found[first : first + V], tiles[tile], rtol=0, atol=0)
        if family != "llava":
            assert torch.equal(found[first + length - 1], model.newline), "a picture ends with a line end"
        first += length
    assert first == len(found)


def test_the_projector_has_as_many_parameters_as_published():
    counts = {width: sum(p.numel() for p in MlpProjector(1024, width).parameters()) for width in (4096, 5120)}
    assert counts == {4096: 20_979_712, 5120: 31_467_520}


# batches


@pytest.mark.parametrize("language", ["llama", "gpt2"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_samples_loss_alone_is_its_share_of_a_padded_batch(model_of, family, language):
    model = model_of(family, language)
    for side in ("right", "left"):
        together = total_of(model, batch_of(model, side=side))
        alone = torch.cat([total_of(model, batch_of(model, [name])) for name in SAMPLES])
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("language", ["llama", "gpt2", "opt"])
def test_padding_on_the_left_and_on_the_right_gives_the_same_logits(model_of, language):
    model = model_of("llava_next", language)
    right, left = (batch_of(model, side=side) for side in ("right", "left"))
    found, wanted = (logits_of(model, batch)[batch["mask"]] for batch in (left, right))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(left["ids"][left["mask"]], right["ids"][right["mask"]])
    assert bool(left["mask"][:, -1].all()) and bool(right["mask"][:, 0].all())


def test_the_order_of_samples_does_not_matter(model_of):
    model = model_of("llava_onevision")
    forwards, back = (total_of(model, batch_of(model, names)) for names in (tuple(SAMPLES), tuple(SAMPLES)[::-1]))
    torch.testing.assert_close(forwards, back.flip(0), rtol=1e-5, atol=1e-5)


def test_a_picture_changes_what_comes_after_it_and_nothing_before(model_of):
    model = model_of()
    batch = batch_of(model, ["two"])
    other = {**batch, "image": batch["image"].clone()}
    other["image"][1] = 255 - other["image"][1]
    second = int((batch["ids"][0] == IMAGE_PLACEHOLDER).nonzero()[V])
    one, two = logits_of(model, batch)[0], logits_of(model, other)[0]
    assert torch.equal(one[:second], two[:second]) and (one[second:] - two[second:]).abs().amax(-1).min() > 1e-4


# text alone


@pytest.mark.parametrize("family", FAMILIES)
def test_text_alone_is_the_plain_language_model_to_the_bit_and_the_projector_is_reached(model_of, language_folder, family):
    model, plain = model_of(family), AutoModelForCausalLM.from_pretrained(language_folder()).eval()
    batch = batch_of(model, ["text"])
    assert batch["image"].shape == (1, 3, 28, 28) and len(batch["image_rows"]) == 0
    with torch.no_grad():
        assert torch.equal(logits_of(model, batch), plain(batch["ids"]).logits)
    model.zero_grad()
    NextTokenLoss()(model(batch), batch).value.backward()
    reached = {name: p.grad for name, p in model.named_parameters() if model.role_of(name) == "projector"}
    assert len(reached) == (4 if family == "llava" else 5) and all(
        grad is not None and not grad.any() for grad in reached.values()
    )
    assert any(p.grad is not None and p.grad.any() for name, p in model.named_parameters() if model.role_of(name) == "language")
    model.zero_grad()
    NextTokenLoss()(model(batch_of(model)), {}).value.backward()
    assert all(p.grad.any() for name, p in model.named_parameters() if model.role_of(name) == "projector")


def test_without_pixels_a_batch_of_text_needs_none(model_of):
    model = model_of()
    batch = model.collate(pixels=False)(examples_of(model, ["text"], pixels=False))
    assert "image" not in batch
    assert torch.equal(logits_of(model, batch), logits_of(model, batch_of(model, ["text"])))
    with pytest.raises(AssemblyError, match="placeholders for pictures or a prefix, but no pictures"):
        model(model.collate(pixels=False)(examples_of(model, ["one"], pixels=False)))


@pytest.mark.parametrize("feature_layer", [None, -1, [-2, -3], 0])
def test_kept_features_stand_for_the_pictures(stack, feature_layer):
    model = stack(feature_layer=feature_layer)
    batch = batch_of(model)
    kept = {name: value for name, value in batch.items() if name != "image"} | {"image_features": model.features(batch["image"])}
    assert kept["image_features"].shape == (3, V, 16 * (2 if isinstance(feature_layer, list) else 1))
    assert torch.equal(logits_of(model, kept), logits_of(model, batch))


# counts


@pytest.mark.parametrize("family", FAMILIES)
def test_another_number_of_features_than_of_places_names_both_and_the_sample(model_of, family):
    model = model_of(family)
    batch = batch_of(model)
    batch["ids"][1, (batch["ids"][1] == IMAGE_PLACEHOLDER).nonzero()[0]] = 9
    length = int(batch["image_lengths"][0])
    with pytest.raises(
        AssemblyError, match=rf"sample 'one': {length - 1} placeholders for picture features, but {length} features"
    ):
        model(batch)
    batch = batch_of(model)
    batch["ids"][0, 1] = IMAGE_PLACEHOLDER
    with pytest.raises(AssemblyError, match="sample 'text': 1 placeholders for picture features, but 0 features"):
        model(batch)


def test_pictures_prepared_by_another_models_settings_are_an_error(model_of):
    batch = batch_of(model_of(), ["one"])
    batch["image"] = torch.cat([batch["image"]] * 2)
    with pytest.raises(AssemblyError, match=f"{V} placeholders for picture features, but {2 * V} features"):
        model_of()(batch)


# packed rows


def packed(batches):
    """Sequences one behind the other in one row."""
    rows = {name: torch.cat([batch[name] for batch in batches], dim=1) for name in ("ids", "labels", "instruction")}
    shown = [batch for batch in batches if len(batch["image_rows"])]
    names = ("image", "image_tiles", "image_lengths", "image_sizes")
    pictures = {name: torch.cat([batch[name] for batch in shown]) for name in names}
    positions = torch.cat([torch.arange(batch["ids"].shape[1]) for batch in batches])[None]
    return (
        rows
        | pictures
        | {"positions": positions, "image_rows": torch.zeros(len(pictures["image_tiles"]), dtype=torch.long), "keys": ["row"]}
    )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("family", "language"), [("llava", "llama"), ("llava", "gpt2"), ("llava_onevision", "llama")])
def test_packed_rows_are_the_separate_conversations(stack, language_folder, family, language, attention):
    model = stack(family, language={"name": f"local-dir:{language_folder(language)}", "attention": attention})
    apart = [batch_of(model, [name]) for name in ("one", "text", "two", "one")]
    together = packed(apart)
    torch.testing.assert_close(
        logits_of(model, together), torch.cat([logits_of(model, batch) for batch in apart], dim=1), rtol=1e-5, atol=1e-5
    )
    outputs, alone = model(together), [model(batch) for batch in apart]
    assert torch.equal(outputs["token_labels"], torch.cat([found["token_labels"] for found in alone]))
    torch.testing.assert_close(
        outputs["token_states"], torch.cat([found["token_states"] for found in alone]), rtol=1e-5, atol=1e-5
    )


def test_no_sequence_of_a_packed_row_predicts_the_first_token_of_the_next(model_of):
    apart = [batch_of(model_of(), [name]) for name in ("text", "one")]
    batch, length = packed(apart), apart[0]["ids"].shape[1]
    wanted = model_of()(batch)["token_labels"]
    batch["labels"][0, length] = batch["ids"][0, length]
    assert torch.equal(model_of()(batch)["token_labels"], wanted)


# outputs


def test_only_the_positions_that_predict_something_are_returned(model_of):
    model = model_of()
    batch = batch_of(model)
    outputs, logits = model(batch), logits_of(model, batch)
    weight = outputs["head_weight"]
    rows, places = (batch["labels"][:, 1:] != IGNORE).nonzero(as_tuple=True)
    assert torch.equal(outputs["token_rows"], rows) and torch.equal(outputs["token_labels"], batch["labels"][rows, places + 1])
    torch.testing.assert_close(outputs["token_states"] @ weight.T, logits[rows, places], rtol=1e-5, atol=1e-5)
    assert weight is model.language.model.lm_head.weight and "logits" not in outputs and "head_bias" not in outputs


@pytest.mark.parametrize("language", ["cohere", "gemma2"])
def test_models_that_do_more_to_their_logits_give_those(model_of, language):
    model = model_of("llava", language)
    batch = batch_of(model)
    outputs, rows = model(batch), (batch["labels"][:, 1:] != IGNORE)
    torch.testing.assert_close(outputs["token_logits"], logits_of(model, batch)[:, :-1][rows], rtol=1e-5, atol=1e-5)
    assert "head_weight" not in outputs


@pytest.mark.parametrize("language", ["llama", "gemma2"])
def test_logits_of_a_whole_batch_are_never_made(model_of, largest_tensor, language):
    model = model_of("llava", language)
    batch = batch_of(model)
    logits, learnt = batch["ids"].numel() * 336, int((batch["labels"] != IGNORE).sum()) * 336
    with largest_tensor() as seen:
        NextTokenLoss()(model(batch), batch).value.backward()
    assert learnt <= seen.numel < logits / 2
    with largest_tensor() as seen:
        logits_of(model, batch)
    assert seen.numel == logits, "otherwise nothing would be measured"


@pytest.mark.parametrize("family", FAMILIES)
def test_examples_say_what_a_batch_holds(model_of, family):
    model = model_of(family)
    examples = examples_of(model)
    batch = StackCollate(3, "right", torch.zeros(3, 28, 28, dtype=torch.uint8))(examples)
    assert batch["image_rows"].tolist() == [1, 2, 2] and batch["keys"] == ["text", "one", "two"]
    assert batch["image_sizes"].tolist() == [[40, 30], [20, 60], [30, 30]]
    assert len(batch["image"]) == int(batch["image_tiles"].sum())
    assert batch["image_lengths"].tolist() == [length for example in examples for length in example["lengths"]]
    assert bool((batch["ids"][~batch["mask"]] == 3).all()) and bool((batch["labels"][~batch["mask"]] == IGNORE).all())


def test_boxes_are_relative_to_what_the_encoder_is_shown(stack):
    talk = conversation(("user", [ImagePart(0), TextPart("Where?")]), ("assistant", [BoxPart((10, 0, 20, 20))]))
    for mode, text in (("pad", " [0.250, 0.250, 0.500, 0.750]</s>"), ("squash", " [0.250, 0.000, 0.500, 1.000]</s>")):
        model = stack(picture={"mode": mode})
        example = model.prepare()("box", talk, [photo(40, 20)])
        assert model.language.tokenizer.decode([id_ for id_ in example["labels"] if id_ != IGNORE]) == text


# parts


def test_every_parameter_has_exactly_one_role(stack):
    model = stack("llava_next", lora={"rank": 2})
    roles = {name: model.role_of(name) for name, _ in model.named_parameters()}
    assert set(roles.values()) == {"encoder", "projector", "language", "adapter"}
    for name, role in roles.items():
        part = name.partition(".")[0]
        wanted = {
            "image": "encoder",
            "projector": "projector",
            "newline": "projector",
            "language_base": "language",
            "language": "adapter",
        }
        assert role == wanted[part]
    assert all((".lora_" in name) == (role == "adapter") for name, role in roles.items())
    covered = [part for part, starts in model.parts.items() for name in roles if name.startswith(starts)]
    assert len(covered) == len(roles)
    parameters = {id(p) for p in model.parameters()}
    assert {id(p) for part in (model.image, model.projector, model.language) for p in part.parameters()} | {
        id(model.newline)
    } == parameters


@pytest.mark.parametrize("language", ["llama", "gpt2", "gemma2"])
def test_stored_and_tied_weights_are_saved_once(model_of, language):
    model = model_of("llava", language)
    state = model.state_dict()
    assert not any(name.startswith("language.") for name in state)
    pointers = [tensor.data_ptr() for tensor in state.values() if tensor.numel()]
    assert len(pointers) == len(set(pointers))
    assert {tensor.data_ptr() for tensor in state.values()} >= {p.data_ptr() for p in model.language.parameters()}
    assert ("language_base.lm_head.weight" in state) == (language == "llama"), "tied to the token table in the others"


def test_weights_that_are_loaded_reach_the_language_model(stack):
    model, other = stack(), stack()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter))
    batch = batch_of(model)
    assert not torch.equal(logits_of(model, batch), logits_of(other, batch))
    model.load_state_dict(other.state_dict())
    assert torch.equal(logits_of(model, batch), logits_of(other, batch))


def test_a_real_language_model_and_a_vision_transformer_of_timm(real_data, stack):
    folder = real_data / "weights_stories260K" / "hf"
    image = {"name": "timm:vit_tiny_patch16_224", "image_size": 32, "pretrained": False}
    model = stack(image=image, language={"name": f"local-dir:{folder}"})
    assert [example["lengths"] for example in examples_of(model)] == [[], [4], [4, 4]], "2 by 2 patches of the last layer but one"
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    batch = batch_of(model, ["text"])
    with torch.no_grad():
        assert torch.equal(logits_of(model, batch), plain(batch["ids"]).logits)
    for side in ("right", "left"):
        alone = torch.cat([total_of(model, batch_of(model, [name])) for name in SAMPLES])
        torch.testing.assert_close(total_of(model, batch_of(model, side=side)), alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("sections", "error", "told"),
    [
        (
            {"picture": {"mode": "anyres"}, "projector": {"name": "perceiver", "options": {"depth": 1}}},
            AssemblyError,
            "no grid of them is left",
        ),
        ({"picture": {"mode": "anyres"}, "keep_prefix": True}, AssemblyError, "no grid of them is left .*keep_prefix"),
        ({"feature_layer": 9}, AssemblyError, "there is no layer 9; it has 4 hidden states"),
        ({"projector": {"name": "mpl"}}, AssemblyError, "no projector named 'mpl'; did you mean 'mlp'"),
        ({"hooks": {"none": {}}}, AssemblyError, "there is no hook named 'none'"),
        ({"chat": {"template": "vicuna"}}, AssemblyError, "there is no template 'vicuna'"),
        ({"chat": {"template": "tokenizer"}}, AssemblyError, "has no chat template of its own"),
        ({"chat": {"max_length": 1}}, RecipeError, "max_length 1 must be 2 or more"),
        ({"newline": True}, RecipeError, "newline: only picture.mode: anyres has rows to end, and the mode is pad"),
    ],
)
def test_what_is_refused_when_a_stack_is_assembled(stack, sections, error, told):
    with pytest.raises(error, match=told):
        model = stack(**sections)
        model.prepare()
        model.features(torch.zeros(1, 3, 28, 28, dtype=torch.uint8))


def test_a_conversation_that_is_too_long_is_refused_with_its_length(stack):
    model = stack(chat={"template": "vicuna_v1", "max_length": 20})
    with pytest.raises(DataError, match="tokens with pictures do not fit into max_length 20"):
        examples_of(model, ["one"])


def test_a_folder_without_a_tokenizer_is_an_error(stack_settings, tmp_path, language_folder):
    import shutil

    from modalign.zoo.registry import FAMILIES as registry

    shutil.copytree(language_folder(), tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises((ReleaseError, AssemblyError), match="tokenizer"):
        registry.get("llava").from_settings(stack_settings(language={"name": f"local-dir:{tmp_path / 'bare'}"}))


def test_a_tokenizer_without_a_padding_token_still_pads(stack, language_folder, tmp_path):
    """Padding is never attended to, so any token does; the end token stands in."""
    import shutil

    folder = shutil.copytree(language_folder(), tmp_path / "unpadded")
    words = tokenizer()
    words.pad_token = None
    words.save_pretrained(folder)
    model = stack(language={"name": f"local-dir:{folder}"})
    assert torch.equal(total_of(model, batch_of(model)), total_of(stack(), batch_of(stack())))
