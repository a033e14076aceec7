"""The ASGI application: one guard in front of every route, then a table of routes."""

from __future__ import annotations

import asyncio
import mimetypes
import re
import unicodedata
from collections.abc import AsyncIterator, Awaitable
from urllib.parse import parse_qs, quote, unquote

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

import mltrack
from mltrack.store.acting import acting
from mltrack.store.copies import stream
from mltrack.store.errors import MltrackError
from mltrack.store.mlflow_api import (
    artifacts,
    experiments,
    journals,
    logged_models,
    logging,
    registry,
    runs,
    versions,
)
from mltrack.store.mlflow_api.api import Answer, Api, Handler
from mltrack.store.mlflow_api.guard import Asker, Guard, Rules
from mltrack.store.mlflow_api.validate import check_run_id
from mltrack.store.mlflow_api.wire import ApiError, Fields, from_error, invalid

BODY_BYTES = 16 << 20
PREFIXES = ("/api/2.0/mlflow/", "/ajax-api/2.0/mlflow/")
UPLOAD = "/ajax-api/2.0/mlflow/upload-artifact"
FILE_PREFIXES = ("/api/2.0/mlflow-artifacts/artifacts", "/ajax-api/2.0/mlflow-artifacts/artifacts")
WHO = "/api/2.0/mltrack/whoami"
ROUTES: dict[tuple[str, str], Handler] = {
    **experiments.ROUTES,
    **runs.ROUTES,
    **logging.ROUTES,
    **artifacts.ROUTES,
    **logged_models.ROUTES,
    **registry.ROUTES,
}
# Endings (or whole names) of files that people read as text.
_TEXTS = frozenset(
    "txt log json yaml yml csv tsv md rst py js sh bash toml ini cfg conf xml css r jsonl ipynb mlmodel mlproject".split()
)
# Parts of MLflow that are not served, by the first part of their path.
NOT_SERVED = frozenset(
    "traces gateway webhooks scorers datasets prompts prompt-optimization assessments jobs label-schemas review-queues issues"
    " workspaces secrets users permissions mcp-servers".split()
)


