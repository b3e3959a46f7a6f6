"""A tiny detector, conversations about pictures, and batches of them."""

import pytest
import torch

from modalign.zoo.language.turns import Dialogue, ImagePart, TextPart, Turn

from .. import written

DETECTOR = {
    "backbone": {"name": "timm:test_resnet"},
    "width": 16,
    "queries": 5,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "heads": 2,
    "ffn": 24,
}
LOCAL = {"size": 64, "hidden": 12, "detector": DETECTOR}


@pytest.fixture(scope="session")
def local_settings():
    """Settings of a tiny `vpp_local`."""
    return LOCAL


def conversation(pictures=1, question="What is it?", answer="A red apple."):
    """A question about some pictures, and its answer."""
    shown = tuple(ImagePart(number) for number in range(pictures))
    return Dialogue((Turn("user", (*shown, TextPart(f" {question}"))), Turn("assistant", (TextPart(answer),))))


@pytest.fixture(scope="session")
def batch_of():
    """(model, [(pictures, question)]) -> a batch; pictures differ in size."""

    def make(model, asked=((1, "What is it?"),), side="right", levels=None, prompt=False):
        prepare, examples, seed = model.prepare(), [], 0
        for number, (pictures, question) in enumerate(asked):
            images = [written.photo(40 + 7 * (seed := seed + 1), 60 - 5 * seed, seed) for _ in range(pictures)]
            dialogue = conversation(pictures, question)
            dialogue = Dialogue(dialogue.turns[:1]) if prompt else dialogue
            examples.append(prepare(f"k{number}", dialogue, images, prompt=prompt))
        batch = model.collate(side)(examples)
        if levels is not None:
            batch["level"] = torch.tensor(levels)
        return batch

    return make


@pytest.fixture(scope="session")
def logits_of():
    """(model, batch) -> logits (B, T, V)."""

    def compute(model, batch):
        with torch.no_grad():
            return model({name: value for name, value in batch.items() if name != "labels"})["logits"]

    return compute


@pytest.fixture(scope="session")
def photo():
    """(width, height, seed) -> a picture."""
    return written.photo


@pytest.fixture(scope="session")
def like():
    """(plain, model) -> the model with the plain one's weights where both have some."""

    def take(plain, model):
        model.load_state_dict(plain.state_dict(), strict=False)
        return model

    return take
