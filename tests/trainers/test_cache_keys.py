"""Cached features belong to one encoder in one form: equal weights in another form are computed anew."""

import shutil

import pytest
import torch

from modalign.datasets.shards import ShardSet
from modalign.trainers.caches import image_vectors
from modalign.zoo.encoders.image.build import ImageEncoderConfig, build_image_encoder


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return build_image_encoder(ImageEncoderConfig(name="timm:test_vit", image_size=32, pretrained=False)).eval()


def other_activation(encoder):
    for name, module in list(encoder.named_modules()):
        if isinstance(module, torch.nn.GELU):
            encoder.set_submodule(name, torch.nn.ReLU())


def other_pooling(encoder):
    encoder.config.pooling = "mean"


@pytest.mark.parametrize("change", [other_activation, other_pooling])
def test_equal_weights_in_another_form_are_computed_anew(encoder, tiny_shards, tmp_path, own_home, change, monkeypatch):
    from modalign.datasets.features import FeatureStore

    made, obtain = [], FeatureStore.obtain.__func__

    def counting(cls, place, fingerprint, keys, batches, waiting):
        return obtain(cls, place, fingerprint, keys, lambda: (made.append(place), batches())[1], waiting)

    monkeypatch.setattr(FeatureStore, "obtain", classmethod(counting))
    shards = ShardSet(shutil.copytree(tiny_shards, tmp_path / "own", ignore=shutil.ignore_patterns(".features")))
    first = image_vectors(encoder, [shards], "output").take(shards.keys[:5])
    again = image_vectors(encoder, [shards], "output").take(shards.keys[:5])
    assert len(made) == 1 and torch.equal(first, again)
    weights = {name: value.clone() for name, value in encoder.state_dict().items()}
    change(encoder)
    assert all(torch.equal(value, weights[name]) for name, value in encoder.state_dict().items())
    image_vectors(encoder, [shards], "output")
    assert len(set(made)) == 2
