"""Object stores behind one small face: files go there whole or not at all, are read back, and come back in pieces.

fsspec's packages speak to them, with the credentials that the store's own tools use. They are extras, and imported only here.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from mltrack.store.client.destination import missing_extra
from mltrack.store.client.secrets import redact_text, redact_url
from mltrack.store.errors import BadInput, NotFound, StoreUnavailable

PART_BYTES = 16 << 20
"""A part of an upload: what is sent again at most when it breaks off. S3 wants at least 5 MB, and takes 10,000 parts."""
_MOST_PARTS = 9_000
_BLOCK_BYTES = 4 << 20

Stopped = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Found:
    """An object: its name below the address, bytes, and when it was written (seconds since 1970); of an upload that broke off
    also what the store calls it."""

    name: str
    size: int
    changed: float
    upload: str = ""


class ObjectStore:
    """What lies below one address. Not for several threads at once."""

    # Packages that raise errors of their own beside OSError, and how those are called.
    _ERRORS: tuple[tuple[str, str], ...] = ()

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.writer = secrets.token_hex(8)
        """Who sends: what broke off is gone on with only by the same one."""
        self.shown = redact_url(self.url)
        missing = missing_extra(url)
        if missing:
            raise BadInput(f"{missing}.")
        with self._told():
            self._fs, self._base = self._connect()

    def _connect(self) -> tuple[Any, str]:
        parts = urlsplit(self.url)
        return _file_system(parts.scheme), f"{parts.netloc}{parts.path}"

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Whatever a package says becomes one sentence without secrets."""
        kinds: list[type[BaseException]] = [OSError, EOFError]
        for module, name in self._ERRORS:
            kinds.append(getattr(importlib.import_module(module), name))
        try:
            yield
        except FileNotFoundError as error:
            raise NotFound(f"There is nothing at {self.shown} ({_reason(error)}).") from error
        except tuple(kinds) as error:
            raise StoreUnavailable(f"{self.shown} cannot be used: {_reason(error)}.") from error

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}"

    # -- in

    def put(self, file: BinaryIO, name: str, stopped: Stopped = lambda: False, sha256: str = "") -> str:
        """Bring an open file there. Returns the sha256 of what was sent. Nothing is visible under the name before all of it is there,
        and nothing at all when ``sha256`` is said and the bytes have another.

        Raises StoreUnavailable; what was sent before counts for the next attempt where the store can keep it.
        """
        try:
            with self._told():
                return self._put(file, os.fstat(file.fileno()).st_size, self._path(name), stopped, sha256)
        except NotFound as error:
            raise StoreUnavailable(error.message) from error

    def _put(self, file: BinaryIO, size: int, path: str, stopped: Stopped, sha256: str) -> str:
        digest = hashlib.sha256()
        target = self._fs.open(path, "wb", block_size=PART_BYTES)
        whole = False
        try:
            for block in blocks(file, size, stopped):
                digest.update(block)
                target.write(block)
            whole = sha256 in ("", digest.hexdigest())
        finally:
            # Closing is what makes it visible: half of a file is thrown away, and not closed later by a collector either.
            if not whole:
                target.closed = True
                target.discard()
        if whole:
            target.close()
        return digest.hexdigest()

    # -- out

    def digest(self, name: str, stopped: Stopped = lambda: False) -> str:
        """The sha256 of an object's bytes as the store hands them out."""
        found = hashlib.sha256()
        for block in self.stream(name):
            if stopped():
                raise StoreUnavailable("Stopped.")
            found.update(block)
        return found.hexdigest()

    def head(self, name: str, most: int) -> tuple[bytes, int]:
        """The first bytes of an object, and the size of all of it."""
        with self._told():
            size = int(self._fs.info(self._path(name))["size"])
            return (
                bytes(self._fs.cat_file(self._path(name), start=0, end=min(most, size))) if size else b""
            ), size

    def stream(self, name: str) -> Iterator[bytes]:
        """An object's bytes, piece by piece."""
        with (
            self._told(),
            self._fs.open(self._path(name), "rb", block_size=_BLOCK_BYTES, cache_type="readahead") as file,
        ):
            while block := file.read(_BLOCK_BYTES):
                yield bytes(block)

    def listing(self, below: str = "") -> Iterator[Found]:
        """Every object below a name, as the store pages through them."""
        top = self._path(below) if below else self._base
        try:
            with self._told():
                found = self._fs.find(top, detail=True)
        except NotFound:
            return
        for path, about in found.items():
            name = path.removeprefix(self._base).lstrip("/")
            changed = about.get("LastModified") or about.get("mtime") or about.get("updated")
            seconds = changed.timestamp() if hasattr(changed, "timestamp") else float(changed or 0)
            if about.get("type", "file") == "file" and path.startswith(f"{self._base}/"):
                yield Found(name, int(about.get("size") or 0), seconds)

    # -- away

    def remove(self, names: list[str]) -> None:
        """Remove objects; those that are gone already count as removed."""
        with self._told():
            for start in range(0, len(names), 1000):
                self._remove([self._path(name) for name in names[start : start + 1000]])

    def _remove(self, paths: list[str]) -> None:
        for path in paths:
            try:
                self._fs.rm_file(path)
            except FileNotFoundError:
                continue

    def remove_below(self, name: str) -> int:
        """Remove everything below a name, with what broke off. Returns how many objects that were."""
        names = [found.name for found in self.listing(name)]
        self.remove(names)
        for upload in self.unfinished(float("inf"), name):
            self.abort(upload)
        return len(names)

    def unfinished(self, older_than: float, below: str = "") -> list[Found]:
        """Uploads that broke off before this time and were never finished, everybody's."""
        return []

    def abort(self, upload: Found) -> None:
        """Give up an unfinished upload, with what it takes up."""


