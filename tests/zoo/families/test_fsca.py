"""FSCA: words, other language models, ablations, missing values, demonstrations, roles, releases, errors."""

import copy

import pytest
import torch

from modalign import zoo
from modalign.zoo.checkpoints.release import read_release, save_release
from modalign.zoo.errors import AssemblyError, DataError, RecipeError
from modalign.zoo.families.fsca.config import FscaConfig, parse_layer_index
from modalign.zoo.families.fsca.demonstrations import choose_demonstrations
from modalign.zoo.families.fsca.model import FscaModel
from modalign.zoo.series.description import SeriesDescription
from modalign.zoo.series.window import filled

LLAMA = {
    "model_type": "llama",
    "vocab_size": 30,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
COMMON = {
    "look_back": 40,
    "horizon": 5,
    "patch_size": 4,
    "stride": 4,
    "fine_points": [0, 2],
    "coarse_points": [0, 2],
    "read_width": 8,
    "coarse_width": 6,
    "coarse_weight": 0.3,
}
OWN = {"language": {"name": None, "architecture": LLAMA, "blocks": 2}, "llm": "random", "prompt_ids": [3, 1, 4]}
CLASSES = {"target": ["a"], "labels": ["yes indeed", "no", "perhaps"]}
WORDS = ["[PAD]", "Predict", "future", "sequences", "using", "previous", "data", ":", "category", "(", "in", "total", ")", "yes"]
WORDS += ["indeed", "no", "perhaps", "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A GPT-2 of two blocks with a word tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    place = tmp_path_factory.mktemp("gpt2")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[PAD]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[PAD] $A", None, [("[PAD]", 0)])  # as a model's start token
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[PAD]").save_pretrained(place)
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(WORDS), n_positions=128, n_embd=16, n_head=2, n_layer=2, **ends)).save_pretrained(
        place
    )
    return str(place)


@pytest.fixture
def real(folder):
    return {"language": {"name": f"local-dir:{folder}", "blocks": 2}}


def built(*settings, **more):
    torch.manual_seed(0)
    whole = copy.deepcopy(COMMON)
    for part in (*settings, more):
        whole |= copy.deepcopy(part)
    return FscaModel.from_settings(whole).eval()


def window(channels=2, seed=0):
    return torch.randn(3, 40, channels, generator=torch.Generator().manual_seed(seed))


def test_the_prompt_is_the_language_models_own_embedding_of_it(real, folder):
    from transformers import AutoModel

    model, table = built(real), AutoModel.from_pretrained(folder).wte.weight
    assert model.config.prompt_ids == [1, 2, 3, 4, 5, 6, 7]
    assert torch.equal(model.prompt, table[1:8])
    assert not any(name.startswith("prompt") for name, _ in model.named_parameters())
    assert built(real, prompt="future data").config.prompt_ids == [2, 6]
    classes = built(real, task="classification", series=CLASSES, demonstrations=True)
    assert " ".join(WORDS[i] for i in classes.config.prompt_ids) == "Predict category ( 3 in total ) using previous data :"
    assert [WORDS[i] for i in classes.config.label_ids] == ["yes", "no", "perhaps"]
    assert torch.equal(classes.labels, table[classes.config.label_ids])


def test_words_are_the_pretrained_models_whatever_stands_in_its_place(real):
    prompts = [built(real, llm=llm).prompt for llm in ("pretrained", "random", "attention", "none")]
    assert all(torch.equal(prompt, prompts[0]) for prompt in prompts)


@pytest.mark.parametrize("llm", ["pretrained", "random", "attention", "none"])
def test_every_switch_forecasts_and_learns(real, llm):
    model = built(real, llm=llm)
    assert model({"values": window()})["prediction"].shape == (3, 5, 2)
    roles = {model.role_of(name) for name, _ in model.named_parameters()}
    has = {"pretrained": {"frozen", "language"}, "random": {"frozen", "language"}, "attention": {"language"}, "none": set()}[llm]
    assert roles == {"encoder", "projector", "head"} | has
    trained = {name: p for name, p in model.named_parameters() if model.role_of(name) != "frozen"}
    assert all(p.requires_grad == (name in trained) for name, p in model.named_parameters())
    model({"values": window()})["prediction"].square().mean().backward()
    without = [name for name, p in trained.items() if p.grad is None or not p.grad.any()]
    assert not without


