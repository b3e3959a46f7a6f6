"""clip-benchmark measures our models: its own metrics on the adapter equal our numbers."""

import json
import sys

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from modalign import zoo
from modalign.zoo.checkpoints.clip_benchmark import clip_benchmark_model
from modalign.zoo.checkpoints.release import save_release
from modalign.zoo.metrics.retrieval import RetrievalMetric
from modalign.zoo.registry import FAMILIES

pytest.importorskip("clip_benchmark", reason="clip-benchmark is an optional companion")

CLASSES = ["thing", "item", "Ding", "number", "Nummer", "query"]
TEMPLATES = ["{c}", "thing number {c}", "item {c} 3"]


class Pictures(Dataset):
    """(picture, class) or (picture, [captions])."""

    classes = CLASSES

    def __init__(self, pictures, targets, transform):
        self.pictures, self.targets, self.transform = pictures, targets, transform

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, row):
        return self.transform(self.pictures[row]), self.targets[row]


@pytest.fixture(scope="module", params=["open_clip", "embedder"])
def release(request, tmp_path_factory, open_clip_folder, tiny_embedder):
    if request.param == "open_clip":
        model = zoo.load(open_clip_folder("native"))
    else:
        settings = {
            "embed_dim": 16,
            "image": {"name": "timm:test_efficientnet", "image_size": 32, "pretrained": False},
            "text_embedder": {"name": f"local-dir:{tiny_embedder}", "max_length": 16},
        }
        torch.manual_seed(0)
        model = FAMILIES.get("clip").from_settings(settings)
    return save_release(model, tmp_path_factory.mktemp("benchmark") / request.param)


@pytest.fixture(scope="module")
def pictures(picture_of):
    return [picture_of(number, 40 + number) for number in range(24)]


def test_zero_shot_classification(release, pictures):
    from clip_benchmark.metrics import zeroshot_classification

    model, transform, tokenizer = clip_benchmark_model(release)
    labels = torch.tensor([number % len(CLASSES) for number in range(len(pictures))])
    loader = DataLoader(Pictures(pictures, labels, transform), batch_size=7)
    theirs = zeroshot_classification.evaluate(model, loader, tokenizer, CLASSES, TEMPLATES, "cpu", amp=False)
    ours = zoo.load(release)
    weights = torch.stack(
        [
            torch.nn.functional.normalize(ours.encode_text([t.format(c=name) for t in TEMPLATES]).mean(0), dim=0)
            for name in CLASSES
        ]
    )
    scores = ours.encode_image(pictures) @ weights.T
    ranks = (scores > scores[torch.arange(len(labels)), labels][:, None]).sum(1)
    assert theirs["acc1"] == pytest.approx((ranks < 1).float().mean().item())
    assert theirs["acc5"] == pytest.approx((ranks < 5).float().mean().item())
    assert 0 < theirs["acc5"] < 1


def test_retrieval(release, pictures):
    from clip_benchmark.metrics import zeroshot_retrieval

    model, transform, tokenizer = clip_benchmark_model(release)
    captions = [[f"thing number {row}", f"item {row}"][: 1 + row % 2] for row in range(len(pictures))]

    def collate(rows):
        return torch.stack([picture for picture, _ in rows]), [texts for _, texts in rows]

    loader = DataLoader(Pictures(pictures, captions, transform), batch_size=8, collate_fn=collate)
    theirs = zeroshot_retrieval.evaluate(model, loader, tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10])
    ours, flat = zoo.load(release), [text for texts in captions for text in texts]
    metric = RetrievalMetric()
    metric.update(
        {"image_embedding": ours.encode_image(pictures), "text_embedding": ours.encode_text(flat)},
        {
            "text_row": torch.tensor([row for row, texts in enumerate(captions) for _ in texts]),
            "text_lang": ["en"] * len(flat),
        },
    )
    result = metric.compute()["by_language"]["en"]
    for k in (1, 5, 10):
        assert theirs[f"image_retrieval_recall@{k}"] * 100 == pytest.approx(result["text_to_image"][f"R@{k}"], abs=0.01)
        assert theirs[f"text_retrieval_recall@{k}"] * 100 == pytest.approx(result["image_to_text"][f"R@{k}"], abs=0.01)
    assert 0 < theirs["image_retrieval_recall@10"] < 1


def test_vectors_are_the_models(release, pictures):
    model, transform, tokenizer = clip_benchmark_model(release)
    ours = zoo.load(release)
    images = model.encode_image(torch.stack([transform(picture) for picture in pictures]))
    assert torch.equal(images, ours.encode_image(pictures))
    texts = model.encode_text(tokenizer(["thing number 3", "item"]))
    torch.testing.assert_close(texts, ours.encode_text(["thing number 3", "item"]), rtol=1e-6, atol=1e-6)
    assert tokenizer("item").shape[:2] == (1, 2)
    assert images.requires_grad is False


def test_their_loader_gets_our_model(release):
    from clip_benchmark import models

    from modalign.zoo.checkpoints.clip_benchmark import register

    register()
    model, _, tokenizer = models.load_clip("modalign", "modalign", str(release), None, device="cpu")
    assert model.encode_text(tokenizer(["item"])).shape == (1, 16)


def test_their_command_line(tiny_embedder, tmp_path, monkeypatch, capsys):
    """The whole of clip-benchmark's own command, on the data set it has for trying out."""
    from clip_benchmark import models

    from modalign.zoo.checkpoints.clip_benchmark import main

    settings = {
        "embed_dim": 16,
        "image": {"name": "timm:test_efficientnet", "pretrained": False},
        "text_embedder": {"name": f"local-dir:{tiny_embedder}", "max_length": 32},
    }
    release = save_release(FAMILIES.get("clip").from_settings(settings), tmp_path / "release")
    out = tmp_path / "result.json"
    command = f"eval --dataset dummy --task zeroshot_classification --model_type modalign --model modalign --pretrained {release}"
    monkeypatch.setattr(sys, "argv", ["clip_benchmark", *command.split(), "--output", str(out), "--num_workers", "0", "--no_amp"])
    main()
    main()
    result = json.loads(out.read_text())
    assert result["pretrained"] == str(release)
    assert 0 <= result["metrics"]["acc1"] <= 1
    assert models.MODEL_TYPES.count("modalign") == 1


def test_accuracy_in_its_place():
    from modalign.zoo.checkpoints.clip_benchmark import _accuracy

    output = torch.tensor([[0.1, 0.9, 0.0], [0.8, 0.1, 0.3], [0.3, 0.2, 0.5]])
    assert _accuracy(output, torch.tensor([1, 2, 0]), (1, 2)) == pytest.approx([1 / 3, 1.0])
