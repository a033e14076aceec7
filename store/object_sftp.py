"""Artifacts on a machine that speaks SFTP: the hosts, users and keys of ``~/.ssh/config``, and only hosts that are known.

The network is nobody's to trust: a host whose key is not in ``known_hosts`` is refused, with what to do about it.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import posixpath
import re
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from mltrack.store.object_store import Found, ObjectStore, Stopped, blocks

_SECONDS = 30.0
# Beside the artifacts of a run, where nothing that a user names can lie.
_PART = re.compile(r"[0-9a-f]{32}/\.mltrack-[0-9a-f]{24}\.part\Z")
_RUN = re.compile(r"[0-9a-f]{32}\Z")


class SftpStore(ObjectStore):
    """A folder at a host. fsspec reads and lists; what goes there is written under another name and moved into place."""

    _ERRORS = (("paramiko", "SSHException"),)

    def _connect(self) -> tuple[Any, str]:
        sftp: Any = importlib.import_module("fsspec.implementations.sftp")
        parts = urlsplit(self.url)
        options = _options(parts.hostname or "", parts.username, parts.port)

        class Known(sftp.SFTPFileSystem):  # type: ignore[misc]  # fsspec has no types
            """fsspec's takes any host for the one that was meant, and reads no configuration."""

            def _connect(self) -> None:
                paramiko: Any = importlib.import_module("paramiko")
                self.client = paramiko.SSHClient()
                for path in options.pop("known_hosts"):
                    if os.path.exists(path):
                        self.client.load_host_keys(path)
                self.client.set_missing_host_key_policy(paramiko.RejectPolicy())
                self.client.connect(**options)
                self.ftp = self.client.open_sftp()

        return Known(parts.hostname or "", skip_instance_cache=True), unquote(parts.path)

    def _put(self, file: BinaryIO, size: int, path: str, stopped: Stopped, sha256: str) -> str:
        """What is there of the part is compared with the file's beginning, and only what follows is sent. The part is the sender's
        own: two who send the same file do not meet."""
        ftp = self._fs.ftp
        name = path.removeprefix(f"{self._base}/")
        mine = hashlib.sha256(f"{self.writer}\0{name}".encode()).hexdigest()[:24]
        part = self._path(
            posixpath.join(name.partition("/")[0] if "/" in name else "", f".mltrack-{mine}.part")
        )
        self._fs.makedirs(posixpath.dirname(part), exist_ok=True)
        there = self._beginning(ftp, part, file, size)
        digest = hashlib.sha256()
        with ftp.open(part, "ab" if there else "wb") as target:
            target.set_pipelined(True)
            at = 0
            for block in blocks(file, size, stopped):
                digest.update(block)
                if at + len(block) > there:
                    target.write(block[max(0, there - at) :])
                at += len(block)
        if sha256 not in ("", digest.hexdigest()):
            ftp.remove(part)
            return digest.hexdigest()
        self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
        ftp.posix_rename(part, path)
        return digest.hexdigest()

    def _beginning(self, ftp: Any, part: str, file: BinaryIO, size: int) -> int:
        """How many bytes of a part are there that are the same as here."""
        try:
            there = int(ftp.stat(part).st_size)
        except FileNotFoundError:
            return 0
        if there > size:
            return 0
        with ftp.open(part, "rb") as sent:
            sent.prefetch(there)
            left = there
            while left:
                block = sent.read(min(1 << 18, left))
                if not block or block != file.read(len(block)):
                    left = -1
                    break
                left -= len(block)
        file.seek(0)
        return there if left == 0 else 0

    def listing(self, below: str = "") -> Iterator[Found]:
        for path, facts in self._walk(self._path(below) if below else self._base):
            name = path.removeprefix(f"{self._base}/")
            if not _PART.match(name):
                yield Found(name, facts.st_size or 0, facts.st_mtime or 0)

    def _walk(self, top: str) -> Iterator[tuple[str, Any]]:
        with self._told():
            try:
                entries = self._fs.ftp.listdir_attr(top)
            except FileNotFoundError:
                return
        for facts in sorted(entries, key=lambda facts: facts.filename):
            path = f"{top}/{facts.filename}"
            if stat.S_ISDIR(facts.st_mode or 0):
                yield from self._walk(path)
            elif stat.S_ISREG(facts.st_mode or 0):
                yield path, facts

    def _remove(self, paths: list[str]) -> None:
        ftp = self._fs.ftp
        for path in paths:
            try:
                ftp.remove(path)
            except FileNotFoundError:
                continue
            folder = posixpath.dirname(path)
            while folder != self._base:
                try:
                    ftp.rmdir(folder)  # refused while something is in it
                except OSError:
                    break
                folder = posixpath.dirname(folder)

    def unfinished(self, older_than: float, below: str = "") -> list[Found]:
        found: list[Found] = []
        for run_id in [below] if below else self._entries(self._base):
            for name, facts in self._entries(self._path(run_id)).items() if _RUN.match(run_id) else ():
                if _PART.match(f"{run_id}/{name}") and (facts.st_mtime or 0) < older_than:
                    found.append(Found(f"{run_id}/{name}", facts.st_size or 0, facts.st_mtime or 0))
        return found

    def _entries(self, folder: str) -> dict[str, Any]:
        with self._told():
            try:
                return {facts.filename: facts for facts in self._fs.ftp.listdir_attr(folder)}
            except (FileNotFoundError, NotADirectoryError):
                return {}

    def abort(self, upload: Found) -> None:
        self.remove([upload.name])


def _options(host: str, user: str | None, port: int | None) -> dict[str, Any]:
    """How to connect to a host, by the user's own configuration."""
    paramiko: Any = importlib.import_module("paramiko")
    config = os.path.expanduser("~/.ssh/config")
    said: dict[str, Any] = {}
    if os.path.exists(config):
        said = dict(paramiko.SSHConfig.from_path(config).lookup(host))
    known = str(said.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2")).split()
    options: dict[str, Any] = {
        "hostname": said.get("hostname", host),
        "port": int(port or said.get("port", 22)),
        "known_hosts": [os.path.expanduser(path) for path in (*known, "/etc/ssh/ssh_known_hosts")],
        "timeout": _SECONDS,
        "banner_timeout": _SECONDS,
    }
    name = user or said.get("user")
    if name:
        options["username"] = name
    if said.get("identityfile"):
        options["key_filename"] = [os.path.expanduser(path) for path in said["identityfile"]]
    if said.get("proxycommand"):
        options["sock"] = paramiko.ProxyCommand(said["proxycommand"])
    return options
