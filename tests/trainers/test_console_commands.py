"""doctor, completion and launch: what they print, and that what they write works."""

import pickle
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from modalign.trainers.cli import COMMANDS, main
from modalign.trainers.commands import doctor
from modalign.trainers.commands.completion import candidates


def test_doctor_finds_this_machine_fit(own_home, capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert torch.__version__.split("+")[0] in out and "GiB free" in out


def test_doctor_names_a_malicious_upload_and_a_missing_package(monkeypatch, own_home, capsys):
    real = doctor.version

    def version(name):
        if name == "peft":
            raise doctor.PackageNotFoundError(name)
        return "2.6.3" if name == "lightning" else real(name)

    monkeypatch.setattr(doctor, "version", version)
    assert main(["doctor"]) == 2
    printed = capsys.readouterr()
    assert "malicious" in printed.out and "pip install peft" in printed.out
    assert "lightning" in printed.err and "peft" in printed.err


def test_doctor_scans_for_pickles(tmp_path, own_home, capsys):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": 1}))
    torch.save({"a": torch.zeros(1)}, tmp_path / "b.pt")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "plain.npy", np.zeros(3))
    (tmp_path / "c.bin").write_bytes(b"plain")
    assert main(["doctor", "--scan", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("a.pkl", "b.pt", "objects.npy")) and "plain.npy" not in out and "c.bin" not in out


def test_completion_knows_commands_options_and_recipes():
    assert {"train", "data", "doctor"} <= set(candidates([""]))
    assert candidates(["data", "sp"]) == ["split"]
    assert "--data.batch_size" in candidates(["train", "x.yaml", "--data.b"])
    assert candidates(["eval", "model", "--dat"]) == ["--data"]
    assert "configs/proclip/openmoji.yaml" in candidates(["train", "configs/pro"])
    assert candidates(["nonsense", ""]) == []


def test_every_command_completes_its_options():
    """The source of every command is found and read without importing it."""
    for name, (_, _, positional, _) in COMMANDS.items():
        options = candidates([*name.split(), "--"])
        assert options or name in ("zoo list", "assets list", "completion", "zoo show", "assets get", "assets where"), name
        assert not {f"--{word}" for word in positional} & set(options), name


#: asks each shell for the completions of `modalign data sp`, as it would ask itself
ASKED = {
    "bash": 'source <(modalign completion bash); COMP_WORDS=(modalign data sp); COMP_CWORD=2; _modalign; echo "${COMPREPLY[@]}"',
    "zsh": 'compdef() { : }; compadd() { shift; echo "$@" }; source <(modalign completion zsh); '
    "words=(modalign data sp); CURRENT=3; _modalign",
    "zsh from fpath": 'modalign completion zsh > _modalign; fpath=($PWD); compdef() { : }; compadd() { shift; echo "$@" }; '
    "autoload _modalign; words=(modalign data sp); CURRENT=3; _modalign",
    "fish": "modalign completion fish | source; complete -C 'modalign data sp'",
}


@pytest.mark.parametrize("how", ASKED)
def test_the_scripts_complete(tmp_path, how):
    shell, scripts = how.split()[0], Path(sys.executable).parent
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    if not (scripts / "modalign").exists():
        pytest.skip("the command modalign is not installed beside this Python")
    done = subprocess.run(
        [shell, "-c", ASKED[how]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": f"{scripts}:/usr/bin:/bin", "HOME": str(tmp_path)},
        timeout=60,
    )
    assert done.stdout.strip() == "split", done.stderr


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("nodes", "0", "--nodes is 0; give a whole number, 1 or more"),
        ("tasks_per_node", "0", "--tasks_per_node is 0"),
        ("tasks_per_node", "-2", "--tasks_per_node is -2"),
        ("gpus_per_node", "-1", "--gpus_per_node is -1; give a whole number, 0 or more"),
        ("cpus_per_task", "0", "--cpus_per_task is 0"),
        ("grace", "0", "--grace is 0; give a whole number, 1 to 65535"),
        ("grace", "65536", "--grace is 65536"),
        *[
            ("time", time, f"--time {time!r} is no time limit")
            for time in ("banana", "1:2:3:4", "1-", "-5", "1h", "2-1:2:3:4", "")
        ],
        ("time", "24:00:00\n", "is no time limit"),
    ],
)
def test_a_batch_file_is_only_written_of_what_slurm_takes(option, value, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["launch", "slurm", "clip/flickr8k", f"--{option}={value}", "--out", "job.sbatch"]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error and not (tmp_path / "job.sbatch").exists()


@pytest.mark.parametrize("time", ["90", "90:30", "12:00:00", "2-12", "2-12:30", "2-12:30:15"])
def test_every_form_of_slurm_s_time_limit(time, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["launch", "slurm", "clip/flickr8k", "--time", time, "--gpus_per_node", "0", "--out", "job.sbatch"]) == 0
    assert f"#SBATCH --time={time}\n" in (tmp_path / "job.sbatch").read_text()


def test_a_run_folder_with_spaces_gives_a_batch_file_that_holds(tmp_path, monkeypatch):
    """The lines that sbatch reads have no spaces in them, and the shell gets the folder as one word."""
    monkeypatch.chdir(tmp_path)
    options = "--run_dir 'runs/my run' --data.train 'my shards'"
    assert (
        main(["launch", "slurm", "clip/flickr8k", "--options", options, "--sbatch", "--account=lab --comment='two words'"]) == 0
    )
    lines = (tmp_path / "my-run.sbatch").read_text().splitlines()
    ours = [line for line in lines if line.startswith("#SBATCH")]
    assert "#SBATCH --job-name=my-run" in ours and "#SBATCH --output=my-run-%j.out" in ours
    assert all(len(shlex.split(line.removeprefix("#SBATCH"))) == 1 for line in ours), ours
    command = next(line for line in lines if "modalign train" in line)
    assert "--run_dir 'runs/my run'" in command and "--data.train 'my shards'" in command
