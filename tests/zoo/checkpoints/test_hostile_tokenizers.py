"""An open_clip folder, or a release with one of its towers, whose tokenizer asks to run code or to read files: refused, nothing runs."""

import gzip
import json
import shutil

import pytest

from modalign import zoo
from modalign.zoo.checkpoints.release import save_release
from modalign.zoo.errors import ReleaseError

CODE = "open({marker!r}, 'w').write('ran')\nfrom transformers import PreTrainedTokenizerFast\nclass T(PreTrainedTokenizerFast):\n    pass\n"
ASKS_FOR_CODE = {"auto_map": {"AutoTokenizer": [None, "evil.T"]}, "tokenizer_class": "T"}


def plant(folder, where, marker):
    """Puts a tokenizer with code of its own into a folder inside the folder."""
    place = folder / where
    place.mkdir(exist_ok=True)
    if place != folder:
        shutil.copy(folder / "tokenizer.json", place)
    (place / "tokenizer_config.json").write_text(json.dumps(ASKS_FOR_CODE))
    for home in {folder, place}:
        (home / "evil.py").write_text(CODE.format(marker=str(marker)))


def ask(folder, options):
    """Writes tokenizer_kwargs into the settings."""
    path = folder / "open_clip_config.json"
    values = json.loads(path.read_text())
    values["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = options
    path.write_text(json.dumps(values))


@pytest.fixture
def folder(open_clip_folder, tmp_path):
    return shutil.copytree(open_clip_folder("hf_text"), tmp_path / "clip")


@pytest.mark.parametrize("where", ["sub", ".", "a/b"])
def test_code_of_a_tokenizer_never_runs(folder, where, tmp_path):
    marker = tmp_path / "marker"
    (folder / where).mkdir(parents=True, exist_ok=True)
    plant(folder, where, marker)
    ask(folder, {"trust_remote_code": True, **({"subfolder": where} if where != "." else {})})
    with pytest.raises(ReleaseError, match=r"auto_map|trust_remote_code"):
        zoo.load(str(folder))
    assert not marker.exists()


def test_a_folder_inside_is_looked_into_without_any_option(folder, tmp_path):
    plant(folder, "sub", tmp_path / "marker")
    with pytest.raises(ReleaseError, match=r"sub/tokenizer_config\.json: auto_map asks to run code"):
        zoo.load(str(folder))


def test_a_release_with_such_a_tower(folder, tmp_path):
    marker = tmp_path / "marker"
    release = save_release(zoo.load(str(folder)), tmp_path / "release")
    (config,) = [path for path in release.rglob("open_clip_config.json") if "hf_tokenizer_name" in path.read_text()]
    (config.parent / "a" / "b").mkdir(parents=True)
    plant(config.parent, "a/b", marker)
    ask(config.parent, {"trust_remote_code": True, "subfolder": "a/b"})
    with pytest.raises(ReleaseError, match=r"tokenizer_kwargs: '\w+' is not followed here"):
        zoo.load(release)
    assert not marker.exists()


def test_the_payload_would_run_otherwise(folder, tmp_path):
    """What is refused above is no empty threat."""
    from transformers import AutoTokenizer

    plant(folder, "sub", tmp_path / "marker")
    AutoTokenizer.from_pretrained(folder, trust_remote_code=True, subfolder="sub")
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("layout", "options"),
    [
        ("quick_gelu", {"bpe_path": "own.gz"}),
        ("quick_gelu", {"clean": "rot13"}),
        ("quick_gelu", {"additional_special_tokens": [1]}),
        ("quick_gelu", ["clean"]),
        ("hf_text", {"cache_dir": "/tmp"}),
        ("hf_text", {"strip_sep_token": "yes"}),
        ("hf_text", {"cleen": "lower"}),
    ],
)
def test_other_settings_are_refused_by_name(open_clip_folder, tmp_path, layout, options):
    folder = shutil.copytree(open_clip_folder(layout), tmp_path / "clip")
    with gzip.open(tmp_path / "own.gz", "wb") as stream:
        stream.write(b"x y\n" * 60_000)
    ask(folder, options)
    with pytest.raises(ReleaseError, match="tokenizer_kwargs"):
        zoo.load(str(folder))


def test_settings_that_released_models_have_are_followed(folder):
    ask(folder, {"clean": "canonicalize", "strip_sep_token": True})
    assert zoo.load(str(folder)).text.tokenizer().inner.strip_sep_token
