"""Data sets of a hub, by name: the only source that is fetched over the network."""

import re
from pathlib import Path

from patchmi.data.contents import SourceInvalid, short_reason
from patchmi.data.folders import IMAGE_SUFFIXES

PREFIX = "hub:"

_NAME = re.compile(r"hub:(?P<repository>\w[\w.-]*/\w[\w.-]*)(/(?P<folder>[^@*?\[\]]+))?(@(?P<revision>.+))?")


def fetch_hub(source: str) -> tuple[Path, Path]:
    """Download what can be read of a data set, or find it in the hub's cache.

    Files of images and of parquet are fetched, and nothing else.

    Args:
        source: `hub:OWNER/NAME`, then perhaps `/FOLDER` for a part of it and `@REVISION` for a version.

    Returns:
        The folder, in or below one named by the revision, and the folder that its links may lead into.

    Raises:
        SourceInvalid: If the name is no such name, or nothing can be fetched.
    """
    match = _NAME.fullmatch(source)
    if not match or ".." in source.split("/"):
        raise SourceInvalid(f"{source}: no name of a data set; write hub:OWNER/NAME[/FOLDER][@REVISION]")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise SourceInvalid(f"{source}: fetching needs a package: pip install 'patchmi[hub]'") from None
    folder = match["folder"] or ""
    suffixes = [*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES), ".parquet"]
    beginning = f"{folder}/" if folder else ""
    try:
        snapshot = snapshot_download(
            match["repository"],
            repo_type="dataset",
            revision=match["revision"],
            allow_patterns=[f"{beginning}*{suffix}" for suffix in suffixes],
        )
    except Exception as error:  # noqa: BLE001 - the library's errors and those of its network libraries
        raise SourceInvalid(
            f"{source}: cannot be fetched ({short_reason(error)}); check the name, network and access"
        ) from None
    if not Path(snapshot, folder).is_dir():
        raise SourceInvalid(
            f"{source}: holds no file of images or parquet there; check the name of the folder"
        )
    return Path(snapshot, folder), Path(snapshot).parents[1]
