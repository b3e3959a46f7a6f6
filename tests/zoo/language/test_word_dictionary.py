"""The word dictionary: golden numbers up to sign, the plain decomposition, and what its rows are."""

import pytest
import torch

from modalign.zoo.errors import AssemblyError
from modalign.zoo.language.word_dictionary import WordDictionary, word_dictionary


def table(words=900, width=40, seed=2):
    generator = torch.Generator().manual_seed(seed)
    scales = torch.linspace(3, 0.1, width)
    return torch.randn(words, width, generator=generator) * scales + 0.3


def plain(embeddings, components):
    """The definition, by a full decomposition in float64."""
    centred = embeddings.double().T - embeddings.double().T.mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    return (u * s).T[:components], s


def test_golden(golden):
    stored = golden("time_series/calf_pca")
    rows = word_dictionary(torch.as_tensor(stored["wte"]), 24)
    wanted = torch.as_tensor(stored["dictionary"])
    signs = (rows * wanted).sum(1, keepdim=True).sign()
    # the file was made in float32 from neighbouring singular values that differ by a percent, and is 2.5e-5 from the exact rows
    torch.testing.assert_close(rows, wanted * signs, rtol=1e-5, atol=3e-5)
    exact, _ = plain(torch.as_tensor(stored["wte"]), 24)
    torch.testing.assert_close(rows.double(), exact * (exact * rows).sum(1, keepdim=True).sign(), rtol=0, atol=1e-6)
    torch.testing.assert_close(rows.norm(dim=1), torch.as_tensor(stored["singular_values"]).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("words", "width", "components"), [(900, 40, 39), (20000, 24, 10), (30, 40, 30), (50, 8, 1)])
def test_it_is_the_full_decomposition(words, width, components):
    embeddings = table(words, width)
    rows = word_dictionary(embeddings, components)
    wanted, _ = plain(embeddings, components)
    wanted *= wanted.gather(1, wanted.abs().argmax(1, keepdim=True)).sign()
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.double(), wanted, rtol=1e-5, atol=1e-4)


def test_rows_have_mean_zero_are_orthogonal_and_as_long_as_their_singular_values():
    embeddings = table()
    rows = word_dictionary(embeddings, 30).double()
    _, singular = plain(embeddings, 30)
    assert rows.mean(1).abs().max() < 1e-5
    unit = rows / rows.norm(dim=1, keepdim=True)
    assert (unit @ unit.T - torch.eye(30)).abs().max() < 1e-5
    torch.testing.assert_close(rows.norm(dim=1), singular[:30], rtol=1e-5, atol=1e-5)
    assert (rows.norm(dim=1).diff() < 0).all()
    assert (rows.gather(1, rows.abs().argmax(1, keepdim=True)) > 0).all()


def test_rows_are_combinations_of_words():
    """Every row lies in the span of the embeddings, each with its own mean taken off."""
    embeddings = table(12, 40)
    rows = word_dictionary(embeddings, 12).double()
    centred = embeddings.double() - embeddings.double().mean(1, keepdim=True)
    solved = torch.linalg.lstsq(centred.T, rows.T).solution
    torch.testing.assert_close(centred.T @ solved, rows.T, rtol=0, atol=1e-4)


@pytest.mark.parametrize("components", [0, 40, 500])
def test_more_components_than_there_are(components):
    with pytest.raises(AssemblyError, match=rf"model\.dictionary: {components} must be from 1 to 39"):
        word_dictionary(table(), components)


def test_it_is_saved_and_does_not_train():
    kept = WordDictionary(word_dictionary(table(), 5))
    assert list(kept.state_dict()) == ["rows"] and not list(kept.parameters())
    assert torch.equal(kept(), kept.rows)


def test_real_words():
    """The token table of SmolLM2-135M, where it is on this machine: 49,152 words in seconds."""
    from modalign.datasets.assets.lookup import folder_of
    from modalign.zoo.errors import AssetError

    try:
        path = folder_of("smollm2-135m-instruct")
    except AssetError:
        pytest.skip("smollm2-135m-instruct is not in the cache")
    from safetensors import safe_open

    with safe_open(path / "model.safetensors", framework="pt") as stream:
        embeddings = stream.get_tensor("model.embed_tokens.weight").float()
    rows = word_dictionary(embeddings).double()
    assert rows.shape == (500, 576)
    unit = rows / rows.norm(dim=1, keepdim=True)
    assert (unit @ unit.T - torch.eye(500)).abs().max() < 1e-4 and (rows.norm(dim=1).diff() < 0).all()
