"""Folders as people have them: classes, splits, and all that lies about between them."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from patchmi.data import SourceInvalid, inspect_source, load_labelled, load_public, splits_of
from patchmi.data.names import natural_order, printable, split_within

pytestmark = pytest.mark.usefixtures("offline")

GREY = (1, 8, 8)


def save(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), level).save(path)


def levels(images: torch.Tensor) -> list[int]:
    assert all(len(image.unique()) == 1 for image in images)
    return (images[:, 0, 0, 0] * 255).round().int().tolist()


def refusal(path: Path, *, split: str = "train") -> str:
    with pytest.raises(SourceInvalid) as refused:
        load_labelled(str(path), image_shape=GREY, split=split)
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)
    return str(refused.value)


# Classes


def test_classes_and_images_stand_in_natural_order_and_the_map_is_noted(tmp_path):
    for number in (10, 2, 1, 0):
        for name in ("b10.png", "b9.png"):
            save(tmp_path / str(number) / name, 20 * number + (name == "b10.png"))
    found = load_labelled(str(tmp_path), image_shape=GREY)
    assert found.class_names == ("0", "1", "2", "10")
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert levels(found.images) == [0, 1, 20, 21, 40, 41, 200, 201]
    assert found.notes == ("4 classes: 0 = 0, 1 = 1, 2 = 2, 3 = 10",)


@pytest.mark.parametrize(
    ("mixed", "expected"),
    [
        (["10", "9", "1"], ["1", "9", "10"]),
        (["b2", "B1", "a10", "a9"], ["a9", "a10", "B1", "b2"]),
        (["x-2-10", "x-2-9", "x-1-11"], ["x-1-11", "x-2-9", "x-2-10"]),
        (["1", "01"], ["01", "1"]),
        (["é", "z", "e"], ["e", "z", "é"]),
        (["\u0661\u0660", "\u0662"], ["\u0662", "\u0661\u0660"]),  # Arabic-Indic 10 and 2
        (["²", "1"], ["1", "²"]),
    ],
)
def test_natural_order_by_hand(mixed, expected):
    assert sorted(mixed, key=natural_order) == expected


@given(st.lists(st.text(max_size=8)))
def test_natural_order_orders_any_names_and_never_ties(names):
    keys = [natural_order(name) for name in names]
    assert sorted(keys) == sorted(reversed(keys))
    assert len(set(keys)) == len(set(names))


@given(st.lists(st.integers(0, 10**20)))
def test_natural_order_of_numbers_is_theirs(numbers):
    assert [int(name) for name in sorted(map(str, numbers), key=natural_order)] == sorted(numbers)


def test_names_of_any_script_are_kept(tmp_path):
    names = ["кошка", "猫", "कुत्ता", "क्\u200dष", "ä", "a b", "it's 'so'", "<script>"]
    for level, name in enumerate(names):
        save(tmp_path / name / "0.png", level)
    found = load_labelled(str(tmp_path), image_shape=GREY)
    assert sorted(found.class_names) == sorted(names)
    shown = dict(zip([found.class_names[label] for label in found.labels], levels(found.images), strict=True))
    assert shown == {name: level for level, name in enumerate(names)}


def test_names_that_would_break_a_line_or_cannot_be_decoded_are_written_out(tmp_path):
    save(tmp_path / "a\nb" / "0.png", 1)
    save(Path(os.fsdecode(os.fsencode(tmp_path) + b"/c\xff")) / "0.png", 2)
    save(tmp_path / "d\u202egpj" / "0.png", 3)
    found = load_labelled(str(tmp_path), image_shape=GREY)
    assert found.class_names == ("a\\nb", "c\\udcff", "d\\u202egpj")
    "".join((*found.class_names, *found.notes)).encode()


def test_a_name_composed_or_in_pieces_is_the_same_class_in_every_split(tmp_path):
    save(tmp_path / "train" / "caf\u00e9" / "0.png", 1)
    save(tmp_path / "test" / "cafe\u0301" / "0.png", 2)
    for split in ("train", "test"):
        assert load_labelled(str(tmp_path), image_shape=GREY, split=split).class_names == ("café",)


def test_a_thousand_classes_of_one_image_each(tmp_path):
    for number in range(1000):
        save(tmp_path / f"n{number}" / "only.png", number % 251)
    found = load_labelled(str(tmp_path), image_shape=GREY)
    assert found.labels.tolist() == list(range(1000))
    assert levels(found.images) == [number % 251 for number in range(1000)]
    assert found.notes == ("1,000 classes: 0 = n0, 1 = n1, 2 = n2, …, 999 = n999",)


def test_one_class_is_a_class(tmp_path):
    save(tmp_path / "only" / "0.png", 77)
    found = load_labelled(str(tmp_path), image_shape=GREY)
    assert (found.class_names, found.labels.tolist()) == (("only",), [0])
    assert found.notes == ("1 class: 0 = only",)


def test_images_in_folders_within_a_class_folder_belong_to_the_class(tmp_path):
    save(tmp_path / "cat" / "young" / "wild" / "0.png", 1)
    save(tmp_path / "cat" / "1.png", 2)
    save(tmp_path / "dog" / "0.png", 3)
    found = load_labelled(str(tmp_path), image_shape=GREY)
    assert sorted(zip(levels(found.images), found.labels.tolist(), strict=True)) == [(1, 0), (2, 0), (3, 1)]


def test_an_empty_class_folder_is_refused(tmp_path):
    save(tmp_path / "cat" / "0.png", 1)
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "notes.txt").touch()
    assert (
        refusal(tmp_path) == f"{tmp_path}/dog: a class folder without image; add images or remove the folder"
    )
    assert load_public(str(tmp_path), image_shape=GREY, count=5).images.shape[0] == 1


def test_a_folder_around_the_folder_of_classes_is_refused_with_the_path_to_give(tmp_path):
    save(tmp_path / "archive" / "cat" / "0.png", 1)
    save(tmp_path / "archive" / "dog" / "0.png", 2)
    assert f"{tmp_path}/archive: a single folder of folders" in refusal(tmp_path)
    assert load_labelled(f"{tmp_path}/archive", image_shape=GREY).class_names == ("cat", "dog")


def test_images_beside_the_class_folders_are_public_but_have_no_class(tmp_path):
    save(tmp_path / "cat" / "0.png", 1)
    save(tmp_path / "dog" / "0.png", 2)
    save(tmp_path / "overview.png", 99)
    found = load_labelled(str(tmp_path), image_shape=GREY)
    assert levels(found.images) == [1, 2]
    assert "1 image was left out, without a class" in found.notes
    assert sorted(levels(load_public(str(tmp_path), image_shape=GREY, count=9).images)) == [1, 2, 99]


# Splits


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (["train", "test"], ("train", "test")),
        (["test", "val", "train"], ("train", "validation", "test")),
        (["Training", "Testing"], ("train", "test")),
        (["validation", "test"], ("validation", "test")),
    ],
)
def test_sub_folders_named_like_splits_are_splits(tmp_path, folders, splits):
    for level, folder in enumerate(folders):
        save(tmp_path / folder / "cat" / "0.png", level)
        save(tmp_path / folder / "dog" / "0.png", 100 + level)
    assert splits_of(str(tmp_path)) == splits
    for level, folder in enumerate(folders):
        split = split_within(folder)
        assert split
        found = load_labelled(str(tmp_path), image_shape=GREY, split=split)
        assert levels(found.images) == [level, 100 + level]
        assert found.class_names == ("cat", "dog")


def test_classes_have_the_same_numbers_in_every_split(tmp_path):
    for name in ("ant", "bee", "cat"):
        save(tmp_path / "train" / name / "0.png", 1)
    save(tmp_path / "test" / "cat" / "0.png", 2)
    save(tmp_path / "test" / "dog" / "0.png", 3)
    test = load_labelled(str(tmp_path), image_shape=GREY, split="test")
    assert test.class_names == ("ant", "bee", "cat", "dog")
    assert test.labels.tolist() == [2, 3]
    assert "classes without an image: ant, bee" in test.notes
    assert load_labelled(str(tmp_path), image_shape=GREY).labels.tolist() == [0, 1, 2]


def test_public_images_are_those_of_the_training_split(tmp_path):
    save(tmp_path / "train" / "0.png", 1)
    save(tmp_path / "test" / "0.png", 2)
    assert levels(load_public(str(tmp_path), image_shape=GREY, count=9).images) == [1]
    assert "no labels found" in refusal(tmp_path)


def test_two_folders_of_one_split_are_refused(tmp_path):
    save(tmp_path / "val" / "cat" / "0.png", 1)
    save(tmp_path / "valid" / "cat" / "0.png", 2)
    assert "val and valid mean the same split" in refusal(tmp_path)


def test_a_folder_that_could_be_a_split_or_a_class_is_refused(tmp_path):
    save(tmp_path / "train" / "cat" / "0.png", 1)
    save(tmp_path / "extra" / "cat" / "0.png", 2)
    assert "train could be a split or a class" in refusal(tmp_path)


def test_a_class_called_train_among_other_vehicles_is_a_class(tmp_path):
    for level, name in enumerate(("bus", "car", "train")):
        save(tmp_path / name / "0.png", level)
    assert splits_of(str(tmp_path)) == ("train",)
    assert load_labelled(str(tmp_path), image_shape=GREY).class_names == ("bus", "car", "train")


def test_a_split_without_images_is_refused(tmp_path):
    save(tmp_path / "train" / "cat" / "0.png", 1)
    (tmp_path / "test" / "cat").mkdir(parents=True)
    assert refusal(tmp_path, split="test").startswith(f"{tmp_path}/test/cat: a class folder without image")


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("train-00000-of-00001", "train"),
        ("my_test", "test"),
        ("t10k", "test"),
        ("contest", None),
        ("strained", None),
        ("Dev.Set", "validation"),
        ("", None),
    ],
)
def test_a_split_is_a_whole_word_of_a_name(text, split):
    assert split_within(text) == split


# What lies about


def test_hidden_things_texts_and_metadata_are_passed_over_and_named(tmp_path):
    save(tmp_path / "cat" / "0.png", 1)
    save(tmp_path / "dog" / "0.png", 2)
    save(tmp_path / "cat" / ".hidden.png", 3)
    save(tmp_path / ".cache" / "0.png", 4)
    save(tmp_path / "__MACOSX" / "cat" / "0.png", 5)
    (tmp_path / "README.md").write_text("# Cats")
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"\0")
    (tmp_path / "metadata.csv").write_text("file_name,label\ncat/0.png,dog\n")
    found = load_labelled(str(tmp_path), image_shape=GREY)
    assert found.class_names == ("cat", "dog")
    assert levels(found.images) == [1, 2]
    (note,) = [note for note in found.notes if note.startswith("ignored: ")]
    named = inspect_source(str(tmp_path)).notes[0]
    assert note == named
    for name in (".cache", "__MACOSX", "cat/.hidden.png", "cat/Thumbs.db", "metadata.csv"):
        assert name in note
    assert note.endswith("and 1 more")


def test_images_beside_the_splits_are_passed_over_and_named(tmp_path):
    save(tmp_path / "train" / "cat" / "0.png", 1)
    save(tmp_path / "overview.png", 2)
    assert "ignored: overview.png" in load_labelled(str(tmp_path), image_shape=GREY).notes


def test_a_folder_of_other_files_is_refused_with_their_names(tmp_path):
    (tmp_path / "photo.heic").touch()
    (tmp_path / "a.npz").touch()
    message = refusal(tmp_path)
    assert "holds no image file; ignored: a.npz, photo.heic" in message
    assert "try a folder of class folders" in message


def test_links_that_lead_outside_are_passed_over_and_named(tmp_path):
    save(tmp_path / "elsewhere" / "secret.png", 222)
    save(tmp_path / "given" / "cat" / "0.png", 1)
    save(tmp_path / "given" / "dog" / "0.png", 2)
    (tmp_path / "given" / "dog" / "out.png").symlink_to(tmp_path / "elsewhere" / "secret.png")
    (tmp_path / "given" / "dog" / "up.png").symlink_to("../../elsewhere/secret.png")
    (tmp_path / "given" / "mouse").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "given" / "dog" / "nowhere.png").symlink_to("gone.png")
    found = load_labelled(str(tmp_path / "given"), image_shape=GREY)
    assert levels(found.images) == [1, 2]
    assert found.class_names == ("cat", "dog")
    assert "ignored: dog/nowhere.png, dog/out.png, dog/up.png, mouse" in found.notes
    assert levels(load_public(str(tmp_path / "given"), image_shape=GREY, count=9).images) == [1, 2]


def test_links_within_the_folder_are_followed_and_circles_are_not(tmp_path):
    save(tmp_path / "cat" / "0.png", 1)
    save(tmp_path / "dog" / "0.png", 2)
    (tmp_path / "dog" / "same.png").symlink_to("../cat/0.png")
    (tmp_path / "dog" / "circle").symlink_to(tmp_path)
    found = load_labelled(str(tmp_path), image_shape=GREY)
    assert (levels(found.images), found.labels.tolist()) == ([1, 2, 1], [0, 1, 1])


def test_a_link_to_the_folder_is_the_folder(tmp_path):
    save(tmp_path / "true" / "cat" / "0.png", 1)
    save(tmp_path / "true" / "dog" / "0.png", 2)
    (tmp_path / "link").symlink_to("true")
    assert levels(load_labelled(str(tmp_path / "link"), image_shape=GREY).images) == [1, 2]


def test_a_pipe_named_like_an_image_is_not_opened(tmp_path):
    save(tmp_path / "cat" / "0.png", 1)
    save(tmp_path / "dog" / "0.png", 2)
    os.mkfifo(tmp_path / "dog" / "1.png")
    found = load_labelled(str(tmp_path), image_shape=GREY)
    assert levels(found.images) == [1, 2]
    assert "ignored: dog/1.png" in found.notes


# Broken images


def folder_with_broken(folder: Path, *, good: int, broken: int) -> Path:
    for number in range(good):
        save(folder / ("cat" if number % 2 else "dog") / f"{number}.png", number % 200)
    for number in range(broken):
        (folder / "cat" / f"broken {number}.png").write_bytes(b"" if number % 2 else b"no picture")
    return folder


def test_few_broken_images_are_left_out_and_named(tmp_path):
    found = load_labelled(str(folder_with_broken(tmp_path, good=198, broken=2)), image_shape=GREY)
    assert len(found.images) == len(found.labels) == 198
    assert sorted(levels(found.images)) == sorted(number % 200 for number in range(198))
    assert (
        "2 images were left out, unreadable: cat/broken 0.png (no image), cat/broken 1.png (empty file)"
        in (found.notes)
    )
    for level, label in zip(levels(found.images), found.labels.tolist(), strict=True):
        assert found.class_names[label] == ("cat" if level % 2 else "dog")


def test_more_broken_images_than_allowed_are_refused_with_a_list(tmp_path):
    folder_with_broken(tmp_path, good=190, broken=10)
    message = refusal(tmp_path)
    assert "10 of 200 images cannot be read, more than 1 %: cat/broken 0.png (no image), " in message
    assert "and 5 more" in message
    for share, count in ((0.05, 190), (1.0, 190)):
        assert len(load_labelled(str(tmp_path), image_shape=GREY, max_bad_share=share).images) == count
    with pytest.raises(SourceInvalid, match=r"more than 4\.9 %"):
        load_public(str(tmp_path), image_shape=GREY, count=200, max_bad_share=0.049)
    public = load_public(str(tmp_path), image_shape=GREY, count=200, max_bad_share=0.05)
    assert len(public.images) == 190
    assert public.description == f"190 images of {tmp_path.name}"
    assert any(note.startswith("10 images were left out, unreadable") for note in public.notes)


def test_a_class_whose_images_are_all_broken_is_refused(tmp_path):
    folder_with_broken(tmp_path, good=400, broken=0)
    (tmp_path / "eel").mkdir()
    (tmp_path / "eel" / "0.png").touch()
    assert "no image of class eel can be read" in refusal(tmp_path)


def test_a_folder_of_broken_images_alone_is_refused_whatever_is_allowed(tmp_path):
    folder_with_broken(tmp_path, good=0, broken=0)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "0.png").touch()
    with pytest.raises(SourceInvalid, match="holds no image"):
        load_labelled(str(tmp_path), image_shape=GREY, max_bad_share=1.0)


# Notes and order


def test_a_source_much_too_dark_is_noted(tmp_path):
    for number in range(2):
        save(tmp_path / str(number) / "0.png", 15)
    assert any(
        "no pixel is brighter than 0.059" in note
        for note in (load_labelled(str(tmp_path), image_shape=GREY).notes)
    )
    save(tmp_path / "1" / "1.png", 80)
    assert not any("brighter" in note for note in load_labelled(str(tmp_path), image_shape=GREY).notes)


def test_no_picture_is_decoded_twice_and_of_public_ones_only_those_that_are_chosen(tmp_path, monkeypatch):
    folder_with_broken(tmp_path, good=40, broken=0)
    opened: list[str] = []
    open_image = Image.open

    def note(file, *rest, **options):
        opened.append(str(file))
        return open_image(file, *rest, **options)

    monkeypatch.setattr(Image, "open", note)
    load_labelled(str(tmp_path), image_shape=GREY)
    assert len(opened) == len(set(opened)) == 40
    opened.clear()
    load_public(str(tmp_path), image_shape=GREY, count=7)
    assert len(opened) == len(set(opened)) == 7


def test_the_order_of_the_file_system_does_not_matter(tmp_path, monkeypatch):
    folder_with_broken(tmp_path, good=30, broken=0)
    first = load_labelled(str(tmp_path), image_shape=GREY)
    scandir = os.scandir

    class Shuffled:
        """A listing in another order."""

        def __init__(self, *path) -> None:
            with scandir(*path) as entries:
                listed = list(entries)
            self.entries = iter(np.random.default_rng(1).permutation(np.array(listed, object)))

        def __iter__(self):
            return self.entries

        def __next__(self):
            return next(self.entries)

        def __enter__(self):
            return self

        def __exit__(self, *_) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(os, "scandir", Shuffled)
    again = load_labelled(str(tmp_path), image_shape=GREY)
    assert torch.equal(first.images, again.images)
    assert (first.class_names, first.notes) == (again.class_names, again.notes)


@given(st.text())
def test_a_printable_name_is_one_line_and_can_be_written(text):
    line = printable(text)
    assert len(line.splitlines()) <= 1
    line.encode()
