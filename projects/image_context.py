"""What a build is given: the files of the project as a tar that is the same for the same content."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mltrack.projects.errors import ProjectError
from mltrack.store.client.secrets import looks_secret_file

SOURCE_BYTES = 512 << 20
SOURCE_FILES = 50_000
# Never part of the source, whatever the project ignores.
_LEFT_OUT = (
    ".git .hg .svn .mltrack .venv venv node_modules mlruns wandb .mypy_cache .ruff_cache .pytest_cache .ipynb_checkpoints "
    "__pycache__ .tox .nox .DS_Store"
).split()


@dataclass(frozen=True, slots=True)
class Source:
    """Files of a project, relative and sorted. ``secret``: names that look like secrets and stay out."""

    folder: Path
    files: tuple[str, ...]
    secret: tuple[str, ...]
    size: int


def collect_source(folder: Path) -> Source:
    """The files that go into the image. Raises ProjectError when they are too many to be a program."""
    ignored = _ignored(folder)
    files: list[str] = []
    secret: list[str] = []
    size = 0
    for base, folders, names in os.walk(folder):
        relative = os.path.relpath(base, folder)
        inside = "" if relative == "." else relative + "/"
        folders[:] = sorted(
            name for name in folders if name not in _LEFT_OUT and not os.path.islink(os.path.join(base, name))
        )
        for name in sorted(names):
            path = inside + name
            status = os.lstat(os.path.join(base, name))
            if name in _LEFT_OUT or name.endswith(".pyc") or (ignored is not None and path not in ignored):
                continue
            if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
                continue
            if looks_secret_file(path):
                secret.append(path)
                continue
            files.append(path)
            size += status.st_size
            if size > SOURCE_BYTES or len(files) > SOURCE_FILES:
                raise ProjectError(
                    f"The project holds more than {SOURCE_BYTES >> 20} MB or {SOURCE_FILES:,} files. List its data in "
                    ".dockerignore and pass it as a parameter of type path."
                )
    return Source(folder, tuple(files), tuple(secret), size)


def _ignored(folder: Path) -> set[str] | None:
    """The paths that .dockerignore leaves; None without one."""
    path = folder / ".dockerignore"
    if not path.is_file():
        return None
    from docker.utils.build import exclude_paths

    lines = [line.strip() for line in path.read_text("utf-8", "replace").splitlines()]
    patterns = [line for line in lines if line and not line.startswith("#")]
    return set(exclude_paths(str(folder), patterns))


def content_hash(dockerfile: str, files: Mapping[str, bytes], source: Source | None, base_id: str) -> str:
    """64 hex digits of everything that decides what the image holds."""
    digest = hashlib.sha256()
    for part in (dockerfile, base_id):
        digest.update(f"{len(part)}:{part}".encode())
    for name in sorted(files):
        digest.update(f"{name}:{len(files[name])}:".encode() + files[name])
    for name in source.files if source is not None else ():
        assert source is not None
        path = source.folder / name
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            digest.update(os.fsencode(f"{name}->{os.readlink(path)}"))
            continue
        digest.update(os.fsencode(f"{name}:{status.st_mode & 0o111 != 0}:{status.st_size}:"))
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def write_context(
    target: IO[bytes], dockerfile: str, files: Mapping[str, bytes], source: Source | None
) -> None:
    """The tar: Dockerfile, small files, and the source below project/. Owners and times are left out of it."""
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in sorted({**files, "Dockerfile": dockerfile.encode()}.items()):
            entry = tarfile.TarInfo(name)
            program = content.startswith((b"\x7fELF", b"#!"))
            entry.size, entry.mode = len(content), 0o755 if program else 0o644
            archive.addfile(entry, io.BytesIO(content))
        _folder(archive, "project")
        made: set[str] = set()
        for name in source.files if source is not None else ():
            assert source is not None
            parts = name.split("/")
            for depth in range(1, len(parts)):
                above = "/".join(parts[:depth])
                if above not in made:
                    made.add(above)
                    _folder(archive, f"project/{above}")
            _file(archive, source.folder / name, f"project/{name}")


def _folder(archive: tarfile.TarFile, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o777
    archive.addfile(entry)


def _file(archive: tarfile.TarFile, path: Path, name: str) -> None:
    entry = tarfile.TarInfo(name)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW) if not path.is_symlink() else -1
    if descriptor < 0:
        entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)
        archive.addfile(entry)
        return
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        # Writable for whoever runs it; only whether it is a program is kept.
        entry.mode = 0o777 if status.st_mode & 0o111 else 0o666
        entry.size = status.st_size
        archive.addfile(entry, file)
