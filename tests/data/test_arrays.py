"""Pixels in arrays: npz, safetensors and IDX files."""

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from patchmi.data import SourceInvalid, load_labelled, load_public, splits_of
from patchmi.errors import UnsafeInput

pytestmark = pytest.mark.usefixtures("offline")

GREY, COLOUR = (1, 8, 8), (3, 8, 8)


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def write_npz(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "data.npz", **arrays)
    return str(folder / "data.npz")


def write_safetensors(folder: Path, *, metadata: dict[str, str] | None = None, **arrays: Any) -> str:
    tensors = {name: torch.as_tensor(array).contiguous() for name, array in arrays.items()}
    save_file(tensors, folder / "data.safetensors", metadata)
    return str(folder / "data.safetensors")


both_kinds = pytest.mark.parametrize("write", [write_npz, write_safetensors])
Write = Callable[..., str]


def refused_in_one_line(path: str, words: str) -> None:
    with pytest.raises(SourceInvalid, match=words) as refused:
        load_labelled(path, image_shape=GREY)
    assert "\n" not in str(refused.value)
    assert path in str(refused.value)


def as_bytes(images: torch.Tensor) -> np.ndarray:
    return (images * 255).round().byte().numpy()


# What is read


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 8, 8, 1), (4, 8, 8, 3), (4, 1, 8, 8), (4, 3, 8, 8)])
@both_kinds
def test_images_and_labels_are_read_and_classes_named_by_their_numbers(tmp_path, shape, write):
    path = write(tmp_path, images=pixels(*shape), labels=np.array([2, 0, 0, 2]))
    found = load_labelled(path, image_shape=GREY)
    assert found.labels.tolist() == [2, 0, 0, 2]
    assert found.class_names == ("0", "1", "2")
    assert "classes without an image: 1" in found.notes
    assert splits_of(path) == ("train",)


@both_kinds
def test_colour_comes_through_whichever_axis_it_stands_on(tmp_path, write):
    images = pixels(4, 8, 8, 3)
    for given in (images, images.transpose(0, 3, 1, 2)):
        found = load_public(write(tmp_path, images=given), image_shape=COLOUR, count=4)
        assert np.array_equal(as_bytes(found.images), images.transpose(0, 3, 1, 2))


def test_of_two_readings_each_kind_has_its_own(tmp_path):
    """Images of 3×3 pixels in three channels: npz has channels last, as pictures have, safetensors first."""
    images = pixels(4, 3, 3, 3)
    last = load_public(write_npz(tmp_path, images=images), image_shape=(3, 3, 3), count=4)
    assert np.array_equal(as_bytes(last.images), images.transpose(0, 3, 1, 2))
    first = load_public(write_safetensors(tmp_path, images=images), image_shape=(3, 3, 3), count=4)
    assert np.array_equal(as_bytes(first.images), images)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@both_kinds
def test_floats_from_0_to_1_are_read_at_8_bits(tmp_path, kind, write):
    images = pixels(4, 8, 8)
    path = write(tmp_path, images=(images / 255).astype(kind), labels=[0, 0, 1, 1])
    assert np.array_equal(as_bytes(load_labelled(path, image_shape=GREY).images)[:, 0], images)


def test_bfloat16_is_read(tmp_path):
    path = write_safetensors(
        tmp_path, images=torch.tensor([0, 0.5, 1], dtype=torch.bfloat16).reshape(3, 1, 1, 1)
    )
    assert as_bytes(load_public(path, image_shape=(1, 1, 1), count=3).images).ravel().tolist() == [
        0,
        128,
        255,
    ]


