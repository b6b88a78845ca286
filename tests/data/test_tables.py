"""Parquet files: written by `datasets` as hubs have them, or by pyarrow as anybody may."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from patchmi.data import SourceInvalid, load_labelled, load_public, splits_of
from patchmi.data.tables import split_of
from patchmi.errors import UnsafeInput

pytestmark = pytest.mark.usefixtures("offline")

GREY = (1, 8, 8)


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), level).save(file, "PNG")
    return file.getvalue()


def levels(images: torch.Tensor) -> list[int]:
    assert all(len(image.unique()) == 1 for image in images)
    return (images[:, 0, 0, 0] * 255).round().int().tolist()


def write(path: Path, levels: list[int], *, row_group_size: int | None = None, **columns: Any) -> Path:
    """A table whose column `image` holds PNG files, as bytes or as hubs have them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": png(level), "path": f"{level}.png"} for level in levels]
    pq.write_table(pa.table({"image": rows, **columns}), path, row_group_size=row_group_size)
    return path


def hub_table(path: Path, labels: list[int], names: list[str], *, column: str = "label") -> Path:
    features = datasets.Features({"image": datasets.Image(), column: datasets.ClassLabel(names=names)})
    rows = {"image": [{"bytes": png(label), "path": None} for label in labels], column: labels}
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(SourceInvalid) as refused:
        load_labelled(str(path), image_shape=GREY)
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)
    return str(refused.value)


# Layouts


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00001.parquet", "train"),
        ("data/test-00003-of-00010-0123456789abcdef.parquet", "test"),
        ("data/val-00000-of-00001.parquet", "validation"),
        ("data/unsupervised-00000-of-00001.parquet", "unsupervised"),
        ("mnist/test/0000.parquet", "test"),
        ("test/train.parquet", "train"),
        ("my_test.parquet", "test"),
        ("0001.parquet", "train"),
        ("contest.parquet", "train"),
    ],
)
def test_a_file_s_split_is_told_by_its_name_or_its_folder(path, split):
    assert split_of(Path(path)) == split


def test_shards_are_joined_in_order_and_splits_kept_apart(tmp_path):
    for number in (10, 2, 1):
        write(tmp_path / "data" / f"train-{number:05}-of-00011.parquet", [number, number], label=[0, 1])
    write(tmp_path / "data" / "test-00000-of-00001.parquet", [99], label=[1])
    assert splits_of(str(tmp_path)) == ("train", "test")
    found = load_labelled(str(tmp_path), image_shape=GREY)
    assert levels(found.images) == [1, 1, 2, 2, 10, 10]
    assert found.labels.tolist() == [0, 1] * 3
    assert levels(load_labelled(str(tmp_path), image_shape=GREY, split="test").images) == [99]


def test_a_single_file_is_the_split_train_whatever_its_name(tmp_path):
    path = write(tmp_path / "test-00000-of-00001.parquet", [5, 6], label=[0, 1])
    assert splits_of(str(path)) == ("train",)
    assert levels(load_labelled(str(path), image_shape=GREY).images) == [5, 6]
    with pytest.raises(SourceInvalid, match="no split 'test', but train"):
        load_labelled(str(path), image_shape=GREY, split="test")


def test_a_folder_of_several_data_sets_is_refused_with_their_names(tmp_path):
    for name in ("small", "large"):
        write(tmp_path / name / "train" / "0000.parquet", [1, 2], label=[0, 1])
    assert "several data sets (large, small); give the path of one" in refusal(tmp_path)
    assert levels(load_labelled(str(tmp_path / "small"), image_shape=GREY).images) == [1, 2]


@pytest.mark.parametrize("row_group_size", [1, 7, 1000])
def test_chosen_rows_are_found_in_any_row_group(tmp_path, row_group_size):
    first, second = list(range(150)), list(range(150, 250))
    write(tmp_path / "a.parquet", first, row_group_size=row_group_size)
    write(tmp_path / "b.parquet", second, row_group_size=row_group_size)
    chosen = torch.randperm(250, generator=torch.Generator().manual_seed(3))[:40].sort().values.tolist()
    assert levels(load_public(str(tmp_path), image_shape=GREY, count=40, seed=3).images) == chosen
    assert levels(load_public(str(tmp_path), image_shape=GREY, count=999).images) == list(range(250))


