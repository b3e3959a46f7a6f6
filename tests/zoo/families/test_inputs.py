"""What encode_image and encode_text refuse, by position; what they take stays what it was."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from modalign.zoo.errors import AssemblyError
from modalign.zoo.registry import FAMILIES


@pytest.fixture(scope="module")
def model(family_settings):
    return FAMILIES.get("clip").from_settings(family_settings("clip")).eval()


@pytest.fixture
def picture():
    return Image.new("RGB", (40, 30), (200, 10, 10))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("apple.png", r"not a path; write encode_image\(\[Image.open\('apple.png'\)\]\)"),
        (Path("apple.png"), r"write encode_image\(\[Image.open\('apple.png'\)\]\)"),
        (np.zeros((30, 40, 3), np.uint8), "list of PIL pictures, not of type numpy.ndarray; .*fromarray"),
        (torch.zeros(2, 3, 30, 40), "list of PIL pictures, not of type torch.Tensor; .*fromarray"),
        (None, "list of PIL pictures, not None"),
        ((item for item in ()), "not of type generator"),
        ({"a": 1}, "not of type dict"),
        (["apple.png"], r"at position 0 is of type str, a path; open it: Image.open\('apple.png'\)"),
        ([Path("b.png")], r"Image.open\('b.png'\)"),
        ([np.zeros((30, 40, 3), np.uint8)], "at position 0 is of type numpy.ndarray; make a picture"),
        ([None], r"at position 0 is None; open its file: Image.open\(path\)"),
    ],
)
def test_what_is_no_list_of_pictures(model, given, message):
    with pytest.raises(AssemblyError, match=message):
        model.encode_image(given)


def test_the_position_is_that_of_the_whole_list(model, picture, monkeypatch):
    monkeypatch.setattr(type(model), "image_vectors", lambda *_: pytest.fail("nothing is computed first"))
    with pytest.raises(AssemblyError, match="at position 3 is of type str"):
        model.encode_image([picture, picture, picture, "d.png"], batch_size=2)


def test_pictures_of_a_lazy_sequence_are_checked_batch_by_batch(model, picture):
    class Files:
        read = 0

        def __len__(self):
            return 5

        def __getitem__(self, rows):
            self.read += len(range(*rows.indices(5)))
            return [picture if row < 3 else None for row in range(*rows.indices(5))]

    files = Files()
    with pytest.raises(AssemblyError, match="at position 3 is None"):
        model.encode_image(files, batch_size=2)
    assert files.read == 4, "each picture is read once"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a red apple", r"write encode_text\(\[text\]\)"),
        (b"a red apple", "list of strings, not of type bytes"),
        (None, "list of strings, not None"),
        ({"a": "b"}, "not of type dict"),
        ((text for text in ["a"]), "not of type generator"),
        ([None], "at position 0 is None; give a str"),
        (["a", 3], "at position 1 is of type int"),
        (["a", ["b", "c"]], "at position 1 is of type list"),
        (["a", "b", b"c"], "at position 2 is of type bytes"),
    ],
)
def test_what_is_no_list_of_strings(model, given, message):
    with pytest.raises(AssemblyError, match=message):
        model.encode_text(given)


def test_other_sequences_are_taken_as_before(model, picture):
    assert torch.equal(model.encode_text(("a", "bb")), model.encode_text(["a", "bb"]))
    assert torch.equal(model.encode_text(np.array(["a", "bb"])), model.encode_text(["a", "bb"]))
    array = np.empty(2, object)
    array[:] = [picture, picture]
    assert torch.equal(model.encode_image(array), model.encode_image((picture, picture)))
    assert model.encode_image([]).shape == (0, 16)
    assert model.encode_image([picture] * 3, batch_size=2).shape == (3, 16)
