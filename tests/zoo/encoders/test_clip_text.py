"""CLIP's text tower from scratch, against open_clip's."""

import pickle

import pytest
import torch

from modalign.zoo.encoders.text.clip_text import ClipTextConfig, ClipTextTower

SMALL = ClipTextConfig(context_length=12, width=16, heads=2, layers=2, embed_dim=10)
CLIP_TEXTS = [
    "a red apple",
    "",
    "A Photo of  two birds, sitting on the very long wire between the houses of the town",
    "Straße 東京",
]


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    return ClipTextTower(SMALL).eval()


def test_clip_tokenizer_is_open_clips(tower):
    import open_clip

    tokens = tower.tokenizer()(CLIP_TEXTS)
    assert torch.equal(tokens["ids"], open_clip.SimpleTokenizer(context_length=12)(CLIP_TEXTS))
    assert tokens["ids"].shape == tokens["mask"].shape == (4, 12)
    for ids, mask in zip(tokens["ids"].tolist(), tokens["mask"].tolist(), strict=True):
        assert ids[0] == 49406
        end = ids.index(49407)
        assert mask == [1] * (end + 1) + [0] * (11 - end)
    assert tokens["ids"][2, -1] == 49407, "a text that is cut still ends"
    assert pickle.loads(pickle.dumps(tower.tokenizer()))(CLIP_TEXTS)["ids"].equal(tokens["ids"])


@torch.no_grad()
def test_clip_tower_equals_open_clips_text_transformer(tower):
    from open_clip.transformer import TextTransformer

    theirs = TextTransformer(context_length=12, vocab_size=49408, width=16, heads=2, layers=2, output_dim=10).eval()
    theirs.load_state_dict(tower.model.state_dict())
    tokens = tower.tokenizer()(CLIP_TEXTS)
    out = tower(tokens["ids"], tokens["mask"])
    assert out.shape == (4, tower.width) == (4, 10)
    assert torch.equal(out, theirs(tokens["ids"]))


@torch.no_grad()
def test_clip_tower_reads_the_end_token_and_nothing_after_it(tower):
    tokens = tower.tokenizer()(CLIP_TEXTS)
    out = tower(tokens["ids"], tokens["mask"])
    changed = torch.where(tokens["mask"].bool(), tokens["ids"], torch.full_like(tokens["ids"], 77))
    torch.testing.assert_close(tower(changed, tokens["mask"]), out, rtol=1e-5, atol=1e-6)
    states = {}
    hook = tower.model.ln_final.register_forward_hook(lambda module, inputs, output: states.update(final=output))
    tower(tokens["ids"], tokens["mask"])
    hook.remove()
    ends = tokens["mask"].sum(1) - 1
    for row, end in enumerate(ends.tolist()):
        torch.testing.assert_close(out[row], states["final"][row, end] @ tower.model.text_projection, rtol=1e-5, atol=1e-6)


def test_texts_of_one_length_keep_their_order(tower, monkeypatch):
    """Every text is padded to the same length, so batches are those the caller would make, and vectors those of open_clip's."""
    seen, tokenize = [], tower.tokenizer()
    monkeypatch.setattr(tower, "tokenizer", lambda: lambda texts: (seen.append(list(texts)), tokenize(texts))[1])
    tower.embed(CLIP_TEXTS, 2)
    assert seen == [CLIP_TEXTS[:2], CLIP_TEXTS[2:]]


def test_clip_tower_embed_and_identity(tower):
    whole = tower.embed(CLIP_TEXTS)
    one_by_one = torch.cat([tower.embed([text]) for text in CLIP_TEXTS])
    torch.testing.assert_close(tower.embed(CLIP_TEXTS[::-1], 3), whole.flip(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one_by_one, whole, rtol=1e-5, atol=1e-5)
    assert tower.identity() == {"context_length": 12, "width": 16, "heads": 2, "layers": 2, "embed_dim": 10}