def test_arrays_stored_by_columns_and_big_endian_are_read(tmp_path):
    images = pixels(4, 8, 8)
    path = write_npz(tmp_path, images=np.asfortranarray(images), labels=np.array([0, 1, 1, 0], ">i8"))
    found = load_labelled(path, image_shape=GREY)
    assert np.array_equal(as_bytes(found.images)[:, 0], images)
    assert found.labels.tolist() == [0, 1, 1, 0]
    (tmp_path / "data.npz").unlink()
    floats = (images / 255).astype(">f4")
    found = load_public(write_npz(tmp_path, images=floats), image_shape=GREY, count=4)
    assert np.array_equal(as_bytes(found.images)[:, 0], images)


def test_compressed_npz_is_read(tmp_path):
    np.savez_compressed(tmp_path / "data.npz", images=pixels(4, 8, 8))
    assert len(load_public(str(tmp_path / "data.npz"), image_shape=GREY, count=9).images) == 4


def test_reconstructions_as_runs_write_them_are_read_with_their_class_names(tmp_path):
    metadata = {"class_names": json.dumps(["null", "eins\n", "zwei"]), "patchmi_version": "9"}
    images = pixels(3, 1, 8, 8)
    path = write_safetensors(tmp_path, images=images, labels=[2, 1, 2], seeds=[0, 0, 1], metadata=metadata)
    found = load_labelled(path, image_shape=GREY)
    assert found.class_names == ("null", "eins\\n", "zwei")
    assert found.labels.tolist() == [2, 1, 2]
    assert np.array_equal(as_bytes(found.images), images)


# Ranges


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0, 255, r"float pixels from 0 to 255; save images / 255, or uint8"),
        (-1, 1, r"float pixels from -1 to 1; save \(images \+ 1\) / 2"),
        (-2.5, 2.5, "undo the normalisation"),
        (0, np.nan, "NaN or infinite pixels; replace them"),
        (0, np.inf, "NaN or infinite pixels; replace them"),
    ],
)
@both_kinds
def test_floats_of_another_range_are_refused_with_the_remedy(tmp_path, low, high, words, write):
    images = np.full((4, 8, 8), low, np.float32)
    images[3, 5, 5] = high
    refused_in_one_line(write(tmp_path, images=images, labels=[0, 0, 1, 1]), words)


@both_kinds
def test_the_remedies_work(tmp_path, write):
    images = pixels(4, 8, 8)
    normalised = images / 127.5 - 1
    for mended in (images.astype(np.float32) / 255, ((normalised + 1) / 2).astype(np.float32)):
        found = load_public(write(tmp_path, images=mended), image_shape=GREY, count=4)
        assert np.array_equal(as_bytes(found.images)[:, 0], images)


@pytest.mark.parametrize("kind", [np.int64, np.uint16, np.bool_, np.int8])
@both_kinds
def test_other_numbers_are_refused(tmp_path, kind, write):
    refused_in_one_line(
        write(tmp_path, images=np.ones((4, 8, 8), kind), labels=[0] * 4), r"give uint8, or floats in \[0, 1\]"
    )


# Other kinds


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": pixels(4, 64), "labels": [0] * 4}, r"shape \(4, 64\)"),
        ({"images": pixels(4, 2, 8, 8), "labels": [0] * 4}, r"N×H×W×3"),
        ({"images": pixels(4, 8, 8, 2), "labels": [0] * 4}, r"N×H×W×3"),
        ({"images": pixels(4, 0, 8), "labels": [0] * 4}, "give images of 1 to"),
        (
            {"labels": [0] * 4, "faces": pixels(4, 8, 8)},
            "`images`, but faces, labels|`images`, but labels, faces",
        ),
        ({"images": pixels(4, 8, 8)}, "no labels"),
        ({"images": pixels(4, 8, 8), "labels": [0, 1]}, "each of the 4 images"),
        ({"images": pixels(4, 8, 8), "labels": [[0], [1], [0], [1]]}, "each of the 4 images"),
        ({"images": pixels(4, 8, 8), "labels": [-1, 0, 1, 1]}, "from 0"),
        ({"images": pixels(4, 8, 8), "labels": [0, 0, 0, 2**40]}, "label of image 3 is 1099511627776"),
        ({"images": pixels(4, 8, 8), "labels": [0.5, 0, 1, 1]}, "whole number"),
        ({"images": pixels(0, 8, 8), "labels": np.zeros(0, int)}, "no image"),
    ],
)
@both_kinds
def test_a_file_of_another_kind_is_refused_in_one_line(tmp_path, arrays, words, write):
    refused_in_one_line(write(tmp_path, **arrays), words)