# Columns


def test_classes_are_called_as_the_library_datasets_notes_it(tmp_path):
    path = hub_table(tmp_path / "train.parquet", [2, 0, 1], ["zebra", "ape", "10"])
    found = load_labelled(str(path), image_shape=GREY)
    assert found.class_names == ("zebra", "ape", "10")
    assert found.labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize("column", ["label", "labels", "fine_label", "class", "species"])
def test_the_column_of_labels_is_known_by_its_name_or_by_its_kind(tmp_path, column):
    path = hub_table(tmp_path / "train.parquet", [1, 0], ["a", "b"], column=column)
    assert load_labelled(str(path), image_shape=GREY).labels.tolist() == [1, 0]


def test_fine_labels_are_taken_rather_than_coarse_ones(tmp_path):
    path = write(tmp_path / "train.parquet", [1, 2], coarse_label=[0, 0], fine_label=[1, 0])
    assert load_labelled(str(path), image_shape=GREY).labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    "column",
    [
        ["10", "9", "cat", "9"],
        pa.array(["10", "9", "cat", "9"], pa.large_string()),
        pa.array(["10", "9", "cat", "9"]).dictionary_encode(),
    ],
)
def test_labels_may_be_names(tmp_path, column):
    found = load_labelled(
        str(write(tmp_path / "train.parquet", [1, 2, 3, 4], label=column)), image_shape=GREY
    )
    assert found.class_names == ("9", "10", "cat")
    assert found.labels.tolist() == [1, 0, 2, 0]


@pytest.mark.parametrize("labels", [["ant", "cat"], [0, 2]])
def test_classes_have_the_same_numbers_in_every_split(tmp_path, labels):
    write(tmp_path / "train.parquet", [1, 2], label=labels)
    write(tmp_path / "test.parquet", [3, 4], label=["bee", "cat"] if labels[0] == "ant" else [1, 2])
    test = load_labelled(str(tmp_path), image_shape=GREY, split="test")
    assert test.labels.tolist() == [1, 2]
    assert test.class_names == (("ant", "bee", "cat") if labels[0] == "ant" else ("0", "1", "2"))
    assert load_labelled(str(tmp_path), image_shape=GREY).labels.tolist() == [0, 2]


def test_a_test_split_whose_labels_are_withheld_does_not_spoil_the_others(tmp_path):
    hub_table(tmp_path / "train.parquet", [1, 0], ["a", "b"])
    write(tmp_path / "test.parquet", [3, 4])
    assert load_labelled(str(tmp_path), image_shape=GREY).labels.tolist() == [1, 0]
    with pytest.raises(SourceInvalid, match="no labels found"):
        load_labelled(str(tmp_path), image_shape=GREY, split="test")
    write(tmp_path / "test.parquet", [3, 4], label=[-1, -1])
    write(tmp_path / "train.parquet", [3, 4], label=[1, 0])
    assert load_labelled(str(tmp_path), image_shape=GREY).class_names == ("0", "1")
    with pytest.raises(SourceInvalid, match="the label of image 0 is -1"):
        load_labelled(str(tmp_path), image_shape=GREY, split="test")


@pytest.mark.parametrize("name", ["img", "picture", "anything"])
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_column_of_plain_bytes_is_one_of_images(tmp_path, name, kind):
    table = pa.table({"height": [8, 8], name: pa.array([png(5), png(6)], kind), "label": [0, 1]})
    pq.write_table(table, tmp_path / "train.parquet")
    assert levels(load_labelled(str(tmp_path), image_shape=GREY).images) == [5, 6]


