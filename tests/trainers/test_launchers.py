"""torchrun on two nodes, a SLURM batch file that requeues, a rank that dies, a rank that hangs: as far as gloo on one machine goes."""

import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from launching import CLI, assert_equal_runs, children, start, wait_for_step, write_recipe

from modalign.trainers import train
from modalign.trainers.cli import main


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def clip_recipe(pair_recipe):
    """Without teachers, two epochs: 12 steps."""
    pair_recipe["stages"]["pair"] |= {"teacher": None, "teacher_decay": 1.0, "losses": {"clip": {}}, "epochs": 2}
    return pair_recipe


@pytest.mark.timeout(280)
def test_torchrun_on_two_nodes(clip_recipe, tmp_path):
    """Two torchrun agents, as on two machines; devices and num_nodes come from the launcher; each computes its share in two parts."""
    whole = train(clip_recipe | {"run_dir": str(tmp_path / "whole")})
    path, run, port = write_recipe(clip_recipe, tmp_path / "recipe.yaml"), tmp_path / "two", free_port()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", f"--master_port={port}"]
    ours = ["-m", "modalign.trainers.cli", "train", path, "--run_dir", run, "--stages.pair.accumulate", "2"]
    agents = [start([*torchrun, "--master_addr=127.0.0.1", f"--node_rank={node}", *ours]) for node in range(2)]
    outputs = [agent.communicate(timeout=240)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], "\n".join(output[-2000:] for output in outputs)
    assert sum(output.count("release:") for output in outputs) == 1, "only the first rank speaks"
    assert_equal_runs(run, whole)


FAKE_SRUN = """#!{python}
# stands in for SLURM: two tasks on this machine, signals passed on, the highest exit code
import os, signal, subprocess, sys
words = sys.argv[1:]
while words[0].startswith("--"):
    words.pop(0)
env = lambda rank: os.environ | dict(SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank), SLURM_NODEID="0", SLURM_NTASKS="2")
tasks = [subprocess.Popen(words, env=env(rank)) for rank in range(2)]
signal.signal(signal.SIGUSR1, lambda *_: [task.send_signal(signal.SIGUSR1) for task in tasks])
open("tasks.pid", "w").write(str(os.getpid()))
sys.exit(max(task.wait() % 256 for task in tasks))
"""
FAKE_SCONTROL = """#!/bin/sh
if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> scontrol.log; fi
"""


@pytest.mark.timeout(290)
def test_the_slurm_file_requeues_and_goes_on(clip_recipe, tmp_path, monkeypatch, capsys):
    clip_recipe["stages"]["pair"]["epochs"] = 6
    whole = train(clip_recipe | {"run_dir": str(tmp_path / "whole")})
    monkeypatch.chdir(tmp_path)
    write_recipe(clip_recipe, tmp_path / "recipe.yaml")
    options = "--trainer.accelerator cpu"
    asked = ["launch", "slurm", "recipe.yaml", "--tasks_per_node", "2", "--gpus_per_node", "0", "--options", options]
    clip_recipe["run_dir"] = "part"
    write_recipe(clip_recipe, tmp_path / "recipe.yaml")
    assert main([*asked, "--out", "job.sbatch", "--sbatch=--partition=short"]) == 0
    text = (tmp_path / "job.sbatch").read_text()
    assert "#SBATCH --partition=short" in text and "#SBATCH --signal=SIGUSR1@180" in text and "--gpus-per-node" not in text

    tools = tmp_path / "bin"
    tools.mkdir()
    modalign = f'#!/bin/sh\nexec {sys.executable} -m modalign.trainers.cli "$@"\n'
    for name, content in (("srun", FAKE_SRUN.format(python=sys.executable)), ("scontrol", FAKE_SCONTROL), ("modalign", modalign)):
        (tools / name).write_text(content)
        (tools / name).chmod(0o755)
    env = {"PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": str(free_port()), "SLURM_JOB_NAME": "part"}
    env |= {"SLURM_JOB_NODELIST": "here", "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS_PER_NODE": "2"}

    job = start(["bash", "job.sbatch"], env)
    wait_for_step(job, tmp_path / "part", 5)
    os.kill(int((tmp_path / "tasks.pid").read_text()), signal.SIGUSR1)
    output = job.communicate(timeout=120)[0]
    assert job.returncode == 0 and "back into the queue" in output, output[-3000:]
    assert (tmp_path / "scontrol.log").read_text() == f"requeue {env['SLURM_JOB_ID']}\n"

    again = start(["bash", "job.sbatch"], env)
    output = again.communicate(timeout=200)[0]
    assert again.returncode == 0 and output.count("continues at step") == 1, output[-3000:]
    assert_equal_runs(tmp_path / "part", whole)


