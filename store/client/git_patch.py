"""Taking a patch apart by file. Pure; the patch was made without renames, so each header names one path twice."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Within a section every line begins with a space, + , -, \\ , @, a header word or base85, so this is always a border.
_BORDER = re.compile(rb"^(?:diff --git |\* Unmerged path )", re.MULTILINE)
_ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_LETTERS = {b"a": b"\a", b"b": b"\b", b"t": b"\t", b"n": b"\n", b"v": b"\v", b"f": b"\f", b"r": b"\r"}


def sections(patch: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(path, section) for each file of ``git diff --binary --no-renames``, in order; remarks on merges are dropped."""
    starts = [match.start() for match in _BORDER.finditer(patch)]
    for start, end in zip(starts, [*starts[1:], len(patch)], strict=True):
        section = patch[start:end]
        if section.startswith(b"diff --git "):
            yield _path(section[11 : section.index(b"\n")]), section


def _path(names: bytes) -> bytes:
    """The path in ``a/x b/x`` or ``"a/\\303\\244" "b/\\303\\244"``."""
    # Equal names, so the middle is the border, also when the name holds " b/".
    half = names[: (len(names) - 1) // 2]
    if half.startswith(b'"'):
        half = _ESCAPE.sub(_character, half[1:-1])
    return half[2:]


def _character(match: re.Match[bytes]) -> bytes:
    code = match[1]
    return bytes([int(code, 8) & 255]) if len(code) == 3 else _LETTERS.get(code, code)
