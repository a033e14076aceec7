"""What an import fetches of runs on another machine beside their journals: files, what was printed, patches and lists of packages."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mltrack.store.client.artifacts import artifact_path, store_blob
from mltrack.store.client.journal import make_folder, open_file
from mltrack.store.client.values import Refused
from mltrack.store.errors import StoreUnavailable
from mltrack.store.far_files import FarFiles, NotThere, Unreachable, far_files
from mltrack.store.machines import trouble_of
from mltrack.store.sources.ssh_store import SshReader

# Ten thousand runs of a machine far away take minutes the first time.
_FIRST_SECONDS = 900.0


def far_reader(address: str) -> tuple[SshReader, FarFiles]:
    """A reader of all that is there now, and who fetches its files. Raises StoreUnavailable."""
    reader = SshReader(address)
    told = reader.await_first(_FIRST_SECONDS)
    if trouble := trouble_of(address).partition(";")[0]:
        raise StoreUnavailable(f"{trouble}.")
    if not told:
        raise StoreUnavailable(f"{address} has not told all it has within {_FIRST_SECONDS / 60:.0f} minutes.")
    return reader, far_files(address)


class FarRun:
    """What is fetched of one run. Raises StoreUnavailable when its machine cannot be asked; ``left`` says what could not be had."""

    def __init__(self, far: FarFiles, run_id: str, root: Path, mode: int, left: list[str]) -> None:
        self._far = far
        self._run_id = run_id
        self._root = root
        self._mode = mode
        self._left = left

    def files(self, target: Path) -> Iterator[tuple[str, int, str]]:
        """Make its artifacts below ``target``: (path, bytes, sha256) each. What is no file there is left out."""
        try:
            entries, more = self._far.entries(self._run_id)
        except NotThere as error:
            raise StoreUnavailable(f"{error}.") from None
        if more:
            self._left.append(f"{self._run_id}: {more:,} of its files, which are too many to be listed")
        for path, kind, _, _ in entries:
            if kind == "folder":
                continue
            try:
                if kind != "file":
                    raise Refused("not a regular file")
                size, digest = self._write("artifact", path, target / artifact_path(path))
                yield path, size, digest
            except Refused as error:
                self._left.append(f"{self._run_id}/{path}: {error}")

    def rest(self, records: Iterable[Mapping[str, Any]], folder: Path) -> None:
        """What its records name: its log, into its ``folder``, and what the store keeps by digest."""
        console: Any = None
        for record in records:
            if record["op"] == "start":
                console = record.get("console")
            elif record["op"] == "facts" and isinstance(record.get("v"), Mapping):
                git = record["v"].get("git")
                patch = git.get("patch") if isinstance(git, Mapping) else None
                for digest in (patch, record["v"].get("packages")):
                    if isinstance(digest, str):
                        self._keep(digest)
        if isinstance(console, Mapping) and (console.get("file") or console.get("tee")):
            name, offset = console.get("file"), console.get("offset")
            begin = offset if isinstance(offset, int) else 0
            try:
                self._write("log", name if isinstance(name, str) else "", folder / "console.log", begin)
            except Refused as error:
                self._left.append(f"{self._run_id}: what it printed ({error})")

    def _keep(self, digest: str) -> None:
        try:
            content = self._far.fetch_kept(digest)
        except Unreachable as error:
            raise StoreUnavailable(f"{error}.") from None
        except NotThere as error:
            self._left.append(f"{self._run_id}: {error}")
            return
        if content is not None:
            store_blob(content, self._root)

    def _write(self, of: str, name: str, path: Path, begin: int = 0) -> tuple[int, str]:
        """Raises Refused when it cannot be read there."""
        digest, size = hashlib.sha256(), 0
        make_folder(path.parent, self._root)
        out = open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, self._mode)
        try:
            with os.fdopen(out, "wb") as copy:
                for block in self._far.pieces(of, self._run_id, name, begin):
                    copy.write(block)
                    digest.update(block)
                    size += len(block)
        except Unreachable as error:
            raise StoreUnavailable(f"{error}.") from None
        except NotThere as error:
            path.unlink()
            raise Refused(str(error)) from None
        return size, digest.hexdigest()
