"""Uploading a release: what would be sent, what must not be, and the calls that send it."""

import json
import os
import shutil
from pathlib import Path

import huggingface_hub
import pytest

from modalign import zoo
from modalign.trainers.cli import main
from modalign.zoo.checkpoints import push as push_module
from modalign.zoo.checkpoints.push import plan_upload, push
from modalign.zoo.checkpoints.release import save_release
from modalign.zoo.errors import NameGrammarError, ReleaseError
from modalign.zoo.registry import FAMILIES


@pytest.fixture(scope="module")
def made(tmp_path_factory, open_clip_folder, tiny_embedder):
    """A full release with a transformers text side, and a private adapter on local folders."""
    settings = {
        "embed_dim": 16,
        "image": {"name": f"local-dir:{open_clip_folder('native')}"},
        "image_projector": None,
        "text_embedder": {"name": f"local-dir:{tiny_embedder}", "max_length": 16},
    }
    model = FAMILIES.get("clip").from_settings(settings).eval()
    folder = tmp_path_factory.mktemp("made")
    save_release(model, folder / "full", card="# A model\n")
    save_release(model, folder / "adapter", kind="adapter", public=False)
    return folder


@pytest.fixture
def release(made, tmp_path):
    return shutil.copytree(made / "full", tmp_path / "release")


class Recorder:
    """Stands in for `huggingface_hub.HfApi`."""

    calls: list = []

    def create_repo(self, repo_id, **settings):
        self.calls.append(("create_repo", repo_id, settings))
        return f"https://hub.example/{repo_id}"

    def upload_folder(self, **settings):
        self.calls.append(("upload_folder", settings))


