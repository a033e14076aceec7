"""Runs side by side: what differs, which value is best, and which difference goes with better or worse results.

Pure: runs in, rows out. The screen and `mltrack compare` draw the same rows.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from mltrack.tui.draw.numbers import parse_number
from mltrack.tui.goal import direction_arrow, is_background

if TYPE_CHECKING:
    from mltrack.store.records import Run

Section: TypeAlias = Literal["metrics", "params", "circumstances", "tags"]
SECTION_TITLES: dict[Section, str] = {
    "metrics": "METRICS",
    "params": "PARAMS",
    "circumstances": "CODE, ENVIRONMENT, DATA, MACHINE",
    "tags": "TAGS",
}
ReadBlob: TypeAlias = Callable[[str], str | None]
"""Text of a kept file (a patch, a list of packages) by its digest; None when it is not there."""
# Packages that explain a difference before all others.
_PROMINENT = ("torch", "tensorflow", "jax", "flax", "transformers", "lightning", "scikit-learn", "numpy")
_LEAST_RUNS = 3
# Up to so many runs are explained one by one; and numbers this near to each other are taken for the same setting.
FEW_RUNS, _NEAR = 8, 1.2


@dataclass(frozen=True)
class Row:
    """One line of the comparison: a value per run, None where a run has none."""

    section: Section
    key: str
    values: tuple[str | float | None, ...]
    effect: float | None = None
    """Share of the goal metric's spread (0..1) that goes along with this value; None where nobody can say."""

    @property
    def differs(self) -> bool:
        """Whether the runs disagree; NaN equals NaN here."""
        return len({"NaN" if value != value else value for value in self.values}) > 1

    @property
    def best(self) -> float | None:
        """The best value of a metric that has a good end; NaN and infinities are never it."""
        arrow = direction_arrow(self.key) if self.section == "metrics" else ""
        numbers = [value for value in self.values if isinstance(value, float) and math.isfinite(value)]
        if not numbers or not arrow:
            return None
        return min(numbers) if arrow == "↓" else max(numbers)

    @property
    def reference(self) -> float | None:
        """What the values of a metric are measured against: the best one; without a good end the first number there is."""
        if self.section != "metrics" or self.best is not None:
            return self.best
        numbers = (value for value in self.values if isinstance(value, float) and math.isfinite(value))
        return next(numbers, None)

    @property
    def usual(self) -> str | float | None:
        """The value that most runs have; of equally many the first."""
        counts = Counter(self.values)
        return max(self.values, key=counts.__getitem__)


@dataclass(frozen=True)
class Reason:
    """A difference between the better and the worse of two runs, and what other runs say about it."""

    key: str
    values: tuple[str | None, str | None]
    """Of the better run, of the worse."""
    others: int
    """Runs beside the worse one that have its value, or a number within a fifth of it."""
    median: float | None
    """Of the goal metric of those others."""
    blame: float
    """0: they do as well as the better run, so this is not why; 1: they do as badly, or there are none to say."""


def compare_rows(
    runs: Sequence[Run],
    aggregate: str,
    *,
    everything: bool = False,
    read_blob: ReadBlob | None = None,
    effects: Mapping[str, float] | None = None,
) -> list[Row]:
    """All rows in the order they are shown: metrics, params (those with most effect first), circumstances, tags.

    ``aggregate`` is last, best, min or max. ``everything`` takes in system/* too.
    """
    from mltrack.tui.cli.columns import aggregate_of

    rows: list[Row] = []
    keys = sorted(
        {key for run in runs for key in run.metrics if everything or not key.startswith("system/")},
        key=lambda key: (is_background(key), key),
    )
    for key in keys:
        found = [run.metrics.get(key) for run in runs]
        values = tuple(None if summary is None else aggregate_of(summary, aggregate) for summary in found)
        rows.append(Row("metrics", key, values))
    return [*rows, *other_rows(runs, read_blob=read_blob, effects=effects)]