class _S3(ObjectStore):
    _ERRORS = (
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
        ("aiohttp", "ClientError"),
    )

    def _put(self, file: BinaryIO, size: int, path: str, stopped: Stopped, sha256: str) -> str:
        bucket, key = path.split("/", 1)
        at = {"Bucket": bucket, "Key": key}
        part_bytes = max(PART_BYTES, -(-size // _MOST_PARTS))
        if size <= part_bytes:
            content = b"".join(blocks(file, size, stopped))
            found = hashlib.sha256(content).hexdigest()
            if sha256 in ("", found):
                self._fs.call_s3("put_object", **at, Body=content)
            return found
        digest = hashlib.sha256()
        upload = self._begun(bucket, key) or str(
            self._fs.call_s3("create_multipart_upload", **at)["UploadId"]
        )
        there = self._parts(at, upload)
        parts: list[dict[str, Any]] = []
        for number, content in enumerate(blocks(file, size, stopped, part_bytes), 1):
            digest.update(content)
            tag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
            # Only a part of just these bytes counts: the file may be another one than the upload was begun with.
            if there.get(number) != tag:
                sent = self._fs.call_s3("upload_part", **at, UploadId=upload, PartNumber=number, Body=content)
                tag = str(sent["ETag"])
            parts.append({"PartNumber": number, "ETag": tag})
        if sha256 not in ("", digest.hexdigest()):
            self._fs.call_s3("abort_multipart_upload", **at, UploadId=upload)
            return digest.hexdigest()
        self._fs.call_s3("complete_multipart_upload", **at, UploadId=upload, MultipartUpload={"Parts": parts})
        return digest.hexdigest()

    def _begun(self, bucket: str, key: str) -> str:
        """The newest unfinished upload of a key, "" when there is none."""
        found = self._fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=key)
        ours = [upload for upload in found.get("Uploads") or () if upload["Key"] == key]
        return str(max(ours, key=lambda upload: upload["Initiated"])["UploadId"]) if ours else ""

    def _parts(self, at: dict[str, str], upload: str) -> dict[int, str]:
        parts: dict[int, str] = {}
        marker = 0
        while True:
            found = self._fs.call_s3("list_parts", **at, UploadId=upload, PartNumberMarker=marker)
            parts.update({int(part["PartNumber"]): str(part["ETag"]) for part in found.get("Parts") or ()})
            if not found.get("IsTruncated"):
                return parts
            marker = int(found["NextPartNumberMarker"])

    def listing(self, below: str = "") -> Iterator[Found]:
        bucket, _, prefix = self._base.partition("/")
        before = f"{prefix}/" if prefix else ""
        token: dict[str, str] = {}
        while True:
            with self._told():
                page = self._fs.call_s3(
                    "list_objects_v2", Bucket=bucket, Prefix=before + (f"{below}/" if below else ""), **token
                )
            for about in page.get("Contents") or ():
                yield Found(
                    str(about["Key"])[len(before) :], int(about["Size"]), about["LastModified"].timestamp()
                )
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _remove(self, paths: list[str]) -> None:
        bucket = self._base.partition("/")[0]
        objects = [{"Key": path.split("/", 1)[1]} for path in paths]
        answer = self._fs.call_s3("delete_objects", Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
        refused = [problem for problem in answer.get("Errors") or () if problem.get("Code") != "NoSuchKey"]
        if refused:
            raise PermissionError(f"{refused[0].get('Key')}: {refused[0].get('Message')}")

    def unfinished(self, older_than: float, below: str = "") -> list[Found]:
        bucket, _, prefix = self._base.partition("/")
        before = f"{prefix}/" if prefix else ""
        asked = {"Bucket": bucket, "Prefix": before + (f"{below}/" if below else "")}
        uploads: list[Found] = []
        while True:
            with self._told():
                page = self._fs.call_s3("list_multipart_uploads", **asked)
            for upload in page.get("Uploads") or ():
                begun = upload["Initiated"].timestamp()
                if begun < older_than:
                    name = str(upload["Key"])[len(before) :]
                    uploads.append(Found(name, 0, begun, str(upload["UploadId"])))
            if not page.get("IsTruncated"):
                return uploads
            asked |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def abort(self, upload: Found) -> None:
        bucket, key = self._path(upload.name).split("/", 1)
        with self._told(), suppress(FileNotFoundError):  # finished or given up meanwhile
            self._fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload.upload)


class _Google(ObjectStore):
    _ERRORS = (
        ("google.auth.exceptions", "GoogleAuthError"),
        ("google.api_core.exceptions", "GoogleAPIError"),
        ("gcsfs.retry", "HttpError"),
        ("gcsfs.retry", "ChecksumError"),
        ("aiohttp", "ClientError"),
    )


def open_objects(url: str) -> ObjectStore:
    """The object store at an address. Raises BadInput when its package is not installed, StoreUnavailable when it cannot be
    reached."""
    scheme = urlsplit(url).scheme
    if scheme == "sftp":
        from mltrack.store.object_sftp import SftpStore

        return SftpStore(url)
    return {"s3": _S3, "gs": _Google}[scheme](url)


def _file_system(scheme: str) -> Any:
    """fsspec's file system of a scheme, which remembers nothing: others change what lies there."""
    if scheme == "gs":
        # Not what gcsfs registers since 2026: that asks another API of Google for the kind of a bucket first, and says on
        # standard error when it may not.
        core: Any = importlib.import_module("gcsfs.core")
        return core.GCSFileSystem(use_listings_cache=False, skip_instance_cache=True)
    fsspec: Any = importlib.import_module("fsspec")
    return fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True)


def blocks(file: BinaryIO, size: int, stopped: Stopped, block_bytes: int = _BLOCK_BYTES) -> Iterator[bytes]:
    """All of a file in pieces. Raises OSError when it ends elsewhere than it did."""
    left = size
    while left > 0:
        if stopped():
            raise OSError(4, "stopped")
        block = file.read(min(block_bytes, left))
        if not block:
            raise OSError(5, "the file became shorter while it was sent")
        left -= len(block)
        yield block


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return redact_text(" ".join(str(text).split()))[:300].rstrip(". ")
