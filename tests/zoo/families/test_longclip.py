"""Long-CLIP: the stretched table, what stays as it was, what trains, and where it comes from."""

import math
import shutil

import open_clip
import pytest
import torch

from modalign import zoo
from modalign.zoo.checkpoints.release import save_release
from modalign.zoo.encoders.text.positional_stretch import stretch_positions
from modalign.zoo.errors import AssemblyError, RecipeError, ReleaseError
from modalign.zoo.registry import FAMILIES


@pytest.fixture(scope="module")
def base(tmp_path_factory, open_clip_writer, layouts):
    """A CLIP of 77 tokens."""
    cfg = {**layouts["native"][0], "text_cfg": {**layouts["native"][0]["text_cfg"], "context_length": 77}}
    return open_clip_writer(tmp_path_factory.mktemp("base") / "clip", cfg)


def longclip(base, **settings):
    return FAMILIES.get("longclip").from_settings({"base": f"local-dir:{base}", **settings}).eval()


def slow_stretch(table):
    """Row by row as the method says: 0..19 kept, each interval above in four parts, four rows beyond."""
    rows = [table[i] for i in range(20)]
    for i in range(56):
        rows += [(1 - k / 4) * table[20 + i] + (k / 4) * table[21 + i] for k in range(4)]
    rows += [table[76] + (k / 4) * (table[76] - table[75]) for k in range(4)]
    return torch.stack(rows)


def test_the_table(base):
    model, plain = longclip(base), zoo.load(base)
    table = model.text.positions()
    assert table.shape == (248, 24)
    torch.testing.assert_close(table, slow_stretch(plain.text.model.positional_embedding), rtol=1e-5, atol=1e-6)
    assert torch.equal(table[:20], plain.text.model.positional_embedding[:20])
    assert model.text.tokenizer()(["word " * 400])["ids"].shape == (1, 248)


def test_short_texts_keep_their_vectors(base, photos):
    model, plain = longclip(base), zoo.load(base)
    short = ["a red apple", "", "two birds on a wire between the houses of the town"]
    assert plain.text.tokenizer()(short)["mask"].sum(1).max() <= 20
    torch.testing.assert_close(model.encode_text(short), plain.encode_text(short), rtol=1e-5, atol=1e-6)
    assert torch.equal(model.encode_image(photos), plain.encode_image(photos))
    assert model.logit_scale.item() == plain.logit_scale.item()
    long = ["many words of a caption that goes on for a while " * 6]
    assert (model.encode_text(long) - plain.encode_text(long)).abs().max() > 1e-3


def test_vectors_are_those_of_open_clips_tower_with_that_table(base, layouts):
    model = longclip(base)
    cfg = {**layouts["native"][0]["text_cfg"], "context_length": 248}
    tower = open_clip.model._build_text_tower(16, cfg).eval()
    state = {**zoo.load(base).text.model.state_dict(), "positional_embedding": model.text.positions().detach()}
    tower.load_state_dict({**state, "text_projection": model.text_projector.weight.detach()})
    texts = ["a red apple", "many words " * 100]
    tokens = open_clip.SimpleTokenizer(context_length=248)(texts)
    with torch.no_grad():
        wanted = torch.nn.functional.normalize(tower(tokens), dim=-1)
    torch.testing.assert_close(model.encode_text(texts), wanted, rtol=1e-6, atol=1e-6)


def test_the_first_rows_cannot_be_trained(base):
    model = longclip(base)
    names = dict(model.named_parameters())
    assert "text.positions_kept" not in names
    assert names["text.positions_long"].shape == (228, 24)
    assert model.role_of("text.positions_long") == "embedder"
    assert "text.positions_kept" in model.state_dict()
    assert model.text.layer_of("positions_long") == 0
    tokens = model.text.tokenizer()(["many words " * 100, "short"])
    model.text(tokens["ids"], tokens["mask"]).pow(2).sum().backward()
    gradient = model.text.positions_long.grad
    used = int(tokens["mask"].sum(1).max()) - 20
    assert (gradient[:used].abs().sum(1) > 0).all()
    assert gradient[used:].abs().sum() == 0


def test_from_a_release_whose_weights_were_changed(base, tmp_path, photos):
    plain = zoo.load(base)
    plain.text.model.positional_embedding.data += 0.3
    plain.logit_scale.data.fill_(2.5)
    release = save_release(plain, tmp_path / "release")
    model = FAMILIES.get("longclip").from_settings({"base": str(release)}).eval()
    torch.testing.assert_close(model.text.positions(), stretch_positions(plain.text.model.positional_embedding.detach()))
    assert model.logit_scale.item() == 2.5
    assert torch.equal(model.encode_image(photos), plain.encode_image(photos))
    full = save_release(model, tmp_path / "long")
    shutil.rmtree(release)
    again = zoo.load(full)
    assert torch.equal(again.encode_text(["many words " * 90]), model.encode_text(["many words " * 90]))
    assert str(tmp_path) not in (full / "config.json").read_text()


