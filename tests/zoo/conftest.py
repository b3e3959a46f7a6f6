"""Tiny models in the layouts of other libraries, written by those libraries themselves."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

TEXT = {"context_length": 24, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2}
VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
CLIP = {"mean": [0.48, 0.45, 0.41], "std": [0.27, 0.26, 0.28]}
HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
#: open_clip layouts: model_cfg and preprocess_cfg
LAYOUTS = {
    "native": ({"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT}, CLIP),
    "quick_gelu": (
        {"embed_dim": 16, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT},
        {**CLIP, "interpolation": "bilinear", "resize_mode": "longest", "fill_color": 127},
    ),
    "timm_mlp": (
        {
            "embed_dim": 16,
            "custom_text": True,
            "vision_cfg": {"image_size": 64, "timm_model_name": "test_efficientnet", "timm_pool": "", "timm_proj": "mlp"},
            "text_cfg": TEXT,
        },
        {**HALF, "resize_mode": "longest"},
    ),
    "timm_vit": (
        {
            "embed_dim": 16,
            "custom_text": True,
            "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"},
            "text_cfg": TEXT,
        },
        HALF,
    ),
    "siglip": (
        {
            "embed_dim": 64,
            "custom_text": True,
            "init_logit_bias": -10,
            "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
            "text_cfg": {**TEXT, "width": 64, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
        },
        {**HALF, "resize_mode": "squash", "interpolation": "bilinear"},
    ),
    "resnet": (
        {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32},
            "text_cfg": TEXT,
        },
        CLIP,
    ),
    "coca": (
        {
            "embed_dim": 32,
            "custom_text": True,
            "multimodal_cfg": {"context_length": 24, "width": 32, "heads": 2, "layers": 2, "vocab_size": 49408},
            "vision_cfg": {
                **VISION,
                "attentional_pool": True,
                "attn_pooler_queries": 9,
                "attn_pooler_heads": 2,
                "output_tokens": True,
            },
            "text_cfg": {**TEXT, "width": 32, "embed_cls": True, "output_tokens": True},
        },
        CLIP,
    ),
    "hf_text": (
        {
            "embed_dim": 16,
            "vision_cfg": VISION,
            "text_cfg": {"context_length": 16, "hf_pooler_type": "mean_pooler", "hf_proj_type": "mlp"},
        },
        CLIP,
    ),
}
TEXTS = ["thing number 3", "two red birds on a wire", "", "Ding Nummer 40 item item item item item item item item item item item"]


def write_open_clip(folder, model_cfg, preprocess_cfg=None, *, seed=0, weights="safetensors"):
    """A `local-dir:` folder of open_clip with random weights in which nothing is zero by chance."""
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    values = {"model_cfg": copy.deepcopy(model_cfg), "preprocess_cfg": CLIP if preprocess_cfg is None else preprocess_cfg}
    (folder / "open_clip_config.json").write_text(json.dumps(values))
    torch.manual_seed(seed)
    model = open_clip.create_model(f"local-dir:{folder}", pretrained_text=False)
    if "multimodal_cfg" in model_cfg:  # open_clip leaves this matrix as it finds the memory
        torch.nn.init.normal_(model.text_decoder.text_projection, std=0.5)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    model.logit_scale.data.fill_(3.1)
    if getattr(model, "logit_bias", None) is not None:
        model.logit_bias.data.fill_(-9.5)
    if weights == "safetensors":
        save_file(
            {name: value.contiguous() for name, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
        )
    elif weights == "bin":
        torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


@pytest.fixture(scope="session")
def open_clip_writer():
    """`write_open_clip`, for tests that want a folder of their own."""
    return write_open_clip


@pytest.fixture(scope="session")
def open_clip_folder(tmp_path_factory, tiny_embedder):
    """Name of a layout -> its folder, written once; do not change it."""
    made = {}

    def folder_of(layout):
        if layout not in made:
            folder = tmp_path_factory.mktemp("open_clip") / layout
            cfg, preprocess = copy.deepcopy(LAYOUTS[layout])
            if layout == "hf_text":
                for file in ("tokenizer.json", "tokenizer_config.json"):
                    folder.mkdir(exist_ok=True)
                    shutil.copy(tiny_embedder / file, folder / file)
                cfg["text_cfg"] |= {"hf_model_name": str(tiny_embedder), "hf_tokenizer_name": str(tiny_embedder)}
            made[layout] = write_open_clip(folder, cfg, preprocess)
        return made[layout]

    return folder_of


@pytest.fixture(scope="session")
def layouts():
    """model_cfg and preprocess_cfg by name."""
    return LAYOUTS


@pytest.fixture(scope="session")
def photos():
    """Pictures of several shapes, grey ones among them."""
    rng = np.random.default_rng(0)
    shapes = [(40, 60), (64, 64), (33, 97), (120, 50), (32, 32), (71, 70)]
    coarse = [Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)) for _ in shapes]
    pictures = [low.resize(shape, Image.Resampling.BICUBIC) for low, shape in zip(coarse, shapes, strict=True)]
    return [*pictures, pictures[0].convert("L")]


@pytest.fixture(scope="session")
def captions():
    """Texts, an empty one and one that is cut among them."""
    return TEXTS


@pytest.fixture(scope="session")
def open_clip_vectors():
    """Folder -> (image vectors, text vectors) by open_clip's own code, given pictures and texts."""

    def vectors(folder, pictures, texts):
        import open_clip

        model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", pretrained_text=False)
        model.eval()
        tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(texts)
        with torch.inference_mode():
            images = model.encode_image(torch.stack([transform(picture) for picture in pictures]), normalize=True)
            return images, model.encode_text(tokens, normalize=True)

    return vectors


def write_vision(folder, config, processor, *, seed=0):
    """A folder of transformers with a random vision model and its image processor."""
    from transformers import AutoModel

    torch.manual_seed(seed)
    model = AutoModel.from_config(config)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def vision_writer():
    """`write_vision`."""
    return write_vision


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory):
    """A ViT of transformers."""
    from transformers import ViTConfig, ViTImageProcessor

    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8
    )
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    return write_vision(tmp_path_factory.mktemp("vision") / "vit", config, processor)
