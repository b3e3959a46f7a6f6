"""Every kind of image encoder with every projector and several language models: one step, or the documented reason."""

import itertools

import pytest
import torch

from modalign.zoo.errors import AssemblyError
from modalign.zoo.losses.next_token import NextTokenLoss
from modalign.zoo.registry import ENCODERS, FAMILIES, PROJECTORS

from .test_model import batch_of

#: encoder -> its kind in the registry, settings, and side of its grid
ENCODER = {
    "timm transformer": ("timm", {"name": "timm:test_vit", "image_size": 32, "pretrained": False}, 2),
    "timm convolution": ("timm", {"name": "timm:test_efficientnet", "image_size": 96, "pretrained": False}, 3),
    "transformers": ("transformers", {"name": "clip"}, 4),
    "open_clip transformer": ("open_clip", {"name": "native"}, 4),
    "open_clip convolution": ("open_clip", {"name": "resnet"}, 2),
}
SMALL = {"heads": 2, "intermediate": 16, "dropout": 0.0}
#: what a projector needs to be told to be small
PROJECTOR = {
    "linear": {},
    "mlp": {},
    "residual_mlp": {"expansion": 2},
    "proclip": {"expansion": 2},
    "llm2clip": {"expansion": 1, "blocks": 1},
    "identity": {},
    "mlp_residual": {"blocks": 1},
    "pooler": {},
    "spatial_pool": {},
    "pixel_shuffle": {},
    "perceiver": {"latents": 3, "depth": 1, "heads": 2, "head_width": 4},
    "honeybee_resampler": {"queries": 3, "hidden": 8, "layers": 1, **SMALL},
    "q_former": {"queries": 3, "hidden": 8, "layers": 2, **SMALL},
    "c_abstractor": {"queries": 4, "hidden": 8, "depth": 1},
    "d_abstractor": {"queries": 4, "hidden": 8, "layers": 1, "points": 2, **SMALL},
}
LANGUAGE = ("llama", "gpt2", "opt", "cohere", "gemma2")
ODD = "timm convolution"
#: pairs that do not go together, with the reason that is given
REFUSED = {
    **{(encoder, "identity"): "identity cannot turn width" for encoder in ENCODER if encoder != "transformers"},
    (ODD, "pooler"): "pooler halves the side of a grid, and 3 is odd; use the projector 'spatial_pool'",
    (ODD, "pixel_shuffle"): "the factor 2 does not divide the grid's side 3",
}
#: tokens of a picture behind a projector
TOKENS = {
    **dict.fromkeys(("perceiver", "honeybee_resampler", "q_former"), lambda side: 3),
    **dict.fromkeys(("c_abstractor", "d_abstractor"), lambda side: 4),
    **dict.fromkeys(("pooler", "pixel_shuffle", "spatial_pool"), lambda side: (side + 1) // 2 * ((side + 1) // 2)),
}
PRODUCT = list(itertools.product(ENCODER, PROJECTOR, LANGUAGE))
#: every two settings of different parts meet: the third follows from the other two
PAIRWISE = [
    (encoder, projector, LANGUAGE[(place + number) % len(LANGUAGE)])
    for place, encoder in enumerate(ENCODER)
    for number, projector in enumerate(PROJECTOR)
]


def test_everything_that_is_registered_is_here_and_every_two_meet():
    kinds = {f"image.{kind}" for kind, _, _ in ENCODER.values()}
    assert kinds == {name for name in ENCODERS.names() if name.startswith("image.") and "colour" not in name}
    assert set(PROJECTOR) == set(PROJECTORS.names())
    for first, second in ((0, 1), (0, 2), (1, 2)):
        pairs = {(case[first], case[second]) for case in PRODUCT}
        assert {(case[first], case[second]) for case in PAIRWISE} == pairs


@pytest.fixture(scope="module")
def assemble(stack_settings, clip_folder, open_clip_folder):
    def build(encoder, projector, language):
        _, image, _ = ENCODER[encoder]
        folders = {
            "clip": lambda: clip_folder,
            "native": lambda: open_clip_folder("native"),
            "resnet": lambda: open_clip_folder("resnet"),
        }
        if image["name"] in folders:
            image = {**image, "name": f"local-dir:{folders[image['name']]()}"}
        options = {"name": projector, "options": PROJECTOR[projector]}
        return FAMILIES.get("llava").from_settings(stack_settings(language, image=image, projector=options, feature_layer=None))

    return build


def check(assemble, encoder, projector, language):
    torch.manual_seed(0)
    if (told := REFUSED.get((encoder, projector))) is not None:
        with pytest.raises(AssemblyError, match=told):
            assemble(encoder, projector, language)
        return
    model = assemble(encoder, projector, language)
    model.image.eval()  # batch norm of one picture
    batch = batch_of(model)
    side = ENCODER[encoder][2]
    assert batch["image_lengths"].tolist() == [TOKENS.get(projector, lambda side: side * side)(side)] * 3
    loss = NextTokenLoss()(model(batch), batch).value
    loss.backward()
    assert loss.isfinite() and loss > 0
    grads = {name: p.grad for name, p in model.named_parameters()}
    assert all(grad.isfinite().all() for grad in grads.values() if grad is not None)
    for part in ("image.", "projector.", "language_base."):
        found = [grad for name, grad in grads.items() if name.startswith(part) and grad is not None]
        assert (part == "projector." and projector == "identity") or any(grad.any() for grad in found), part


@pytest.mark.parametrize(("encoder", "projector", "language"), PAIRWISE)
def test_parts_go_together_or_say_why_not(assemble, encoder, projector, language):
    check(assemble, encoder, projector, language)


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "projector", "language"), [case for case in PRODUCT if case not in PAIRWISE])
def test_all_parts_go_together_or_say_why_not(assemble, encoder, projector, language):
    check(assemble, encoder, projector, language)
