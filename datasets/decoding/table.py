"""The decoder table: from the bytes of a member to a value, for bytes that nobody vouches for.

Nothing here can run code from data, and what a member claims about its size is read from its header before memory is spent.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from modalign.zoo.errors import DataError

from .media import MEDIA, suffix

if TYPE_CHECKING:
    from PIL.Image import Image

ORIENTATION = 0x0112  # the EXIF tag that says how the camera was held
PICKLES = frozenset({"pyd", "pkl", "pickle", "pth", "pt", "ckpt", "joblib", "dill"})


@dataclass(frozen=True)
class Limits:
    """How much a member may unpack to.

    Attributes:
        pixels: Width x height of one image.
        aspect: Longer side of one image to its shorter (resizing the shorter side of a thread of pixels would fill the memory).
        audio_values: Frames x channels of one recording.
        array_bytes: Bytes of one array.
    """

    pixels: int = 64_000_000
    aspect: float = 100.0
    audio_values: int = 200_000_000
    array_bytes: int = 1 << 30


DEFAULT_LIMITS = Limits()


def decode_member(ext: str, data: bytes, limits: Limits = DEFAULT_LIMITS) -> Any:
    """Decodes one member by its extension.

    Args:
        ext: Extension as stored, e.g. "jpg" or "0.jpg"; the part after the last dot decides.
        data: The member's bytes.
        limits: Caps on what it may unpack to.

    Returns:
        A PIL image in RGB, a string (txt), a JSON value, an array (npy), ``(float32 (frames, channels), sample rate)``
        (wav, flac), or the bytes themselves for an extension that is not known.

    Raises:
        DataError: With the reason; the caller adds shard, sample and field.
    """
    kind = suffix(ext)
    if kind in PICKLES:
        raise DataError(f"{kind!r} members can run code when they are loaded, so they are refused; store npy or json")
    decoder = _DECODERS.get(kind)
    return decoder(data, limits) if decoder else data


def decode_image(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Image:
    """Decodes a JPEG, PNG or WebP to an RGB image.

    Rules: EXIF orientation is applied; transparency is composited on white; 16-bit grey keeps its high byte; CMYK and
    palettes are converted; of an animation the first frame is taken; a truncated file is an error.

    Raises:
        DataError: If it is not such an image, is damaged, or has more pixels than allowed (read from its header).
    """
    with image_errors():
        return upright_rgb(open_image(data, limits))


def open_image(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Image:
    """Reads an image's header and checks the size it claims; no pixel is decoded. To be called under `image_errors`."""
    from PIL import Image

    if not data:
        raise DataError("the image has 0 bytes")
    image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP"))
    width, height = image.size
    if width * height > limits.pixels:
        raise DataError(f"the image is {width}x{height} pixels, more than the limit of {limits.pixels}")
    if max(width, height) > limits.aspect * min(width, height):
        raise DataError(f"the image is {width}x{height} pixels; one side is more than {limits.aspect:g} times the other")
    return image


def upright_rgb(image: Image) -> Image:
    """Decodes an opened image and applies the rules of `decode_image`. To be called under `image_errors`."""
    from PIL import ImageOps

    image.seek(0)
    image.load()
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    return to_rgb(image)


@contextmanager
def image_errors() -> Iterator[None]:
    """Turns whatever Pillow raises on bad input into one sentence, with Pillow as strict as we want it."""
    from PIL import UnidentifiedImageError

    try:
        with _strict_pil():
            yield
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError("not a JPEG, PNG or WebP image, or damaged") from error
    except Exception as error:  # Pillow's plugins raise many types on damaged input
        raise DataError(f"the image cannot be decoded ({error or type(error).__name__})") from error


def to_rgb(image: Image) -> Image:
    """Converts an image of any mode to RGB by the rules of `decode_image`."""
    from PIL import Image as pil

    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        image = pil.fromarray(np.clip(values / 256.0, 0, 255).astype(np.uint8))
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
        image = (image.convert(straight) if straight else image).convert("RGBA")
        white = pil.new("RGBA", image.size, (255, 255, 255, 255))
        image = pil.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


@contextmanager
def _strict_pil() -> Iterator[None]:
    """Our own pixel limit instead of Pillow's warning, and no grey filling of cut files, whatever the program has set."""
    from PIL import ImageFile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def decode_text(data: bytes, limits: Limits = DEFAULT_LIMITS) -> str:
    """Decodes strict UTF-8 text."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"the text is not UTF-8 (byte {error.start})") from error


def decode_json(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Any:
    """Decodes JSON in UTF-8."""
    try:
        return json.loads(decode_text(data))
    except (ValueError, RecursionError) as error:
        raise DataError(f"not valid JSON ({error})") from error


def decode_array(data: bytes, limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    """Decodes a .npy array; object arrays (pickles) are refused, and the header must agree with the number of bytes."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise DataError(f"npy version {version} is not read")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    except ValueError as error:
        raise DataError(f"not a npy array ({error})") from error
    if dtype.hasobject:
        raise DataError("the npy array holds Python objects (a pickle), which can run code; store numbers")
    expected, found = dtype.itemsize, len(data) - stream.tell()
    for length in shape:
        expected *= int(length)
    if expected != found or expected > limits.array_bytes:
        raise DataError(f"the npy header says {shape} {dtype} ({expected} bytes, limit {limits.array_bytes}), there are {found}")
    stream.seek(0)
    return np.load(stream, allow_pickle=False)


def decode_audio(data: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[np.ndarray, int]:
    """Decodes WAV or FLAC to float32 (frames, channels) and its sample rate in Hz."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            if sound.format not in ("WAV", "WAVEX", "FLAC", "RF64"):
                raise DataError(f"the recording is {sound.format}, not WAV or FLAC")
            frames, channels = sound.frames, sound.channels
            if frames <= 0 or frames * channels > limits.audio_values:
                raise DataError(f"the recording says {frames} frames x {channels} channels (limit {limits.audio_values} values)")
            values = sound.read(dtype="float32", always_2d=True)
            rate = sound.samplerate
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise DataError(f"the recording cannot be decoded ({error})") from error
    if len(values) != frames:
        raise DataError(f"the recording is cut off: {len(values)} of {frames} frames")
    return values, rate


_DECODERS: dict[str, Callable[[bytes, Limits], Any]] = {
    **dict.fromkeys(MEDIA["image"], decode_image),
    **dict.fromkeys(MEDIA["audio"], decode_audio),
    **dict.fromkeys(MEDIA["series"], decode_array),
    "txt": decode_text,
    "json": decode_json,
}
