"""A store of a group on one machine: who may reach its folders, and whose a run is.

Everybody in the group may write everywhere in the store, so nothing here keeps a colleague from harm; what it does keep is
attribution: a journal is a file, and the kernel knows who made it.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mltrack.store.client.journal import make_folder, share_mode
from mltrack.store.client.location import LocationError, site_file, site_store
from mltrack.store.errors import BadInput, StoreUnavailable

FOLDERS = ("runs", "open", "locks", "blobs", "backups")
LEASES = "leases"
SENDER = "sender."
"""A file of this name and a jid holds the user of a server who sent that journal."""
_STORE = ("mltrack.db", "decisions.jsonl", "open", "runs")
_FOLDER_MODE, _FILE_MODE = 0o2770, 0o660
# Whom the kernel names where a user of elsewhere (a container, a network filesystem) has no number here.
_NOBODY_HERE = 65534


@dataclass(frozen=True, slots=True)
class Made:
    """What was made: a sentence for each thing, and those that somebody must still do."""

    root: Path
    said: tuple[str, ...]
    left: tuple[str, ...] = ()


def make_store(root: Path, group: str | None = None, site: bool = True) -> Made:
    """Make a store in a folder, or share one that is there with ``group``. With ``site`` the site file names it, where none
    does yet and we may write it.

    Raises BadInput for a group that cannot be used, StoreUnavailable when the folder cannot be made.
    """
    from mltrack.store.opening import open_store

    gid = None if group is None else _group(group)
    said: list[str] = []
    left: list[str] = []
    there = root.is_dir()
    if there and any(root.iterdir()) and not any((root / name).exists() for name in _STORE):
        raise BadInput(
            f"{root} holds other things and is no store. Name an empty folder, or one that is not there yet."
        )
    try:
        for folder in reversed([folder for folder in root.parents if not folder.is_dir()]):
            folder.mkdir()
            folder.chmod(0o755)
        if gid is None:
            make_folder(root, root)
        else:
            root.mkdir(mode=0o700, exist_ok=True)
            os.chown(root, -1, gid)
            root.chmod(_FOLDER_MODE)
        with open_store(str(root)):
            pass
        for name in (*FOLDERS, *((LEASES,) if gid is not None else ())):
            make_folder(root / name, root)
        if gid is not None:
            kept = _hand_over(root, gid)
            if kept:
                left.append(
                    f"{kept} files and folders belong to other people, who must run the same command, or root."
                )
    except OSError as error:
        raise StoreUnavailable(
            f"A store cannot be made at {root} ({error.filename}: {error.strerror})."
        ) from error
    said.append(f"{'Found' if there else 'Made'} the store {root}.")
    if gid is not None:
        said.append(
            f"It is shared with the group {group}: 2770 for folders, 0660 for files, nothing for others."
        )
        closed = [str(folder) for folder in root.parents if not _lets_through(folder, gid)]
        if closed:
            left.append(f"The group cannot get through {closed[0]}: chmod o+x it, or use a folder elsewhere.")
        if site:
            _name_in_site_file(root, said, left)
    return Made(root, tuple(said), tuple(left))


def _group(name: str) -> int:
    try:
        gid = int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise BadInput(f"There is no group '{name}' here. As root: groupadd {name}") from None
    if os.geteuid() != 0 and gid not in (*os.getgroups(), os.getegid()):
        raise BadInput(
            f"You are not in the group '{name}', so you cannot give it a folder. As root: usermod -aG {name} USER,"
            " and log in again."
        )
    return gid


def _hand_over(root: Path, gid: int) -> int:
    """Give everything below ``root`` to the group. Returns how many things are not ours to give."""
    kept = 0
    me, jobs = os.geteuid(), root / "jobs"
    # By open files and never by path: who may write here could put a link to elsewhere in a path's place meanwhile.
    for base, folders, names, here in os.fwalk(root):
        of_jobs = Path(base).is_relative_to(jobs)
        for name in (*folders, *names):
            if name.startswith("server.") or os.path.basename(base) == LEASES:
                continue  # a server's token is nobody else's, and leases are everybody's already
            try:
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
            except OSError as error:
                kept += error.errno == errno.EACCES
                continue
            try:
                facts = os.fstat(fd)
                kind = stat.S_IFMT(facts.st_mode)
                if kind not in (stat.S_IFDIR, stat.S_IFREG):
                    continue
                mode = _FOLDER_MODE if kind == stat.S_IFDIR else _FILE_MODE
                if of_jobs:
                    mode &= ~stat.S_IWGRP  # what stands there is acted on by its owner
                if kind == stat.S_IFREG and not facts.st_mode & stat.S_IWUSR:
                    mode = 0o440  # made read-only, as artifacts are that are linked in: they stay so
                if facts.st_gid == gid and stat.S_IMODE(facts.st_mode) & mode == mode:
                    continue
                if me not in (0, facts.st_uid):
                    kept += 1
                    continue
                os.fchown(fd, -1, gid)
                os.fchmod(fd, mode | (stat.S_IMODE(facts.st_mode) & 0o110))
            finally:
                os.close(fd)
    return kept


def _lets_through(folder: Path, gid: int) -> bool:
    facts = folder.stat()
    return bool(facts.st_mode & (stat.S_IXGRP if facts.st_gid == gid else stat.S_IXOTH))


def _name_in_site_file(root: Path, said: list[str], left: list[str]) -> None:
    path = site_file()
    try:
        named = site_store()
    except LocationError as error:
        left.append(str(error))
        return
    if named:
        if named != str(root):
            left.append(f"{path} names another store, {named}: change it there if this one is everybody's.")
        return
    line = f"store = {_toml(str(root))}\n"
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # Before everything else: behind a table's heading it would belong to that table.
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        part = path.with_name(f".{path.name}.part")
        part.write_text(line + before, encoding="utf-8")
        part.chmod(0o644)
        part.replace(path)
    except OSError as error:
        said.append(
            f"So that nobody has to name it, root puts this line into {path} ({error.strerror} for you): {line.strip()}"
        )
        return
    said.append(f"{path} names it: everybody on this machine who names no other store uses it.")


def _toml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def known_owner(path: Path, root: Path) -> str:
    """Whose a journal is: in a shared store the owner of its file, on a server the user who sent it; "" where what it says
    itself counts. Raises nothing.

    That is so in a store of one person, and for files of the store's owner and of root: they could write anything into the
    database anyhow, and a server writes the journals of its clients.
    """
    with suppress(OSError):
        at_home = (0, os.stat(root).st_uid)
        jid = path.name.split(".")[1]
        with suppress(FileNotFoundError), open(path.with_name(f"{SENDER}{jid}"), "rb") as file:
            if os.fstat(file.fileno()).st_uid in (*at_home, os.geteuid()):
                return file.read(256).decode("utf-8", "replace")
        if share_mode(root) != 0o600:
            uid = os.stat(path).st_uid
            if uid not in (_NOBODY_HERE, *at_home):
                return user_name(uid)
    return ""


@lru_cache(maxsize=4096)
def user_name(uid: int) -> str:
    """The name of a user by the system's list; the number when it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