def other_rows(
    runs: Sequence[Run], *, read_blob: ReadBlob | None = None, effects: Mapping[str, float] | None = None
) -> list[Row]:
    """The rows below the metrics: params (those with most effect first), circumstances, tags."""
    effects = effects or {}
    params = [
        Row("params", key, tuple(run.params.get(key) for run in runs), effects.get(key))
        for key in sorted({key for run in runs for key in run.params})
    ]
    # Stable: what has no effect, or none that anybody can tell, stays in the order of the alphabet.
    rows = sorted(params, key=lambda row: -(row.effect or 0.0) if row.differs else 1.0)
    for name, read in CIRCUMSTANCES.items():
        if name == "packages" and read_blob is not None:
            texts: tuple[str | None, ...] = _package_texts(runs, read_blob)
        else:
            texts = tuple(read(run) for run in runs)
        if any(texts):
            rows.append(Row("circumstances", name, texts, effects.get(f"({name})")))
    for key in sorted({key for run in runs for key in run.tags}):
        rows.append(Row("tags", key, tuple(run.tags.get(key) for run in runs)))
    return rows


def most_telling(rows: Sequence[Row], goal: str | None) -> list[Row]:
    """Metrics in the order worth looking at: the goal, what most runs have, held-out before training."""
    return sorted(
        rows, key=lambda row: telling_rank(row.key, sum(value is None for value in row.values), goal)
    )


def telling_rank(key: str, missing: int, goal: str | None) -> tuple[bool, bool, int, bool, str]:
    """What metrics are sorted by, the one most worth looking at first; ``missing``: how many runs have it not."""
    held_out = key.startswith(("val", "test", "eval"))
    return key != goal, is_background(key), missing, not held_out, key


# -- which difference matters


def traits(run: Run) -> dict[str, str]:
    """What could explain a run's result: its params, and code, packages, data and machine as "(name)"."""
    found = dict(run.params)
    for name in ("commit", "packages", "data", "gpu"):
        value = CIRCUMSTANCES[name](run)
        if value is not None:
            found[f"({name})"] = value
    return found


def goal_values(runs: Sequence[Run], goal: str) -> list[float | None]:
    """The best value of the goal metric of each run; None where there is none or it is not finite."""
    from mltrack.tui.cli.columns import aggregate_of

    values: list[float | None] = []
    for run in runs:
        summary = run.metrics.get(goal)
        value = None if summary is None else aggregate_of(summary, "best")
        values.append(value if value is not None and math.isfinite(value) else None)
    return values


def find_effects(runs: Sequence[Run], goal: str, keys: Sequence[str]) -> dict[str, float]:
    """For each of these traits the share (0..1) of the goal's spread over the runs that goes along with it.

    An association, not a proof: params that were changed together share it. Empty with fewer than three results.
    """
    results = goal_values(runs, goal)
    kept = [(traits(run), value) for run, value in zip(runs, results, strict=True) if value is not None]
    if len(kept) < _LEAST_RUNS:
        return {}
    goals = [value for _, value in kept]
    return {key: association([found.get(key) for found, _ in kept], goals) for key in keys}


def association(values: Sequence[str | None], goals: Sequence[float]) -> float:
    """Explained share of the spread of ``goals`` by rank (0..1), adjusted for what chance explains.

    By rank, because one diverged run would otherwise be all the spread there is. Numbers are taken by rank too (any
    curve that only rises or falls counts in full), everything by its groups; the larger of the two. A value that every
    run has for itself explains nothing.
    """
    count = len(goals)
    goals = _ranks(goals)
    mean = sum(goals) / count
    total = sum((goal - mean) ** 2 for goal in goals)
    groups: dict[str | None, list[float]] = {}
    for value, goal in zip(values, goals, strict=True):
        groups.setdefault(value, []).append(goal)
    if total <= 0 or len(groups) < 2:
        return 0.0
    share = 0.0
    if len(groups) < count:
        between = sum(len(group) * (sum(group) / len(group) - mean) ** 2 for group in groups.values())
        share = 1 - (1 - between / total) * (count - 1) / (count - len(groups))
    numbers = [parse_number(value) if value is not None else None for value in values]
    known = [number for number in numbers if number is not None]
    if len(known) == count and len(set(known)) >= 3 and count > 3:
        r = _correlation(_ranks(known), goals)
        share = max(share, 1 - (1 - r * r) * (count - 1) / (count - 2))
    return max(0.0, min(1.0, share))


@dataclass(frozen=True)
class Witnesses:
    """What runs have and how they did, worked out once for all pairs that are explained by them."""

    traits: Sequence[Mapping[str, str]]
    results: Sequence[float | None]
    places: Mapping[str, int]

    @classmethod
    def of(cls, population: Sequence[Run], goal: str) -> Witnesses:
        """Of these runs."""
        places = {run.run_id: place for place, run in enumerate(population)}
        return cls([traits(run) for run in population], goal_values(population, goal), places)