def test_rows_without_a_label_are_left_out_and_counted(tmp_path):
    write(tmp_path / "train.parquet", [1, 2, 3], label=[0, None, 1])
    found = load_labelled(str(tmp_path), image_shape=GREY)
    assert (levels(found.images), found.labels.tolist()) == ([1, 3], [0, 1])
    assert "1 image was left out, without a class" in found.notes
    assert len(load_public(str(tmp_path), image_shape=GREY, count=9).images) == 3


def test_a_table_of_missing_labels_alone_is_refused(tmp_path):
    write(tmp_path / "train.parquet", [1, 2], label=pa.array([None, None], pa.int64()))
    assert "none of its 2 images has a class" in refusal(tmp_path)


# Broken cells and refused tables


def test_cells_without_an_image_are_broken(tmp_path):
    rows: list[dict[str, Any] | None] = [{"bytes": png(number), "path": None} for number in range(4)]
    rows[1], rows[2] = None, {"bytes": None, "path": str(tmp_path / "secret.png")}
    rows.append({"bytes": b"", "path": None})
    rows.append({"bytes": png(7)[:50], "path": None})
    Image.new("L", (8, 8), 222).save(tmp_path / "secret.png")
    pq.write_table(pa.table({"image": rows, "label": [0, 1, 0, 1, 0, 1]}), tmp_path / "train.parquet")
    with pytest.raises(SourceInvalid) as refused:
        load_labelled(str(tmp_path / "train.parquet"), image_shape=GREY)
    for words in (
        "4 of 6 images cannot be read",
        "row 1 (no bytes of an image)",
        "row 2 (no bytes of an image)",
        "row 4 (empty file)",
        "row 5 (",
    ):
        assert words in str(refused.value)
    found = load_labelled(str(tmp_path / "train.parquet"), image_shape=GREY, max_bad_share=0.7)
    assert (levels(found.images), found.labels.tolist()) == ([0, 3], [0, 1])


@pytest.mark.parametrize(
    "address",
    ["hf://datasets/some/thing/a.png", "https://example.org/a.png", "zip://a.png::https://example.org/a.zip"],
)
def test_an_image_that_a_table_names_elsewhere_is_not_fetched(tmp_path, address):
    rows = [{"bytes": None, "path": address}, {"bytes": png(5), "path": address}]
    pq.write_table(pa.table({"image": rows, "label": [0, 1]}), tmp_path / "train.parquet")
    with pytest.raises(SourceInvalid, match="row 0"):
        load_labelled(str(tmp_path / "train.parquet"), image_shape=GREY)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"label": [0, 2**40]}, "the label of image 1 is 1099511627776"),
        ({"label": [0, -1]}, "the label of image 1 is -1"),
        ({"label": pa.array([0, 2**63 + 5], pa.uint64())}, "the label of image 1 is 9223372036854775813"),
        ({"label": [0.0, 1.0]}, "no labels found"),
        ({"label": [[0], [1]]}, "no labels found"),
        ({"answer": [0, 1]}, "no column label, labels, fine_label, class of whole numbers or names"),
    ],
)
def test_labels_of_another_kind_are_refused_in_one_line(tmp_path, columns, words):
    assert words in refusal(write(tmp_path / "train.parquet", [1, 2], **columns))


def test_a_label_that_its_own_classes_do_not_have_is_refused(tmp_path):
    table = pq.read_table(hub_table(tmp_path / "train.parquet", [1, 0], ["a", "b"]))
    table = table.set_column(1, table.schema.field("label"), pa.array([0, 2]))
    pq.write_table(table, tmp_path / "train.parquet")
    message = refusal(tmp_path / "train.parquet")
    assert "the label of image 1 is 2; give whole numbers from 0 to 1" in message


@pytest.mark.parametrize(
    "table",
    [
        {"height": [1], "width": [2]},
        {"image": ["a.png"], "label": [0]},
        {"image": [[1, 2, 3]], "label": [0]},
        {"image": [{"path": "a.png"}], "label": [0]},
    ],
)
def test_a_table_without_a_column_of_images_is_refused_in_one_line(tmp_path, table):
    pq.write_table(pa.table(table), tmp_path / "train.parquet")
    assert f"no column of images among {', '.join(table)}" in refusal(tmp_path / "train.parquet")


