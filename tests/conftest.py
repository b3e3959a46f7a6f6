"""Shared by all tests: offline, where the small real data lies, and tiny parts that need nothing from outside."""

import io
import os
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: more threads only wait for each other
if "MODALIGN_DATA" not in os.environ and (ROOT.parent / "shared" / "data").is_dir():
    os.environ["MODALIGN_DATA"] = str(ROOT.parent / "shared" / "data")


@pytest.fixture(scope="session")
def golden():
    """Reference numbers of the official implementations, by name."""
    return lambda name: dict(np.load(ROOT / "tests" / "golden" / f"{name}.npz"))


@pytest.fixture(scope="session")
def real_data():
    """Folder of the small real data sets; tests that need it are skipped where it is absent."""
    folder = os.environ.get("MODALIGN_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("the small real data sets are not here (MODALIGN_DATA)")
    return Path(folder)


def colour_picture(number: int, size: int = 40):
    """A picture whose colour and bar tell which number it is."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (size, size), ((37 * number) % 256, (91 * number) % 256, (53 * number) % 256))
    ImageDraw.Draw(picture).rectangle((0, 0, size // 2, (number * 7) % size), fill="white")
    return picture


@pytest.fixture(scope="session")
def picture_of():
    """Number -> its picture."""
    return colour_picture


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory):
    """50 pictures in 4 shards with English names (every other one with an alias) and German ones."""
    from modalign.datasets.shards.writer import write_shards

    def samples():
        for number in range(50):
            stream = io.BytesIO()
            colour_picture(number).save(stream, "PNG")
            names = [f"thing number {number}"] + ([f"item {number}"] if number % 2 else [])
            yield {
                "key": f"k{number:03d}",
                "image": stream.getvalue(),
                "image_ext": "png",
                "captions": {"en": names, "de": [f"Ding Nummer {number}"]},
            }

    folder = tmp_path_factory.mktemp("tiny") / "shards"
    write_shards(samples(), folder, samples_per_shard=13)
    return folder


@pytest.fixture(scope="session")
def tiny_embedder(tmp_path_factory):
    """A Hugging Face folder with a two-layer BERT and a word tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "thing", "item", "number", "Ding", "Nummer", "query", ":", *map(str, range(60))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    folder = tmp_path_factory.mktemp("embedder")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_embedder):
    """Settings of a ProCLIP model that builds in a moment."""
    return {
        "family": "proclip",
        "embed_dim": 16,
        "image": {"name": "timm:test_efficientnet", "image_size": 32, "pretrained": False},
        "text_embedder": {"name": f"local-dir:{tiny_embedder}", "max_length": 16},
        "text_projector": {"name": "proclip", "options": {"expansion": 2, "dropout": 0.1}},
    }


def wave_values(rows, columns, seed):
    """(rows, columns) a day's waves with noise around 3."""
    rng, steps = np.random.default_rng(seed), np.arange(rows)[:, None]
    return np.sin(2 * np.pi * steps / 24 + np.arange(columns)) + 0.2 * rng.normal(size=(rows, columns)) + 3


def _tiny_llama(folder):
    """A Llama of six blocks with a word tokenizer that knows the prompts."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = [
        "[UNK]",
        *["Predict", "future", "sequences", "using", "previous", "data", ":", "category", "(", "in", "total", ")"],
        *map(str, range(20)),
    ]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None, "max_position_embeddings": 256}
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 6,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **sizes, **ends)).save_pretrained(folder)


@pytest.fixture(scope="session")
def series_assets(tmp_path_factory):
    """A MODALIGN_DATA folder with a tiny language model and toy series under the names of the assets that recipes of time series use."""
    from modalign.datasets.series.series_set import Series
    from modalign.datasets.series.stored import write_series

    root, start = tmp_path_factory.mktemp("series-assets"), np.datetime64("2020-01-01", "us")
    _tiny_llama(root / "smollm2-135m-instruct")

    def series(key, rows, columns, step, seed=0, gap=False, label=None):
        values = wave_values(rows, columns, seed)
        if gap:
            values[100:103, 0] = np.nan
        names = tuple(f"c{place}" for place in range(columns))
        return Series(key, values, names, None if step is None else start, step, label=label)

    long = {"etth1": (7, "h"), "household-power": (7, "h"), "beijing-pm": (8, "h"), "appliance-energy": (3, "10min")}
    for name, (columns, step) in long.items():
        write_series([series(name, 3200, columns, step, gap=name != "etth1")], root / name, source="toy")
    daily = [series(f"d{number}", 100 + 37 * number, 1, "D", number) for number in range(5)]
    write_series(daily, root / "greykite-daily", source="toy")
    for part, count in (("train", 80), ("test", 20)):
        digits = [series(f"{part}{number}", 64, 8, None, number, label=str(number % 10)) for number in range(count)]
        write_series(digits, root / "fsdd-envelopes" / part, source="toy")
    return root


@pytest.fixture
def own_home(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("MODALIGN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
