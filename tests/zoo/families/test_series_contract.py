"""The contract of every family of time series and every task it does: settings, roles, parts, columns, outputs, masks, releases."""

import copy

import pytest
import torch
import yaml
from safetensors.torch import load_file

from modalign import zoo
from modalign.zoo.checkpoints.release import read_release, save_release
from modalign.zoo.errors import AssemblyError
from modalign.zoo.registry import FAMILIES
from modalign.zoo.series.base import SeriesModel, SeriesModelConfig
from modalign.zoo.series.description import SeriesDescription

LOOK_BACK, HORIZON, COLUMNS, LABELS = 24, 6, ["a", "b", "c"], ["no", "perhaps", "yes"]
ROLES = {"encoder", "projector", "adapter", "language", "head", "aux", "frozen"}
ARCHITECTURE = {
    "model_type": "gpt2",
    "vocab_size": 40,
    "n_positions": 64,
    "n_embd": 16,
    "n_head": 2,
    "n_layer": 3,
    "bos_token_id": None,
    "eos_token_id": None,
}
LANGUAGE = {"llm": "random", "language": {"name": None, "architecture": ARCHITECTURE, "blocks": 2}}
CALF = {"heads": 2, "ffn": 32, "dictionary": 8, "lora": {"rank": 2, "alpha": 4}} | LANGUAGE
FSCA = {
    "patch_size": 6,
    "stride": 6,
    "fine_points": [0, 2],
    "coarse_points": [0],
    "read_width": 8,
    "coarse_width": 4,
    "coarse_weight": None,
    "prompt_ids": [3, 1, 4],
} | LANGUAGE
#: family -> variants of it beside the plain one of each task
VARIANTS = {
    "dlinear": [{"individual": True}],
    "patchtst": [],
    "calf": [{"head": "quantile"}, {"strict_reference": True}, {"llm": "attention"}, {"llm": "none"}, {"covariates": True}],
    "fsca": [{"revin": True, "strict_reference": True}, {"segments": 1, "llm": "attention"}, {"llm": "none"}],
}
SMALL = {
    "dlinear": {"kernel": 5},
    "patchtst": {"patch_size": 6, "stride": 3, "width": 8, "layers": 1, "heads": 2, "ffn": 16},
    "calf": CALF,
    "fsca": FSCA,
}
FAMILY_NAMES = [name for name in FAMILIES.names() if getattr(FAMILIES.get(name), "data_kind", "pairs") == "series"]


def cases():
    for family in FAMILY_NAMES:
        for task in FAMILIES.get(family).tasks:
            yield family, {"task": task}
        yield from ((family, variant) for variant in VARIANTS[family])
    yield "fsca", {"task": "classification", "demonstrations": True, "label_ids": [1, 2, 3]}
    yield "calf", {"task": "imputation", "strict_reference": True}


def name_of(case):
    return "-".join([case[0], *(str(value) for value in case[1].values())])


def description_of(covariates=False, classes=False):
    columns = [*COLUMNS, *(["p", "k"] if covariates else [])]
    return SeriesDescription(
        target=list(COLUMNS),
        past=["p"] if covariates else [],
        known=["k"] if covariates else [],
        static=["s"] if covariates else [],
        frequency="h",
        scale={name: [1.0 + place, 2.0] for place, name in enumerate(columns)},
        labels=LABELS if classes else [],
        static_scale={"s": [1e6, 2e5]} if covariates else {},
    )


@pytest.fixture(scope="module", params=list(cases()), ids=name_of)
def case(request):
    return request.param


def built(case, **more):
    """A model that knows its columns, with weights that stand nowhere special."""
    family, settings = case[0], copy.deepcopy(SMALL[case[0]] | case[1] | more)
    covariates = settings.pop("covariates", False)
    torch.manual_seed(0)
    model = FAMILIES.get(family).from_settings({"look_back": LOOK_BACK, "horizon": HORIZON} | settings)
    model.describe(description_of(covariates, model.config.task == "classification"))
    if settings.get("demonstrations"):
        model.take_demonstrations(torch.randn(len(LABELS), LOOK_BACK, len(COLUMNS)), ["k0", "k1", "k2"])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture(scope="module")