def test_labels_that_are_names_are_refused_in_an_npz_file(tmp_path):
    refused_in_one_line(write_npz(tmp_path, images=pixels(2, 8, 8), labels=["cat", "dog"]), "whole number")


@pytest.mark.parametrize("names", ["{", '{"a": 1}', "[1, 2]", '["a"]'])
def test_class_names_that_do_not_fit_are_refused(tmp_path, names):
    path = write_safetensors(
        tmp_path, images=pixels(2, 1, 8, 8), labels=[0, 1], metadata={"class_names": names}
    )
    refused_in_one_line(path, "cannot be read|the label of image 1 is 1; give whole numbers from 0 to 0")


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.mark,)


@pytest.mark.parametrize("name", ["images", "labels"])
def test_an_npz_file_is_never_unpickled(tmp_path, name):
    bombs = np.empty(4, dtype=object)
    bombs[:] = [Bomb(tmp_path / "exploded")] * 4
    arrays = {"images": pixels(4, 8, 8), "labels": np.zeros(4, int)} | {name: bombs}
    with pytest.raises(UnsafeInput, match=f"data.npz: `{name}` holds Python objects, which run code"):
        load_labelled(write_npz(tmp_path, **arrays), image_shape=GREY)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("suffix", [".npy", ".pkl", ".pickle", ".pt", ".pth", ".joblib", ".bin"])
def test_a_file_that_may_run_code_is_not_opened(tmp_path, suffix):
    (tmp_path / f"images{suffix}").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(UnsafeInput, match="could run code when it is opened; save npz or safetensors"):
        load_labelled(str(tmp_path / f"images{suffix}"), image_shape=GREY)


# Damage


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"garbage", lambda data: data[:200]])
@both_kinds
def test_a_damaged_file_is_refused_in_one_line(tmp_path, damage, write):
    path = Path(write(tmp_path, images=pixels(4, 8, 8), labels=[0] * 4))
    path.write_bytes(damage(path.read_bytes()))
    refused_in_one_line(str(path), "cannot be read")


def test_a_single_array_under_the_name_of_an_archive_is_refused_in_one_line(tmp_path):
    with (tmp_path / "data.npz").open("wb") as file:
        np.save(file, pixels(4, 8, 8))
    refused_in_one_line(str(tmp_path / "data.npz"), "cannot be read")


def test_a_header_that_promises_more_than_there_is_takes_no_memory(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**4, 10**4)}
    )
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(100))
    refused_in_one_line(str(tmp_path / "data.npz"), "not as long as its shape")


def test_an_archive_with_a_password_is_refused_in_one_line(tmp_path):
    path = Path(write_npz(tmp_path, images=pixels(4, 8, 8), labels=[0] * 4))
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(mark) + place] |= 1
    path.write_bytes(data)
    refused_in_one_line(str(path), "cannot be read")


# IDX


