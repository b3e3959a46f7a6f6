"""The rates in the two cards name parameters that there are, each once."""

import re
from pathlib import Path

import pytest
import yaml

from modalign.trainers.roles import select

ROOT = Path(__file__).resolve().parents[4]


def written_in(family):
    """The first recipe of a card."""
    text = (ROOT / "zoo" / "families" / family / "README.md").read_text(encoding="utf-8")
    return yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.S).group(1))


def test_the_papers_rates_train_all_but_the_first_layers_of_the_detectors_network(stack, local_settings):
    model = stack("vpp_llava", hooks={"vpp_global": {}, "vpp_local": local_settings})
    trained = {entry.name: entry.lr for entry in select(model, written_in("vpp_llava")["train"], "card")}
    left = {name for name, _ in model.named_parameters()} - {*trained}
    network = "hooks.vpp_local.detector.detr.backbone.model."
    assert left and all(name.startswith((f"{network}conv1.", f"{network}layer1.")) for name in left)
    assert {lr for name, lr in trained.items() if ".detr." in name} == {2e-5}
    assert {lr for name, lr in trained.items() if ".projector." in name or name.endswith(".overlay")} == {2e-4}


@pytest.mark.parametrize(("stage", "part"), [("align", "table"), ("tune", "gate.")])
def test_each_stage_trains_its_part_of_the_levels(stage, part, stack):
    model = stack("aligngpt", hooks={"alignment_levels": {}})
    trained = [entry.name for entry in select(model, written_in("aligngpt")["stages"][stage]["train"], "card")]
    hook = [name.removeprefix("hooks.alignment_levels.") for name in trained if name.startswith("hooks.")]
    assert hook and all(name.startswith(part) for name in hook)
