"""Look at a source before it is used: how many images, of which kinds, what is broken or there twice."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont, ImageOps

from patchmi.data.contents import Broken
from patchmi.data.names import images_were
from patchmi.data.pictures import Picture, Tally
from patchmi.data.reading import check_broken, open_source, take_split, walk

SHEET_COLUMNS = 10
"""Images of a class on a contact sheet; without classes, images of a row."""
SHEET_ROWS = 100
"""Rows of a contact sheet at most."""
TILE = 64
"""Side of an image on a contact sheet, in pixels."""
NAME_WIDTH = 160
"""Room for the name of a class on a contact sheet, in pixels."""


@dataclass(frozen=True)
class Inspection:
    """What one split of a source holds.

    Attributes:
        source: As it was asked for.
        split: Which part.
        splits: All parts.
        count: Readable images.
        class_counts: Names of classes by number, with readable images; empty without labels.
        sizes: Height and width in pixels, with images, the most frequent first.
        modes: Kinds of pixels in Pillow's words, such as `L`, `RGB` or `I;16`, with images.
        pixel_range: Darkest and brightest value, black 0 and white 1.
        pixel_mean: Mean of all values.
        pixel_std: Their standard deviation.
        duplicates: Images that equal an earlier one in size and every pixel, each with that one's name.
        broken: Images that cannot be read, and why.
        notes: What was passed over and adapted, in sentences.
        samples: Small copies of the first images of each class, or of all images if there are no classes.
    """

    source: str
    split: str
    splits: tuple[str, ...]
    count: int
    class_counts: tuple[tuple[str, int], ...]
    sizes: tuple[tuple[tuple[int, int], int], ...]
    modes: tuple[tuple[str, int], ...]
    pixel_range: tuple[float, float]
    pixel_mean: float
    pixel_std: float
    duplicates: tuple[tuple[str, str], ...]
    broken: tuple[Broken, ...]
    notes: tuple[str, ...]
    samples: tuple[tuple[Image.Image, ...], ...] = field(repr=False)


def inspect_source(source: str, *, split: str = "train", max_bad_share: float = 1.0) -> Inspection:
    """Read every image of a split once, and say what there is.

    Args:
        source: A path, a hub's data set, or `strokes`, `glyphs`, `leaves`, of which a few are drawn.
        split: Which part, where the source has parts.
        max_bad_share: Largest share of the images that may be unreadable.

    Raises:
        SourceInvalid: If there is no such source or split, or too much of it is broken.
        UnsafeInput: If a file could run code when it is opened.
    """
    splits = open_source(source)
    contents = take_split(source, splits, split)
    labels = [0] * contents.count if contents.labels is None else contents.labels.tolist()
    survey = _Survey(samples_of_each=SHEET_COLUMNS if contents.class_names else SHEET_COLUMNS * SHEET_ROWS)
    for number, name, picture in walk(contents, range(contents.count)):
        survey.add(name, labels[number], picture)
    left_out = check_broken(source, survey.broken, count=contents.count, max_bad_share=max_bad_share)
    pixel_range, pixel_mean, pixel_std = survey.pixel_statistics()
    unlabelled = [contents.unlabelled] if contents.unlabelled else []
    return Inspection(
        source=source,
        split=split,
        splits=tuple(splits),
        count=survey.tally.sizes.total(),
        class_counts=tuple((name, survey.labels[label]) for label, name in enumerate(contents.class_names)),
        sizes=tuple(survey.tally.sizes.most_common()),
        modes=tuple(survey.tally.modes.most_common()),
        pixel_range=pixel_range,
        pixel_mean=pixel_mean,
        pixel_std=pixel_std,
        duplicates=tuple(survey.duplicates),
        broken=tuple(survey.broken),
        notes=(*contents.notes, *unlabelled, *survey.notes(), *left_out),
        samples=tuple(tuple(survey.samples[label]) for label in range(max(len(contents.class_names), 1))),
    )


def contact_sheet(inspection: Inspection) -> Image.Image:
    """The first images of each class in a row behind its name; without classes, rows of the first images.

    At most 100 rows of 10 images, each fitted into 64×64 pixels.
    """
    rows = list(zip((name for name, _ in inspection.class_counts), inspection.samples, strict=False))
    left = NAME_WIDTH if rows else 0
    if not rows:
        (samples,) = inspection.samples
        starts = range(0, len(samples), SHEET_COLUMNS)
        rows = [("", samples[start : start + SHEET_COLUMNS]) for start in starts]
    rows = rows[:SHEET_ROWS]
    sheet = Image.new("RGB", (left + SHEET_COLUMNS * TILE, max(len(rows), 1) * TILE), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.truetype(str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), 14)
    for row, (name, samples) in enumerate(rows):
        pen.text((8, row * TILE + TILE // 2), name[:18], fill="black", font=font, anchor="lm")
        for column, image in enumerate(samples):
            middle = [(TILE - side) // 2 for side in image.size]
            sheet.paste(image, (left + column * TILE + middle[0], row * TILE + middle[1]))
    return sheet


@dataclass
class _Survey:
    """What has been seen so far; pixel values are from 0 to 255."""

    samples_of_each: int
    tally: Tally = field(default_factory=Tally)
    labels: Counter[int] = field(default_factory=Counter)
    broken: list[Broken] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    samples: defaultdict[int, list[Image.Image]] = field(default_factory=lambda: defaultdict(list))
    value_counts: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    first_of: dict[bytes, tuple[str, int]] = field(default_factory=dict)
    contradiction_count: int = 0

    def add(self, name: str, label: int, picture: Picture | Broken) -> None:
        """Take note of one more picture."""
        if isinstance(picture, Broken):
            self.broken.append(picture)
            return
        image = picture.image
        self.tally.add(picture)
        self.labels[label] += 1
        self.value_counts += np.reshape(image.histogram(), (-1, 256)).sum(axis=0)
        digest = blake2b(f"{image.mode} {image.size}".encode() + image.tobytes(), digest_size=16).digest()
        first_name, first_label = self.first_of.setdefault(digest, (name, label))
        if first_name != name:
            self.duplicates.append((name, first_name))
            self.contradiction_count += label != first_label
        if len(self.samples[label]) < self.samples_of_each:
            self.samples[label].append(ImageOps.contain(image.convert("RGB"), (TILE, TILE)))

    def pixel_statistics(self) -> tuple[tuple[float, float], float, float]:
        """Range, mean and standard deviation of all values, black 0 and white 1; zeros if there are none."""
        values = np.flatnonzero(self.value_counts) / 255
        if not len(values):
            return (0.0, 0.0), 0.0, 0.0
        weights = self.value_counts[self.value_counts > 0]
        mean = np.average(values, weights=weights)
        variance = np.average((values - mean) ** 2, weights=weights)
        return (float(values[0]), float(values[-1])), float(mean), float(variance**0.5)

    def notes(self) -> list[str]:
        """What was adapted and what contradicts itself, in sentences."""
        notes = self.tally.notes()
        if self.contradiction_count:
            notes.append(
                f"{images_were(self.contradiction_count)} found in another class too, equal in every pixel"
            )
        return notes