def test_adapter_on_a_base(base, tmp_path):
    model = longclip(base)
    model.logit_scale.data.fill_(1.5)
    folder = save_release(model, tmp_path / "adapter", kind="adapter", public=False)
    again = zoo.load(folder)
    assert torch.equal(again.encode_text(["many words " * 90]), model.encode_text(["many words " * 90]))
    assert again.logit_scale.item() == 1.5


def test_from_scratch_and_from_parts(base, photos):
    tower = {"context_length": 77, "width": 16, "heads": 2, "layers": 1, "embed_dim": 16}
    image = {"name": "timm:test_efficientnet", "image_size": 32, "pretrained": False}
    scratch = FAMILIES.get("longclip").from_settings(
        {"embed_dim": 16, "image": image, "text_tower": tower, "text_projector": None}
    )
    assert scratch.text.positions().shape == (248, 16)
    assert scratch.sources() == {}
    parts = {"name": f"local-dir:{base}"}
    settings = {"embed_dim": 16, "image": parts, "text_embedder": parts, "image_projector": None, "text_projector": None}
    model = FAMILIES.get("longclip").from_settings(settings).eval()
    assert torch.equal(model.encode_text(["x " * 200]), longclip(base).encode_text(["x " * 200]))


def test_other_lengths(base):
    model = longclip(base, keep_positions=10, stretch=2)
    assert model.text.positions().shape == (10 + 2 * 67, 24)
    assert model.config.logit_scale_init == pytest.approx(3.1)
    assert math.isfinite(float(model.encode_text(["x " * 300]).sum()))


def test_what_cannot_be_stretched(base, open_clip_folder, tiny_embedder, tmp_path):
    for layout, message in (
        ("siglip", "this one is another kind"),
        ("coca", "this one is another kind"),
        ("hf_text", "this one is of transformers, or stretched already"),
        ("native", "of 24 positions cannot keep 23|at most"),
    ):
        with pytest.raises(AssemblyError, match=message):
            longclip(open_clip_folder(layout), **({"keep_positions": 23} if layout == "native" else {}))
    once = save_release(longclip(base), tmp_path / "once")
    with pytest.raises(AssemblyError, match="or stretched already"):
        longclip(once)
    with pytest.raises(RecipeError, match="give base, or the parts of a longclip, not both"):
        longclip(base, text_tower={"width": 16, "heads": 2, "layers": 1, "embed_dim": 16})
    with pytest.raises(AssemblyError, match="longclip stretches CLIP's text tower"):
        FAMILIES.get("longclip").from_settings(
            {
                "embed_dim": 16,
                "image": {"name": "timm:test_efficientnet", "image_size": 32, "pretrained": False},
                "text_embedder": {"name": str(tiny_embedder), "max_length": 16},
            }
        )
    with pytest.raises(ReleaseError):
        longclip(tmp_path)


def test_the_command_for_a_clip_at_hand_works_as_written(tmp_path, own_home, monkeypatch, open_clip_writer, layouts, tiny_shards):
    """In the header of the shipped recipe; here with a little CLIP of the same layout in the place of the named one."""
    import re
    import shlex

    from modalign.trainers.cli import main
    from modalign.trainers.recipe import shipped_recipes
    from modalign.zoo.checkpoints.open_clip import named_checkpoint

    header = shipped_recipes()["longclip/flickr8k"].read_text(encoding="utf-8")
    (line,) = (line for line in header.splitlines() if line.startswith("#   modalign train") and "--model" in line)
    named = re.search(r"base: (open_clip:[\w/-]+)", line).group(1)
    cfg = named_checkpoint(named.removeprefix("open_clip:"), weights=False).model_cfg  # refused where activations differ
    assert cfg["quick_gelu"] and cfg["text_cfg"]["context_length"] == 77

    like = {**layouts["quick_gelu"][0], "text_cfg": {**layouts["quick_gelu"][0]["text_cfg"], "context_length": 77}}
    open_clip_writer(tmp_path / "clip", like)
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line.removeprefix("#").replace(named, "./clip"))
    words[2] = str(shipped_recipes()["longclip/flickr8k"])
    small = {"train": tiny_shards, "val": tiny_shards, "test": tiny_shards, "batch_size": 8}
    words += [word for key, value in small.items() for word in (f"--data.{key}", str(value))]
    words += ["--stages.align.epochs", "null", "--stages.align.steps", "1", "--evaluate", "null", "--trainer.accelerator", "cpu"]
    assert main([*words[1:], "--run_dir", "run", "--trainer.progress", "false"]) == 0
    model = zoo.load("run")
    assert model.quick_gelu() == {"image": True, "text": True} and model.text.positions().shape[0] == 248
