"""The real assets, where the cache has them: counts, and whether the weights mean what they should."""

import io
import json
import os
from pathlib import Path

import pytest

from modalign.datasets.assets import catalogue, record
from modalign.datasets.assets.converters import openmoji

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", sorted(catalogue.CATALOGUE))
def test_record_fits_catalogue_and_files(real, name):
    folder = real(name)
    entry = record.read(folder)
    asset = catalogue.CATALOGUE[name]
    assert (entry["name"], entry["kind"], entry["revision"], entry["licence"]) == (
        name,
        asset.kind,
        asset.revision,
        asset.licence,
    )
    assert set(asset.files) <= set(entry["files"])
    record.verify(folder, entry, hashes=False)
    for path in (*folder.glob("*config.json"), *folder.rglob("shards.json"), folder / record.FILE):
        assert "staging" not in path.read_text() and str(Path.home()) not in path.read_text()


def described(folder):
    from modalign.datasets.shards import ShardSet

    shards = ShardSet(folder)
    return [json.loads(shards.read(n).members["json"]) | {"key": key} for n, key in enumerate(shards.keys)]


def test_openmoji_counts_and_split(real):
    folder = real("openmoji")
    parts = {part: described(folder / part) for part in ("train", "test")}
    assert {part: len(samples) for part, samples in parts.items()} == {"train": 1721, "test": 197}
    groups = {part: {sample["group"] for sample in samples} for part, samples in parts.items()}
    assert not groups["train"] & groups["test"]
    for part, samples in parts.items():
        for sample in samples:
            assert set(sample["captions"]) == set(openmoji.LANGUAGES)
            text = "".join(chr(int(code, 16)) for code in sample["key"].split("-"))
            assert text == sample["emoji"] and sample["group"] == openmoji.base(text)
            assert openmoji.is_test(text) == (part == "test")


def test_tuxpaint_counts_and_split(real):
    folder = real("tuxpaint")
    parts = {part: described(folder / part) for part in ("train", "test", "symbols")}
    assert {part: len(samples) for part, samples in parts.items()} == {"train": 556, "test": 145, "symbols": 249}
    train, test = ({sample["group"] for sample in parts[part]} for part in ("train", "test"))
    assert not train & test and len(train | test) == 479
    names = {part: {sample["captions"]["en"][0].lower() for sample in parts[part]} for part in ("train", "test")}
    assert not names["train"] & names["test"]
    dog = next(sample for part in parts.values() for sample in part if sample["key"] == "animals/mammals/dogs/dog")
    assert dog["captions"]["de"] == ["Ein Hund."] and dog["folder"] == "animals/mammals/dogs"
    assert sum(len(sample["captions"]) for sample in parts["train"] + parts["test"]) > 45_000


def test_tuxpaint_speech(real):
    """Recordings lie beside the pictures as members by language; each is Ogg."""
    from modalign.datasets.shards import ShardSet

    shards = ShardSet(real("tuxpaint") / "test")
    recordings = [(ext, data) for n in range(40) for ext, data in shards.read(n).members.items() if ext.endswith(".ogg")]
    assert len(recordings) > 200 and all(data.startswith(b"OggS") for _, data in recordings)
    assert {"ca.ogg", "es.ogg", "fr.ogg", "ro.ogg", "ru.ogg"} <= {ext for ext, _ in recordings}


def test_noto_cldr_counts_and_the_split_it_shares_with_openmoji(real):
    folder = real("noto_cldr")
    parts = {part: described(folder / part) for part in ("train", "test")}
    assert {part: len(samples) for part, samples in parts.items()} == {"train": 1412, "test": 167}
    languages = {lang for sample in parts["test"] for lang in sample["captions"]}
    assert len(languages) == 121 and "si" in languages
    apple = next(sample for part in parts.values() for sample in part if sample["key"] == "1F34E")
    assert apple["captions"]["en"][0] == "red apple" and apple["captions"]["de"] == ["roter Apfel"]
    assert "Apfel" in apple["keywords"]["de"]
    drawn = {part: {sample["group"] for sample in described(real("openmoji") / part)} for part in ("train", "test")}
    noto = {part: {sample["group"] for sample in samples} for part, samples in parts.items()}
    assert not noto["train"] & (noto["test"] | drawn["test"]) and not noto["test"] & drawn["train"]
    assert len(noto["test"] & drawn["test"]) > 100


