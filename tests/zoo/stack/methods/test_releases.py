"""Releases of both families: the same to the last bit, without the sources they were built from, and without a path of this machine."""

import json
import shutil

import pytest
import torch

from modalign import zoo
from modalign.zoo.checkpoints.release import read_release, save_release

ASKED = [(1, "What is it?"), (0, "How many birds?")]


@pytest.fixture
def built(stack, local_settings):
    """Family -> a stack with its hooks, none of whose weights is as it was initialised."""

    def make(family):
        hooks = {
            "vpp_llava": {"vpp_global": {"frame": 3}, "vpp_local": local_settings},
            "aligngpt": {"alignment_levels": {"levels": 5}},
        }
        model = stack(family, hooks=hooks[family])
        for parameter in model.hooks.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        return model

    return make


@pytest.mark.parametrize("kind", ["full", "adapter"])
@pytest.mark.parametrize("family", ["vpp_llava", "aligngpt"])
def test_a_release_computes_the_same(family, kind, built, batch_of, logits_of, tmp_path):
    model = built(family)
    loaded = zoo.load(save_release(model, tmp_path / "release", kind=kind, public=False))
    batch = batch_of(model, ASKED)
    assert type(loaded) is type(model) and loaded.config.hooks == model.config.hooks
    assert torch.equal(logits_of(model, batch), logits_of(loaded, batch_of(loaded, ASKED)))


def test_a_published_release_names_no_folder_of_a_machine(built, tmp_path):
    model = built("vpp_llava")
    model.config.hooks["vpp_local"]["detector"]["backbone"]["name"] = f"local-dir:{tmp_path}/some/network"
    folder = save_release(model, tmp_path / "release")
    config, _ = read_release(folder)
    assert config["model"]["hooks"]["vpp_local"]["detector"]["backbone"]["name"] == "local-dir:network"
    assert str(tmp_path) not in (folder / "config.json").read_text()


def test_it_needs_no_source_of_the_detector(stack, local_settings, batch_of, logits_of, tmp_path):
    from transformers import DetrConfig, DetrModel

    sizes = {"encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    source = tmp_path / "detr"
    DetrModel(
        DetrConfig(backbone="test_resnet", d_model=16, num_queries=5, encoder_layers=1, decoder_layers=1, **sizes)
    ).save_pretrained(source)
    model = stack("vpp_llava", hooks={"vpp_local": {**local_settings, "detector": {"name": f"local-dir:{source}"}}})
    folder = save_release(model, tmp_path / "release")
    shutil.rmtree(source)
    batch = batch_of(model, ASKED)
    assert torch.equal(logits_of(zoo.load(folder), batch), logits_of(model, batch))


def test_settings_say_what_was_found(built):
    found = built("vpp_llava").settings()["hooks"]["vpp_local"]["detector"]
    assert found["backbone"]["network"] == "test_resnet" and found["queries"] == 5
    json.dumps(found)