def test_a_llama_with_rotary_positions():
    model = built(OWN)
    assert model({"values": window()})["prediction"].shape == (3, 5, 2)
    language = {name for name, _ in model.named_parameters() if model.role_of(name) == "language"}
    assert len(language) == 5 and all("norm" in name for name in language)


def test_batches_and_channels_do_not_see_one_another():
    model = built(OWN)
    whole = model({"values": window()})["prediction"]
    torch.testing.assert_close(model({"values": window()[1:2, :, 1:]})["prediction"], whole[1:2, :, 1:], rtol=1e-4, atol=1e-5)
    assert len({buffer.shape for name, buffer in model.named_buffers() if name.endswith("graph.source")}) == 2


def test_follows_level_and_scale():
    model = built(OWN)
    found = model({"values": 3 * window() + 7})["prediction"]
    torch.testing.assert_close(found, 3 * model({"values": window()})["prediction"] + 7, rtol=1e-3, atol=1e-3)
    assert model({"values": torch.full((1, 40, 1), 5.0)})["prediction"].isfinite().all()


def test_missing_values_are_not_read():
    model, observed = built(OWN), torch.rand(3, 40, 2, generator=torch.Generator().manual_seed(4)) > 0.3
    observed[0, :, 0] = False
    values = window()
    found = model({"values": values.masked_fill(~observed, 0), "observed": observed})["prediction"]
    assert torch.equal(found, model({"values": values.masked_fill(~observed, 50), "observed": observed})["prediction"])
    assert found.isfinite().all() and not torch.allclose(found, model({"values": values * observed})["prediction"])
    seen = []
    model.tokens.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model({"values": values, "observed": observed})
    assert torch.equal(seen[0], filled(model.norm(values, observed)[0], observed).transpose(1, 2).flatten(0, 1)[:, None])
    complete = torch.ones_like(observed)
    torch.testing.assert_close(
        model({"values": values, "observed": complete})["prediction"], model({"values": values})["prediction"]
    )


def test_constant_channel_of_revin_and_narrow_patches():
    model = built(OWN, revin=True, patch_width=10)
    assert model.norm.weight.shape == (1,) and model.role_of("norm.weight") == "encoder"
    assert model({"values": window()})["prediction"].isfinite().all()
    assert not model.sequence(window(1).transpose(1, 2))[:, 0, 10:].any()


def test_segments_of_unequal_length_and_the_vanilla_form():
    three = built(OWN, segments=3)  # 11 patches: 3, 3, 5
    assert three.alignment.coarse_nodes.longest == 5
    assert three({"values": window()})["prediction"].shape == (3, 5, 2)
    vanilla = built(OWN, segments=1)
    assert vanilla._read == slice(0, 14) and len(vanilla.alignment.coarse_graph.source) == 1


def test_the_head_reads_the_last_segment_and_its_prompt_or_as_the_reference():
    assert built(OWN)._read == slice(8, 17)  # 5, prompt, 6, prompt of 3
    assert built(OWN, strict_reference=True)._read == slice(6, 17)  # as many positions as patches


def test_no_coarse_points_is_a_weight_of_zero():
    with_zero, without = built(OWN, coarse_weight=0.0), built(OWN, coarse_points=[])
    state = with_zero.state_dict()
    assert state.keys() == without.state_dict().keys() and not any("coarse" in name for name in state)
    without.load_state_dict(state)
    assert torch.equal(with_zero({"values": window()})["prediction"], without({"values": window()})["prediction"])
    plain = built(OWN, fine_points=[], coarse_points=[])
    assert not list(plain.alignment.parameters())
    assert plain({"values": window()})["prediction"].shape == (3, 5, 2)


def test_one_insertion_uses_both_graphs_once():
    model = built(OWN, layer_index="2*0*0")
    calls = []
    for name in ("fine", "coarse"):
        getattr(model.alignment, name).register_forward_hook(lambda *_, name=name: calls.append(name))
    model({"values": window()})
    assert calls == ["coarse", "fine"]