def model(case):
    return built(case)


def batch_of(model, rows=3, missing=False, seed=1):
    generator = torch.Generator().manual_seed(seed)
    series = model.config.series
    values = torch.randn(rows, LOOK_BACK, len(series.channels), generator=generator)
    batch = {"values": values}
    if missing:
        observed = torch.rand(values.shape, generator=generator) > 0.3
        batch |= {"values": values * observed, "observed": observed}
    if series.known:
        batch["known"] = torch.randn(rows, LOOK_BACK + HORIZON, len(series.known), generator=generator)
    if series.static:
        batch["static"] = 1e6 + 2e5 * torch.randn(rows, len(series.static), generator=generator)
    return batch


def outputs_of(model, batch):
    with torch.no_grad():
        return model(batch)


def test_the_settings_are_plain_and_build_the_same_model(model):
    settings = model.settings()
    assert yaml.safe_load(yaml.safe_dump(settings)) == settings
    again = type(model).from_settings(yaml.safe_load(yaml.safe_dump(settings)))
    assert again.config == model.config and again.settings() == settings
    assert {name: value.shape for name, value in again.state_dict().items()} == {
        name: value.shape for name, value in model.state_dict().items()
    }
    assert isinstance(model, SeriesModel) and isinstance(model.config, SeriesModelConfig)


