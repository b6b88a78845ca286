"""Names that come with images: in which order they stand, which split they mean, how they are printed."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation", "t10k"),
}
"""Every usual split, with the words that mean it in names of files and folders."""

JOINERS = "\u200c\u200d"
"""Invisible characters that some scripts need."""

_SPLIT_OF_WORD = {word: split for split, words in SPLITS.items() for word in words}


def natural_order(name: str) -> tuple[tuple[str | int, ...], str]:
    """Key that sorts `2` before `10`, and otherwise as people read, whatever the case."""
    pieces = re.split(r"(\d+)", name)
    return tuple(int(piece) if odd % 2 else piece.casefold() for odd, piece in enumerate(pieces)), name


def split_named(word: str) -> str | None:
    """The split that a whole word means, if it means one: `val` is `validation`."""
    return _SPLIT_OF_WORD.get(word.casefold())


def split_within(text: str) -> str | None:
    """The split that one of the words in a file's name means: `my-test.part2` is `test`."""
    words = re.split(r"[^0-9a-z]+", text.casefold())
    return next((split for word in words if (split := split_named(word))), None)


def in_order(splits: Iterable[str]) -> list[str]:
    """Splits in the order train, validation, test, then all others by name."""
    usual = list(SPLITS)
    return sorted(
        splits, key=lambda split: (usual.index(split) if split in usual else 3, natural_order(split))
    )


def printable(text: str) -> str:
    r"""A name on one line, composed; what would break it or hide in it is written as `\n` or `\u202e`."""
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in JOINERS
        else character
        for character in unicodedata.normalize("NFC", text)
    )


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(printable(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


def images_were(count: int) -> str:
    """Subject and verb of a sentence on so many images."""
    return "1 image was" if count == 1 else f"{count:,} images were"
