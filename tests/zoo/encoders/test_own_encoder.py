"""Encoders of one's own: a class and a registered name, then any family takes them, and releases hold them."""

import json

import pytest
import torch
from torch import nn

from modalign import zoo
from modalign.zoo.checkpoints.release import save_release
from modalign.zoo.encoders.image.base import ImageEncoder
from modalign.zoo.encoders.image.build import ImageEncoderConfig, build_image_encoder
from modalign.zoo.encoders.image.preprocess import ImagePreprocess
from modalign.zoo.encoders.text.base import TextEncoder
from modalign.zoo.errors import AssemblyError
from modalign.zoo.registry import ENCODERS, FAMILIES


class MeanColour(ImageEncoder):
    """The mean colour of a picture through one layer."""

    width = token_width = 8
    num_layers = 1

    def __init__(self, config, preprocess):
        super().__init__(config, preprocess)
        self.layer = nn.Linear(3, config.options.get("width", 8))

    @classmethod
    def recognises(cls, folder):
        return (folder / "colour.json").is_file()

    @classmethod
    def build(cls, config, source, *, load_weights, preprocess):
        return cls(config, preprocess or ImagePreprocess(8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))

    def tokens(self, pixels):
        return self.layer(self.normalise(pixels).flatten(2).transpose(1, 2))

    def pooled(self, pixels):
        return self.tokens(pixels).mean(1)

    def layer_of(self, parameter):
        return 0

    def save_processor(self, folder):
        (folder / "colour.json").write_text("{}")


class Lengths(TextEncoder):
    """The length of a text, as a one-hot vector."""

    num_layers = 1

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(40, 8)
        self.width = 8

    @classmethod
    def recognises(cls, folder):
        return (folder / "lengths.json").is_file()

    @classmethod
    def build(cls, config, source, *, load_weights):
        made = cls()
        made.config = config
        return made

    def tokenizer(self):
        return lambda texts: {
            "ids": torch.tensor([[len(t) % 40] for t in texts]),
            "mask": torch.ones(len(texts), 1, dtype=torch.long),
        }

    def forward(self, ids, mask):
        return self.table(ids[:, 0])

    def identity(self):
        return {"kind": "lengths"}

    def layer_of(self, parameter):
        return 0

    def save_processor(self, folder):
        (folder / "lengths.json").write_text("{}")


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(ENCODERS, "_classes", dict(ENCODERS._classes))
    ENCODERS.register("image.colour")(MeanColour)
    ENCODERS.register("text.lengths")(Lengths)


def test_in_a_family_and_its_release(registered, tmp_path, photos):
    (tmp_path / "colour").mkdir()
    (tmp_path / "colour" / "colour.json").write_text("{}")
    (tmp_path / "lengths").mkdir()
    (tmp_path / "lengths" / "lengths.json").write_text("{}")
    settings = {
        "embed_dim": 4,
        "image": {"name": str(tmp_path / "colour"), "options": {"width": 8}, "pretrained": False},
        "text_embedder": {"name": str(tmp_path / "lengths"), "pretrained": False},
    }
    model = FAMILIES.get("clip").from_settings(settings).eval()
    assert isinstance(model.image, MeanColour), "found from the files of the folder"
    again = zoo.load(save_release(model, tmp_path / "release"))
    assert torch.equal(again.encode_image(photos), model.encode_image(photos))
    assert torch.equal(again.encode_text(["a", "bb"]), model.encode_text(["a", "bb"]))
    assert json.loads((tmp_path / "release" / "config.json").read_text())["model"]["image"]["options"] == {"width": 8}


def test_what_the_contract_gives_for_nothing(registered):
    encoder = build_image_encoder(ImageEncoderConfig("timm:any", kind="colour"))
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert encoder.cuts() == ["output"]
    assert torch.equal(encoder.above(encoder.below(pixels, "output"), "output"), encoder.pooled(pixels))
    assert encoder.num_tokens((8, 8)) == 64
    assert encoder.split_projection() is None
    assert encoder.quick_gelu is False
    with pytest.raises(AssemblyError, match="cannot be cut at 'blocks'"):
        encoder.below(pixels, "blocks")
    with pytest.raises(AssemblyError, match="cannot recompute activations"):
        encoder.set_grad_checkpointing()


def test_a_taken_name(registered):
    with pytest.raises(AssemblyError, match=r"there is already a encoder named 'image\.timm'|already"):
        ENCODERS.register("image.timm")(MeanColour)
