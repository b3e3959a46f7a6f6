"""The job step this process is in. A step may be smaller than its job, whose sizes SLURM announces too."""

from __future__ import annotations

import os
from typing import Any

from lightning.fabric.plugins.environments import SLURMEnvironment

from modalign.zoo.errors import RecipeError


def step_size() -> tuple[int, int]:
    """(tasks, machines) of the step; of the job, where a step does not say.

    Raises:
        RecipeError: If the machines do not all have the same number of tasks.
    """
    tasks = int(_first("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"))
    nodes = int(_first("SLURM_STEP_NUM_NODES", "SLURM_NNODES", "SLURM_JOB_NUM_NODES"))
    if tasks % nodes:
        raise RecipeError(
            f"SLURM started {tasks} tasks on {nodes} machines, which is not the same number on each; ask for "
            "--ntasks-per-node instead of --ntasks"
        )
    return tasks, nodes


def _first(*names: str) -> str:
    return next((os.environ[name] for name in names if name in os.environ), "1")


class StepEnvironment(SLURMEnvironment):
    """Lightning's SLURM environment, counting the tasks of the step instead of the job's."""

    def __init__(self) -> None:
        """Leaves requeueing to the batch file: see `trainers/commands/launch.py`."""
        super().__init__(auto_requeue=False)

    def world_size(self) -> int:
        """Tasks of the step."""
        return step_size()[0]

    @property
    def main_address(self) -> str:
        """The step's first machine, unless MASTER_ADDR says another."""
        nodes = os.environ.get("SLURM_STEP_NODELIST")
        if nodes and "MASTER_ADDR" not in os.environ:
            os.environ["MASTER_ADDR"] = self.resolve_root_node_address(nodes)
        return super().main_address

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Nothing: `find_world` takes both from the step, where Lightning would compare them with the job's."""

    @staticmethod
    def _validate_srun_variables() -> Any:
        """Nothing: `step_size` checks that every machine has the same number of tasks, however it was asked for."""