def test_shards_of_different_kinds_are_refused(tmp_path):
    write(tmp_path / "a.parquet", [1], label=[0])
    write(tmp_path / "b.parquet", [1], kind=[0])
    assert f"{tmp_path}/b.parquet: has other columns than a.parquet" in refusal(tmp_path)
    hub_table(tmp_path / "a.parquet", [0, 1], ["a", "b"])
    hub_table(tmp_path / "b.parquet", [0, 1], ["b", "a"])
    assert f"{tmp_path}/b.parquet: has other classes than a.parquet" in refusal(tmp_path)


@pytest.mark.parametrize("noted", ["{", "[]", '{"info": 3}', '{"info": {"features": [1]}}'])
def test_nonsense_among_the_notes_of_a_table_does_no_harm_beyond_a_refusal(tmp_path, noted):
    table = pa.table({"image": [{"bytes": png(1), "path": ""}], "label": [0]})
    pq.write_table(table.replace_schema_metadata({"huggingface": noted}), tmp_path / "train.parquet")
    assert "cannot be read" in refusal(tmp_path / "train.parquet")


def test_class_names_that_are_no_names_are_refused(tmp_path):
    features = {"label": {"_type": "ClassLabel", "names": {"0": "a"}}}
    table = pa.table({"image": [{"bytes": png(1), "path": ""}], "label": [0]})
    noted = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(noted), tmp_path / "train.parquet")
    assert "no list of names" in refusal(tmp_path / "train.parquet")


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: b"PAR1", lambda data: data[:-20], lambda data: data[:-8] + b"\xff" * 8],
)
def test_a_corrupt_footer_is_refused_in_one_line(tmp_path, damage):
    path = write(tmp_path / "train.parquet", [1, 2], label=[0, 1])
    path.write_bytes(damage(path.read_bytes()))
    assert "cannot be read" in refusal(path)


def test_a_column_type_described_by_a_pickle_is_unsafe(tmp_path):
    class_that_makes_a_folder = b"cpathlib\nPath\n(V" + str(tmp_path / "exploded").encode() + b"\ntR."
    noted = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": class_that_makes_a_folder,
    }
    field = pa.field("label", pa.int64(), metadata=noted)
    image = pa.field("image", pa.binary())
    table = pa.table([pa.array([png(1)]), pa.array([0])], schema=pa.schema([image, field]))
    pq.write_table(table, tmp_path / "train.parquet")
    stored = pq.read_metadata(tmp_path / "train.parquet").metadata[b"ARROW:schema"]
    assert b"py_extension_type" in base64.b64decode(stored)
    with pytest.raises(UnsafeInput, match=r"train\.parquet: holds a column type that runs code"):
        load_labelled(str(tmp_path), image_shape=GREY)


def test_a_damaged_page_is_refused_in_one_line(tmp_path):
    path = write(tmp_path / "train.parquet", list(range(50)), label=[0, 1] * 25)
    data = bytearray(path.read_bytes())
    data[4:400] = np.random.default_rng(0).bytes(396)
    path.write_bytes(data)
    assert "cannot be read" in refusal(path)


# The library that hubs use reads the same


def test_the_library_datasets_reads_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_UPDATE_DOWNLOAD_COUNTS", False)
    random = np.random.default_rng(4)
    for split, count in (("train", 70), ("test", 30)):
        labels = random.integers(0, 5, count).tolist()
        hub_table(tmp_path / "data" / f"{split}-00000-of-00001.parquet", labels, list("vwxyz"))
    theirs = datasets.load_dataset("parquet", data_dir=str(tmp_path / "data"), keep_in_memory=True)
    assert set(theirs) == set(splits_of(str(tmp_path)))
    for split in theirs:
        ours = load_labelled(str(tmp_path), image_shape=GREY, split=str(split))
        assert ours.labels.tolist() == theirs[split]["label"][:]
        assert ours.class_names == tuple(theirs[split].features["label"].names)
        assert levels(ours.images) == [picture.getpixel((0, 0)) for picture in theirs[split]["image"]]
