"""A job in a container: built from what the project declares, run as the user who launched it, with few rights."""

from __future__ import annotations

import io
import os
import posixpath
import queue
import re
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mltrack.projects.backends.base import STOP_SECONDS, Outcome, Report
from mltrack.projects.backends.engine import Engine, connect, explained, local_image
from mltrack.projects.dockerfile import CONDA_TOOL
from mltrack.projects.errors import LaunchError
from mltrack.projects.identity import CLIENT_IN_CONTAINER, STORE_IN_CONTAINER, package_places, with_client
from mltrack.projects.image_context import collect_source, write_context
from mltrack.projects.job import Job
from mltrack.projects.jobs import job_folder
from mltrack.projects.mounts import ROOT_HOME
from mltrack.store.client.journal import make_folder, run_folder
from mltrack.store.client.secrets import redact_text

LABEL = "mltrack.run"
CONTENT_LABEL = "mltrack.content"
PIDS = 8192
# How often a build looks whether it was stopped.
STOP_LOOK_SECONDS = 0.2
_MEMORY_SHARE = 2
# How engines begin a step of a build: `Step 1/5 : FROM x`, podman `STEP 1/5: FROM x`.
_STEP = re.compile(r"step (\d+)/(\d+) ?: (.*)", re.IGNORECASE)

# Connected before there was a job; the first one takes it.
ready_engine: Engine | None = None


