"""What is looked at before a version is promoted: each check passes, warns or blocks, as the model's policy says."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mltrack.store.direction import guess_direction
from mltrack.store.errors import BadInput, Forbidden, MltrackError
from mltrack.store.mlmodel import MLModel, narrowed, pickles, read_mlmodel
from mltrack.store.policy import CHECKS, Policy
from mltrack.store.records import Run
from mltrack.store.registry_reading import ModelVersion
from mltrack.store.store import Store

EXAMPLE_SECONDS = 60.0
RUNNER = ("-m", "mltrack.store.flavors.runner")
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Check:
    """``outcome``: pass, warn, block, or unknown where there is nothing to look at. ``sentence`` says what was found."""

    name: str
    outcome: str
    sentence: str


def check(
    store: Store,
    name: str,
    version: int,
    target: str = "Production",
    kinds: Sequence[str] = CHECKS,
    goal: str = "",
) -> list[Check]:
    """Those ``kinds`` of checks that the policy has not switched off, against the version that holds ``target`` now.

    ``goal`` is the metric to compare where the policy names none.

    The example is asked in a child process: the model is loaded nowhere else. Raises NotFound for an unknown version.
    """
    registry = store.registry
    candidate = registry.version(name, version)
    policy = registry.model(name).policy
    number = registry.holder(name, target)
    holder = registry.version(name, number) if number is not None and number != version else None
    # Only who runs the model waits until what lies in an object store has come.
    whole = "example" in kinds and policy.level("example") != "off"
    folder, model, trouble = _read(store, candidate, whole)
    found: list[Check] = []
    for kind in kinds:
        if policy.level(kind) == "off":
            continue
        ok: bool | None
        if kind == "files":
            ok, sentence = _files(store, candidate)
        elif kind == "metric":
            ok, sentence = _metric(store, candidate, holder, policy.goal or goal, policy.margin)
        elif kind == "code":
            ok, sentence = _code(_run(store, candidate))
        elif folder is None or model is None:
            ok, sentence = False, trouble
        elif kind == "signature":
            ok, sentence = _signature(store, model, holder)
        elif kind == "example":
            ok, sentence = _example(folder, model)
        else:
            ok, sentence = None, "the files lie in an object store and were not looked at"
            if whole or not registry.away(candidate):
                ok, sentence = _pickle(store, folder, candidate)
        outcome = "unknown" if ok is None else "pass" if ok else policy.level(kind)
        found.append(Check(kind, outcome, sentence))
    return found


def blocked(checks: list[Check], policy: Policy) -> list[Check]:
    """Those that keep the promotion from happening: failed ones, and ones that must pass and could not be looked at."""
    return [
        each
        for each in checks
        if each.outcome == "block" or each.outcome == "unknown" and policy.level(each.name) == "block"
    ]


def _read(
    store: Store, version: ModelVersion, whole: bool = False
) -> tuple[Path | None, MLModel | None, str]:
    try:
        folder = store.registry.folder(version) if whole else store.registry.folder_here(version)
        return folder, read_mlmodel(folder), ""
    except MltrackError as error:
        return None, None, error.message


def _run(store: Store, version: ModelVersion) -> Run | None:
    if not version.run_id:
        return None
    runs = store.runs([version.run_id])
    return runs[0] if runs else None


def _files(store: Store, version: ModelVersion) -> tuple[bool, str]:
    wrong = store.registry.file_problems(version.name, version.version)
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return False, f"{wrong[0]}{more}"
    files = store.registry.files(version.name, version.version) or []
    return True, f"{len(files)} files present and verified (sha256)"


def _signature(store: Store, model: MLModel, holder: ModelVersion | None) -> tuple[bool | None, str]:
    inputs = model.signature.inputs if model.signature else None
    if inputs is None:
        return False, "the model does not say what it takes"
    if holder is None:
        return True, f"{len(inputs)} inputs; nobody to compare with"
    _, known, trouble = _read(store, holder)
    before = known.signature.inputs if known and known.signature else None
    if before is None:
        return None, f"v{holder.version} does not say what it takes{f' ({trouble})' if trouble else ''}"
    wrong = narrowed(before, inputs)
    if wrong:
        return False, f"callers of v{holder.version} would fail: {'; '.join(wrong[:3])}"
    if before == inputs:
        return True, f"same {len(inputs)} inputs as v{holder.version}"
    return True, f"{len(inputs)} inputs, compatible with v{holder.version}"


def _metric(
    store: Store, version: ModelVersion, holder: ModelVersion | None, goal: str, margin: float
) -> tuple[bool | None, str]:
    if not goal:
        return None, "no goal metric in the policy (goal=…)"
    own, theirs = (_best(_run(store, each), goal) if each else None for each in (version, holder))
    if own is None:
        return False, f"{goal} is not logged with the run of v{version.version}"
    if holder is None or theirs is None:
        return True, f"{goal} {own:.6g}; nothing to compare with"
    better = theirs - own if guess_direction(goal) == "min" else own - theirs
    change = f"  ({(own - theirs) / abs(theirs):+.2%})" if theirs else ""
    said = f"{goal} {own:.6g} against {theirs:.6g} of v{holder.version}{change}, margin {margin:g}"
    return better >= -margin, said


def _best(run: Run | None, key: str) -> float | None:
    """The best value where the metric says which way is better, as every screen shows it; NaN is none."""
    summary = run.metrics.get(key) if run else None
    if summary is None:
        return None
    best = summary.min if guess_direction(key) == "min" else summary.max
    return best


def _code(run: Run | None) -> tuple[bool | None, str]:
    if run is None:
        return None, "no run is recorded as its source"
    git = run.facts.get("git")
    if not isinstance(git, dict) or not git.get("commit"):
        return None, "the run was in no git repository"
    commit = str(git["commit"])[:8]
    if git.get("dirty"):
        kept = "patch kept with the run" if git.get("patch") else "no patch kept"
        return False, f"trained with uncommitted changes on {commit}: {kept}"
    return True, f"clean at {commit}"


def _pickle(store: Store, folder: Path, version: ModelVersion) -> tuple[bool, str]:
    found = pickles(folder)
    if not found:
        return True, "no file that runs code when it is loaded"
    run = _run(store, version)
    by = run.user if run and run.user else version.actor
    return False, f"contains pickle ({', '.join(found[:3])}) of {by}: runs code when loaded"


def _example(folder: Path, model: MLModel) -> tuple[bool | None, str]:
    if not model.example:
        return None, "no input example is stored with the model"
    try:
        answer, seconds, problems = try_example(folder, model.document)
    except BadInput as error:
        return False, error.message
    differs = f"; {'; '.join(problems[:2])}" if problems else ""
    return True, f"predicts, {seconds * 1000:.0f} ms, {len(answer):,} bytes{differs}"


def try_example(
    folder: Path,
    document: dict[str, Any],
    python: str = sys.executable,
    environment: dict[str, str] | None = None,
    seconds: float = EXAMPLE_SECONDS,
) -> tuple[bytes, float, list[str]]:
    """Ask the model in a child process for what it says to its stored example: the answer, its seconds, and how the environment
    differs from the model's. Raises BadInput with the reason when it does not answer."""
    with subprocess.Popen(
        [python, *RUNNER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment or runner_environment(),
        start_new_session=True,
    ) as child:
        began = time.monotonic()
        request = json.dumps(document, default=str).encode() + b"\n" + _LENGTH.pack(1) + b"e"
        try:
            output, _ = child.communicate(request, timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            raise BadInput(f"The model did not answer its example within {seconds:.0f} s.") from None
    first, _, rest = output.partition(b"\n")
    try:
        state = json.loads(first)
    except ValueError:
        raise BadInput(
            f"The model's process ended with exit code {child.returncode} before it was loaded."
        ) from None
    if "error" in state:
        raise BadInput(f"The model cannot be loaded: {state['error']}")
    frame = rest[_LENGTH.size :]
    if len(frame) < 3:
        raise BadInput(f"The model's process ended with exit code {child.returncode} on its example.")
    body = frame[3:]
    if frame[:3] != b"200":
        raise BadInput(str(json.loads(body).get("message", "The model failed on its example.")))
    return body, time.monotonic() - began - float(state["ready"]), list(state["environment"])


def runner_environment() -> dict[str, str]:
    """The environment of a process that runs a model: ours, without what would make it log or trust anything."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLTRACK_", "MLFLOW_"))}
    package = str(Path(sys.modules["mltrack"].__file__ or "").resolve().parents[1])
    sources = [package, *filter(None, kept.get("PYTHONPATH", "").split(os.pathsep))]
    return {**kept, "PYTHONPATH": os.pathsep.join(dict.fromkeys(sources))}


def require_passed(store: Store, name: str, version: int, target: str) -> list[Check]:
    """Run the checks; raises Forbidden with the first that the policy lets block."""
    policy = store.registry.model(name).policy
    must = target in policy.protected and "example" in policy.blocking
    # Loading a model can take a minute: without a rule that asks for it, `mltrack models test` is where that is done.
    kinds = [kind for kind in CHECKS if kind != "example" or must]
    found = check(store, name, version, target, kinds)
    stops = blocked(found, policy) if target in policy.protected else []
    if stops:
        raise Forbidden(f"{name} v{version} may not become {target}: {stops[0].name}: {stops[0].sentence}.")
    return found
