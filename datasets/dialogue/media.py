"""What media a sample has, as far as its JSON can refer to them."""

from __future__ import annotations

from dataclasses import dataclass

from ..decoding.media import medium_of, suffix
from ..decoding.sample import Sample

VIDEO = frozenset({"mp4", "webm", "mkv", "avi", "mov"})


@dataclass(frozen=True)
class Media:
    """The media of one sample.

    Attributes:
        pictures: (width, height) of each picture in its order, None where the size is not known.
        recordings: How many recordings there are (`KEY.wav`, or `KEY.0.wav`, `KEY.1.wav`).
        videos: How many videos there are (`KEY.mp4`, or `KEY.0.mp4`, `KEY.1.mp4`).
        members: Names of the other members, for masks; None if they are not known and so not checked.
    """

    pictures: tuple[tuple[int, int] | None, ...] = ()
    recordings: int = 0
    videos: int = 0
    members: frozenset[str] | None = None

    def count(self, medium: str) -> int:
        """Returns how many there are of a medium that a part can show: "image", "audio" or "video"."""
        return {"image": len(self.pictures), "audio": self.recordings, "video": self.videos}[medium]


def media_of(sample: Sample) -> Media:
    """Returns the media of a sample that was decoded with all its members.

    Args:
        sample: The sample; of one whose pictures were not read, say what it has with a `Media` of your own.
    """
    sizes = tuple((int(image.size[0]), int(image.size[1])) for image in sample.images)
    recordings = sum(medium_of(ext) == "audio" for ext in sample.extras)
    videos = sum(is_video(ext) for ext in sample.extras)
    return Media(sizes, recordings, videos, frozenset(sample.extras))


def is_video(ext: str) -> bool:
    """True for `mp4` or, of several, `0.mp4`."""
    head = ext.removesuffix(suffix(ext)).rstrip(".")
    return suffix(ext) in VIDEO and (not head or head.isdecimal())
