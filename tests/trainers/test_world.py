"""Who starts the ranks and how many there are, who lost whom, who says it: without starting any."""

from concurrent.futures import ThreadPoolExecutor

import lightning.pytorch as pl
import pytest
import torch
import torch.distributed as dist
from lightning.fabric.utilities import rank_zero as fabric_rank_zero
from lightning.pytorch.utilities import rank_zero

from modalign.trainers.parallel.failure import RankError, _reason
from modalign.trainers.parallel.rejoin import agree_on_word
from modalign.trainers.parallel.saying import first_to_say
from modalign.trainers.parallel.strategy import build_strategy, cluster_plugins
from modalign.trainers.parallel.world import World, check_world, find_world
from modalign.trainers.recipe import TrainerConfig
from modalign.zoo.errors import DataError, RecipeError

TOLD = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "MASTER_ADDR")
TOLD += ("SLURM_NTASKS", "SLURM_NNODES", "SLURM_JOB_NUM_NODES", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "SLURM_PROCID")
TOLD += ("SLURM_LOCALID", "SLURM_NODEID", "SLURM_JOB_NAME", "SLURM_STEP_NODELIST", "SLURM_NODELIST", "SLURM_NTASKS_PER_NODE")


@pytest.fixture
def told(monkeypatch):
    """Sets what a launcher would, and nothing else; afterwards Lightning remembers no rank of it."""
    for function in (rank_zero.rank_zero_only, fabric_rank_zero.rank_zero_only):
        monkeypatch.setattr(function, "rank", 0, raising=False)

    def tell(**variables):
        for name in TOLD:
            monkeypatch.setenv(name, "")  # noted, so that what is set behind monkeypatch's back (MASTER_ADDR) goes afterwards
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    tell()
    return tell


def cpu(**settings):
    return TrainerConfig(accelerator="cpu", **settings)


def test_torchrun_says_how_many_there_are(told):
    assert find_world(cpu()) == World(0, 1, 1, 1)
    assert find_world(cpu(devices=3)) == World(0, 3, 3, 1)
    with pytest.raises(RecipeError, match=r"trainer.devices: 'two'"):
        find_world(cpu(devices="two"))

    told(RANK=5, WORLD_SIZE=8, LOCAL_WORLD_SIZE=4, TORCHELASTIC_RUN_ID="x", LOCAL_RANK=1, SLURM_NTASKS=2, SLURM_PROCID=0)
    assert find_world(cpu()) == World(5, 8, 4, 2)
    assert find_world(TrainerConfig(devices=4, num_nodes=2)) == World(5, 8, 4, 2)
    assert cluster_plugins() == [], "torchrun inside a job of SLURM decides"
    with pytest.raises(RecipeError, match=r"trainer.devices is 2, but the launcher started 4"):
        find_world(TrainerConfig(devices=2))


@pytest.mark.parametrize("variables", [{}, {"NODE_RANK": 1}, {"LOCAL_RANK": 1, "NODE_RANK": 0}])
def test_several_machines_need_a_launcher(told, variables):
    told(**variables)
    with pytest.raises(
        RecipeError, match=r"trainer.num_nodes is 2, but nothing started .* with torchrun .*modalign launch slurm"
    ):
        find_world(cpu(num_nodes=2))


def test_a_step_smaller_than_its_job(told):
    """A job of 4 machines with 8 tasks, and in it a step of 2 tasks on one machine."""
    job = {"SLURM_NTASKS": 8, "SLURM_NNODES": 4, "SLURM_JOB_NUM_NODES": 4, "SLURM_JOB_NAME": "job", "SLURM_NODELIST": "m[1-4]"}
    step = {"SLURM_STEP_NUM_TASKS": 2, "SLURM_STEP_NUM_NODES": 1, "SLURM_STEP_NODELIST": "m3"}
    told(**job, **step, SLURM_PROCID=1, SLURM_LOCALID=1, SLURM_NODEID=0)
    world = find_world(cpu())
    assert world == World(1, 2, 2, 1)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=world.devices,
        num_nodes=world.nodes,
        strategy=build_strategy(cpu(), 2),
        plugins=cluster_plugins(),
    )
    assert (trainer.global_rank, trainer.world_size, trainer.local_rank) == (1, 2, 1)
    trainer.strategy.cluster_environment.validate_settings(2, 1)
    assert trainer.strategy.cluster_environment.main_address == "m3"
    check_world(trainer, world)

    told(**job, SLURM_PROCID=7)
    assert find_world(cpu()) == World(7, 8, 2, 4)
    told(SLURM_NTASKS=5, SLURM_NNODES=2, SLURM_PROCID=0)
    with pytest.raises(RecipeError, match="5 tasks on 2 machines"):
        find_world(cpu())


def test_what_lightning_starts_in_an_interactive_shell_of_slurm(told):
    told(SLURM_NTASKS=1, SLURM_PROCID=0, SLURM_JOB_NAME="bash", LOCAL_RANK=1, NODE_RANK=0, WORLD_SIZE=2)
    assert find_world(cpu(devices=2)) == World(1, 2, 2, 1)


def test_lightning_and_the_loader_must_agree(told):
    """A NODE_RANK left over in the environment makes Lightning count from 1."""
    told(NODE_RANK=1)
    world = find_world(cpu(devices=2))
    trainer = pl.Trainer(accelerator="cpu", devices=2, strategy=build_strategy(cpu(), 2))
    with pytest.raises(RecipeError, match=r"read data as rank 0 of 2, but would train as rank 2 of 2.*NODE_RANK.*'1'"):
        check_world(trainer, world)


def test_only_the_communication_library_knows_lost_neighbours(monkeypatch):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    lost = {
        "[/build/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:52": "another rank ended",
        "[../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 25000ms for recv operation": "did not answer",
        "Application timeout caused pair closure (gloo)": "did not answer",
    }
    for text, reason in lost.items():
        assert reason in _reason(RuntimeError(text), 25)
    assert "did not answer" in _reason(
        torch.distributed.DistBackendError("Watchdog caught collective operation timeout: WorkNCCL"), 25
    )
    for text in (
        "DataLoader timed out after 5 seconds",
        "timeout must be positive",
        "write failed: Broken pipe",
        "connection refused",
    ):
        assert _reason(RuntimeError(text), 25) is None, "an error of this rank's own keeps its name"


def test_who_speaks_before_there_is_a_store(told):
    assert first_to_say(DataError("x")) and first_to_say(RecipeError("x")), "a process alone says everything"
    told(SLURM_NTASKS=2, SLURM_PROCID=1, SLURM_JOB_NAME="job")
    assert not first_to_say(RecipeError("x")), "every rank reads the same recipe"
    assert first_to_say(DataError("x")), "it may be this machine's own trouble"


def test_a_new_round_does_not_meet_the_dead_of_the_last():
    """The store still has what the ranks of an earlier round left in it."""
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    words = []
    for _ in range(3):
        stores = [dist.TCPStore("127.0.0.1", server.port, is_master=False, wait_for_workers=False) for _ in range(3)]
        with ThreadPoolExecutor(3) as pool:
            told = list(pool.map(lambda rank, stores=stores: agree_on_word(stores[rank], rank, 3, 30), range(3)))
        assert len(set(told)) == 1
        words += told[:1]
        server.set("modalign/name/2", "a rank that died before it was answered")
    assert len(set(words)) == 3
    with pytest.raises(RankError, match=r"ranks \[1, 2\] did not come within 0.2 s"):
        agree_on_word(server, 0, 3, 0.2)