def test_layer_index():
    assert parse_layer_index("4*0_2_4*0_2_4") == (4, [0, 2, 4], [0, 2, 4])
    assert parse_layer_index("4*0*0") == (4, [0], [0])
    config = FscaConfig(layer_index="3*0_1_3*3")
    assert (config.language.blocks, config.fine_points, config.coarse_points) == (
        3,
        [0, 1, 3],
        [3],
    ) and config.layer_index is None
    for wrong in ("4*0", "4*0_*0", "four*0*0", "4*0*0*0", ""):
        with pytest.raises(RecipeError, match="is not blocks"):
            parse_layer_index(wrong)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fine_points": [0, 3]}, "model.fine_points: there is no place 3 in 2 blocks"),
        ({"coarse_points": [0, 1]}, "model.coarse_points: 1 is not among model.fine_points"),
        ({"demonstrations": True}, "only classification has labelled examples"),
        ({"segments": 0}, "model.segments: 0 must be a whole number"),
        ({"out_dropout": 1.0}, "model.out_dropout: 1.0 must be from 0 to below 1"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(RecipeError, match=message):
        built(OWN, settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"segments": 12}, "11 patches cannot be split into 12 segments"),
        ({"look_back": 3}, "3 steps are fewer than a patch of 4"),
        ({"look_back": 300}, r"82 tokens \(76 patches a series, prompts and labels\) are more than the 64 positions"),
        ({"read_width": 17}, "model.read_width: 17 is more than the language model's width; take 16"),
        ({"coarse_width": 17}, "model.coarse_width: 17"),
        ({"patch_width": 17}, "model.patch_width: 17"),
        ({"look_back": 36, "segments": 3, "strict_reference": True}, "the official code cannot cut 10 patches into 3 segments"),
        ({"prompt_ids": [3, 30]}, "model.prompt_ids: 30 is no token of the language model, which has 30"),
        ({"prompt_ids": None}, "an architecture alone has no tokenizer"),
        ({"task": "imputation"}, "fsca does forecast, short_term, classification, not imputation"),
    ],
)
def test_parts_that_do_not_go_together(settings, message):
    with pytest.raises(AssemblyError, match=message):
        built(OWN, settings)


def test_a_window_of_another_length_and_columns_of_no_use():
    with pytest.raises(AssemblyError, match=r"fsca: the window has 39 steps, model.look_back is 40"):
        built(OWN)({"values": torch.zeros(1, 39, 1)})
    with pytest.raises(AssemblyError, match="fsca makes no use of such columns"):
        built(OWN).describe(SeriesDescription(["a"], known=["b"]))


def classifier(**settings):
    return built(OWN, task="classification", series=CLASSES, label_ids=[5, 6, 7], **settings)


def test_classifier_is_built_when_the_classes_are_known():
    model = built(OWN, task="classification")
    assert not list(model.parameters())
    model.describe(SeriesDescription(["a"], labels=["yes", "no"]))
    assert model({"values": window(1)})["logits"].shape == (3, 2)
    with pytest.raises(AssemblyError, match="it tells yes, no apart in 1 channels; the data have the classes yes, maybe in 1"):
        model.describe(SeriesDescription(["a"], labels=["yes", "maybe"]))
    with pytest.raises(AssemblyError, match="two classes or more, the data name 1"):
        built(OWN, task="classification").describe(SeriesDescription(["a"], labels=["yes"]))


def test_demonstrations_of_three_classes():
    model = classifier(demonstrations=True, look_back=16)
    assert model.alignment.fine_graph.tokens == 3 * (5 + 3 + 1) + 5 + 3
    values = window(1)[:, :16]
    with pytest.raises(AssemblyError, match="none were chosen yet"):
        model({"values": values})
    with pytest.raises(AssemblyError, match=r"2 series \(2, 16, 1\) were given, the model takes \(3, 16, 1\)"):
        model.take_demonstrations(values[:2], ["x", "y"])
    model.take_demonstrations(window(1, seed=5)[:, :16], ["x", "y", "z"])
    first = model({"values": values})["logits"]
    model.take_demonstrations(window(1, seed=6)[:, :16], ["x", "y", "z"])
    assert first.shape == (3, 3) and not torch.allclose(first, model({"values": values})["logits"])
    with pytest.raises(AssemblyError, match="the model takes none"):
        classifier().take_demonstrations(values, ["x", "y", "z"])


