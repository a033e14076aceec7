"""Whether a file holds a pickle, told by its bytes and never by loading it: a pickle runs code when it is loaded."""

from __future__ import annotations

import bz2
import lzma
import pickletools
import zipfile
import zlib
from collections.abc import Callable
from typing import BinaryIO

WARNING = "contains pickle: runs code when loaded"

_NAMES = (".pkl", ".pickle", ".p", ".joblib", ".pt", ".pth", ".ckpt", ".bin", ".sav")
_OPCODES = 12
_MOST_ENTRIES, _DIRECTORY_BYTES = 2000, 8 << 20
_INFLATED = 4096


def contains_pickle(name: str, head: bytes, file: BinaryIO) -> bool:
    """``head`` are the first bytes of ``file``, which can seek."""
    if head.startswith(b"PK\x03\x04"):
        return _in_zip(file)
    if head.startswith(b"\x93NUMPY"):
        return _of_objects(head)
    if _is_pickle(head, name):
        return True
    inflated = _inflate(head)
    return inflated is not None and _is_pickle(inflated, name)


def _is_pickle(head: bytes, name: str) -> bool:
    """Protocol 2 and later say so in their first byte; older ones are told by their opcodes, where the name suggests it."""
    binary = head[:1] == b"\x80" and len(head) > 2 and 2 <= head[1] <= 5
    if not binary and not name.lower().endswith(_NAMES):
        return False
    seen = 0
    try:
        for opcode, _, _ in pickletools.genops(head):
            seen += 1
            if opcode.name == "STOP" or seen >= _OPCODES:
                return True
    except Exception:  # noqa: BLE001  # the border to arbitrary bytes: what is no opcode raises anything
        # Cut off in the middle of a long opcode counts, when it began as one.
        return binary and seen >= 2
    return False


def _in_zip(file: BinaryIO) -> bool:
    """torch.save writes a zip with a data.pkl; numpy a zip of arrays, which may hold objects."""
    try:
        if not _directory_is_small(file):
            return False
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist()[:_MOST_ENTRIES]:
                if entry.filename.lower().endswith((".pkl", ".pickle")):
                    return True
                if entry.filename.endswith(".npy"):
                    with archive.open(entry) as member:
                        if _of_objects(member.read(1024)):
                            return True
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError, zlib.error):
        return False
    return False


def _directory_is_small(file: BinaryIO) -> bool:
    """Whether the zip's list of entries is of a size that an honest one has."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 66_000))
    tail = file.read()
    place = tail.rfind(b"PK\x05\x06")
    return place >= 0 and int.from_bytes(tail[place + 12 : place + 16], "little") <= _DIRECTORY_BYTES


def _of_objects(head: bytes) -> bool:
    """Whether a numpy header is of an array of Python objects."""
    header = head[:1024].split(b"\n", 1)[0]
    return head.startswith(b"\x93NUMPY") and (b"'|O'" in header or b"'O'" in header or b"|O8" in header)


def _inflate(head: bytes) -> bytes | None:
    """The start of what is compressed, as joblib does it."""
    ways: tuple[tuple[bytes, Callable[[], bytes]], ...] = (
        (b"\x1f\x8b", lambda: zlib.decompressobj(31).decompress(head, _INFLATED)),
        (b"x", lambda: zlib.decompressobj().decompress(head, _INFLATED)),
        (b"BZh", lambda: bz2.BZ2Decompressor().decompress(head, _INFLATED)),
        (b"\xfd7zXZ", lambda: lzma.LZMADecompressor().decompress(head, _INFLATED)),
        (b"]\0\0", lambda: lzma.LZMADecompressor().decompress(head, _INFLATED)),
    )
    for magic, inflate in ways:
        if head.startswith(magic):
            try:
                return inflate()
            except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError):
                return None
    return None
