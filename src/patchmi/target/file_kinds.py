"""What a model file is, judged by its content before any library is asked to open it."""

import re
import zipfile
from pathlib import Path
from typing import Literal

from patchmi.errors import UnsafeInput
from patchmi.target.reading import TargetInvalid, in_one_line, listed

FileKind = Literal["safetensors", "state dict", "TorchScript", "torch.export", "ONNX"]

REMEDY = (
    "where the model was trained, save model.state_dict() with safetensors.torch.save_file, "
    "and give that file with --architecture"
)
"""What to do instead of giving a pickle."""

_UNSAFE_BEGINNINGS = (
    (rb"\x80[\x01-\x05]", "a pickle"),
    (
        rb"\x1f\x8b|BZh|\xfd7zXZ|\x04\x22\x4d\x18|x[\x01\x5e\x9c\xda]",
        "a compressed file, as joblib writes pickles",
    ),
    (rb"\x93NUMPY", "a NumPy file, which may hold pickles"),
    (rb".{257}ustar", "a tar archive, as torch wrote pickles long ago"),
)
_PICKLE_SUFFIXES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".tar"}
# What torch.save writes today, letter for letter: readers of zip files differ in what they make of the rest.
_STATE_DICT_MEMBER = re.compile(
    r"[^/]+/(data\.pkl|data/\d+|byteorder|version|\.format_version|\.storage_alignment|\.data/serialization_id)"
)
_SAFETENSORS_HEADER_LIMIT = 100_000_000


def kind_of(path: Path) -> FileKind:
    """What kind of model file this is.

    Raises:
        UnsafeInput: If opening it could run code, whatever it is called.
        TargetInvalid: If it does not exist, is damaged, or is of no known kind.
    """
    if not path.is_file():
        raise TargetInvalid(
            f"{path}: no such file; give a model file, a Hugging Face folder, timm:NAME or hub:OWNER/NAME"
        )
    with path.open("rb") as file:
        beginning = file.read(512)
    # First, since the length that a safetensors file begins with can look like any other beginning.
    if 0 < int.from_bytes(beginning[:8], "little") <= _SAFETENSORS_HEADER_LIMIT and beginning[8:9] == b"{":
        return "safetensors"
    if beginning.startswith(b"PK\x03\x04"):
        return _kind_of_archive(path)
    for pattern, name in _UNSAFE_BEGINNINGS:
        if re.match(pattern, beginning, flags=re.DOTALL):
            raise UnsafeInput(f"{path} is {name}: opening it could run code; {REMEDY}")
    suffix = path.suffix.lower()
    if suffix in _PICKLE_SUFFIXES:
        raise UnsafeInput(
            f"{path} is no archive as torch.save writes it, but may be an older pickle: "
            f"opening it could run code; {REMEDY}"
        )
    if suffix == ".onnx":
        return "ONNX"
    if suffix == ".safetensors":
        return "safetensors"
    raise TargetInvalid(f"{path}: no model file that patchmi knows; give safetensors, a state dict or ONNX")


def _kind_of_archive(path: Path) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # noqa: BLE001 - broken archives raise errors of many kinds
        raise TargetInvalid(f"{path}: a damaged archive ({in_one_line(error)}); copy it again") from None
    names = [member.filename for member in members]
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner:
        return "TorchScript"
    if "archive_format" in inner or "serialized_exported_program.json" in names:
        return "torch.export"
    odd = [name for name in names if not _STATE_DICT_MEMBER.fullmatch(name)]
    if odd:
        raise UnsafeInput(
            f"{path} is an archive with {listed(odd)}, which torch.save does not write: "
            f"opening it could run code; {REMEDY}"
        )
    if len({name.casefold() for name in names}) < len(names):
        raise UnsafeInput(
            f"{path} is an archive in which a name stands twice: it may hide a pickle; {REMEDY}"
        )
    if not {"data.pkl", "version"} <= inner or len({name.partition("/")[0] for name in names}) != 1:
        raise UnsafeInput(f"{path} is an archive, but not of one state dict: it may hide a pickle; {REMEDY}")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise UnsafeInput(f"{path} is a compressed archive, which torch.save does not write; {REMEDY}")
    return "state dict"
