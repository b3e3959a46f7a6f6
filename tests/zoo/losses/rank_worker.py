"""One rank of the tests' processes: joins the group, then runs the functions it is told to."""

import importlib.util
import pickle
import traceback
from datetime import timedelta

import torch
import torch.distributed as dist


def load(file, modules={}):  # noqa: B006 - the cache is meant
    if file not in modules:
        spec = importlib.util.spec_from_file_location(f"ranks_of_{len(modules)}", file)
        modules[file] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[file])
    return modules[file]


def serve(rank, world, store, pipe):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world, timeout=timedelta(seconds=60))
    while True:
        file, function, args = pickle.loads(pipe.recv_bytes())
        try:
            answer = (True, getattr(load(file), function)(rank, world, *args))
        except BaseException:
            answer = (False, traceback.format_exc())
        pipe.send_bytes(pickle.dumps(answer))


if "JOB" in globals():
    serve(*JOB)  # noqa: F821 - given by who started this process
