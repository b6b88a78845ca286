"""An append-only file: what a call has appended is on the disk when it returns, whatever happens then."""

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from patchmi.runs.errors import OutOfResources, RunError
from patchmi.runs.files import is_exhausted, make_folder

_HEAD = struct.Struct("<II")
"""Before each record: its length in bytes and its CRC-32."""


class Journal:
    """Records of bytes, one after the other, in a file that only grows.

    Args:
        path: The file; it is made with the first record. One process at a time may hold it, as a run folder
            sees to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[bytes]:
        """All whole records, in order; half a record that a killed process left is cut off.

        Raises:
            RunError: The file is damaged.
        """
        if not self.path.exists():
            return []
        data, records, place = self.path.read_bytes(), [], 0
        while place + _HEAD.size <= len(data):
            length, checksum = _HEAD.unpack_from(data, place)
            record = data[place + _HEAD.size : place + _HEAD.size + length]
            if len(record) < length:
                break
            if zlib.crc32(record) != checksum:
                raise RunError(f"{self.path}: damaged at byte {place:,}; remove it, and begin the run anew")
            records.append(record)
            place += _HEAD.size + length
        if place < len(data):
            os.truncate(self.path, place)
        return records

    def append(self, records: Sequence[bytes]) -> None:
        """Add records and wait until they are on the disk.

        Raises:
            OutOfResources: The disk or a quota is full; none of them was added.
        """
        data = b"".join(_HEAD.pack(len(record), zlib.crc32(record)) + record for record in records)
        make_folder(self.path.parent)
        with self.path.open("ab") as file:
            before = file.tell()
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                os.truncate(self.path, before)
                if is_exhausted(error):
                    raise OutOfResources(
                        f"cannot write {self.path}: {error.strerror}; make room, then --resume"
                    ) from error
                raise
