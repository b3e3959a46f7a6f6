"""The name grammar: what is read as what, and what is refused with which suggestion."""

import pytest

from modalign.zoo import names
from modalign.zoo.errors import AssetError, NameGrammarError
from modalign.zoo.names import Name, local_folder, parse_name, public_source


@pytest.mark.parametrize(
    ("text", "scheme", "rest"),
    [
        ("asset:multilingual-e5-small", "asset", "multilingual-e5-small"),
        ("asset:openmoji/train", "asset", "openmoji/train"),
        ("hf:org/name", "hf", "org/name"),
        ("timm:vit_small_patch16_224.augreg_in1k", "timm", "vit_small_patch16_224.augreg_in1k"),
        ("open_clip:ViT-B-32", "open_clip", "ViT-B-32"),
        ("local-dir:some/folder", "local-dir", "some/folder"),
        ("local-dir:c:olon", "local-dir", "c:olon"),
        ("./folder", "local-dir", "./folder"),
        ("../folder", "local-dir", "../folder"),
        ("/folder/with:colon", "local-dir", "/folder/with:colon"),
        (".", "local-dir", "."),
        ("..", "local-dir", ".."),
    ],
)
def test_each_form(text, scheme, rest):
    assert parse_name(text) == Name(scheme, rest)
    assert str(parse_name(text)) == f"{scheme}:{rest}"
    assert parse_name(str(parse_name(text))) == Name(scheme, rest), "what is written can be read again"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("asset:", "nothing follows the colon; write asset:NAME"),
        ("tim:resnet18", "unknown prefix 'tim'; did you mean 'timm'"),
        ("openclip:ViT-B-32", "did you mean 'open_clip'"),
        ("local_dir:x", "did you mean 'local-dir'"),
        ("zzz:x", "unknown prefix 'zzz'; known: asset, hf"),
        ("HF:org/name", "unknown prefix 'HF'"),
        ("hf:name", "write hf:ORG/NAME"),
        ("hf:org/name/more", "write hf:ORG/NAME"),
        ("hf:org/", "write hf:ORG/NAME"),
        ("hf:/name", "write hf:ORG/NAME"),
        ("resnet18", "did you mean 'timm:resnet18', 'asset:resnet18' or './resnet18'"),
        ("org/name", "did you mean 'hf:org/name' or './org/name'"),
        ("", "is not a name: use asset:NAME"),
        (" ./folder", "is not a name"),
    ],
)
def test_anything_else_is_refused_with_the_right_spelling(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NameGrammarError) as caught:
        parse_name(text)
    assert repr(text) in str(caught.value)
    assert message in str(caught.value)


def test_a_bare_word_that_is_a_folder_here_is_suggested_as_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    with pytest.raises(NameGrammarError, match=r"did you mean '\./weights'\?"):
        parse_name("weights")


def test_local_folder(tmp_path, monkeypatch):
    assert local_folder(parse_name(str(tmp_path))) == tmp_path
    assert local_folder(parse_name(f"local-dir:{tmp_path}")) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "inner").mkdir()
    assert local_folder(parse_name("local-dir:~/inner")) == tmp_path / "inner"
    for text in ("hf:org/name", "timm:resnet18", "open_clip:ViT-B-32"):
        assert local_folder(parse_name(text)) is None, "a hub answers for these"


def test_local_folder_that_is_missing_or_a_file(tmp_path):
    (tmp_path / "file").touch()
    for missing in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(NameGrammarError, match="there is no folder") as caught:
            local_folder(parse_name(str(missing)))
        assert str(missing) in str(caught.value)


def test_asset_goes_through_the_installed_entry_point(own_home):
    with pytest.raises(AssetError, match="did you mean 'openmoji'"):
        local_folder(parse_name("asset:openmojj"))


def test_asset_folder_comes_from_the_entry_point(tmp_path, monkeypatch):
    asked = []

    class Entry:
        name = "asset"

        @staticmethod
        def load():
            return lambda rest: asked.append(rest) or str(tmp_path)

    monkeypatch.setattr(names, "entry_points", lambda group: [Entry] if group == "modalign.names" else [])
    assert local_folder(parse_name("asset:some/part")) == tmp_path
    assert asked == ["some/part"]
    assert local_folder(parse_name("timm:resnet18")) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/somewhere/private/e5", "local-dir:e5"),
        ("../private/e5/", "local-dir:e5"),
        ("~/private/e5", "local-dir:e5"),
        ("local-dir:/somewhere/private/e5", "local-dir:e5"),
        ("asset:openmoji/train", "asset:openmoji/train"),
        ("hf:org/name", "hf:org/name"),
        ("timm:resnet18", "timm:resnet18"),
    ],
)
def test_public_files_state_no_folder_of_this_machine(text, shown):
    assert public_source(text) == shown
