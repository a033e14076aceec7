"""Who and where this process is: identity, user, ranks, cluster job, installed packages.

``identity()`` runs at every start of a run, so it is a few reads of /proc and nothing else. Where /proc is missing
(macOS) or hidden, fields are empty strings: readers then judge a run by its heartbeat alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mltrack.store.client.secrets import looks_secret as looks_secret
from mltrack.store.client.secrets import redact_command as redact_command
from mltrack.store.client.secrets import redact_url as redact_url

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MACHINE_FILES = ("/etc/machine-id", "/var/lib/dbus/machine-id")

# Constants of the machine, read once per process; a fork inherits them.
_machine: str | None = None
_boot: str | None = None


def identity() -> dict[str, object]:
    """The fields of a journal's first line that say which process wrote it: host, machine, boot, pidns, pid, pstart."""
    pid = os.getpid()
    return {
        "host": os.uname().nodename,
        "machine": machine(),
        "boot": boot(),
        "pidns": pid_namespace(),
        "pid": pid,
        "pstart": process_start(pid) or "",
    }


def machine() -> str:
    """First 12 hex digits of the SHA-256 of the machine id: tells machines apart without telling the id; "" if none."""
    global _machine
    if _machine is None:
        _machine = ""
        for path in _MACHINE_FILES:
            text = _read(path).strip()
            if text:
                _machine = _sha256(text)[:12]
                break
    return _machine


def _sha256(text: bytes) -> str:
    """Hex digest by the interpreter's own code: hashlib loads OpenSSL, which takes 3 ms of every start of a training."""
    from importlib import import_module

    for name in ("_sha2", "_sha256", "hashlib"):  # Python 3.12, 3.11, and builds without either
        try:
            return str(import_module(name).sha256(text).hexdigest())
        except (ImportError, AttributeError):
            continue
    raise AssertionError("hashlib is part of the standard library")


def boot() -> str:
    """The kernel's id of this boot; "" where there is none."""
    global _boot
    if _boot is None:
        _boot = _read(b"/proc/sys/kernel/random/boot_id").decode("ascii", "replace").strip()
    return _boot


def pid_namespace() -> str:
    """The inode of the PID namespace: two containers of one host have equal pids, but not equal namespaces."""
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return ""


def process_start(pid: int) -> str | None:
    """When the process began, in clock ticks since boot (opaque text); None when it is gone or cannot be seen."""
    fields = _stat_fields(pid)
    return fields[19].decode("ascii", "replace") if fields else None


def is_alive(pid: int, pstart: str) -> bool:
    """Whether the process that began at ``pstart`` still runs on this machine and in this PID namespace.

    A zombie is dead, and so is another process that got the same number later. In doubt (no /proc, another user's
    process under hidepid) a process that exists counts as alive: a live one must never be called lost.
    """
    if pid <= 0:
        return False
    fields = _stat_fields(pid)
    if not fields:
        return _exists(pid)
    # The first thread may have ended while others go on: the kernel shows Z, but the process lives.
    if fields[0] in b"ZXx" and int(fields[17]) <= 1:
        return False
    return not pstart or fields[19] == pstart.encode("ascii", "replace")


