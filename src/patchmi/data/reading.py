"""Open any source, and walk through its pictures, each decoded once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from patchmi.data.arrays import array_contents, npz_file, safetensors_file
from patchmi.data.contents import Broken, Contents, SourceInvalid, Splits
from patchmi.data.folders import image_folder, list_folder
from patchmi.data.hub import PREFIX, fetch_hub
from patchmi.data.idx import idx_file, idx_folder, is_idx_images
from patchmi.data.names import images_were, listed
from patchmi.data.pictures import Picture, decode
from patchmi.data.procedural import PROCEDURAL
from patchmi.data.tables import parquet_file, parquet_folder
from patchmi.errors import UnsafeInput

FILES = {".npz": npz_file, ".safetensors": safetensors_file, ".parquet": parquet_file}
"""How single files are read, by their endings."""

PICKLES = frozenset([".npy", ".pickle", ".pkl", ".joblib", ".pt", ".pth", ".bin", ".ckpt"])
"""Endings of files that may run code when they are opened."""

DRAWN_COUNT, DRAWN_SIDE = 200, 32
"""How many images of a procedural source are opened, and their side in pixels."""


def open_source(source: str) -> Splits:
    """The splits of a source by name, nothing of them decoded.

    Args:
        source: A path, a hub's data set, or a procedural source where no path has its name.

    Raises:
        SourceInvalid: If there is no such source, or it is of no known kind.
        UnsafeInput: If the file could run code when it is opened.
    """
    if source.startswith(PREFIX):
        folder, bounds = fetch_hub(source)
        note = f"fetched {source}, revision {folder.relative_to(bounds).parts[1]}"
        splits = _open_folder(folder, bounds=bounds)
        return {split: partial(_noted, open_split, note) for split, open_split in splits.items()}
    path = Path(source)
    if not path.exists():
        if source in PROCEDURAL:
            return {"train": partial(_draw, source)}
        raise SourceInvalid(
            f"{source}: no such source; give {', '.join(PROCEDURAL)}, or a path that exists, "
            "or hub:OWNER/NAME"
        )
    if path.is_dir():
        return _open_folder(path, bounds=path)
    if is_idx_images(path):
        return idx_file(path)
    if path.suffix in PICKLES:
        raise UnsafeInput(f"{source}: could run code when it is opened; save npz or safetensors instead")
    if path.suffix not in FILES:
        raise SourceInvalid(
            f"{source}: not a folder and not {', '.join(FILES)} or IDX images; give one of these"
        )
    return FILES[path.suffix](path)


def take_split(source: str, splits: Splits, split: str) -> Contents:
    """One split of an opened source.

    Raises:
        SourceInvalid: If it has no such split, or cannot be read.
        UnsafeInput: If a file could run code when it is opened.
    """
    if split not in splits:
        raise SourceInvalid(f"{source}: has no split {split!r}, but {', '.join(splits)}")
    return splits[split]()


def walk(contents: Contents, numbers: Sequence[int]) -> Iterator[tuple[int, str, Picture | Broken]]:
    """Each of the pictures with its number and name, decoded or broken."""
    for number, (name, raw) in zip(numbers, contents.fetch(numbers), strict=True):
        yield number, name, decode(name, raw)


def check_broken(source: str, broken: Sequence[Broken], *, count: int, max_bad_share: float) -> list[str]:
    """A note on images that cannot be read, if they are few enough.

    Args:
        source: The source's name.
        broken: What cannot be read.
        count: How many images were tried.
        max_bad_share: The largest share of them that may be broken, in [0, 1].

    Raises:
        SourceInvalid: If more are broken.
    """
    if not broken:
        return []
    few = listed([*map(str, broken)])
    if len(broken) > max_bad_share * count:
        raise SourceInvalid(
            f"{source}: {len(broken):,} of {count:,} images cannot be read, more than "
            f"{100 * max_bad_share:.4g} %: {few}; repair or remove them"
        )
    return [f"{images_were(len(broken))} left out, unreadable: {few}"]


def _open_folder(root: Path, *, bounds: Path) -> Splits:
    listing = list_folder(root, bounds=bounds)
    if tables := [path for path in listing.files if path.suffix == ".parquet"]:
        others = [path for path in listing.files if path.suffix != ".parquet"]
        return _note_ignored(parquet_folder(root, tables), [*listing.ignored, *others])
    if any(is_idx_images(path) for path in listing.files):
        return _note_ignored(idx_folder([root / path for path in listing.files]), listing.ignored)
    return image_folder(listing)


def _note_ignored(splits: Splits, ignored: Sequence[Path]) -> Splits:
    if not ignored:
        return splits
    note = f"ignored: {listed([*map(str, ignored)])}"
    return {split: partial(_noted, open_split, note) for split, open_split in splits.items()}


def _draw(source: str) -> Contents:
    """A few images drawn by rule, to be looked at."""
    images = PROCEDURAL[source](DRAWN_COUNT, image_size=DRAWN_SIDE)
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    contents = array_contents(Path(source), pixels, None, without_labels="drawn by rule, it has none")
    return replace(contents, notes=(f"{DRAWN_COUNT} images were drawn by rule with seed 0",))


def _noted(open_split: Callable[[], Contents], note: str) -> Contents:
    contents = open_split()
    return replace(contents, notes=(note, *contents.notes))
