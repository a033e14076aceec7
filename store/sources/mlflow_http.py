"""Asking an MLflow server: addresses and passwords as MLflow's own client takes them, every failure an OSError with a sentence."""

from __future__ import annotations

import errno
import math
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO
from urllib.parse import urlencode, urlsplit

import orjson
import urllib3
from urllib3.util import Retry, Timeout, make_headers

from mltrack.store.client.secrets import redact_url

CONNECT_SECONDS, READ_SECONDS = 4.0, 20.0
# Somebody has pressed a key and waits for it.
PRESSED_SECONDS = 5.0
ANSWER_BYTES = 512 << 20
_MODES = {"POST", "PATCH", "DELETE", "PUT"}


class ServerRefused(OSError):
    """The server answered with an error. ``code`` is MLflow's error code."""

    def __init__(self, code: str, message: str, status: int) -> None:
        super().__init__(errno.EPROTO, message)
        self.code = code
        self.status = status


class NotReached(OSError):
    """Nobody took the request: whatever it asks for was not done."""


class MlflowClient:
    """One server. Safe for use by several threads."""

    def __init__(self, address: str, patient: bool = True) -> None:
        """``address``: http(s)://host[:port][/prefix]; a user and password in it are used and never shown. ``patient``: ask
        again what can be asked twice, and wait long; not while somebody waits for what a key does."""
        parts = urlsplit(address)
        self.shown = redact_url(address).rstrip("/")
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        port = f":{parts.port}" if parts.port else ""
        self._base = f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"
        self._headers = {"Content-Type": "application/json", **_authorization(parts.username, parts.password)}
        # What changes something is never sent twice: only who connects in vain may try again.
        twice = Retry(2, redirect=0, backoff_factor=0.2, allowed_methods=("GET", "PUT"))
        options: dict[str, Any] = {"maxsize": 4, "retries": twice if patient else Retry(0, redirect=0)}
        options["timeout"] = (
            Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
            if patient
            else Timeout(total=PRESSED_SECONDS, connect=CONNECT_SECONDS)
        )
        if parts.scheme == "https":
            if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() == "true":
                options["cert_reqs"] = "CERT_NONE"
            certificate = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
            if certificate:
                options["ca_certs"] = certificate
            own = os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH")
            if own:
                options["cert_file"] = own
        self._pool = urllib3.PoolManager(**options)

    def get(self, path: str, /, **fields: Any) -> dict[str, Any]:
        """GET below /api/2.0/mlflow/. Raises OSError; ServerRefused for an error that the server answered."""
        return self._json("GET", f"{path}?{urlencode(fields, doseq=True)}", None)

    def call(self, method: str, path: str, /, **fields: Any) -> dict[str, Any]:
        """POST, PATCH or DELETE below /api/2.0/mlflow/. The same errors."""
        assert method in _MODES
        return self._json(method, path, orjson.dumps(fields))

    def ours(
        self, method: str, path: str, body: bytes | BinaryIO = b"", sha256: str = "", size: int | None = None
    ) -> dict[str, Any]:
        """A call below /api/mltrack/1/, which only our own server has. ``size``: of a body that is a file. The same errors."""
        headers = {**self._headers, "X-Content-SHA256": sha256}
        if size is not None:
            headers["Content-Length"] = str(size)
        retries = Retry(0) if size is not None else None
        return self._answer(method, f"{self._base}/api/mltrack/1/{path}", body, headers, retries)

    def who(self) -> dict[str, Any]:
        """Who a server of ours takes us for. The same errors; another server refuses."""
        return self._answer("GET", f"{self._base}/api/2.0/mltrack/whoami", None, self._headers, None)

    def stream(self, path: str, most: int) -> tuple[bytes, int]:
        """The first ``most`` bytes of what is at ``path``, and the size of all of it. The same errors."""
        headers = {**self._headers, "Range": f"bytes=0-{most - 1}"}
        del headers["Content-Type"]
        try:
            response = self._pool.request(
                "GET", f"{self._base}/{path}", headers=headers, redirect=False, preload_content=False
            )
            try:
                data = response.read(most, decode_content=True)
                said = response.headers.get("Content-Range", "").rpartition("/")[2]
                said = said or response.headers.get("Content-Length", "")
                status = response.status
            finally:
                # Not all of it was read: such a connection is of no further use.
                response.close()
        except urllib3.exceptions.HTTPError as error:
            raise OSError(errno.EHOSTUNREACH, f"does not answer ({_reason(error)})", self.shown) from None
        if status == 416:  # nothing begins at the start of an empty file
            return b"", 0
        if status >= 300:
            raise ServerRefused("", f"does not hand it out (HTTP {status})", status)
        return data, int(said) if said.isdecimal() else len(data)

    def pages(self, method: str, path: str, name: str, **fields: Any) -> Iterator[list[Any]]:
        """The lists called ``name`` of all pages of an answer."""
        token = ""
        while True:
            wanted = {**fields, "page_token": token} if token else fields
            answer = self.get(path, **wanted) if method == "GET" else self.call(method, path, **wanted)
            found = answer.get(name, [])
            yield found if isinstance(found, list) else []
            following = answer.get("next_page_token", "")
            if not isinstance(following, str) or not following or following == token:
                return
            token = following

    def _json(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        return self._answer(method, f"{self._base}/api/2.0/mlflow/{path}", body, self._headers, None)

    def _answer(
        self,
        method: str,
        url: str,
        body: bytes | BinaryIO | None,
        headers: Mapping[str, str],
        retries: Retry | None,
    ) -> dict[str, Any]:
        options: dict[str, Any] = {} if retries is None else {"retries": retries}
        try:
            response = self._pool.request(
                method, url, body=body, headers=headers, redirect=False, preload_content=False, **options
            )
            data = response.read(ANSWER_BYTES + 1)
            response.release_conn()
        except urllib3.exceptions.HTTPError as error:
            kind = NotReached if isinstance(_innermost(error), _NOT_SENT) else OSError
            raise kind(errno.EHOSTUNREACH, f"does not answer ({_reason(error)})", self.shown) from None
        if len(data) > ANSWER_BYTES:
            raise OSError(errno.EFBIG, "answers with more than can be held", self.shown)
        try:
            answer = orjson.loads(data)
            if not isinstance(answer, dict):
                raise ValueError("not an object")
        except ValueError:
            raise OSError(
                errno.EPROTO, f"does not answer as an MLflow server does (HTTP {response.status})", self.shown
            ) from None
        if response.status >= 400:
            message = str(answer.get("message", ""))[:500] or f"HTTP {response.status}"
            raise ServerRefused(str(answer.get("error_code", "")), message, response.status)
        return answer


def _authorization(user: str | None, password: str | None) -> Mapping[str, str]:
    """As MLflow's client: name and password of the environment or the address, else a token."""
    user = os.environ.get("MLFLOW_TRACKING_USERNAME") or user
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD") or password
    if user and password:
        return make_headers(basic_auth=f"{user}:{password}")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


_NOT_SENT = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    urllib3.exceptions.SSLError,
    urllib3.exceptions.ProxyError,
)


def _innermost(error: Exception) -> Exception:
    """What urllib3's errors are about."""
    inner: Any = error
    while getattr(inner, "reason", None) is not None and isinstance(inner.reason, Exception):
        inner = inner.reason
    return inner  # type: ignore[no-any-return]


def _reason(error: Exception) -> str:
    inner = _innermost(error)
    # What was left of the time by then is nobody's number.
    waited = re.search(r"timeout=([\d.]+)", str(inner))
    if waited is not None:
        return f"nothing came within {math.ceil(float(waited[1]))} s"
    text = str(inner).rsplit(": ", 1)[-1]
    return text[:200] or type(inner).__name__
