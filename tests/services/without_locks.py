"""Run a program whose kernel refuses file locks, or grants every one: `without_locks.py ERRNO PROGRAM...`, 0 grants.

A FUSE filesystem that hands locks on to what lies below it (bindfs) is then a filesystem without working locks.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

# linux/prctl.h, linux/seccomp.h, linux/filter.h
NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERROR = 0x7FFF0000, 0x00050000
FCNTL = {"x86_64": 72, "aarch64": 25}
LOCKING = (6, 7, 37, 38)  # F_SETLK, F_SETLKW and the same for locks of open files


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def _line(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def refuse_locks(error: int) -> None:
    """From now on, for this process and its children, taking a file lock returns this error (0: does nothing)."""
    count = len(LOCKING)
    code = _line(LOAD, 0) + _line(EQUAL, FCNTL[os.uname().machine], 0, count + 2) + _line(LOAD, 24)
    for place, command in enumerate(LOCKING):
        last = place == count - 1
        code += _line(EQUAL, command, count - 1 - place, 1 if last else 0)
    code += _line(RETURN, ERROR | error) + _line(RETURN, ALLOW)
    program = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        SET_SECCOMP, FILTER, ctypes.byref(program), 0, 0
    )
    if done:
        raise OSError(ctypes.get_errno(), "no seccomp filter")


if __name__ == "__main__":
    refuse_locks(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
