"""`modalign launch slurm`: the batch file of a run on a SLURM cluster, which requeues itself ahead of the time limit."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from modalign.zoo.checkpoints.durable import write_text
from modalign.zoo.errors import RecipeError

from ..console import console
from ..recipe import load_recipe, parse_override

#: what a stopped run exits with after SIGUSR1
REQUEUE = 128 + 10

#: most seconds that sbatch takes in --signal
_LONGEST_GRACE = 65535
_TIME = re.compile(r"[0-9]+(:[0-9]+){0,2}|[0-9]+-[0-9]+(:[0-9]+){0,2}")

_BATCH = """#!/usr/bin/env bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={tasks}
{gpus}#SBATCH --cpus-per-task={cpus}
#SBATCH --time={time}
#SBATCH --signal=SIGUSR1@{grace}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={output}
{extra}
# One task per device. {grace} s before the time limit SLURM sends SIGUSR1 to the tasks; modalign finishes its step, saves and exits
# with {requeue}, and the job goes back into the queue. After a preemption or a lost node it goes on at its last checkpoint too. When a
# rank dies, the others are ended 60 s later.
set -uo pipefail
cd {folder}
{setup}
export MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export MASTER_PORT="$((10000 + SLURM_JOB_ID % 20000))"

srun --kill-on-bad-exit=0 --wait=60 {command}
code=$?
if [ "$code" -eq {requeue} ]; then
    echo "stopped ahead of the time limit; back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
"""


def slurm(
    recipe: str,
    nodes: int = 1,
    tasks_per_node: int = 1,
    gpus_per_node: int | None = None,
    cpus_per_task: int = 8,
    time: str = "24:00:00",
    grace: int = 180,
    options: str = "",
    setup: str = "",
    sbatch: str = "",
    out: str | None = None,
) -> None:
    """Writes a batch file; hand it to `sbatch`.

    Args:
        recipe: A recipe, as for `modalign train`.
        nodes: Machines.
        tasks_per_node: Processes per machine, one per GPU.
        gpus_per_node: GPUs per machine; default one per task, 0 asks for none.
        cpus_per_task: Cores per process, for data workers.
        time: Time limit of one job; a run may take many. Minutes, or a form such as 12:00:00 or 2-00:00:00.
        grace: Seconds before the limit at which the run saves and goes back into the queue.
        options: Overrides, such as "--data.train shards/ --data.batch_size 4096"; they are checked now.
        setup: A shell line that brings modalign into the path, such as "source .venv/bin/activate".
        sbatch: More options of sbatch, such as "--partition=gpu --account=lab".
        out: File to write; default NAME.sbatch.

    Raises:
        RecipeError: If a number or the time limit is none that SLURM takes, or the processes cannot share a batch.
    """
    _check_count("nodes", nodes)
    _check_count("tasks_per_node", tasks_per_node)
    _check_count("gpus_per_node", gpus_per_node, least=0)
    _check_count("cpus_per_task", cpus_per_task)
    _check_count("grace", grace, most=_LONGEST_GRACE)
    _check_time(time)
    overrides = _overrides(options)
    resolved = load_recipe(recipe, overrides)
    name = re.sub(r"[^\w.-]+", "-", Path(str(resolved.run_dir)).name)  # sbatch splits its own lines at spaces
    if resolved.data.batch_size % (nodes * tasks_per_node):
        raise RecipeError(
            f"data.batch_size {resolved.data.batch_size} cannot be shared by {nodes} x {tasks_per_node} processes; choose a multiple"
        )
    gpus = tasks_per_node if gpus_per_node is None else gpus_per_node
    command = ["modalign", "train", recipe, "--run_dir", str(resolved.run_dir)]
    command += [word for key, value in shlex_pairs(options) for word in (f"--{key}", value) if key != "run_dir"]
    text = _BATCH.format(
        name=name,
        nodes=nodes,
        tasks=tasks_per_node,
        gpus=f"#SBATCH --gpus-per-node={gpus}\n" if gpus else "",
        cpus=cpus_per_task,
        time=time,
        grace=grace,
        output=f"{name}-%j.out",
        extra="".join(f"#SBATCH {shlex.quote(option)}\n" for option in shlex.split(sbatch)),
        requeue=REQUEUE,
        folder=shlex.quote(str(Path.cwd())),
        setup=setup,
        command=shlex.join(command),
    )
    path = Path(out or f"{name}.sbatch")
    write_text(path, text)
    console.print(f"written: {path}; submit it with: sbatch {path}")


def _check_count(option: str, number: int | None, least: int = 1, most: int | None = None) -> None:
    if number is None:
        return
    if number < least or (most is not None and number > most):
        wanted = f"{least} or more" if most is None else f"{least} to {most}"
        raise RecipeError(f"--{option} is {number}; give a whole number, {wanted}")


def _check_time(time: str) -> None:
    """Refuses a time limit that is in none of the forms of sbatch's manual."""
    if not _TIME.fullmatch(time):
        raise RecipeError(
            f"--time {time!r} is no time limit of SLURM; write minutes, minutes:seconds, hours:minutes:seconds, days-hours, "
            "days-hours:minutes or days-hours:minutes:seconds"
        )


def shlex_pairs(options: str) -> list[tuple[str, str]]:
    """`--a.b value --c=d` -> pairs.

    Raises:
        RecipeError: If an option has no value.
    """
    words, pairs = shlex.split(options), []
    while words:
        word = words.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not (equals or words):
            raise RecipeError(f"--options: {word!r} is not an option with a value; write them as for modalign train")
        pairs.append((key, value if equals else words.pop(0)))
    return pairs


def _overrides(options: str) -> dict[str, object]:
    plain = ("run_dir", "init_from")
    return {key: value if key in plain else parse_override(value) for key, value in shlex_pairs(options) if key != "allow_module"}
