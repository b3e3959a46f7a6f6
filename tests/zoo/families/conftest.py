"""Settings of a tiny model of every family of pictures and texts."""

import copy

import pytest

TOWER = {"context_length": 24, "width": 16, "heads": 2, "layers": 2, "embed_dim": 16}


@pytest.fixture(scope="session")
def family_settings(tiny_embedder, open_clip_folder):
    """Family -> plain settings; every registered family of this kind must be here."""
    image = {"name": "timm:test_efficientnet", "image_size": 32, "pretrained": False}
    embedder = {"name": f"local-dir:{tiny_embedder}", "max_length": 16}
    clip = {"name": f"local-dir:{open_clip_folder('native')}"}
    coca = {"name": f"local-dir:{open_clip_folder('coca')}"}
    own = {"image_projector": None, "text_projector": None}
    table = {
        "clip": {"embed_dim": 16, "image": image, "text_tower": TOWER, "text_projector": None},
        "siglip": {"embed_dim": 16, "image": clip, "text_embedder": embedder, "image_projector": None},
        "lit": {"embed_dim": 16, "image": clip, "text_embedder": embedder, "image_projector": None},
        "longclip": {"base": clip["name"]},
        "coca": {"embed_dim": 32, "image": coca, "text_embedder": coca, **own},
        "proclip": {
            "embed_dim": 16,
            "image": clip,
            "image_projector": None,
            "text_embedder": embedder,
            "text_projector": {"name": "proclip", "options": {"expansion": 2}},
        },
    }
    return lambda family: copy.deepcopy(table[family])