@pytest.fixture
def hub(monkeypatch):
    Recorder.calls = []
    monkeypatch.setattr(huggingface_hub, "HfApi", Recorder)
    return Recorder


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*arguments, **settings):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(huggingface_hub, "HfApi", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


def test_dry_run_lists_everything_and_asks_nobody(release, no_network, capsys):
    assert main(["push", str(release), "--repo", "me/model", "--dry_run", "true"]) == 0
    out = capsys.readouterr().out
    files = [path for path in release.rglob("*") if path.is_file()]
    assert len(files) >= 8
    for path in files:
        assert str(path.relative_to(release)) in out
        assert f"{path.stat().st_size:,}" in out
    assert f"{len(files)} files" in out
    assert "nothing was sent" in out


@pytest.mark.parametrize("private", [False, True])
def test_the_calls_that_send_it(private, release, hub, capsys):
    assert main(["push", str(release), "--repo", "me/model", "--private", str(private).lower()]) == 0
    (create, repo, settings), (upload, sent) = hub.calls
    assert (create, repo, upload) == ("create_repo", "me/model", "upload_folder")
    assert settings == {"private": private, "repo_type": "model", "exist_ok": True}
    assert sent["repo_id"] == "me/model"
    assert sent["folder_path"] == release
    assert sent["repo_type"] == "model"
    assert sorted(sent["allow_patterns"]) == sorted(str(p.relative_to(release)) for p in release.rglob("*") if p.is_file())
    assert "https://hub.example/me/model" in capsys.readouterr().out


def test_the_names_of_the_calls_are_the_hub_clients(release):
    """The recorder takes what the real client takes."""
    import inspect

    real = huggingface_hub.HfApi
    assert {"repo_id", "private", "repo_type", "exist_ok"} <= set(inspect.signature(real.create_repo).parameters)
    wanted = {"repo_id", "folder_path", "repo_type", "allow_patterns", "commit_message"}
    assert wanted <= set(inspect.signature(real.upload_folder).parameters)


def test_a_finished_run_sends_its_release_and_nothing_else(release, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(release, run / "release")
    (run / "metrics.csv").write_text("private notes")
    plan = plan_upload(run, "me/model")
    assert plan.folder == run / "release"
    assert not any("metrics" in name for name, _ in plan.files)
    assert plan.size == sum(path.stat().st_size for path in (run / "release").rglob("*") if path.is_file())


def test_what_is_no_release_is_refused(tmp_path, open_clip_folder, release):
    (tmp_path / "run" / "stages").mkdir(parents=True)
    with pytest.raises(ReleaseError, match="is the run finished"):
        plan_upload(tmp_path / "run", "me/model")
    with pytest.raises(ReleaseError, match="is an open_clip checkpoint, not a release"):
        plan_upload(open_clip_folder("native"), "me/model")
    for repo in ("model", "a/b/c", "/b"):
        with pytest.raises(NameGrammarError):
            plan_upload(release, repo)


@pytest.mark.parametrize("repo", ["me/bad name", "me/a--b", "me/model.git", f"me/{'a' * 99}", "me/-model"])
def test_a_name_the_hub_refuses_is_refused_in_the_dry_run(release, repo, no_network, capsys):
    assert main(["push", str(release), "--repo", repo, "--dry_run", "true"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: '{repo}' is no name the hub takes") and "\n" not in error


@pytest.mark.parametrize("gone", [False, True])
def test_an_adapter_on_a_local_folder_is_refused(gone, made, tmp_path):
    folder = shutil.copytree(made / "adapter", tmp_path / "adapter")
    if gone:
        path = folder / "release.json"
        values = json.loads(path.read_text())
        values["parts"]["image"]["source"] = f"local-dir:{tmp_path / 'gone'}"
        path.write_text(json.dumps(values))
    with pytest.raises(ReleaseError) as caught:
        plan_upload(folder, "me/model")
    assert "is an adapter, and its image is in the local folder" in str(caught.value)
    assert ("which is not there" in str(caught.value)) == gone
    assert "push a full release" in str(caught.value)


def edit(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: edit(f / "config.json", lambda c: c["model"]["image"].update(name="local-dir:/data/clip")),
            "a folder of this machine",
        ),
        (
            lambda f: edit(f / "text" / "config.json", lambda c: c.update(_name_or_path="~/models/x")),
            "_name_or_path is '~/mod",
        ),
        (lambda f: edit(f / "release.json", lambda c: c.update(note=["C:\\Users\\me"])), "a folder of this machine"),
        (lambda f: (f / "README.md").write_text(f"trained in {f.parent}"), "names the folder"),
        (lambda f: (f / "README.md").write_text(f"see {Path.home()}/notes"), "names the folder"),
        (lambda f: (f / ".env").write_text("TOKEN=1"), r"\.env: is not part of a release"),
        (lambda f: (f / "optimizer.pt").write_bytes(b"x"), r"optimizer\.pt: is not part of a release"),
        (lambda f: (f / "train.py").write_text("x"), "is not part of a release"),
        (lambda f: ((f / ".git").mkdir(), (f / ".git" / "config.json").write_text("{}")), "is not part of a release"),
        (lambda f: os.symlink("/etc/hostname", f / "notes.txt"), "a link is not part of a release"),
        (lambda f: os.symlink("/etc", f / "etc"), "a link is not part of a release"),
        (lambda f: (f / "model.safetensors").write_bytes((2**60).to_bytes(8, "little")), "its header claims"),
        (lambda f: (f / "image" / "open_clip_config.json").write_text("{"), "is not JSON"),
    ],
)
def test_what_must_not_be_published(change, message, release, hub):
    change(release)
    with pytest.raises(ReleaseError, match=message):
        plan_upload(release, "me/model")
    assert main(["push", str(release), "--repo", "me/model"]) == 2
    assert hub.calls == []


def test_entries_of_a_vocabulary_may_look_like_paths(release):
    edit(release / "text" / "tokenizer.json", lambda t: t["model"]["vocab"].update({"/usr": 70, "~/": 71}))
    assert "text/tokenizer.json" in [name for name, _ in plan_upload(release, "me/model").files]


def test_a_hub_that_refuses(release, monkeypatch):
    class Refuses(Recorder):
        def create_repo(self, repo_id, **settings):
            raise OSError("401 Unauthorized\nmore")

    monkeypatch.setattr(huggingface_hub, "HfApi", Refuses)
    with pytest.raises(ReleaseError, match=r"hf:me/model: the upload failed .401 Unauthorized.; the same command tries again"):
        push(plan_upload(release, "me/model"))


def test_what_was_pushed_loads(release, photos):
    """Everything a release needs is among what would be sent."""
    plan = plan_upload(release, "me/model")
    copy = release.parent / "downloaded"
    for name, size in plan.files:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(release / name, copy / name)
        assert (copy / name).stat().st_size == size
    assert zoo.load(copy).encode_image(photos).equal(zoo.load(release).encode_image(photos))
    assert push_module._SUFFIXES