@pytest.mark.parametrize("missing", [False, True])
def test_outputs(model, missing):
    outputs = outputs_of(model, batch_of(model, missing=missing))
    assert all(value.isfinite().all() for value in outputs.values())
    if model.config.task == "classification":
        assert outputs["logits"].shape == (3, len(LABELS))
        return
    steps = HORIZON if model.config.task in ("forecast", "short_term") else LOOK_BACK
    assert outputs["prediction"].shape == (3, steps, len(COLUMNS))
    if "quantiles" in outputs:
        levels = outputs["quantile_levels"]
        assert outputs["quantiles"].shape == (3, steps, len(COLUMNS), len(levels))
        assert (outputs["quantiles"].diff(dim=-1) >= 0).all()
        assert torch.equal(outputs["prediction"], outputs["quantiles"][..., len(levels) // 2])
    assert not {name for name in outputs if name.startswith("text_")}, "in use the temporal branch alone is computed"


def test_a_mask_that_hides_nothing_changes_nothing_and_one_that_hides_changes_something(model):
    batch = batch_of(model)
    whole = outputs_of(model, batch)
    masked = outputs_of(model, batch | {"observed": torch.ones_like(batch["values"], dtype=torch.bool)})
    for name, value in whole.items():
        torch.testing.assert_close(masked[name], value, rtol=1e-5, atol=1e-5)
    gaps = batch_of(model, missing=True)
    read_as_zero = outputs_of(model, {name: value for name, value in gaps.items() if name != "observed"})
    same = [torch.equal(value, read_as_zero[name]) for name, value in outputs_of(model, gaps).items() if value.ndim > 1]
    # the classifier of CALF norms nothing and reads zeros, and so does its short-term form after the official code
    reads_zeros = model.family == "calf" and model.config.task == "classification"
    assert all(same) if reads_zeros else not any(same)


def test_a_row_does_not_depend_on_the_others(model):
    for missing in (False, True):
        batch = batch_of(model, missing=missing)
        together = outputs_of(model, batch)
        alone = [outputs_of(model, {name: value[row : row + 1] for name, value in batch.items()}) for row in range(3)]
        for name, value in together.items():
            if name != "quantile_levels":
                torch.testing.assert_close(torch.cat([one[name] for one in alone]), value, rtol=1e-5, atol=1e-5)


def test_one_role_and_one_part_each_and_what_is_frozen_does_not_train(model):
    roles = {name: model.role_of(name) for name, _ in model.named_parameters()}
    assert roles and set(roles.values()) <= ROLES and "head" in roles.values()
    assert not any(model.get_parameter(name).requires_grad for name, role in roles.items() if role == "frozen")
    for name in roles:
        parts = [part for part, prefixes in model.parts.items() if name.startswith(tuple(prefixes))]
        assert len(parts) == 1, f"{name} is of {parts or 'no part'} that init_from can take"


def test_gradients_reach_every_parameter_that_may_train(case):
    model = built(case).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(model.role_of(name) != "frozen")
    outputs = model(batch_of(model))
    generator = torch.Generator().manual_seed(2)
    sum(
        (value * torch.randn(value.shape, generator=generator)).sum() for value in outputs.values() if value.requires_grad
    ).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None}
    assert not without
    assert all(parameter.grad is None for parameter in model.parameters() if not parameter.requires_grad)


def test_columns_it_makes_no_use_of_are_refused_and_the_others_taken(case):
    for role in ("past", "known", "static"):
        fresh = built(case)
        whole = description_of(bool(case[1].get("covariates")), fresh.config.task == "classification")
        setattr(whole, role, ["extra"])
        whole.scale["extra"] = [0.0, 1.0]
        if role not in fresh.uses:
            with pytest.raises(
                AssemblyError, match=rf"data.series.{role}: {fresh.family} makes no use of such columns \(extra\)"
            ):
                fresh.describe(whole)
            assert fresh.config.series != whole, "nothing was taken"
        elif fresh.config.task == "forecast":
            fresh.describe(whole)
            assert outputs_of(fresh, batch_of(fresh))["prediction"].shape == (3, HORIZON, len(COLUMNS))


def test_a_window_of_another_length_is_refused(model):
    batch = batch_of(model)
    batch["values"] = batch["values"][:, 1:]
    with pytest.raises(AssemblyError, match=r"the window has 23 steps, model.look_back is 24"):
        outputs_of(model, batch)


def test_a_task_it_does_not_do_is_refused():
    for family in FAMILY_NAMES:
        tasks = FAMILIES.get(family).tasks
        for task in {"forecast", "imputation", "anomaly", "classification", "short_term"} - set(tasks):
            with pytest.raises(AssemblyError, match=rf"model.task: {family} does {', '.join(tasks)}, not {task}"):
                FAMILIES.get(family).from_settings({"task": task, **copy.deepcopy(SMALL[family])})


@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_release_round_trip(model, kind, tmp_path):
    trained = frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    folder = save_release(model, tmp_path / "release", kind=kind, trained=trained, public=False)
    again = zoo.load(folder)
    assert type(again) is type(model) and again.config == model.config
    state = model.state_dict()
    assert again.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    for missing in (False, True):
        batch = batch_of(model, missing=missing)
        wanted = outputs_of(model, batch)
        assert all(torch.equal(value, wanted[name]) for name, value in outputs_of(again, batch).items())
    assert {n for n, p in again.named_parameters() if p.requires_grad} == trained
    second = save_release(again, tmp_path / "second", kind=kind, trained=trained, public=False)
    for file in ("config.json", "model.safetensors", "release.json"):
        assert (second / file).read_bytes() == (folder / file).read_bytes(), file


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A folder with a language model of three blocks."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder, settings = tmp_path_factory.mktemp("lm"), dict(ARCHITECTURE)
    torch.manual_seed(5)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings)).save_pretrained(folder)
    return {"llm": "pretrained", "language": {"name": f"local-dir:{folder}", "blocks": 2}}


@pytest.mark.parametrize("family", ["calf", "fsca"])
def test_an_adapter_leaves_the_language_model_out_and_finds_it_again(family, pretrained, tmp_path):
    model = built((family, {}), **pretrained)
    trained = frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    folder = save_release(model, tmp_path / "adapter", kind="adapter", trained=trained, public=False)
    stored = load_file(folder / "model.safetensors")
    assert model.sources() and not any(name.startswith(tuple(model.sources())) for name in stored) and stored
    assert [part["included"] for name, part in read_release(folder)[1]["parts"].items() if name == "pretrained"] == [False]
    batch = batch_of(model)
    wanted = outputs_of(model, batch)
    assert all(torch.equal(value, wanted[name]) for name, value in outputs_of(zoo.load(folder), batch).items())


def test_every_family_is_covered():
    assert set(FAMILY_NAMES) == set(SMALL) == set(VARIANTS) and len(FAMILY_NAMES) >= 4
