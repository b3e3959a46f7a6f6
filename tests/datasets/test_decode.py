import io
import json
import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from modalign.datasets.decoding.sample import Sample, decode_sample
from modalign.datasets.decoding.table import Limits, decode_image, decode_member
from modalign.datasets.shards.shard_set import RawSample
from modalign.zoo.errors import DataError


def stored(image, kind="PNG", **settings):
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


def bomb(width, height):
    """A PNG that claims a size: its header only, so that decoding it would fail for another reason."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_formats(kind):
    image = decode_image(stored(Image.new("RGB", (20, 10), (200, 30, 90)), kind))
    assert image.mode == "RGB" and image.size == (20, 10)
    assert np.abs(np.asarray(image)[5, 5].astype(int) - [200, 30, 90]).max() <= 4


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGBA", (2, 2), (255, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (255, 0, 0, 128)), (255, 127, 127)),
        (Image.new("LA", (2, 2), (0, 0)), (255, 255, 255)),
        (Image.new("L", (2, 2), 77), (77, 77, 77)),
        (Image.new("1", (2, 2), 1), (255, 255, 255)),
        (Image.fromarray(np.full((2, 2), 0x8012, dtype=np.uint16)), (128, 128, 128)),
        (Image.new("RGB", (2, 2), (1, 250, 3)).convert("P", palette=Image.Palette.ADAPTIVE), (1, 250, 3)),
    ],
)
def test_modes_become_rgb_by_rule(image, expected):
    assert decode_image(stored(image)).getpixel((1, 1)) == expected


def test_palette_with_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    decoded = decode_image(stored(image, transparency=0))
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (200, 100, 50)]


def test_cmyk():
    decoded = decode_image(stored(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    red, green, blue = decoded.getpixel((4, 4))
    assert red > 240 and green < 15 and blue < 15


def test_orientation_is_applied():
    image = Image.new("RGB", (30, 10), "white")
    image.paste((255, 0, 0), (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate a quarter to the right
    decoded = decode_image(stored(image, "JPEG", exif=exif, quality=95))
    assert decoded.size == (10, 30)
    assert decoded.getpixel((5, 3))[1] < 60 and decoded.getpixel((5, 25))[1] > 200


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_animation_gives_its_first_frame(kind):
    frames = [Image.new("RGB", (6, 6), color) for color in ("red", "blue")]
    decoded = decode_image(stored(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True))
    assert decoded.getpixel((3, 3))[0] > 240 and decoded.getpixel((3, 3))[2] < 15


@pytest.mark.parametrize("size", [(1, 1), (2000, 20), (1, 100)])
def test_extreme_sizes(size):
    assert decode_image(stored(Image.new("RGB", size))).size == size


@pytest.mark.parametrize("size", [(20000, 1), (1, 20000), (2001, 20)])
def test_threads_of_pixels_are_refused(size):
    """Resizing their shorter side to 224 pixels would take gigabytes."""
    with pytest.raises(DataError, match="one side is more than 100 times the other"):
        decode_image(stored(Image.new("RGB", size)))


@pytest.mark.parametrize("size", [(9000, 9000), (13000, 13000), (60000, 60000)])
@pytest.mark.filterwarnings("error")
def test_bombs_are_refused_from_the_header(size):
    with pytest.raises(DataError, match=r"pixels, more than the limit|cannot be decoded"):
        decode_image(bomb(*size))
    with pytest.raises(DataError, match="4x4 pixels, more than the limit of 15"):
        decode_image(stored(Image.new("RGB", (4, 4))), Limits(pixels=15))


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_truncated_images_are_errors(kind, lenient, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)  # other libraries set it; we are not fooled
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = stored(noise, kind)
    for part in (0.0, 0.01, 0.3, 0.7, 0.95):
        with pytest.raises(DataError):
            decode_image(data[: int(len(data) * part)])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient


def test_other_formats_are_not_opened():
    with pytest.raises(DataError, match="not a JPEG, PNG or WebP"):
        decode_image(stored(Image.new("RGB", (4, 4)), "GIF"))
    with pytest.raises(DataError, match="0 bytes"):
        decode_image(b"")


class Marker:
    ran = False

    def __reduce__(self):
        return (setattr, (Marker, "ran", True))


@pytest.mark.parametrize("ext", ["pyd", "pkl", "pickle", "pth", "pt", "0.pkl"])
def test_pickles_are_refused(ext):
    with pytest.raises(DataError, match="can run code"):
        decode_member(ext, pickle.dumps(Marker()))
    stream = io.BytesIO()
    np.save(stream, np.array([Marker()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="holds Python objects"):
        decode_member("npy", stream.getvalue())
    assert not Marker.ran


def test_arrays():
    stream = io.BytesIO()
    np.save(stream, np.arange(12.0).reshape(3, 4))
    data = stream.getvalue()
    assert (decode_member("npy", data) == np.arange(12.0).reshape(3, 4)).all()
    for bad in (data[:-1], data + b"0", b"", data.replace(b"(3, 4)", b"(9, 4)")):
        with pytest.raises(DataError, match="npy"):
            decode_member("npy", bad)
    with pytest.raises(DataError, match="limit 10"):
        decode_member("npy", data, Limits(array_bytes=10))


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_audio(kind):
    import soundfile

    wave = (np.sin(np.arange(4000) / 20) * 0.5).astype(np.float32)
    stream = io.BytesIO()
    soundfile.write(stream, np.stack([wave, -wave], 1), 16000, format=kind.upper())
    values, rate = decode_member(kind, stream.getvalue())
    assert rate == 16000 and values.shape == (4000, 2) and values.dtype == np.float32
    assert np.abs(values[:, 0] - wave).max() < 1e-4
    with pytest.raises(DataError, match=r"4000 frames x 2 channels \(limit 100"):
        decode_member(kind, stream.getvalue(), Limits(audio_values=100))
    with pytest.raises(DataError, match="recording"):
        decode_member(kind, stream.getvalue()[:30])


def test_text_json_and_unknown():
    assert decode_member("txt", "Straße 猫".encode()) == "Straße 猫"
    assert decode_member("json", b'{"a": [1]}') == {"a": [1]}
    assert decode_member("bin", b"\x00\xff") == b"\x00\xff"
    with pytest.raises(DataError, match=r"not UTF-8 \(byte 1\)"):
        decode_member("txt", b"a\xff")
    for bad in (b"{", b"[" * 100_000, b"\xff"):
        with pytest.raises(DataError):
            decode_member("json", bad)


def raw(**members):
    return RawSample("k", "s/000000.tar", 0, {name.replace("_", "."): data for name, data in members.items()})


def test_several_images_in_order(png):
    members = {f"{n}.png": png(n) for n in (10, 2, 0)}
    sample = decode_sample(RawSample("k", "s", 0, members))
    assert [image.getpixel((0, 0))[0] for image in sample.images] == [0, 2, 10]


def test_a_mask_is_not_one_of_the_images(png):
    sample = decode_sample(RawSample("k", "s", 0, {"png": png(1), "seg.png": png(2)}))
    assert len(sample.images) == 1 and sample.extras["seg.png"].getpixel((0, 0))[0] == 2


def test_plain_webdataset_samples():
    assert decode_sample(raw(txt=b"hello")).captions == {"und": ["hello"]}
    assert decode_sample(raw(txt=b"hello", json=b'{"label": 3}')) == Sample("k", [], {"und": ["hello"]}, {"label": 3})
    assert decode_sample(raw(json=b"[1, 2]", cls=b"7")).extras == {"cls": b"7"}


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"{", "json"),
        (json.dumps({"captions": 3}).encode(), "json"),
        (json.dumps({"captions": ["x", 3]}).encode(), "json"),
        (json.dumps({"captions": ["x", "\ud800"]}).encode(), "json"),
        (json.dumps({"captions": {"en": "x"}}).encode(), "json"),
    ],
)
def test_errors_name_shard_sample_and_field(content, field):
    with pytest.raises(DataError, match=rf"^s/000000\.tar: sample 'k', field '{field}': "):
        decode_sample(raw(json=content))
