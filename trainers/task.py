"""The one Lightning task of all families: a model, an objective, a stage. No modality and no family is named in it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from modalign.zoo.errors import ReleaseError
from modalign.zoo.losses.grad_cache import cached_forward
from modalign.zoo.losses.parts.chunks import split_rows

from .checkpoint_content import misfit
from .guard import FiniteGuard
from .needs import needs_of, teacher_prefix
from .objective import Objective
from .optim import build_optimizer, build_schedule
from .parallel.sharded import is_sharded, shard_model, usable, whole_norm
from .parallel.units import blocks_of
from .recipe import StageConfig
from .roles import TrainedParameter, set_modes
from .unreached import tell_unreached


class TrainingTask(pl.LightningModule):
    """Trains the selected parameters of a model on an objective.

    Checkpoints hold what changes in the stage (trained parameters, their batch-norm statistics, an averaging teacher) and no more:
    everything else is rebuilt from the recipe, so a frozen language model costs no disk at every save.

    Args:
        model: A model of a family.
        objective: The losses.
        trained: The parameters that train; all others are frozen already.
        stage: The stage's settings.
        steps: Length of the stage in optimiser steps.
        seed: Dropout and the like draw from a function of (seed, step, rank), so that a resumed run draws the same.
        teachers: Models whose outputs, named `teacher_…`, `teacher2_…`, losses may read.
        guard: Watches loss and gradients.
        compiles: Compile the model's blocks.
        steps_per_epoch: For schedules that change once per epoch; default the whole stage.
    """

    def __init__(
        self,
        model: Any,
        objective: Objective,
        trained: Sequence[TrainedParameter],
        stage: StageConfig,
        steps: int,
        seed: int,
        teachers: Sequence[Any] = (),
        guard: FiniteGuard | None = None,
        compiles: bool = False,
        steps_per_epoch: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.teacher: Any = teachers[0] if teachers else None
        self.more_teachers = nn.ModuleList(teachers[1:])
        self.guard, self.compiles = guard or FiniteGuard(), compiles
        self.stage, self.steps, self.seed, self.steps_per_epoch = stage, steps, seed, steps_per_epoch
        self.trained = list(trained)
        self.strict_loading = False  # replaced by the exact check of on_load_checkpoint
        self.latest: dict[str, Tensor] = {}
        self._keys: Sequence[str] = ()
        self._ready = self._told = False
        self.scalars: set[str] = set()  # what sharding made vectors of

    def configure_model(self) -> None:
        """Shards the model and its teachers where the strategy has a device mesh, and compiles the blocks where asked to."""
        if self._ready:
            return
        self._ready = True
        if self.device_mesh is not None:
            self.scalars = {name for name, value in self.named_parameters() if value.ndim == 0}
            for model in (self.model, self.teacher, *self.more_teachers):
                if model is not None:
                    shard_model(model, self.device_mesh["data_parallel"])
            for entry in self.trained:
                entry.parameter = self.model.get_parameter(entry.name)
        if self.compiles:
            for block in blocks_of(self.model):
                block.compile()  # in place: names of parameters stay

    def training_step(self, batch: Mapping[str, Any], batch_index: int) -> Tensor:
        """One step: outputs of model and teachers, then the objective."""
        total, metrics = self.objective(self._outputs(batch) | self._teacher_outputs(batch), batch)
        if "has_second_text" in batch:
            metrics["second_caption_share"] = batch["has_second_text"].float().mean()
        self.latest, self._keys = metrics, batch["keys"]
        return total

    def _outputs(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The model's outputs, in one go or in parts with the gradients of the whole."""
        if self.stage.accumulate == 1:
            return self.model(batch)
        rows = -(-len(batch["keys"]) // self.stage.accumulate)
        # shards exist only during their own forward and backward pass, so they cannot be handed over
        parameters = None if is_sharded(self.model) else [entry.parameter for entry in self.trained]
        return cached_forward(self.model, split_rows(batch, rows), self.objective.inputs(), parameters=parameters)

    def _teacher_outputs(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Outputs of every teacher that some loss reads and the batch does not hold already, each under its prefix."""
        outputs: dict[str, Tensor] = {}
        seeing = needs_of(self.objective.inputs()).teacher_image
        for number, teacher in enumerate((self.teacher, *self.more_teachers), start=1):
            prefix = teacher_prefix(number)
            if teacher is None or all(not n.startswith(prefix) or n in batch for n in self.objective.inputs()):
                continue
            view = teacher_view(batch, prefix, pictures=prefix in seeing)
            with torch.no_grad(), usable(teacher):
                outputs |= {f"{prefix}{name}": value for name, value in teacher(view).items()}
        return outputs

    def on_train_start(self) -> None:
        """Sets the modes; Lightning leaves modules in the mode it finds them in."""
        self.train()

    def on_train_batch_start(self, batch: Any, batch_index: int) -> None:
        """Seeds this step's random draws from (seed, step, rank)."""
        text = f"{self.seed}/{self.global_step}/{self.global_rank}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
        torch.default_generator.manual_seed(
            seed
        )  # torch.manual_seed also files a stack trace per kind of device that is not there
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps, then lets the model clamp what it must and the teacher follow."""
        super().optimizer_step(*args, **kwargs)
        self.model.after_step()
        if self.averages_teacher:
            self._average_teacher()

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clips by the global norm and lets the guard look; Lightning's own refuses fused AdamW under bfloat16, where nothing is scaled."""
        if not self._told:
            self._told = True
            tell_unreached(self.trained)
        parameters = [entry.parameter for entry in self.trained if entry.parameter.grad is not None]
        norm = whole_norm(parameters)
        if gradient_clip_val is not None:
            nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)
        self.latest["grad_norm"] = norm.detach()
        self.guard.watch(self.global_step, self._keys, self.latest["loss"], norm, optimizer)

    @property
    def averages_teacher(self) -> bool:
        """Whether the teacher follows the model by an exponential moving average."""
        return self.teacher is not None and self.stage.teacher_decay != 1.0

    @torch.no_grad()
    def _average_teacher(self) -> None:
        """`θ* <- m θ* + (1-m) θ`; batch-norm statistics are copied."""
        assert self.teacher is not None
        online = dict(self.model.named_parameters())
        for name, mean in self.teacher.named_parameters():
            if online[name].requires_grad:
                mean.lerp_(online[name], 1 - self.stage.teacher_decay)
        for mean, now in zip(self.teacher.buffers(), self.model.buffers(), strict=True):
            mean.copy_(now)

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule, stepped once per step."""
        fused = self.device.type in ("cpu", "cuda")
        optimizer = build_optimizer(self.model, self.trained, self.stage, fused=fused)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": build_schedule(optimizer, self.stage, self.steps, self.steps_per_epoch),
                "interval": "step",
            },
        }

    def train(self, mode: bool = True) -> TrainingTask:
        """Training mode only where something trains: see `set_modes`."""
        super().train(False)
        self.training = mode
        if mode:
            set_modes(self.model, self.stage.batch_norm)
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """What changes in this stage; see the class."""
        state = super().state_dict(*args, **kwargs)
        kept = {f"model.{entry.name}" for entry in self.trained} | _statistics(self.model, "model.")
        if self.averages_teacher:
            kept |= {f"teacher.{entry.name}" for entry in self.trained} | _statistics(self.model, "teacher.")
        return {name: value for name, value in state.items() if name in kept}

    def moving_buffers(self) -> list[Tensor]:
        """Batch-norm statistics that training changes."""
        names = _statistics(self.model, "")
        return [buffer for name, buffer in self.model.named_buffers() if name in names]

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads what `state_dict` gives; the rest of the model is not in a checkpoint."""
        return super().load_state_dict(state_dict, strict=False, assign=assign)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the guard's count."""
        checkpoint["guard"] = dict(self.guard.state_dict())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks that the checkpoint holds exactly what this stage trains.

        Raises:
            ReleaseError: If it does not.
        """
        ours, theirs = set(self.state_dict()), set(checkpoint["state_dict"])
        if ours != theirs:
            raise ReleaseError(
                f"the checkpoint is of another stage or recipe: it lacks {sorted(ours - theirs)[:3]} and has {sorted(theirs - ours)[:3]}; "
                "continue with the recipe it was made with, or start a new run_dir"
            )
        if (wrong := misfit(checkpoint, self.state_dict(), len(self.trained))) is not None:
            path = getattr(self._trainer, "ckpt_path", None) or ""
            raise ReleaseError(f"checkpoint {path} does not fit this stage: {wrong}; delete it to go on from the one before")
        self.guard.skipped = checkpoint.get("guard", {}).get("skipped", 0)

    def __setattr__(self, name: str, value: Any) -> None:
        """Lightning notes the name of every hook it calls here, fifty times a step; torch's bookkeeping for parameters is not for that."""
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_index: int) -> Any:
        """Moves tensors; keys and other plain values stay."""
        return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}