class Application:
    """Serves one store."""

    def __init__(self, api: Api, rules: Rules) -> None:
        self._api = api
        self._guard = Guard(api, rules)
        self._patterns = [
            (method, path.split("/"), handler) for (method, path), handler in ROUTES.items() if "{" in path
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ApiError as error:
            response = _json(error.body(), error.status)
        except MltrackError as error:
            answer = from_error(error)
            response = _json(answer.body(), answer.status)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        # MLflow's server takes `//` for `/`.
        path, method = "/" + request.url.path.lstrip("/"), request.method
        if path == "/health":
            return Response("OK", media_type="text/plain")
        asker = self._guard.identify(request)
        if path == UPLOAD and method == "POST":
            return await self._upload(request, asker)
        for prefix in PREFIXES:
            if path.startswith(prefix):
                return await self._call(request, asker, method, path[len(prefix) :])
        for prefix in FILE_PREFIXES:
            if path == prefix or path.startswith(prefix + "/"):
                rest = _raw_path(request)[len(prefix) :]
                return await self._file(request, asker, method, rest.removeprefix("/"))
        if path.startswith(journals.PREFIX):
            return await self._journals(request, asker, method, _raw_path(request)[len(journals.PREFIX) :])
        if path in ("/get-artifact", "/model-versions/get-artifact"):
            return await self._get_artifact(request, asker, method, path)
        if path == "/version":
            return Response(mltrack.__version__, media_type="text/plain")
        if path == WHO and method == "GET":
            return _json(orjson.dumps(asker.told()))
        if path in ("/api/3.0/mlflow/server-info", "/ajax-api/3.0/mlflow/server-info"):
            return _json(orjson.dumps(_SERVER_INFO))
        first = path.removeprefix("/api/3.0/mlflow/").split("/")[0]
        if first in NOT_SERVED or path.startswith(
            ("/v1/", "/api/2.0/mlflow-artifacts/", "/ajax-api/2.0/mlflow-artifacts/")
        ):
            raise ApiError("NOT_IMPLEMENTED", f"mltrack does not serve {path[:200]}.")
        raise ApiError("ENDPOINT_NOT_FOUND", f"There is no {method} {path[:200]} here.")

    async def _call(self, request: Request, asker: Asker, method: str, path: str) -> Response:
        handler, route = ROUTES.get((method, path)), path
        found: dict[str, str] = {}
        if handler is None or "{" in path:
            handler, route, found = self._pattern(method, path)
        if handler is None:
            if path.split("/")[0] in NOT_SERVED:
                raise ApiError("NOT_IMPLEMENTED", f"mltrack does not serve {path[:200]}.")
            known = {known for known, name in ROUTES if name == path}
            if known:
                return Response(
                    f"Method Not Allowed: use {', '.join(sorted(known))}", 405, media_type="text/plain"
                )
            raise ApiError("ENDPOINT_NOT_FOUND", f"There is no {method} {path[:200]} here.")
        fields = await _fields(request, method)
        fields.values = {**fields.values, **found}
        need = self._guard.permit(asker, method, route, fields)
        try:
            with acting(asker.actor):
                answer = handler(self._api, fields)
                if isinstance(answer, Awaitable):
                    answer = await answer
            answer = self._guard.only_seen(asker, need, answer)
        except RecursionError:
            raise invalid("The request is nested too deeply.") from None
        return _json(orjson.dumps(answer))

    def _pattern(self, method: str, path: str) -> tuple[Handler | None, str, dict[str, str]]:
        """The route of a path with names in it, and those names."""
        parts = path.split("/")
        for wanted, names, handler in self._patterns:
            if wanted != method or len(names) != len(parts):
                continue
            if all(name == part or name.startswith("{") for name, part in zip(names, parts, strict=True)):
                found = {
                    name.strip("{}"): unquote(part)
                    for name, part in zip(names, parts, strict=True)
                    if name.startswith("{")
                }
                return handler, "/".join(names), found
        return None, path, {}

    async def _journals(self, request: Request, asker: Asker, method: str, path: str) -> Response:
        api = self._api
        call, _, rest = path.partition("/")
        self._guard.permit_journal(asker, method, call, rest)
        digest = request.headers.get("x-content-sha256", "")
        answer: Answer
        if (method, call) == ("PUT", "append"):
            offset = parse_qs(request.url.query).get("offset", [""])[-1]
            answer = journals.append(api, rest, offset, digest, await _body(request), asker.known_name)
        elif (method, call) == ("PUT", "file"):
            chunks = self._guard.measured(request)
            await artifacts.receive(api, journals.place_of(api, rest, digest), chunks, digest)
            answer = {}
        elif (method, call) == ("GET", "state"):
            answer = await asyncio.to_thread(
                journals.state, journals.stored(api, rest), journals.copied(api, rest)
            )
        elif (method, call) == ("POST", "beat"):
            answer = journals.beat(api, await _fields(request, method))
        else:
            raise ApiError("ENDPOINT_NOT_FOUND", f"There is no {method} {request.url.path[:200]} here.")
        return _json(orjson.dumps(answer))

    async def _file(self, request: Request, asker: Asker, method: str, path: str) -> Response:
        api = self._api
        folder = parse_qs(request.url.query).get("path", [""])[-1] if method == "GET" and not path else None
        self._guard.permit_file(asker, method, path if folder is None else folder)
        if method == "PUT":
            await artifacts.receive(api, artifacts.place(api, path), self._guard.measured(request))
            return Response(status_code=200)
        if folder is not None:
            target = artifacts.place(api, folder)
            files = artifacts.listed(api, target)
            return _json(orjson.dumps({"files": files} if files else {}))
        target = artifacts.place(api, path)
        if method == "DELETE":
            await artifacts.remove(api, target)
            return _json(b"{}")
        if method not in ("GET", "HEAD"):
            return Response("Method Not Allowed", 405, media_type="text/plain")
        return await _sent(api, target)

    async def _upload(self, request: Request, asker: Asker) -> Response:
        """A small file of a run, as pages of MLflow's send one."""
        fields, api = _query(request), self._api
        for name in ("run_uuid", "path"):
            if not fields.text(name):
                raise invalid(f"Request must specify {name}.")
        run_id, path = fields.text("run_uuid"), fields.text("path")
        artifacts.split(path)
        check_run_id(run_id)
        self._guard.permit_file(asker, "PUT", f"0/{run_id}/artifacts/{path}")
        target = artifacts.place(api, f"{api.run(run_id).experiment_id}/{run_id}/artifacts/{path}")
        body = await _body(request)
        if not body:
            raise invalid("Request must specify data.")

        async def whole() -> AsyncIterator[bytes]:
            yield body

        await artifacts.receive(api, target, whole())
        return Response(status_code=200)

    async def _get_artifact(self, request: Request, asker: Asker, method: str, path: str) -> Response:
        """A file as links of MLflow's pages name it."""
        if method != "GET":
            return Response("Method Not Allowed", 405, media_type="text/plain")
        fields = _query(request)
        self._guard.permit(asker, method, path, fields)
        if path == "/get-artifact":
            return await _sent(self._api, artifacts.of_run(self._api, fields))
        names = artifacts.split(fields.needed("path"))
        target = artifacts.place(self._api, versions.folder_of(self._api, fields))
        return await _sent(self._api, artifacts.Place(target.root, (*target.names, *names), target.run_id))


_SERVER_INFO = {
    "store_type": "SqlStore",
    "workspaces_enabled": False,
    "multipart_uploads_enabled": False,
    "multipart_downloads_enabled": False,
}


async def _sent(api: Api, target: artifacts.Place) -> Response:
    """A file, streamed, in ranges when they are asked for; one that lies only in an object store as it comes from there."""
    kind = artifacts.kind_of(target)
    if kind == "folder":
        raise invalid(f"Artifact path refers to a directory, not a file: '{'/'.join(target.names)[:200]}'")
    if kind != "file" or not target.names:
        for copy in artifacts.copies_at(api, target):
            if copy.path == "/".join(target.names):
                pieces = await asyncio.to_thread(stream, copy)
                return StreamingResponse(pieces, headers=_file_headers(copy.path, copy.size))
        raise ApiError("RESOURCE_DOES_NOT_EXIST", f"There is no artifact '{'/'.join(target.names)[:200]}'.")
    headers = _file_headers(target.names[-1])
    return FileResponse(target.path, headers=headers)


def _file_headers(path: str, size: int | None = None) -> dict[str, str]:
    name = path.rpartition("/")[2]
    return {
        "Content-Type": _kind_of(name),
        "Content-Disposition": _disposition(name),
        "X-Content-Type-Options": "nosniff",
        **({} if size is None else {"Content-Length": str(size)}),
    }


def _kind_of(name: str) -> str:
    """The content type of a file: what is written by hand is text, as MLflow's server says it."""
    ending = name.rpartition(".")[2].lower()
    if ending in _TEXTS:
        return "text/plain"
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def _disposition(name: str) -> str:
    """Says how a file is called, also to clients that know only the plain form."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    plain = "".join(character for character in plain if character.isprintable())
    shown = plain if re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", plain, re.ASCII) else _quoted(plain)
    exact = f"; filename*=UTF-8''{quote(name)}" if plain != name else ""
    return f"attachment; filename={shown}{exact}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


def _raw_path(request: Request) -> str:
    """The path, decoded once: what a client encoded stays a part of a name."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    return unquote(raw.decode("latin-1").split("?")[0])


def _query(request: Request) -> Fields:
    query = parse_qs(request.url.query, keep_blank_values=True)
    return Fields({name.removesuffix("[]"): values for name, values in query.items()}, loose=True)


async def _fields(request: Request, method: str) -> Fields:
    if method == "GET":
        return _query(request)
    if method == "DELETE" and "content-type" not in request.headers and not await _body(request):
        return Fields({})
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise invalid(f"Bad Request. Content-Type must be one of ['application/json'], not '{kind[:80]}'.")
    body = await _body(request)
    try:
        values = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as error:
        raise invalid(f"The request is not JSON ({error}).") from None
    if isinstance(values, str):  # old clients encode their JSON twice
        try:
            values = orjson.loads(values)
        except orjson.JSONDecodeError as error:
            raise invalid(f"The request is not JSON ({error}).") from None
    if not isinstance(values, dict):
        raise invalid("The request must be a JSON object.")
    return Fields(values)


async def _body(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > BODY_BYTES:
        raise ApiError("REQUEST_TOO_LARGE", "A request may have 16 MiB; log large things as artifacts.")
    parts: list[bytes] = []
    size = 0
    stream: AsyncIterator[bytes] = request.stream()
    async for chunk in stream:
        size += len(chunk)
        if size > BODY_BYTES:
            raise ApiError("REQUEST_TOO_LARGE", "A request may have 16 MiB; log large things as artifacts.")
        parts.append(chunk)
    return b"".join(parts)
