"""What an inspection says of sources whose every pixel is known."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from patchmi.data import (
    SourceInvalid,
    contact_sheet,
    inspect_source,
    load_public,
    strokes,
    write_pngs,
)

pytestmark = pytest.mark.usefixtures("offline")


def save(
    path: Path, level: int | tuple[int, ...], *, mode: str = "L", size: tuple[int, int] = (8, 6)
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, level).save(path)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Three classes of 3, 2 and no readable images, with a copy, a contradiction and a text."""
    folder = tmp_path / "mixed"
    save(folder / "train" / "2" / "a.png", 51)
    save(folder / "train" / "2" / "b.png", 51)
    save(folder / "train" / "2" / "c.png", 102, size=(4, 4))
    save(folder / "train" / "10" / "a.png", (255, 0, 0), mode="RGB")
    save(folder / "train" / "10" / "b.png", 51)
    save(folder / "test" / "11" / "a.png", 9)
    (folder / "train" / "10" / "text.png").write_text("no picture")
    (folder / "README.md").touch()
    return folder


def test_everything_is_counted(mixed):
    found = inspect_source(str(mixed))
    assert (found.source, found.split, found.splits) == (str(mixed), "train", ("train", "test"))
    assert found.count == 5
    assert found.class_counts == (("2", 3), ("10", 2), ("11", 0))
    assert found.sizes == (((6, 8), 4), ((4, 4), 1))
    assert found.modes == (("L", 4), ("RGB", 1))
    assert [str(one) for one in found.broken] == ["train/10/text.png (no image)"]
    # 3 × 48 values of .2, 16 of .4, 48 of 1 and 96 of 0
    values = np.array([0.2] * 144 + [0.4] * 16 + [1.0] * 48 + [0.0] * 96)
    assert found.pixel_range == (0, 1)
    assert found.pixel_mean == pytest.approx(values.mean())
    assert found.pixel_std == pytest.approx(values.std())


def test_copies_and_contradictions_are_found(mixed):
    found = inspect_source(str(mixed))
    assert found.duplicates == (
        ("train/2/b.png", "train/2/a.png"),
        ("train/10/b.png", "train/2/a.png"),
    ) or found.duplicates == (
        ("train/2/a.png", "train/10/b.png"),
        ("train/2/b.png", "train/10/b.png"),
    )
    assert any("found in another class too, equal in every pixel" in note for note in found.notes)


def test_images_of_one_colour_but_other_sizes_or_kinds_are_no_copies(tmp_path):
    save(tmp_path / "0.png", 9, size=(8, 2))
    save(tmp_path / "1.png", 9, size=(2, 8))
    save(tmp_path / "2.png", 9, size=(4, 4))
    save(tmp_path / "3.png", (9, 9, 9), mode="RGB", size=(4, 4))
    assert inspect_source(str(tmp_path)).duplicates == ()


def test_notes_say_what_was_passed_over_and_adapted(mixed):
    save(mixed / "train" / "2" / "d.png", (1, 2, 3, 4), mode="RGBA")
    notes = inspect_source(str(mixed)).notes
    assert "ignored: README.md" in notes
    assert "1 image was laid on black where transparent" in notes
    assert "1 image was left out, unreadable: train/10/text.png (no image)" in notes


def test_a_source_without_labels_is_inspected_and_the_reason_noted(tmp_path):
    for number in range(3):
        save(tmp_path / f"{number}.png", number)
    found = inspect_source(str(tmp_path))
    assert (found.count, found.class_counts) == (3, ())
    assert any("no labels found" in note for note in found.notes)
    assert [len(group) for group in found.samples] == [3]


def test_another_split_is_inspected_on_demand_and_a_missing_one_refused(mixed):
    assert inspect_source(str(mixed), split="test").class_counts == (("2", 0), ("10", 0), ("11", 1))
    with pytest.raises(SourceInvalid, match="no split 'validation', but train, test"):
        inspect_source(str(mixed), split="validation")


def test_too_many_broken_images_are_refused_where_that_is_asked(mixed):
    with pytest.raises(SourceInvalid, match="1 of 6 images cannot be read, more than 10 %"):
        inspect_source(str(mixed), max_bad_share=0.1)


def test_a_source_of_broken_images_alone_is_inspected(tmp_path):
    (tmp_path / "0.png").touch()
    found = inspect_source(str(tmp_path))
    assert (found.count, found.pixel_range, found.pixel_mean, found.pixel_std) == (0, (0, 0), 0, 0)
    assert contact_sheet(found).size == (640, 64)


@pytest.mark.parametrize("source", ["strokes", "glyphs", "leaves"])
def test_some_of_what_is_drawn_by_rule_is_inspected_unless_a_path_has_its_name(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = inspect_source(source)
    assert (found.count, found.sizes, found.duplicates) == (200, (((32, 32), 200),), ())
    assert found.modes == (("RGB" if source == "leaves" else "L", 200),)
    write_pngs(strokes(3, image_size=8), tmp_path / source)
    assert inspect_source(source).count == 3


# The contact sheet


def test_a_row_shows_the_first_ten_of_a_class_behind_its_name(tmp_path):
    for name, level in (("dark", 40), ("light", 200)):
        for number in range(12):
            save(tmp_path / name / f"{number}.png", level + number, size=(32, 32))
    sheet = contact_sheet(inspect_source(str(tmp_path)))
    assert sheet.size == (160 + 10 * 64, 2 * 64)
    tiles = np.asarray(sheet)[32::64, 160 + 32 :: 64, 0]
    assert tiles.tolist() == [list(range(40, 50)), list(range(200, 210))]
    for row in range(2):
        name = np.asarray(sheet.convert("L"))[row * 64 : (row + 1) * 64, :160]
        assert 20 < (name < 128).sum() < 2000
    assert not np.array_equal(np.asarray(sheet)[:64, :160], np.asarray(sheet)[64:, :160])


def test_images_keep_their_proportions_and_stand_in_the_middle_of_their_tile(tmp_path):
    save(tmp_path / "0.png", 0, size=(100, 50))
    sheet = np.asarray(contact_sheet(inspect_source(str(tmp_path))).convert("L"))
    rows, columns = np.nonzero(sheet == 0)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 47, 0, 63)


def test_without_classes_rows_are_filled_one_after_the_other(tmp_path):
    for number in range(23):
        save(tmp_path / f"{number}.png", number, size=(4, 4))
    sheet = contact_sheet(inspect_source(str(tmp_path)))
    assert sheet.size == (640, 3 * 64)
    assert np.asarray(sheet)[32::64, 32::64, 0].ravel()[:23].tolist() == list(range(23))


def test_a_sheet_has_at_most_a_hundred_rows(tmp_path):
    for number in range(103):
        save(tmp_path / str(number) / "0.png", number)
    sheet = contact_sheet(inspect_source(str(tmp_path)))
    assert sheet.height == 100 * 64
    sheet.save(io.BytesIO(), "PNG")


# PNG files


@pytest.mark.parametrize("channel_count", [1, 3])
@pytest.mark.parametrize("side", [1, 8])
def test_images_written_as_png_files_are_read_back_to_the_same_bytes(tmp_path, channel_count, side):
    images = torch.rand(12, channel_count, side, side, generator=torch.Generator().manual_seed(0))
    write_pngs(images, tmp_path / "new" / "folder")
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert names == [f"{number:06}.png" for number in range(12)]
    found = load_public(str(tmp_path / "new" / "folder"), image_shape=(channel_count, side, side), count=12)
    assert torch.equal((found.images * 255).round(), (images * 255).round())