def idx(array: np.ndarray) -> bytes:
    """As the page of MNIST has it: two zeros, 8 for bytes, the number of sizes, the sizes, the bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(
    folder: Path, *, beginning: str = "train-", labels: list[int] | None, packed: bool = True
) -> Path:
    """A pair of IDX files of eight images; returns the path of the images."""
    folder.mkdir(exist_ok=True)
    ending, pack = (".gz", gzip.compress) if packed else ("", bytes)
    if labels is not None:
        path = folder / f"{beginning}labels-idx1-ubyte{ending}"
        path.write_bytes(pack(idx(np.array(labels, np.uint8))))
    path = folder / f"{beginning}images-idx3-ubyte{ending}"
    path.write_bytes(pack(idx(pixels(8, 8, 8))))
    return path


LABELS = [3, 0, 1, 1, 0, 3, 1, 0]


@pytest.mark.parametrize("packed", [True, False])
def test_the_files_of_mnist_are_read_from_their_folder(tmp_path, packed):
    write_idx(tmp_path, labels=LABELS, packed=packed)
    write_idx(tmp_path, beginning="t10k-", labels=[4] * 8, packed=packed)
    assert splits_of(str(tmp_path)) == ("train", "test")
    train = load_labelled(str(tmp_path), image_shape=GREY)
    assert train.labels.tolist() == LABELS
    assert train.class_names == tuple("01234")
    assert np.array_equal(as_bytes(train.images)[:, 0], pixels(8, 8, 8))
    test = load_labelled(str(tmp_path), image_shape=GREY, split="test")
    assert test.labels.tolist() == [4] * 8
    assert test.class_names == tuple("01234")


def test_a_path_to_the_images_finds_the_labels_beside_it(tmp_path):
    path = write_idx(tmp_path, labels=LABELS)
    assert splits_of(str(path)) == ("train",)
    assert load_labelled(str(path), image_shape=GREY).labels.tolist() == LABELS


def test_names_with_dots_and_labels_packed_otherwise_than_the_images_are_found(tmp_path):
    (tmp_path / "train-images.idx3-ubyte").write_bytes(idx(pixels(8, 8, 8)))
    (tmp_path / "train-labels.idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.array(LABELS, np.uint8))))
    assert load_labelled(str(tmp_path), image_shape=GREY).labels.tolist() == LABELS


def test_images_without_labels_are_public_only(tmp_path):
    path = write_idx(tmp_path, labels=None)
    assert len(load_public(str(path), image_shape=GREY, count=9).images) == 8
    refused_in_one_line(str(path), r"no file train-labels-idx1-ubyte beside it")


def test_labels_that_are_a_link_out_of_the_folder_are_not_read(tmp_path):
    write_idx(tmp_path / "given", labels=None)
    outside = write_idx(tmp_path / "outside", labels=LABELS)
    name = "train-labels-idx1-ubyte.gz"
    (tmp_path / "given" / name).symlink_to(outside.with_name(name))
    refused_in_one_line(str(tmp_path / "given"), "no labels found")


def test_two_files_of_one_split_are_refused(tmp_path):
    for name in ("letters", "digits"):
        write_idx(tmp_path, beginning=f"emnist-{name}-train-", labels=LABELS)
    refused_in_one_line(str(tmp_path), "are both train; give one of them")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\x08\x03",
        b"\0\0\x0d\x03" + idx(pixels(8, 8, 8))[4:],
        idx(pixels(8, 8)),
        idx(pixels(8, 8, 8))[:-1],
        idx(pixels(8, 8, 8)) + b"\0",
        struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1),
        struct.pack(">HBB3I", 0, 8, 3, 2**20, 2**7, 2**7) + bytes(1000),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_damaged_idx_file_is_refused_in_one_line(tmp_path, data, packed):
    path = write_idx(tmp_path, labels=LABELS, packed=packed)
    path.write_bytes(gzip.compress(data) if packed else data)
    refused_in_one_line(str(path), "cannot be read")


def test_a_damaged_packing_is_refused_in_one_line(tmp_path):
    path = write_idx(tmp_path, labels=LABELS)
    path.write_bytes(path.read_bytes()[:-20])
    refused_in_one_line(str(path), "cannot be read")


def test_labels_of_another_number_than_the_images_are_refused(tmp_path):
    refused_in_one_line(str(write_idx(tmp_path, labels=LABELS[:-1])), "each of the 8 images")
