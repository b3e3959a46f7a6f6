"""Photographs that are decoded when it is known how much of them is needed: a JPEG can be decoded at 1/2, 1/4 or 1/8 of its size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modalign.zoo.errors import DataError

from ..sample_error import SampleError
from .table import DEFAULT_LIMITS, ORIENTATION, Limits, image_errors, open_image, to_rgb, upright_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

_SCALES = (8, 4, 2)  # what libjpeg can do within its transform


class EncodedImage:
    """A JPEG whose header was checked and whose pixels are not decoded yet.

    Attributes:
        size: (width, height), from the header.
        place: (shard, key, field), for the message if it turns out to be damaged.
    """

    def __init__(self, image: Image, data: bytes, limits: Limits, place: tuple[str, str, str]) -> None:
        self.size, self.place = image.size, place
        self._image: Image | None = image
        self._data, self._limits = data, limits

    def decoded(self) -> Image:
        """Returns the whole image in RGB, as `decode_image` does.

        Raises:
            SampleError: If it is damaged.
        """
        return self._decode(1)

    def coarse(self, factor: int) -> tuple[Image, int]:
        """Returns the image in RGB at 1/f of its size and f, the largest of 8, 4, 2, 1 that is at most ``factor``.

        The last column and row stand for the rest where f does not divide the size.

        Raises:
            SampleError: If it is damaged.
        """
        scale = next((scale for scale in _SCALES if scale <= factor and scale <= min(self.size)), 1)
        return self._decode(scale), scale

    def _decode(self, scale: int) -> Image:
        try:
            with image_errors():
                image, self._image = self._image or open_image(self._data, self._limits), None
                if scale > 1:
                    image.draft(image.mode, (self.size[0] // scale, self.size[1] // scale))
                image.load()
                return to_rgb(image)
        except DataError as error:
            raise SampleError(*self.place, str(error)) from error


def encoded_image(data: bytes, place: tuple[str, str, str], limits: Limits = DEFAULT_LIMITS) -> Image | EncodedImage:
    """Opens an image for a random view: an upright JPEG in colour or grey is left encoded, any other image is decoded.

    Raises:
        DataError: With the reason, if the header is damaged or claims too many pixels; the caller adds the place.
    """
    with image_errors():
        image = open_image(data, limits)
        if image.format == "JPEG" and image.mode in ("RGB", "L") and image.getexif().get(ORIENTATION, 1) == 1:
            return EncodedImage(image, data, limits, place)
        return upright_rgb(image)