def find_reasons(better: Run, worse: Run, population: Sequence[Run] | Witnesses, goal: str) -> list[Reason]:
    """How ``worse`` differs from ``better``, what is most to blame first.

    Other runs are the witnesses: where they have the value of the worse run and do well, the value is cleared. Seeds
    come last: each run has its own, and it is never the whole story. Empty when one of the two has no result.
    """
    seen = population if isinstance(population, Witnesses) else Witnesses.of(population, goal)
    best, worst = (goal_values([run], goal)[0] for run in (better, worse))
    if best is None or worst is None or best == worst:
        return []
    mine, theirs = traits(better), traits(worse)
    reasons: list[Reason] = []
    for key in sorted({*mine, *theirs}):
        pair = (mine.get(key), theirs.get(key))
        if pair[0] == pair[1]:
            continue
        alike: dict[str | None, bool] = {}  # most runs have one of a few values
        own = seen.places.get(worse.run_id)
        witnesses: list[float] = []
        for place, value in enumerate(seen.results):
            if value is None or place == own:
                continue
            there = seen.traits[place].get(key)
            if there not in alike:
                alike[there] = _alike(there, pair[1])
            if alike[there]:
                witnesses.append(value)
        median = sorted(witnesses)[len(witnesses) // 2] if witnesses else None
        blame = 1.0 if median is None else max(0.0, min(1.0, (best - median) / (best - worst)))
        reasons.append(Reason(key, pair, len(witnesses), median, blame))
    return sorted(reasons, key=lambda reason: (_is_seed(reason.key), -round(reason.blame, 2), reason.key))


def param_effects(runs: Sequence[Run], population: Sequence[Run], goal: str) -> dict[str, float]:
    """For each differing trait, how much of the differences between these runs it may be to blame for (0..1).

    Few runs are explained pair by pair against the best of them, many by association.
    """
    results = goal_values(runs, goal)
    known = [value for value in results if value is not None]
    if len(known) < 2:
        return {}
    if len(known) > FEW_RUNS:
        found = [traits(run) for run in runs]
        keys = sorted({key for entry in found for key in entry})
        differing = [key for key in keys if len({entry.get(key) for entry in found}) > 1]
        return find_effects(runs, goal, [key for key in differing if not _is_seed(key)])
    top = (min if direction_arrow(goal) == "↓" else max)(known)
    best = runs[results.index(top)]
    widest = max(abs(top - value) for value in known)
    effects: dict[str, float] = {}
    witnesses = Witnesses.of(population, goal)
    for run, value in zip(runs, results, strict=True):
        if value is None or run is best or not widest:
            continue
        for reason in find_reasons(best, run, witnesses, goal):
            if not _is_seed(reason.key):
                share = reason.blame * abs(top - value) / widest
                effects[reason.key] = max(effects.get(reason.key, 0.0), share)
    return effects


def _is_seed(key: str) -> bool:
    return re.search(r"(?:^|[._/\-])(?:seed|random_state)$", key.lower()) is not None


def _alike(value: str | None, wanted: str | None) -> bool:
    """Equal, or numbers within a fifth of each other."""
    if value == wanted:
        return True
    left, right = (parse_number(text) if text is not None else None for text in (value, wanted))
    if left is None or right is None or left * right <= 0:
        return False
    return 1 / _NEAR < left / right < _NEAR


def _ranks(values: Sequence[float]) -> list[float]:
    """Places in ascending order; equal values share the mean of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        stop = start
        while stop < len(order) and values[order[stop]] == values[order[start]]:
            stop += 1
        for place in order[start:stop]:
            ranks[place] = (start + stop - 1) / 2
        start = stop
    return ranks


def _correlation(left: Sequence[float], right: Sequence[float]) -> float:
    count = len(left)
    left_mean, right_mean = sum(left) / count, sum(right) / count
    product = sum((a - left_mean) * (b - right_mean) for a, b in zip(left, right, strict=True))
    size = math.sqrt(
        sum((a - left_mean) ** 2 for a in left) * sum((b - right_mean) ** 2 for b in right),
    )
    return product / size if size else 0.0


# -- texts


def text_diff(one: str, other: str, names: tuple[str, str], context: int | None = 3) -> list[tuple[str, str]]:
    """(line, style) of a unified diff from ``one`` to ``other``; [] when they are equal. ``context`` None keeps all."""
    left, right = one.splitlines(), other.splitlines()
    if left == right:
        return []
    around = max(len(left), len(right)) if context is None else context
    lines: list[tuple[str, str]] = []
    for line in difflib.unified_diff(left, right, *names, n=around, lineterm=""):
        lines.append((line, patch_style(line)))
    return lines


def patch_style(line: str) -> str:
    """The style of a line of a patch."""
    if line.startswith(("+++", "---", "diff ")):
        return "bold"
    return {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")


def parse_packages(text: str) -> dict[str, str]:
    """name==version lines as a mapping."""
    pairs = (line.partition("==") for line in text.splitlines() if "==" in line)
    return {name: version for name, _, version in pairs}


def differing_packages(lists: Sequence[Mapping[str, str]]) -> list[str]:
    """Names of packages that are not the same in all lists, those that explain most first."""
    names = {name for packages in lists for name in packages}
    found = [name for name in names if len({packages.get(name) for packages in lists}) > 1]
    return sorted(
        found, key=lambda name: (_PROMINENT.index(name) if name in _PROMINENT else len(_PROMINENT), name)
    )


def _package_texts(runs: Sequence[Run], read_blob: ReadBlob) -> tuple[str | None, ...]:
    digests = [_packages(run, whole=True) for run in runs]
    texts = {digest: read_blob(digest) for digest in set(digests) if digest is not None}
    lists = [parse_packages(texts.get(digest or "") or "") if digest else None for digest in digests]
    known = [packages for packages in lists if packages]
    differing = differing_packages(known)
    found: list[str | None] = []
    for digest, packages in zip(digests, lists, strict=True):
        if digest is None:
            found.append(None)
        elif not packages:
            found.append(f"{digest[:10]} (list not here)")
        elif not differing:
            found.append(f"{len(packages)} packages")
        else:
            first = differing[0]
            others = f" +{len(differing) - 1}" if len(differing) > 1 else ""
            found.append(f"{first} {packages.get(first, 'absent')}{others}  {digest[:4]}")
    return tuple(found)


# -- what a run ran with


def _fact(*path: str) -> Callable[[Run], str | None]:
    def read(run: Run) -> str | None:
        value: object = run.facts
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return str(value) if value not in (None, "") else None

    return read


def _commit(run: Run) -> str | None:
    git = run.facts.get("git")
    if not isinstance(git, Mapping) or not git.get("commit"):
        return None
    patch = f" ± {str(git['patch'])[:6]}" if git.get("patch") else " ±" if git.get("dirty") else ""
    return str(git["commit"])[:10] + patch


def _packages(run: Run, whole: bool = False) -> str | None:
    packages = run.facts.get("packages")
    return (str(packages) if whole else str(packages)[:10]) if packages else None


def _data(run: Run) -> str | None:
    return (
        ", ".join(f"{entry.get('name', '')} {str(entry.get('digest', ''))[:8]}" for entry in run.inputs)
        or None
    )


def _gpus(run: Run) -> str | None:
    gpus = run.facts.get("gpus")
    if not isinstance(gpus, Sequence) or isinstance(gpus, str) or not gpus:
        return None
    names = [str(gpu.get("name", "")) if isinstance(gpu, Mapping) else str(gpu) for gpu in gpus]
    return names[0] if len(names) == 1 else f"{len(names)} x {names[0]}"


def _script(run: Run) -> str | None:
    """The script as it was started; of a run whose command knows nothing of mltrack the one that its command names."""
    words = run.facts.get("command")
    words = words if isinstance(words, Sequence) and not isinstance(words, str) else ()
    named = next((str(word) for word in words if str(word).endswith((".py", ".sh"))), None)
    return str(run.facts.get("script") or "") or named


CIRCUMSTANCES: dict[str, Callable[[Run], str | None]] = {
    "commit": _commit,
    "packages": _packages,
    "python": _fact("python"),
    "data": _data,
    "host": lambda run: run.host or None,
    "gpu": _gpus,
    "script": _script,
    "user": lambda run: run.user or None,
}