@pytest.mark.timeout(280)
def test_a_killed_rank_stops_the_others_and_the_run_goes_on(clip_recipe, tmp_path):
    clip_recipe["stages"]["pair"]["epochs"] = 20
    clip_recipe["trainer"]["checkpoint_every"] = 3
    path, run = write_recipe(clip_recipe, tmp_path / "recipe.yaml"), tmp_path / "run"
    command = [*CLI, "train", path, "--run_dir", run, "--trainer.timeout_s", "60"]
    process = start([*command, "--trainer.devices", "2"])
    wait_for_step(process, run, 8)
    second = [child for child in children(process.pid) if b"modalign.trainers.cli" in Path(f"/proc/{child}/cmdline").read_bytes()]
    os.kill(second[0], signal.SIGKILL)
    killed = time.monotonic()
    output = process.communicate(timeout=120)[0]
    assert process.returncode not in (0, None) and time.monotonic() - killed < 60
    # whichever sees it first: rank 0 in its own step, or the launcher that watches its children
    assert "rank 0: rank 1 ended in the middle of a step" in output or "[rank: 1] Child process" in output, output[-3000:]

    alone = start(command)
    output = alone.communicate(timeout=120)[0]
    assert "continues at step" in output and alone.returncode == 0, output[-3000:]


SLOW = """
import time
import torch.distributed as dist
from modalign.zoo.losses.clip import ClipLoss
from modalign.zoo.registry import LOSSES

@LOSSES.register("slow_clip")
class SlowClip(ClipLoss):
    def forward(self, outputs, batch):
        if dist.get_rank() == 1:
            time.sleep(100)
        return super().forward(outputs, batch)
"""


@pytest.mark.timeout(200)
def test_a_rank_that_hangs_is_named_as_such(clip_recipe, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    clip_recipe["stages"]["pair"]["losses"] = {"slow_clip": {}}
    path = write_recipe(clip_recipe, tmp_path / "recipe.yaml")
    command = [*CLI, "train", path, "--run_dir", tmp_path / "run", "--allow_module", "slow"]
    process = start([*command, "--trainer.devices", "2", "--trainer.timeout_s", "25"], cwd=tmp_path)
    wait = time.monotonic()
    try:
        output = process.communicate(timeout=150)[0]
    finally:
        for child in children(process.pid):
            os.kill(child, signal.SIGKILL)
    assert process.returncode not in (0, None), time.monotonic() - wait
    assert "rank 0: rank 1 did not answer within 25 s (trainer.timeout_s); it is stuck" in output, output[-3000:]


BAD = """
from modalign.trainers.stage import Objective
from modalign.zoo.errors import DataError
import modalign.trainers.stage as stage

def broken(*_, **__):
    raise DataError("the same on every rank")

stage.check_world = broken
"""


@pytest.mark.timeout(120)
def test_ranks_with_the_same_error_say_it_once(clip_recipe, tmp_path):
    (tmp_path / "bad.py").write_text(BAD)
    path = write_recipe(clip_recipe, tmp_path / "recipe.yaml")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    ours = ["-m", "modalign.trainers.cli", "train", path, "--run_dir", tmp_path / "run", "--allow_module", "bad"]
    process = start([*torchrun, *ours], cwd=tmp_path)
    output = process.communicate(timeout=100)[0]
    assert process.returncode not in (0, None)
    assert output.count("error: the same on every rank") == 1, output[-3000:]


DIES = """
import os, signal
from pathlib import Path
import modalign.datasets.features as features
from modalign.zoo.losses.clip import ClipLoss

made = features._write_vectors
def counted(path, count, batches):
    with open("computed", "a") as stream:
        stream.write(f"{path.parent.parent.name}\\n")
    return made(path, count, batches)
features._write_vectors = counted

loss, steps = ClipLoss.forward, []
def forward(self, outputs, batch):
    steps.append(1)
    if os.environ["RANK"] == "1" and len(steps) == 8 and not Path("died").exists():
        Path("died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(self, outputs, batch)
ClipLoss.forward = forward
"""


@pytest.mark.timeout(280)
def test_torchrun_starts_again_after_a_rank_died(clip_recipe, tmp_path):
    """Two processes on one machine, with cached pictures, which both want at once."""
    # shards of its own: other tests keep features beside the common ones
    own = shutil.copytree(clip_recipe["data"]["train"], tmp_path / "shards", ignore=shutil.ignore_patterns(".features"))
    clip_recipe["data"]["train"] = str(own)
    clip_recipe["trainer"]["checkpoint_every"] = 3
    clip_recipe["stages"]["pair"] |= {"train": {"embedder": 1e-3, "head": 1e-3, "aux": 1e-2}, "cache": {"image": "output"}}
    (tmp_path / "dies.py").write_text(DIES)
    path, run = write_recipe(clip_recipe, tmp_path / "recipe.yaml"), tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max-restarts=1"]
    process = start(
        [*torchrun, "-m", "modalign.trainers.cli", "train", path, "--run_dir", run, "--allow_module", "dies"], cwd=tmp_path
    )
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output[-3000:]
    assert (tmp_path / "died").exists() and output.count("continues at step 6") == 1, output[-3000:]
    assert len((tmp_path / "computed").read_text().split()) == 1, "one rank computed the features, the other waited"
    assert_equal_runs(run, train(clip_recipe | {"run_dir": str(tmp_path / "whole")}))
