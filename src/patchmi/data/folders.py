"""Folders of image files: a folder for each class, perhaps within a folder for each split, or none at all."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np

from patchmi.data.contents import Contents, SourceInvalid, Splits
from patchmi.data.names import in_order, listed, natural_order, printable, split_named

IMAGE_SUFFIXES = frozenset(
    ".bmp .gif .jfif .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)


@dataclass(frozen=True)
class Listing:
    """What lies in a folder, as paths within it, in natural order.

    Attributes:
        root: The folder.
        files: Regular files, and links to such within bounds.
        folders: Folders, empty ones too.
        ignored: Hidden things, links to folders, links that lead out of bounds, sockets and the like.
    """

    root: Path
    files: tuple[Path, ...]
    folders: tuple[Path, ...]
    ignored: tuple[Path, ...]


def list_folder(root: Path, *, bounds: Path) -> Listing:
    """All that lies in a folder and in its sub-folders.

    Args:
        root: The folder.
        bounds: The folder that links may lead into.

    Raises:
        SourceInvalid: If a folder cannot be opened.
    """
    bounds = bounds.resolve()
    files, folders, ignored = [], [], []
    for place, folder_names, file_names in os.walk(root, onerror=_refuse):
        inner = [name for name in folder_names if not (_is_hidden(name) or Path(place, name).is_symlink())]
        ignored += [Path(place, name) for name in folder_names if name not in inner]
        folders += [Path(place, name) for name in inner]
        folder_names[:] = inner  # only these are walked into
        for name in file_names:
            path = Path(place, name)
            leads_out = path.is_symlink() and not path.resolve().is_relative_to(bounds)
            is_taken = path.is_file() and not leads_out and not _is_hidden(name)
            (files if is_taken else ignored).append(path)
    return Listing(root, *(_within(root, paths) for paths in (files, folders, ignored)))


def image_folder(listing: Listing) -> Splits:
    """The splits of a folder of image files.

    If all its sub-folders are named like splits, these are its splits; else it has the split `train` alone.

    Raises:
        SourceInvalid: If it holds no image, or its layout has two readings.
    """
    root = listing.root
    top = [folder.name for folder in listing.folders if len(folder.parts) == 1]
    images = [path for path in listing.files if path.suffix.lower() in IMAGE_SUFFIXES]
    others = [path for path in listing.files if path.suffix.lower() not in IMAGE_SUFFIXES]
    ignored = [*listing.ignored, *others]
    if not images:
        passed_over = f"; ignored: {listed([*map(str, ignored)])}" if ignored else ""
        raise SourceInvalid(
            f"{root}: holds no image file{passed_over}; try a folder of class folders with PNG or JPEG files"
        )
    split_folders = [name for name in top if split_named(name)]
    if not split_folders or len(split_folders) < len(top):
        _refuse_mixture(listing, [name for name in split_folders if split_named(name) == "train"])
        return {"train": partial(_open, root, Path(), listing.folders, tuple(images), tuple(ignored))}
    parts: dict[str, Path] = {}
    for name in split_folders:
        split = split_named(name) or name
        if split in parts:
            raise SourceInvalid(f"{root}: folders {parts[split]} and {name} mean the same split; join them")
        parts[split] = Path(name)
    ignored += [path for path in images if len(path.parts) == 1]
    return {
        split: partial(_open, root, parts[split], listing.folders, tuple(images), tuple(ignored))
        for split in in_order(parts)
    }


def _open(
    root: Path, part: Path, folders: tuple[Path, ...], images: tuple[Path, ...], ignored: tuple[Path, ...]
) -> Contents:
    """The images below `part`, each of the class whose folder there it lies in."""
    depth = len(part.parts)
    class_folders = [folder for folder in folders if len(folder.parts) == depth + 1]
    # Classes are those of all splits, or a class that one split lacks would shift the numbers of the next.
    names = sorted({printable(folder.name) for folder in class_folders}, key=natural_order)
    numbers = {name: number for number, name in enumerate(names)}
    mine = [path for path in images if path.is_relative_to(part)]
    labels = np.array(
        [numbers[printable(path.parts[depth])] if len(path.parts) > depth + 1 else -1 for path in mine], int
    )
    notes = [f"ignored: {listed([*map(str, ignored)])}"] if ignored else []
    here = [folder for folder in class_folders if folder.parent == part]
    empty = [folder for folder in here if numbers[printable(folder.name)] not in labels]
    unlabelled = ""
    if not here:
        unlabelled = (
            f"{root / part}: no labels found; give a folder of class folders, parquet with `label`, or npz"
        )
    elif empty:
        unlabelled = f"{root / empty[0]}: a class folder without image; add images or remove the folder"
    elif len(here) == 1 and all(len(path.parts) > depth + 2 for path in mine):
        unlabelled = f"{root / here[0]}: a single folder of folders; if those are the classes, give this path"
    return Contents(
        len(mine),
        partial(_fetch, root, mine),
        labels if names else None,
        tuple(names),
        unlabelled,
        tuple(notes),
    )


def _fetch(root: Path, paths: Sequence[Path], numbers: Sequence[int]) -> Iterator[tuple[str, Path]]:
    for number in numbers:
        yield str(paths[number]), root / paths[number]


def _refuse_mixture(listing: Listing, train_folders: Sequence[str]) -> None:
    """Refuse a folder `train` of folders beside others: a class or a split?"""
    for name in train_folders:
        if any(folder.parts[0] == name and len(folder.parts) > 1 for folder in listing.folders):
            raise SourceInvalid(
                f"{listing.root}: {name} could be a split or a class; leave only splits or only classes there"
            )


def _within(root: Path, paths: Sequence[Path]) -> tuple[Path, ...]:
    inner = [path.relative_to(root) for path in paths]
    return tuple(sorted(inner, key=lambda path: [natural_order(part) for part in path.parts]))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _refuse(error: OSError) -> NoReturn:
    raise SourceInvalid(f"{error.filename}: cannot be opened ({error.strerror}); check its permissions")
