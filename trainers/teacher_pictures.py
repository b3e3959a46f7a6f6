"""What a teacher sees of a picture: the student's pixels or features where they are right for it too, else its own.

Pixels made for another size, or features of another encoder, would give a teacher that answers without being the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from modalign.datasets.shards import ShardSet
from modalign.zoo.encoders.image.base import OUTPUT
from modalign.zoo.encoders.image.preprocess import ImagePreprocess

from .caches import image_vectors
from .needs import Needs, teacher_number

#: sample keys -> features (N, ...)
KeyedFeatures = Callable[[Sequence[str]], Tensor]


@dataclass
class TeacherPictures:
    """What is made for teachers of their own.

    Attributes:
        preprocess: Prefix of a teacher -> how its pixels are made.
        features: Prefix of a teacher -> its own features, taken at `output`.
    """

    preprocess: Mapping[str, ImagePreprocess] = field(default_factory=dict)
    features: Mapping[str, KeyedFeatures] = field(default_factory=dict)


def teacher_pictures(
    model: Any, teachers: Sequence[Any], needs: Needs, cut: str | None, sources: Sequence[ShardSet], num_workers: int
) -> TeacherPictures:
    """What the teachers that see pictures need beside what the student gets.

    Args:
        model: The student.
        teachers: All teachers of the stage.
        needs: What the losses read.
        cut: Where the student's features are cached; None if it gets pixels.
        sources: The shards, for features that are not kept yet.
        num_workers: Processes that read them.
    """
    seeing = {p: teachers[teacher_number(p) - 1].image for p in needs.teacher_image if teacher_number(p) <= len(teachers)}
    if cut is None:
        own = {prefix: image.preprocess for prefix, image in seeing.items() if not same_pixels(model.image, image)}
        return TeacherPictures(preprocess=own)
    others = {prefix: image for prefix, image in seeing.items() if not same_features(model.image, image, cut)}
    return TeacherPictures(
        features={prefix: image_vectors(image, sources, OUTPUT, num_workers).take for prefix, image in others.items()}
    )


def same_pixels(student: Any, teacher: Any) -> bool:
    """Whether two image encoders take the same uint8 pixels; each normalises them by its own mean and std."""
    theirs: ImagePreprocess = teacher.preprocess
    return bool(student.preprocess == replace(theirs, mean=student.preprocess.mean, std=student.preprocess.std))


def same_features(student: Any, teacher: Any, cut: str) -> bool:
    """Whether what enters a cut of the student is what enters it in the teacher: same network and weights below it, same pictures."""
    alike = (type(student), student.config, student.preprocess) == (type(teacher), teacher.config, teacher.preprocess)
    if not alike or cut not in teacher.cuts():
        return False
    ours, theirs = (_below(encoder, cut) for encoder in (student, teacher))
    return ours.keys() == theirs.keys() and all(_equal(value, theirs[name]) for name, value in ours.items())


def _below(encoder: Any, cut: str) -> dict[str, Tensor]:
    return {name: value for name, value in encoder.state_dict().items() if encoder.lies_below(name, cut)}


def _equal(first: Tensor, second: Tensor) -> bool:
    shared = first.data_ptr() == second.data_ptr() and first.shape == second.shape
    return shared or torch.equal(first, second)