def user() -> str:
    """The name of the effective user by the system's list; a container without one gets the number."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return os.environ.get("USER") or os.environ.get("LOGNAME") or str(os.geteuid())


class Ranks:
    """Which process of a distributed training this is. ``source`` says whose variables told; "": a lone process."""

    __slots__ = ("local_rank", "rank", "source", "world_size")

    def __init__(self, rank: int, local_rank: int, world_size: int, source: str) -> None:
        self.rank = rank
        self.local_rank = local_rank
        self.world_size = world_size
        self.source = source

    def __repr__(self) -> str:
        return f"Ranks({self.rank}, {self.local_rank}, {self.world_size}, {self.source!r})"


# In this order: torchrun and MPI may run inside a Slurm job, whose own variables then describe only the outer step.
_RANK_VARIABLES = (
    ("torchrun", "RANK", "LOCAL_RANK", "WORLD_SIZE"),
    ("openmpi", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("mvapich", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_SIZE"),
    ("mpi", "PMI_RANK", "MPI_LOCALRANKID", "PMI_SIZE"),
    ("slurm", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS"),
)


_RANKS_OF_A_NODE = 1000


def ranks(environ: Mapping[str, str] | None = None) -> Ranks:
    """The rank by the launcher's variables; Ranks(0, 0, 1, "") when no launcher set a whole and sensible pair.

    Slurm counts only inside a step (srun): a batch script's own process has SLURM_PROCID=0 and nobody beside it.
    """
    env = os.environ if environ is None else environ
    for source, rank_name, local_name, size_name in _RANK_VARIABLES:
        rank, size = _count(env.get(rank_name)), _count(env.get(size_name))
        if rank is None or size is None or rank >= size:
            continue
        local = _count(env.get(local_name))
        if local is None and source == "mpi":
            local = _count(env.get("MPI_LOCALRANKID")) or _count(env.get("PMI_LOCAL_RANK"))
        return Ranks(rank, rank if local is None else local, size, source)
    return _lightning_ranks(env)


def _lightning_ranks(env: Mapping[str, str]) -> Ranks:
    """Lightning starts its other ranks itself and numbers them by node and place on the node; nobody sets RANK."""
    local, node, size = (_count(env.get(name)) for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"))
    if "RANK" in env or (node is None and (local is None or size is None)):
        return Ranks(0, 0, 1, "")
    if node is None and size is not None and (local or 0) >= size:
        return Ranks(0, 0, 1, "")
    # How many ranks a node has is not said. The number only has to be another for each, and 0 for the first.
    rank = (node or 0) * _RANKS_OF_A_NODE + (local or 0)
    return Ranks(rank, local or 0, max(size or 1, rank + 1, 2 if rank else 1), "lightning")


# Per launcher: the variables that are equal in all ranks of one launch and, together, in no other launch.
_LAUNCH_VARIABLES = {
    "torchrun": ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "SLURM_JOB_ID", "SLURM_STEP_ID"),
    "openmpi": (
        "PMIX_NAMESPACE",
        "OMPI_MCA_ess_base_jobid",
        "OMPI_MCA_orte_hnp_uri",
        "SLURM_JOB_ID",
        "SLURM_STEP_ID",
    ),
    "mvapich": ("SLURM_JOB_ID", "SLURM_STEP_ID", "PMI_ID_SPACE", "MASTER_ADDR", "MASTER_PORT"),
    "mpi": ("SLURM_JOB_ID", "SLURM_STEP_ID", "PMI_ID_SPACE", "MASTER_ADDR", "MASTER_PORT"),
    "lightning": ("MASTER_ADDR", "MASTER_PORT", "SLURM_JOB_ID", "SLURM_STEP_ID"),
}
_LOCAL_SIZES = {
    "torchrun": "LOCAL_WORLD_SIZE",
    "openmpi": "OMPI_COMM_WORLD_LOCAL_SIZE",
    "mvapich": "MV2_COMM_WORLD_LOCAL_SIZE",
    "mpi": "MPI_LOCALNRANKS",
}


def launch_identity(environ: Mapping[str, str] | None = None) -> str:
    """A text that all ranks of this launch have in common, and no other launch has; "" for a lone process.

    A Slurm step is named by Slurm (a requeued job keeps its name, so it goes on with its run). A launch on one machine
    is its launcher process: ports and torchrun's ``--rdzv-id`` are often the same in every launch. Launches over
    several machines outside Slurm have only those, so a fixed id and port make them look like one launch.
    """
    env = os.environ if environ is None else environ
    found = ranks(env)
    if not found.source:
        return ""
    if found.source == "slurm":
        names: tuple[str, ...] = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_STEP_ID")
    elif found.source == "lightning":
        # The first rank was started as an ordinary process and starts the others; on other nodes somebody said NODE_RANK.
        launcher, started_with = _launcher("LOCAL_RANK", os.getpid())
        if launcher and b"\0NODE_RANK=" not in started_with:
            return f"{found.source}:{machine()}:{boot()}:{pid_namespace()}:{launcher}"
        names = _LAUNCH_VARIABLES[found.source]
    else:
        if _count(env.get(_LOCAL_SIZES[found.source])) == found.world_size:
            variable = next(row[1] for row in _RANK_VARIABLES if row[0] == found.source)
            launcher, _ = _launcher(variable, os.getppid())
            if launcher:
                return f"{found.source}:{machine()}:{boot()}:{pid_namespace()}:{launcher}"
        names = _LAUNCH_VARIABLES[found.source]
    return ":".join([found.source, *(env.get(name, "") for name in names)])


def family() -> int:
    """The process that started all ranks of this launch on this machine; ourselves where that is nobody else."""
    source = ranks().source
    variables = [
        row[1] for row in _RANK_VARIABLES if row[0] == source
    ]  # Lightning's first rank starts the others
    launcher, _ = _launcher(variables[0], os.getppid()) if variables else ("", b"")
    return int(launcher.partition(":")[0] or os.getpid())


def _launcher(rank_variable: str, pid: int) -> tuple[str, bytes]:
    """pid and start of the nearest of ``pid`` and its ancestors that was started without a rank (shells in between were
    given one), and the environment it was started with; "" when it cannot be found."""
    marker = b"\0" + rank_variable.encode() + b"="
    for _ in range(16):
        fields = _stat_fields(pid)
        if pid <= 0 or not fields:
            break
        started_with = b"\0" + _read(f"/proc/{pid}/environ", 1 << 20)
        if marker not in started_with:
            return f"{pid}:{fields[19].decode('ascii', 'replace')}", started_with
        pid = int(fields[1])
    return "", b""


_STARTED = "MLTRACK_STARTED_RUNS"
_STARTED_KEPT = 64


def tell_children(number: int, run_id: str) -> None:
    """Leave in the environment which run was this process's start ``number``: the ranks that Lightning starts later begin
    the same script anew, and their start of that number is the same run."""
    if number >= _STARTED_KEPT:
        return
    me = f"{os.getpid()}:{process_start(os.getpid()) or ''}"
    owner, _, ids = os.environ.get(_STARTED, "").rpartition("=")
    known = ids.split(",") if owner == me else []
    known += [""] * (number + 1 - len(known))
    known[number] = run_id
    os.environ[_STARTED] = f"{me}={','.join(known)}"


def told_by_launcher(number: int) -> str | None:
    """The run that was start ``number`` of the process that started this rank; None when it had not started that one."""
    launcher, _ = _launcher("LOCAL_RANK", os.getpid())
    owner, _, ids = os.environ.get(_STARTED, "").rpartition("=")
    known = ids.split(",")
    return (known[number] or None) if launcher and owner == launcher and number < len(known) else None


_SLURM_FACTS = (
    "JOB_ID JOB_NAME ARRAY_JOB_ID ARRAY_TASK_ID STEP_ID CLUSTER_NAME JOB_PARTITION JOB_ACCOUNT JOB_QOS JOB_NODELIST "
    "JOB_NUM_NODES NTASKS CPUS_PER_TASK MEM_PER_NODE JOB_GPUS GPUS_ON_NODE RESTART_COUNT JOB_END_TIME SUBMIT_DIR"
).split()


def slurm_facts(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """What Slurm says of the job, keys in lower case without the prefix; {} outside a job."""
    env = os.environ if environ is None else environ
    if "SLURM_JOB_ID" not in env:
        return {}
    return {name.lower(): env["SLURM_" + name] for name in _SLURM_FACTS if env.get("SLURM_" + name)}


def packages(path: Sequence[str] | None = None) -> str:
    """The installed distributions as sorted ``name==version`` lines.

    Read from the names of the metadata folders: importlib.metadata opens every file, which on a shared filesystem
    with 400 packages takes seconds. A package that shadows another of the same name counts, as for ``import``.
    """
    import re
    import sys

    versions: dict[str, str] = {}
    for folder in sys.path if path is None else path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue  # zip files and folders that are gone
        for name in sorted(names):
            stem, ending = os.path.splitext(name)
            if ending not in (".dist-info", ".egg-info"):
                continue
            distribution, _, version = stem.partition("-")
            if ending == ".egg-info":
                version = re.sub(r"-py\d.*$", "", version)
                version = version or _metadata_version(os.path.join(folder, name, "PKG-INFO"))
            if distribution:
                versions.setdefault(re.sub(r"[-_.]+", "-", distribution).lower(), version)
    return "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))


def gpus() -> list[dict[str, object]]:
    """The NVIDIA GPUs this process may use: index, uuid, name, memory_bytes, driver; [] when there is none."""
    from mltrack.store.client import nvml

    library = nvml.open_library()
    if isinstance(library, str):
        return []
    try:
        return [library.describe(index) for index in nvml.visible_indices(library, os.environ)]
    finally:
        library.close()


def _read(path: str | bytes, limit: int = 4096) -> bytes:
    # os.read instead of open(): no text layer, no buffer, a third of the time.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, limit)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _stat_fields(pid: int) -> list[bytes]:
    """Fields 3 (state) onwards of /proc/<pid>/stat; the name before them may hold spaces and brackets."""
    _, bracket, rest = _read(f"/proc/{pid}/stat").rpartition(b")")
    fields = rest.split()
    return fields if bracket and len(fields) > 19 else []


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else None


def _metadata_version(path: str) -> str:
    for line in _read(path).split(b"\n"):
        if line.startswith(b"Version:"):
            return line[8:].strip().decode("utf-8", "replace")
    return ""
