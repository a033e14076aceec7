"""The code and surroundings of a run: commit, uncommitted changes, packages, environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mltrack.store.records import Run
from mltrack.store.store import Store
from mltrack.tui.clean import cell_width, pad
from mltrack.tui.kept_files import ASKED_SECONDS, KeptFiles

Line = list[list[str]]

_NOT_CAPTURED = "not captured"
_WIDEST_PACKAGE = 36
_MOST_PATCH_LINES = 20_000


def code(store: Store, run_id: str, width: int) -> dict[str, Any]:
    """ "lines" of [text, style] pairs; what was not recorded says so, and why. "again" while another machine has not sent its part."""
    runs = store.runs([run_id])
    if not runs:
        return {"lines": [[["The run is not in the store any more.", "dim"]]]}
    run = runs[0]
    read = KeptFiles(store, [run], ASKED_SECONDS)
    lines = [*_code_lines(run, read), [], *_environment(run), [], *_packages(run, read, width)]
    return {"lines": lines, "again": read.waiting}


CALLS = (code,)


def patch_lines(text: str) -> list[Line]:
    """A diff in the colours people know."""
    lines: list[Line] = []
    for row in text.split("\n")[:_MOST_PATCH_LINES]:
        style = (
            "bold"
            if row.startswith(("diff --git", "--- ", "+++ "))
            else "cyan"
            if row.startswith("@@")
            else "green"
            if row.startswith("+")
            else "red"
            if row.startswith("-")
            else "dim"
            if row.startswith(("index ", "new file", "deleted file", "Binary", "GIT binary"))
            else ""
        )
        lines.append([[row.expandtabs(4), style]])
    return lines


def _code_lines(run: Run, read: KeptFiles) -> list[Line]:
    git = run.facts.get("git")
    if not isinstance(git, Mapping) or not git.get("commit"):
        why = str(run.facts.get("code_note", "")).removeprefix("the code was not recorded: ")
        return [[["CODE", "header"]], [["  " + _NOT_CAPTURED + (f": {why}" if why else ""), "dim"]]]
    dirty = bool(git.get("dirty"))
    lines: list[Line] = [
        [["CODE", "header"]],
        _fact("commit", str(git["commit"])),
        _fact("branch", str(git.get("branch") or "none: a detached commit")),
        _fact("remote", str(git.get("remote") or "none")),
        [
            ["  " + pad("changes", 10), "dim"],
            [
                "± uncommitted changes" if dirty else "none: the code is its commit",
                "yellow" if dirty else "green",
            ],
        ],
    ]
    left_out = git.get("left_out")
    if isinstance(left_out, Sequence) and not isinstance(left_out, str) and left_out:
        names = ", ".join(str(name) for name in left_out[:20])
        lines.append(_fact("left out", f"{names} (secrets, or too large)"))
    if dirty and not git.get("complete", True):
        lines.append(
            [
                ["  " + pad("", 10), ""],
                ["The patch is not complete: it cannot bring the code back.", "yellow"],
            ]
        )
    if not dirty:
        return lines
    lines += [[], [["UNCOMMITTED CHANGES", "header"]]]
    digest = git.get("patch")
    text = read(str(digest)) if digest else None
    if text is None:
        why = (
            "the patch was not kept"
            if not digest
            else f"the patch {str(digest)[:8]}… {read.absence(str(digest))}"
        )
        return [*lines, [["  " + _NOT_CAPTURED + f": {why}", "dim"]]]
    return [*lines, *patch_lines(text.rstrip("\n"))]


def _environment(run: Run) -> list[Line]:
    facts = run.facts
    lines: list[Line] = [[["ENVIRONMENT", "header"]]]
    command = facts.get("command")
    if isinstance(command, Sequence) and not isinstance(command, str):
        command = " ".join(str(part) for part in command)
    for name, value in (
        ("command", command),
        ("folder", facts.get("cwd")),
        ("script", facts.get("script")),
        ("python", facts.get("python")),
        ("host", run.host),
        ("user", run.user),
        ("pid", run.pid),
    ):
        lines.append(_fact(name, str(value)) if value not in (None, "") else _missing(name))
    gpus = facts.get("gpus")
    if isinstance(gpus, Sequence) and gpus and not isinstance(gpus, str):
        lines += [_fact("gpu" if not place else "", gpu_text(gpu)) for place, gpu in enumerate(gpus)]
    else:
        lines.append(_fact("gpu", "none seen"))
    slurm = facts.get("slurm")
    if isinstance(slurm, Mapping) and slurm:
        lines += [
            _fact("slurm" if not place else "", f"{key} {value}")
            for place, (key, value) in enumerate(slurm.items())
        ]
    return lines


def gpu_text(gpu: object) -> str:
    """Name, memory, driver and id of a GPU as recorded."""
    if not isinstance(gpu, Mapping):
        return str(gpu)
    parts = [str(gpu.get("name", "GPU"))]
    if isinstance(gpu.get("memory_bytes"), (int, float)):
        parts.append(f"{gpu['memory_bytes'] / 1e9:.0f} GB")
    parts += [f"{key} {gpu[key]}" for key in ("index", "driver", "uuid") if gpu.get(key) not in (None, "")]
    return "  ".join(parts)


def _packages(run: Run, read: KeptFiles, width: int) -> list[Line]:
    digest = run.facts.get("packages")
    text = read(str(digest)) if isinstance(digest, str) else None
    if text is None:
        why = f": the list {digest[:8]}… {read.absence(digest)}" if isinstance(digest, str) else ""
        return [[["PACKAGES", "header"]], [["  " + _NOT_CAPTURED + why, "dim"]]]
    pairs = [line.partition("==")[::2] for line in text.splitlines() if line.strip()]
    lines: list[Line] = [[["PACKAGES", "header"], [f"  {len(pairs):,}", "dim"]]]
    widest = min(
        _WIDEST_PACKAGE,
        max((cell_width(name) + cell_width(version) + 2 for name, version in pairs), default=1),
    )
    across = max(1, (width - 2) // (widest + 3))
    height = -(-len(pairs) // across)
    for row in range(height):
        line: Line = [["  ", ""]]
        for name, version in pairs[row::height]:
            line += [[name + "  ", ""], [pad(version, max(1, widest - cell_width(name) - 2)) + "   ", "dim"]]
        lines.append(line)
    return lines


def _fact(name: str, value: str) -> Line:
    return [["  " + pad(name, 10), "dim"], [value, ""]]


def _missing(name: str) -> Line:
    return [["  " + pad(name, 10), "dim"], [_NOT_CAPTURED, "faint"]]