def teacher_view(batch: Mapping[str, Any], prefix: str, *, pictures: bool) -> dict[str, Any]:
    """What a teacher is given of a batch: the text made for it, and pictures: its own where there are such, else the student's.

    Args:
        batch: The batch.
        prefix: Of the teacher.
        pictures: Whether some loss reads what comes of pictures; else they are not worth a pass through its encoder.
    """
    own = {key.removeprefix(prefix): value for key, value in batch.items() if key.startswith(prefix)}
    shared = pictures and not any(key.startswith("image") for key in own)
    return own | ({key: value for key, value in batch.items() if key.startswith("image")} if shared else {})


def _statistics(model: nn.Module, prefix: str) -> set[str]:
    """Names of the buffers of batch norms whose parameters train."""
    return {
        f"{prefix}{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and any(p.requires_grad for p in module.parameters())
        for name, _ in module.named_buffers(recurse=False)
    }


def self_teacher(model: nn.Module) -> nn.Module:
    """A frozen copy of a model as it is now, in eval mode; frozen large parts are shared, not copied.

    Shared parts never change while they are frozen, so a copy would only cost memory.
    """
    shared = {id(parameter): parameter for parameter in model.parameters() if not parameter.requires_grad}
    teacher = copy.deepcopy(model, memo=dict(shared))
    return teacher.requires_grad_(False).eval()
