"""Thousands of damaged files: each is read, passed over, or refused by one of two typed errors."""

import gzip
import io
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from patchmi.data import SourceInvalid, load_labelled
from patchmi.data.contents import Broken
from patchmi.data.pictures import decode
from patchmi.errors import UnsafeInput

pytestmark = pytest.mark.usefixtures("offline")

RANDOM = np.random.default_rng(7)
COLOUR = Image.fromarray(RANDOM.integers(0, 256, (7, 6, 3), dtype=np.uint8))
GREY = Image.fromarray(RANDOM.integers(0, 256, (7, 6), dtype=np.uint8))
DEEP = Image.fromarray(RANDOM.integers(0, 2**16, (7, 6), dtype=np.uint16))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif() -> Image.Exif:
    orientation = Image.Exif()
    orientation[274] = 6
    return orientation


PICTURES = {
    "png": encoded(COLOUR, "PNG"),
    "png, palette and alpha": encoded(COLOUR.convert("P"), "PNG", transparency=3),
    "png, 16 bits": encoded(DEEP, "PNG"),
    "png, animated": encoded(GREY, "PNG", save_all=True, append_images=[COLOUR.convert("L")]),
    "jpeg": encoded(COLOUR, "JPEG", exif=exif()),
    "jpeg, progressive": encoded(COLOUR, "JPEG", progressive=True),
    "gif, animated": encoded(GREY, "GIF", save_all=True, append_images=[COLOUR, GREY]),
    "bmp": encoded(COLOUR, "BMP"),
    "webp": encoded(COLOUR, "WEBP", exif=exif()),
    "webp, lossless": encoded(COLOUR.convert("RGBA"), "WEBP", lossless=True),
    "tiff": encoded(COLOUR, "TIFF", exif=exif()),
    "tiff, packed": encoded(DEEP, "TIFF", compression="tiff_lzw"),
    "tiff, pages": encoded(GREY, "TIFF", save_all=True, append_images=[COLOUR]),
    "ppm": encoded(COLOUR, "PPM"),
}


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """One to eight bytes flipped, a piece cut out, put in or doubled, or the end cut off."""
    for _ in range(random.integers(1, 4)):
        start, end = sorted(random.integers(0, len(data) + 1, 2).tolist())
        match random.integers(0, 6):
            case 0 | 1:
                damaged = np.frombuffer(data, np.uint8).copy()
                places = random.integers(0, max(len(data), 1), random.integers(1, 9))
                damaged[places[places < len(data)]] ^= np.uint8(random.integers(1, 256))
                data = damaged.tobytes()
            case 2:
                data = data[:start]
            case 3:
                data = data[:start] + random.bytes(int(random.integers(1, 20))) + data[start:]
            case 4:
                data = data[:start] + data[min(end, start + 30) :]
            case 5:
                data = data[:end] + data[start:]
    return data


@pytest.mark.parametrize("kind", PICTURES)
def test_500_damaged_pictures_are_read_or_broken_and_nothing_is_said(kind, capfd):
    random = np.random.default_rng(1)
    outcomes = Counter()
    for _ in range(500 // len(PICTURES) + 1):
        data = mutated(PICTURES[kind], random)
        start = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            picture = decode(kind, data)
        assert time.perf_counter() - start < 2, kind
        assert caught == [], kind
        outcomes[type(picture)] += 1
        if isinstance(picture, Broken):
            assert len(picture.reason.splitlines()) == 1
        else:
            assert picture.image.mode in ("L", "RGB")
    assert outcomes[Broken] > 5
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "" or "tiff" in kind  # libtiff says by itself what it finds


def parquet(*, compression: str, version: str) -> bytes:
    file = io.BytesIO()
    rows = [{"bytes": PICTURES["png"], "path": "a.png"}, {"bytes": PICTURES["bmp"], "path": None}]
    table = pa.table({"image": rows * 2, "label": [0, 1, 1, 0], "name": ["a", "b", None, "d"]})
    pq.write_table(table, file, compression=compression, data_page_version=version)
    return file.getvalue()


def npz(*, packed: bool) -> bytes:
    file = io.BytesIO()
    write = np.savez_compressed if packed else np.savez
    write(file, images=RANDOM.integers(0, 256, (4, 3, 3), dtype=np.uint8), labels=np.array([0, 1, 1, 0]))
    return file.getvalue()


def idx() -> bytes:
    return b"\0\0\x08\x03\0\0\0\4\0\0\0\3\0\0\0\3" + RANDOM.bytes(36)


TENSORS = {"images": torch.rand(4, 1, 3, 3), "labels": torch.tensor([0, 1, 1, 0])}
FILES = {
    "a.parquet": [
        parquet(compression=compression, version=version)
        for compression in ("none", "snappy", "zstd", "gzip")
        for version in ("1.0", "2.0")
    ],
    "a.npz": [npz(packed=True), npz(packed=False)],
    "a.safetensors": [save(TENSORS, {"class_names": '["a", "b"]'}), save(TENSORS)],
    "train-images-idx3-ubyte": [idx()],
    "train-images-idx3-ubyte.gz": [gzip.compress(idx())],
}


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("a.parquet", 1000),
        ("a.npz", 500),
        ("a.safetensors", 500),
        ("train-images-idx3-ubyte", 200),
        ("train-images-idx3-ubyte.gz", 200),
    ],
)
def test_damaged_files_are_read_or_refused_by_a_typed_error(tmp_path, name, count, capfd):
    random = np.random.default_rng(2)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\4\0\1\1\0")
    path = tmp_path / name
    seeds = FILES[name]
    outcomes = Counter(outcome_of(path, mutated(seeds[n % len(seeds)], random)) for n in range(count))
    assert outcomes.total() == count
    assert outcomes["refused"] > count / 2
    assert capfd.readouterr() == ("", "")


def outcome_of(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    start = time.perf_counter()
    found, refusal = None, ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = load_labelled(str(path), image_shape=(3, 4, 4), max_bad_share=1.0)
    except (SourceInvalid, UnsafeInput) as error:
        refusal = str(error)
    assert time.perf_counter() - start < 2
    if found is None:
        assert str(path) in refusal
        assert len(refusal.splitlines()) == 1
        return "refused"
    assert ((found.images >= 0) & (found.images <= 1)).all()
    assert found.images.shape == (len(found.labels), 3, 4, 4)
    assert found.labels.min() >= 0
    assert found.labels.max() < len(found.class_names)
    return "read"


@pytest.mark.parametrize("name", FILES)
def test_the_seeds_themselves_are_read(tmp_path, name):
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\4\0\1\1\0")
    assert {outcome_of(tmp_path / name, data) for data in FILES[name]} == {"read"}


@pytest.mark.parametrize("kind", PICTURES)
def test_the_pictures_themselves_are_read(kind):
    assert not isinstance(decode(kind, PICTURES[kind]), Broken)
