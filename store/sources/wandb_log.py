"""The framing of a ``.wandb`` file: LevelDB's log in blocks of 32 kB, with CRC-32 instead of CRC-32C, behind seven bytes of its own."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator

BLOCK = 32 * 1024
_MAGIC = b":W&B"
_FILE_HEAD = 7
_HEAD = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
# A record larger than this is passed over: no point or param needs it, and it would have to be held in memory whole.
RECORD_BYTES = 64 << 20


class WandbLog:
    """Records behind a position. ``position`` is behind the record that was yielded last; ``skipped`` counts damage."""

    def __init__(self, fd: int, position: int = 0) -> None:
        self._fd = fd
        self._size = os.fstat(fd).st_size
        self._block_at = -1
        self._block = b""
        self.position = position
        self.skipped = 0

    def records(self) -> Iterator[bytes]:
        """Whole records as far as the file goes now; one that is not whole yet is left for the next time. Raises OSError."""
        if self.position == 0:
            if self._size < _FILE_HEAD:
                return
            if os.pread(self._fd, 4, 0) != _MAGIC:
                self.skipped += 1
            self.position = _FILE_HEAD
        parts: list[bytes] = []
        held = 0
        place = self.position
        while True:
            if BLOCK - place % BLOCK < _HEAD.size:
                place += BLOCK - place % BLOCK
            found = self._fragment(place)
            if found is None:
                return
            kind, data, following = found
            if kind == 0 or (kind in (_FULL, _FIRST)) == bool(parts or held):
                # Damage, or a record that breaks off in favour of another one, or goes on without a beginning.
                self.skipped += 1
                parts, held = [], 0
                if kind in (0, _MIDDLE, _LAST):
                    place = self.position = following
                    continue
                self.position = place
            place = following
            held += len(data)
            if held <= RECORD_BYTES:
                parts.append(data)
            if kind in (_FULL, _LAST):
                whole, self.position = b"".join(parts), place
                if held <= RECORD_BYTES:
                    parts, held = [], 0
                    yield whole
                else:
                    self.skipped += 1
                    parts, held = [], 0

    def _fragment(self, place: int) -> tuple[int, bytes, int] | None:
        """(kind, data, where the next one is); kind 0 for damage, None where the file ends for now."""
        start = place - place % BLOCK
        if start != self._block_at or place + _HEAD.size > start + len(self._block):
            self._block_at, self._block = start, os.pread(self._fd, BLOCK, start)
        block, at = self._block, place - start
        if at + _HEAD.size > len(block):
            return None
        crc, length, kind = _HEAD.unpack_from(block, at)
        end = at + _HEAD.size + length
        if end > len(block) and len(block) < BLOCK and end <= BLOCK and _FULL <= kind <= _LAST:
            return None  # not whole yet
        if _intact(block, at):
            return kind, block[at + _HEAD.size : end], start + end
        if not any(block[at:]) and start + len(block) >= self._size:
            return None  # a hole at the end: the file is being copied
        # In step again behind this fragment when only its data is wrong, else with the next block.
        following = start + end if end < len(block) and _intact(block, end) else start + BLOCK
        return 0, b"", following


def _intact(block: bytes, at: int) -> bool:
    if at + _HEAD.size > len(block):
        return False
    crc, length, kind = _HEAD.unpack_from(block, at)
    end = at + _HEAD.size + length
    if not _FULL <= kind <= _LAST or end > len(block):
        return False
    return zlib.crc32(memoryview(block)[at + 6 : end]) == int(crc)