def test_flickr8k_counts_and_split(real):
    folder = real("flickr8k_multilingual")
    parts = {part: described(folder / part) for part in ("train", "dev", "test")}
    assert {part: len(samples) for part, samples in parts.items()} == {"train": 716, "dev": 84, "test": 100}
    assert all(len(sample["captions"]["en"]) == 5 for samples in parts.values() for sample in samples)
    assert sum("de" in sample["captions"] for samples in parts.values() for sample in samples) == 843
    assert len({sample["key"] for samples in parts.values() for sample in samples}) == 900
    raw = Path(os.environ.get("MODALIGN_DATA") or ROOT.parent / "shared" / "data") / "flickr8k_multilingual" / "captions.jsonl"
    if not raw.is_file():
        pytest.skip("the raw folder is not here: the split was checked by its counts only")
    rows = map(json.loads, raw.read_text(encoding="utf-8").splitlines())
    assert {sample["key"] + ".jpg" for sample in parts["test"]} == {row["image"] for row in rows if row["split"] == "val"}


def test_efficientnet_tells_dogs(real):
    """ImageNet's classes 151 to 268 are dogs: photographs whose captions all say dog score higher than those that never do."""
    import timm
    import torch
    from PIL import Image

    from modalign.datasets.shards import ShardSet

    model = timm.create_model(f"local-dir:{real('efficientnet-lite0')}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    shards = ShardSet(real("flickr8k_multilingual") / "test")
    scores = {True: [], False: []}
    for number in range(len(shards)):
        members = shards.read(number).members
        votes = ["dog" in text.lower() for text in json.loads(members["json"])["captions"]["en"]]
        if not (all(votes) or not any(votes)):
            continue
        with torch.no_grad():
            probabilities = model(transform(Image.open(io.BytesIO(members["jpg"])).convert("RGB"))[None]).softmax(-1)[0]
        scores[all(votes)].append(float(probabilities[151:269].sum()))
    right = [dog > other for dog in scores[True] for other in scores[False]]
    assert len(scores[True]) >= 10 and len(scores[False]) >= 10
    assert sum(right) / len(right) > 0.95


def embed(folder, texts):
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


SENTENCES = {
    "dog": [
        "A dog runs on the beach",
        "Ein Hund läuft am Strand",
        "Un chien court sur la plage",
        "බල්ලෙක් වෙරළේ දුවයි",
        "犬が浜辺を走る",
    ],
    "market": [
        "The stock market fell",
        "Die Börse ist gefallen",
        "La bourse a chuté",
        "කොටස් වෙළඳපොළ පහත වැටුණි",
        "株式市場が下落した",
    ],
    "soup": [
        "She cooks a tomato soup",
        "Sie kocht eine Tomatensuppe",
        "Elle prépare une soupe",
        "ඇය තක්කාලි සුප් එකක් උයයි",
        "彼女はトマトスープを作る",
    ],
}


def test_e5_puts_translations_together(real):
    """Of the three English sentences the nearest to every translation is its own (across scripts the model also groups by language)."""
    vectors = embed(real("multilingual-e5-small"), ["query: " + text for group in SENTENCES.values() for text in group])
    size = len(SENTENCES["dog"])
    for number, group in enumerate(SENTENCES.values()):
        translations = vectors[number * size + 1 : (number + 1) * size]
        assert (translations @ vectors[::size].T).argmax(1).tolist() == [number] * (size - 1), group


def test_minilm_puts_paraphrases_together(real):
    texts = [
        "A dog runs on the beach",
        "A puppy is running along the shore",
        "The stock market fell",
        "Share prices dropped sharply",
    ]
    vectors = embed(real("all-minilm-l6-v2"), texts)
    similarity = vectors @ vectors.T
    assert min(similarity[0, 1], similarity[2, 3]) > 0.3 + similarity[:2, 2:].max()


def test_smollm2_answers_in_english(real):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = real("smollm2-135m-instruct")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    question = [{"role": "user", "content": "What is the capital of France?"}]
    batch = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        answer = model.generate(**batch, max_new_tokens=12, do_sample=False)[0, batch["input_ids"].shape[1] :]
    assert "The capital of France is Paris" in tokenizer.decode(answer, skip_special_tokens=True)
    assert (
        tokenizer.model_max_length == 8192
        and tokenizer("A dog").input_ids == tokenizer("A dog", add_special_tokens=False).input_ids
    )