class DockerBackend:
    """One container. It outlives us; a supervisor that comes later finds it by its id."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.given = job.docker
        self._engine: Engine | None = None
        self._container = ""
        self._image = ""
        self._taken = 0  # bytes of output that were passed on
        self._stopping = False

    @property
    def engine(self) -> Engine:
        """The engine, connected on first use."""
        global ready_engine
        if self._engine is None:
            self._engine, ready_engine = ready_engine or connect(), None
        return self._engine

    # -- the image

    def prepare(self, report: Report) -> dict[str, Any]:
        engine, given = self.engine, self.given
        reference = str(given["image"])
        found = local_image(engine, reference)
        if found is None and given.get("dockerfile"):
            base = str(given["base"])
            if local_image(engine, base) is None:
                self._pull(base, report)
            self._build(report)
            found = local_image(engine, reference)
        elif found is None:
            self._pull(reference, report)
            found = local_image(engine, reference)
        else:
            report.say(f"image {reference} is there already")
        if found is None:
            raise LaunchError(
                f"The image {reference} is not there after it was made; the engine may have run out of disk."
            )
        self._image = str(found["Id"])
        digests = found.get("RepoDigests") or []
        return {
            "image": reference,
            "image_id": self._image,
            "image_digest": digests[0] if digests else self._image,
        }

    def _pull(self, reference: str, report: Report) -> None:
        from docker.errors import APIError

        report.say(f"pulling {reference}")
        name, _, tag = (
            reference.rpartition(":") if ":" in reference.rpartition("/")[2] else (reference, "", "latest")
        )
        if "@" in reference:
            name, tag = reference, ""
        seen: dict[str, str] = {}
        try:
            for event in self.engine.api.pull(name, tag=tag or None, stream=True, decode=True):
                if "error" in event:
                    raise LaunchError(
                        f"The image {reference} cannot be had: {redact_text(str(event['error']))[:300]}"
                    )
                status, layer = str(event.get("status", "")), str(event.get("id", ""))
                # One line per layer and state; the bars would be thousands.
                if status and seen.get(layer) != status:
                    seen[layer] = status
                    report.say(f"{layer + ': ' if layer else ''}{status}")
        except APIError as error:
            raise LaunchError(f"The image {reference} cannot be had: {explained(error)}") from None

    def _build(self, report: Report) -> None:
        from docker.errors import APIError, BuildError

        given = self.given
        files = {name: str(text).encode() for name, text in dict(given["files"]).items()}
        if given.get("ca"):
            files["mltrack-ca.crt"] = Path(given["ca"]).read_bytes()
        if given.get("conda_tool"):
            files[CONDA_TOOL] = Path(given["conda_tool"]).read_bytes()
        source = given["source"] if "source" in given else collect_source(Path(self.job.folder))
        step, what, failed = "0", "", ""
        with tempfile.TemporaryFile() as context:
            write_context(context, str(given["dockerfile"]), files, source)
            context.seek(0)
            try:
                events = self.engine.api.build(
                    fileobj=context,
                    custom_context=True,
                    tag=given["image"],
                    labels={CONTENT_LABEL: str(given["content"])},
                    buildargs=dict(given.get("build_args") or {}),
                    network_mode=given.get("build_network"),
                    rm=True,
                    forcerm=True,
                    decode=True,
                    timeout=24 * 3600,
                )
                for event in self._unless_stopped(events):
                    text = str(event.get("stream", ""))
                    begun = _STEP.match(text)
                    if begun:
                        step, steps, what = begun.groups()
                        report.step(int(step), int(steps), what)
                    if "error" in event:
                        failed = str((event.get("errorDetail") or {}).get("message") or event["error"])
                    if text:
                        report.output(text.encode("utf-8", "backslashreplace"))
            except (APIError, BuildError) as error:
                failed = explained(error)
        if failed:
            raise LaunchError(f"The build failed at step {step} ({what[:160]}): {redact_text(failed)[:300]}")

    def _unless_stopped(self, events: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """What the engine tells while it builds or pulls. A step may be silent for long, so a thread waits for it; when the job is
        stopped it is left behind, and the engine gives up the build once this process and its connection are gone."""
        heard: queue.SimpleQueue[dict[str, Any] | Exception | None] = queue.SimpleQueue()

        def listen() -> None:
            try:
                for event in events:
                    heard.put(event)
                heard.put(None)
            except (OSError, ValueError, DockerException) as error:
                heard.put(error)

        from docker.errors import DockerException

        threading.Thread(target=listen, daemon=True).start()
        while True:
            if self._stopping:
                raise LaunchError("Stopped while its image was made.")
            try:
                event = heard.get(timeout=STOP_LOOK_SECONDS)
            except queue.Empty:
                continue
            if event is None:
                return
            if isinstance(event, Exception):
                raise event
            yield event

    # -- the container

    def start(self, report: Report) -> None:
        from docker.errors import APIError

        api, job = self.engine.api, self.job
        try:
            config = api.create_host_config(**self._host_config())
            made = api.create_container(
                self._image,
                command=job.command,
                environment=self._environment(),
                user=self._user(),
                working_dir=self.given.get("workdir") or self._workdir(),
                labels={LABEL: job.run_id, "mltrack.store": job.root},
                name=f"mltrack-{job.run_id[:16]}",
                host_config=config,
            )
            self._container = str(made["Id"])
            report.handle({"container": self._container, "image": self._image})
            self._settle_user()
            if self.given.get("gpus"):
                self._check_gpus()
            api.start(self._container)
        except APIError as error:
            text = explained(error)
            if "could not select device driver" in text or "nvidia" in text.lower():
                text = f"the engine has no GPU support (nvidia-container-toolkit): {text}"
            if "executable file not found" in text or "no such file or directory" in text:
                text = f"{job.command[0]}: command not found in the image"
            raise LaunchError(f"The container could not be started: {text}") from None
        if self.engine.name == "podman" and self.given.get("memory"):
            self._check_memory(report)

    def _host_config(self) -> dict[str, Any]:
        given = self.given
        memory = given.get("memory")
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        config: dict[str, Any] = {
            "binds": [f"{mount[0]}:{mount[1]}:{'ro' if mount[2] else 'rw'}" for mount in self._mounts()],
            "init": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "pids_limit": PIDS,
            "shm_size": (min(memory, total) if memory else total) // _MEMORY_SHARE,
            "group_add": [str(group) for group in given.get("groups") or []],
        }
        if given.get("network"):
            config["network_mode"] = given["network"]
        if memory:
            # Without swap: a job that is over its limit ends with a reason instead of crawling.
            config.update(mem_limit=memory, memswap_limit=memory)
        if given.get("gpus"):
            from docker.types import DeviceRequest

            config["device_requests"] = [
                DeviceRequest(device_ids=list(given["gpus"]), capabilities=[["gpu"]])
            ]
        return config

    def _mounts(self) -> Iterator[tuple[str, str, bool]]:
        """The store as far as this run needs it, the client, and what was asked for."""
        job, root = self.job, Path(self.job.root)
        folder = run_folder(root, job.run_id)
        skeleton = job_folder(root, job.run_id) / "store"
        shard = f"runs/{job.run_id[:2]}/{job.run_id}"
        for path in (folder, folder / "artifacts", root / "open", root / "blobs", skeleton / shard):
            make_folder(path, root)
        for name in ("open", "blobs"):
            make_folder(skeleton / name, root)
        # The same permission bits as the store's own folder: they say whether it is shared with a group.
        os.chmod(skeleton, os.stat(root).st_mode & 0o7777)
        yield str(skeleton), STORE_IN_CONTAINER, False
        yield str(folder), f"{STORE_IN_CONTAINER}/{shard}", False
        yield str(root / "open"), f"{STORE_IN_CONTAINER}/open", False
        yield str(root / "blobs"), f"{STORE_IN_CONTAINER}/blobs", False
        init, store = package_places()
        yield str(init), f"{CLIENT_IN_CONTAINER}/mltrack/__init__.py", True
        yield str(store), f"{CLIENT_IN_CONTAINER}/mltrack/store", True
        yield from (tuple(mount) for mount in self.given.get("mounts") or [])

    def _environment(self) -> dict[str, str]:
        image = self._configured()
        of_image = dict(item.partition("=")[::2] for item in image.get("Env") or [])
        wanted = {
            "HOME": self._home(),
            "USER": str(self.given["user"]),
            "LOGNAME": str(self.given["user"]),
            **self.job.environment,
        }
        wanted["PYTHONPATH"] = with_client(
            wanted.get("PYTHONPATH") or of_image.get("PYTHONPATH"), CLIENT_IN_CONTAINER
        )
        return wanted

    def _configured(self) -> dict[str, Any]:
        found = local_image(self.engine, self._image) or {}
        return dict(found.get("Config") or {})

    def _workdir(self) -> str:
        """An image that was given: where it works itself; without that, the project that is mounted into it."""
        own = str(self._configured().get("WorkingDir") or "")
        return own if own not in ("", "/") else str(self.given.get("code") or "/")

    def _home(self) -> str:
        return ROOT_HOME if self._as_root() else f"/home/{self.given['user']}"

    def _as_root(self) -> bool:
        # Root of a rootless engine is the user outside; any other number would be a stranger there.
        return bool(self.engine.rootless) or int(self.given["uid"]) == 0

    def _user(self) -> str:
        return "0:0" if self._as_root() else f"{self.given['uid']}:{self.given['gid']}"

    def _settle_user(self) -> None:
        """A passwd entry and a home of one's own, written into the container before it starts."""
        uid, gid = (0, 0) if self._as_root() else (int(self.given["uid"]), int(self.given["gid"]))
        user, home = str(self.given["user"]), self._home()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            if uid != 0:
                passwd = _without(self._read_file("/etc/passwd"), user, uid)
                _add(archive, "etc/passwd", f"{passwd}{user}:x:{uid}:{gid}::{home}:/bin/bash\n".encode())
                group = self._read_file("/etc/group")
                if not any(line.split(":")[2:3] == [str(gid)] for line in group.splitlines()):
                    _add(archive, "etc/group", f"{group}{user}:x:{gid}:\n".encode())
            made = set()
            for path in (home, f"{home}/.cache", f"{home}/.config", *self._cache_parents(home)):
                if path not in made:
                    made.add(path)
                    entry = tarfile.TarInfo(path.lstrip("/"))
                    entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o700, uid, gid
                    archive.addfile(entry)
        self.engine.api.put_archive(self._container, "/", packed.getvalue())

    def _cache_parents(self, home: str) -> Iterator[str]:
        """The folders between the home and what is mounted below it; else the engine makes them, as root."""
        for _, target, _ in self.given.get("mounts") or []:
            if target.startswith(home + "/"):
                parts = posixpath.relpath(posixpath.dirname(target), home).split("/")
                for depth in range(1, len(parts) + 1):
                    if parts[0] != ".":
                        yield posixpath.join(home, *parts[:depth])

    def _read_file(self, path: str) -> str:
        from docker.errors import NotFound

        try:
            stream, _ = self.engine.api.get_archive(self._container, path)
        except NotFound:
            return ""
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            for entry in archive:
                file = archive.extractfile(entry) if entry.isreg() else None
                if file is not None:
                    text = file.read(1 << 20).decode("utf-8", "replace")
                    return text if text.endswith("\n") or not text else text + "\n"
        return ""

    def _check_gpus(self) -> None:
        """podman makes the container without them and says nothing."""
        told = self.engine.api.inspect_container(self._container)["HostConfig"]
        if self.engine.name == "podman" and not (told.get("DeviceRequests") or told.get("Devices")):
            raise LaunchError(
                "podman did not take the request for GPUs: it would run without. Use Docker Engine or --backend venv, or --gpu none."
            )

    def _check_memory(self, report: Report) -> None:
        told = self.engine.api.inspect_container(self._container)["HostConfig"].get("Memory")
        if told != self.given["memory"]:
            report.say("podman did not take the memory limit; the job may use all of this machine's")

    # -- until its end

    def attach(self, handle: dict[str, Any], report: Report) -> bool:
        from docker.errors import NotFound

        self._container = str(handle.get("container", ""))
        self._taken = int(handle.get("taken", 0))
        try:
            self.engine.api.inspect_container(self._container)
        except NotFound:
            return False
        return True

    @property
    def taken(self) -> int:
        """Bytes of output that were passed on: where a later supervisor goes on."""
        return self._taken

    def follow(self, report: Report) -> Outcome:
        from docker.errors import APIError, NotFound

        api = self.engine.api
        skip, tail = self._taken, b""
        try:
            for piece in api.logs(self._container, stdout=True, stderr=True, stream=True, follow=True):
                if skip:
                    cut = min(skip, len(piece))
                    skip -= cut
                    piece = piece[cut:]
                if piece:
                    tail = (tail + piece)[-400:]
                    self._taken += len(piece)
                    report.output(piece)
            code = int(api.wait(self._container, timeout=30)["StatusCode"])
            state = dict(api.inspect_container(self._container)["State"])
        except NotFound:
            return Outcome(None, "the container was removed")
        except (APIError, OSError, ValueError) as error:
            raise LaunchError(f"The engine was lost while the job ran ({explained(error)}).") from None
        if state.get("OOMKilled"):
            limit = self.given.get("memory")
            return Outcome(code, f"out of memory{f' (limit {limit >> 20} MiB)' if limit else ''}", True)
        if b"ERROR (catatonit" in tail and b"failed to exec pid1" in tail:
            # podman's init tells nothing apart by its exit code.
            code = 127 if b"No such file" in tail else 126
            tail = b"[FATAL tini"
        if code in (126, 127) and b"[FATAL tini" in tail:
            missing = "command not found" if code == 127 else "cannot be run"
            return Outcome(code, f"{self.job.command[0]}: {missing} in the image")
        return Outcome(code, str(state.get("Error") or ""))

    def stop(self, kill: bool) -> None:
        from docker.errors import APIError

        self._stopping = True
        if not self._container:
            return
        api = connect().api  # a connection of its own: the other one is reading output
        try:
            if kill:
                api.kill(self._container)
            else:
                api.stop(self._container, timeout=int(STOP_SECONDS))
        except APIError:
            return  # it has just ended
        finally:
            api.close()

    def close(self) -> None:
        from docker.errors import APIError, DockerException

        try:
            if self._container:
                self.engine.api.remove_container(self._container, force=True, v=True)
        except (APIError, DockerException, OSError):
            return  # gone already, or the engine is
        finally:
            if self._engine is not None:
                self._engine.api.close()
        self._bring_home()

    def _bring_home(self) -> None:
        """Runs that the job started beside its own were written into the skeleton: move them to the store."""
        root = Path(self.job.root)
        skeleton = job_folder(root, self.job.run_id) / "store"
        for folder in sorted((skeleton / "runs").glob("??/" + "?" * 32)):
            target = run_folder(root, folder.name)
            if folder.name != self.job.run_id and not target.exists():
                make_folder(target.parent, root)
                os.rename(folder, target)
        shutil.rmtree(skeleton, ignore_errors=True)


def _without(passwd: str, user: str, uid: int) -> str:
    kept = [
        line
        for line in passwd.splitlines()
        if line.split(":")[0] != user and line.split(":")[2:3] != [str(uid)]
    ]
    return "".join(f"{line}\n" for line in kept)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))
