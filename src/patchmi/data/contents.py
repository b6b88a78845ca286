"""What every kind of source comes down to: pictures to fetch one after the other, and their classes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchmi.data.names import printable
from patchmi.errors import UnsafeInput

MAX_CLASSES = 100_000
"""A label above is taken for a mistake: a number of something else."""


class SourceInvalid(ValueError):  # noqa: N818 - what it says, not that it is an error
    """A source of images that cannot be used: one line with the source and the remedy."""


@dataclass(frozen=True)
class Broken:
    """An image that cannot be read, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{printable(self.name)} ({self.reason})"


Raw = bytes | Path | np.ndarray | Broken
"""A picture before it is decoded: a file's bytes, a file, H×W or H×W×C pixels, or why there is none."""


@dataclass(frozen=True)
class Contents:
    """One split of a source, nothing of it decoded.

    Attributes:
        count: Number of pictures.
        fetch: Takes rising numbers of pictures and yields each one's name and data.
        labels: Each picture's class, -1 where it has none; int64, as long as `count`.
        class_names: The classes' names, the same in every split.
        unlabelled: Why the pictures cannot be used with labels, and the remedy; empty if they can.
        notes: What was passed over, in sentences.
    """

    count: int
    fetch: Callable[[Sequence[int]], Iterator[tuple[str, Raw]]]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    unlabelled: str = ""
    notes: tuple[str, ...] = ()


Splits = Mapping[str, Callable[[], Contents]]
"""The splits of a source by name; each is opened when it is called."""


@contextmanager
def parsing(place: Path, remedy: str) -> Iterator[None]:
    """Turn whatever a library makes of a damaged file into one line that names the file."""
    try:
        yield
    except (SourceInvalid, UnsafeInput, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - parsers raise errors of many kinds for damaged files
        raise SourceInvalid(f"{place}: cannot be read ({short_reason(error)}); {remedy}") from None


def short_reason(error: Exception) -> str:
    """An error's text on one line of at most 100 characters; its kind where it has no text."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= 100 else f"{line[:99]}…"


def check_labels(
    place: Path, labels: Sequence[int | None] | np.ndarray, *, class_count: int = MAX_CLASSES
) -> None:
    """Refuse labels that name no class.

    Args:
        place: The file they come from.
        labels: Whole numbers of any size; None where there is none.
        class_count: Number of classes.
    """
    for number, label in enumerate(labels):
        if label is not None and not 0 <= label < class_count:
            raise SourceInvalid(
                f"{place}: the label of image {number} is {label}; give whole numbers from 0 to "
                f"{class_count - 1:,}"
            )


def numbered_classes(labels: np.ndarray) -> tuple[str, ...]:
    """Classes named by their numbers, from 0 to the largest label."""
    return tuple(str(label) for label in range(int(labels.astype(np.int64).max(initial=-1)) + 1))
