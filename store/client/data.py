"""What a run reads: size and digest of a file or folder, remembered as long as the file does not change."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from mltrack.store.client.artifacts import _write_whole, regular_files
from mltrack.store.client.journal import make_folder, share_mode
from mltrack.store.client.values import Refused

SAMPLE_BYTES = 1 << 20
SAMPLES = 16


def describe_input(path: Path, root: Path, kind: str) -> dict[str, object]:
    """``{source, size, digest, digest_kind}`` of a file or folder. ``kind``: "fast" or "full". Raises Refused."""
    if kind not in ("fast", "full"):
        raise Refused(f"a digest is 'fast' or 'full', not {kind!r}")
    source = os.path.abspath(path)
    try:
        source.encode("utf-8")
        files = [(path, "")] if path.is_file() else regular_files(path)
        if not path.exists():
            raise Refused(f"{source!r} does not exist")
        hasher = hashlib.sha256()
        total = 0
        for file, relative in files:
            size, digest = _file_digest(file, root, kind)
            total += size
            hasher.update(f"{relative}\0{size}\0{digest}\n".encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise Refused(f"{source!r} cannot be read ({error.strerror})") from None
    except UnicodeEncodeError:
        raise Refused(f"the path {source!r} is not valid UTF-8") from None
    return {"source": source, "size": total, "digest": hasher.hexdigest(), "digest_kind": kind}


def _file_digest(path: Path, root: Path, kind: str) -> tuple[int, str]:
    facts = os.stat(path)
    mark = [facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns]
    name = hashlib.sha256(f"{kind}\0{os.path.realpath(path)}".encode("utf-8", "surrogateescape")).hexdigest()
    cache = root / "cache" / "digests" / name[:2] / name
    try:
        known = json.loads(cache.read_bytes())
        if known["mark"] == mark:
            return facts.st_size, str(known["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not remembered, or the note is damaged: computed again
    with open(path, "rb") as file:
        if kind == "full" or facts.st_size <= SAMPLE_BYTES * SAMPLES:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        else:
            hasher = hashlib.sha256(str(facts.st_size).encode())
            for sample in range(SAMPLES):
                file.seek((facts.st_size - SAMPLE_BYTES) * sample // (SAMPLES - 1))
                hasher.update(file.read(SAMPLE_BYTES))
            digest = hasher.hexdigest()
    try:
        make_folder(cache.parent, root)
        _write_whole(cache, json.dumps({"mark": mark, "digest": digest}).encode(), share_mode(root))
    except OSError:
        pass  # a digest that is not remembered is only slower next time
    return facts.st_size, digest