def test_missing_values_of_demonstrations():
    model, observed = classifier(demonstrations=True, look_back=16), torch.rand(3, 16, 1) > 0.4
    values = window(1)[:, :16]
    model.take_demonstrations(values, ["x", "y", "z"], observed)
    assert torch.equal(model.demonstrations, filled(values, observed))


def test_choosing_demonstrations():
    labels = [0, 1, 1, 2, 0, 2, 1]
    choices = {tuple(choose_demonstrations(labels, ["a", "b", "c"], seed)) for seed in range(200)}
    assert len(choices) == 12 and all([labels[i] for i in chosen] == [0, 1, 2] for chosen in choices)
    assert choose_demonstrations(labels, ["a", "b", "c"], 5) == choose_demonstrations(labels, ["a", "b", "c"], 5)
    with pytest.raises(DataError, match="no training series is of class 'd'"):
        choose_demonstrations(labels, ["a", "b", "c", "d"], 0)


def test_gcn_is_frozen_in_classification_only_as_the_reference():
    names = [f"alignment.{graph}.{name}" for graph in ("fine", "coarse") for name in ("weight", "bias")]
    assert {classifier().role_of(name) for name in names} == {"projector"}
    strict = classifier(strict_reference=True)
    assert {strict.role_of(name) for name in names} == {"frozen"}
    assert not any(strict.get_parameter(name).requires_grad for name in names)
    assert strict.role_of("alignment.to_fine.weight") == strict.role_of("alignment.coarse_nodes.segment.weight") == "projector"
    assert built(OWN, strict_reference=True).role_of(names[0]) == "projector"


@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_release(real, tmp_path, kind):
    model = built(
        real, series={"target": ["a", "b"], "scale": {"a": [0.0, 1.0], "b": [2.0, 3.0]}}, revin=True, coarse_weight=None
    )
    for name, parameter in model.named_parameters():
        if model.role_of(name) != "frozen":
            parameter.data += 0.1 * torch.randn_like(parameter)
    trained = frozenset(name for name, _ in model.named_parameters() if model.role_of(name) != "frozen")
    save_release(model, tmp_path / "release", kind=kind, trained=trained, public=False)
    config, release = read_release(tmp_path / "release")
    assert config["model"]["prompt_ids"] == [1, 2, 3, 4, 5, 6, 7]
    assert release["parts"]["pretrained"]["included"] == (kind == "full")
    again = zoo.load(tmp_path / "release")
    assert torch.equal(again({"values": window()})["prediction"], model({"values": window()})["prediction"])
    assert torch.equal(again.prompt, model.prompt) and again.config.series == model.config.series
    from safetensors.torch import load_file

    names = set(load_file(tmp_path / "release" / "model.safetensors"))
    assert any(name.startswith("pretrained.") for name in names) == (kind == "full")


def test_a_full_release_needs_no_source(real, folder, tmp_path, monkeypatch):
    model = built(real, task="classification", series=CLASSES, demonstrations=True, look_back=16)
    values = window(1)[:, :16]
    model.take_demonstrations(values, ["x", "y", "z"])
    save_release(model, tmp_path / "release")
    monkeypatch.setattr("modalign.zoo.families.fsca.words.load_tokenizer", None)
    monkeypatch.setattr("modalign.zoo.language.loading.load_checked", None)
    again = zoo.load(tmp_path / "release")
    assert again.config.demonstration_keys == ["x", "y", "z"]
    assert torch.equal(again({"values": values})["logits"], model({"values": values})["logits"])


def test_it_learns():
    model = built(OWN, out_dropout=0.0).train()
    windows = torch.sin(torch.arange(300) / 3).unfold(0, 45, 5)[:, :, None]
    optimiser, losses = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.005), []
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    for _ in range(40):
        loss = (model({"values": windows[:, :40]})["prediction"] - windows[:, 40:]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert frozen and all(torch.equal(p, model.get_parameter(name)) for name, p in frozen.items())
