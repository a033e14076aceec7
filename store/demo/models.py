"""The models of the story: five names, their versions, who moved them, what waits, and what is served behind its stage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import orjson

from mltrack.store import model_files
from mltrack.store.client.journal import make_folder, open_file, run_folder, share_mode
from mltrack.store.decision_file import FILE
from mltrack.store.decisions import Operation
from mltrack.store.demo import curves
from mltrack.store.demo.writer import PastRun, Series, digest, machine
from mltrack.store.policy import Policy, policy_text
from mltrack.store.registry_reading import SERVE_FOLLOWS, SERVE_MODEL, SERVE_VERSION

_HOUR = 3_600_000
_DAY = 24 * _HOUR
_COLUMNS = ("tenure", "plan", "calls", "minutes", "spent", "late", "age", "region")
# Versions of churn: days ago, owner, auc of its run.
_CHURN = (
    (128.0, "dan", 0.861), (117.0, "dan", 0.874), (110.0, "dan", 0.882), (96.0, "bob", 0.889), (63.0, "bob", 0.901),
    (45.0, "dan", 0.903), (41.2, "bob", 0.908), (1.1, "bob", 0.912), (0.13, "carl", 0.909),
)  # fmt: skip
_MLMODEL = """\
artifact_path: model
flavors:
  python_function:
    env: {{virtualenv: python_env.yaml}}
    loader_module: mlflow.sklearn
    model_path: model.pkl
    predict_fn: predict
    python_version: 3.11.9
  sklearn:
    code: null
    pickled_model: model.pkl
    serialization_format: cloudpickle
    sklearn_version: 1.5.2
mlflow_version: 3.1.0
model_uuid: {uuid}
run_id: {run_id}
signature:
  inputs: '{inputs}'
  outputs: '[{{"type": "double", "required": true}}]'
"""


class Models:
    """Writes runs that models come from or are served by, and the decisions about them, as if made when they were."""

    def __init__(self, root: Path, seed: int, now_ms: int) -> None:
        self._root = root
        self._seed = seed
        self._now_ms = now_ms
        self._decided: list[tuple[float, str, str, list[Operation], str]] = []
        self.serving: list[PastRun] = []
        """Runs in progress: the processes that serve."""

    def write(self, live_identity: dict[str, object] | None = None) -> int:
        """All of it; returns how many runs were written."""
        count = self._churn()
        self._others()
        for name, version, host in (("churn", 7, "gpu1"), ("fraud", 3, "gpu2"), ("ranker", 4, "gpu3")):
            self._serve(name, version, host, live_identity)
            count += 1
        return count

    def _churn(self) -> int:
        for version, (days, owner, auc) in enumerate(_CHURN, start=1):
            run = self._train(version, days, owner, auc)
            folder = run_folder(self._root, run.run_id) / "artifacts" / "model"
            files = model_files.list_files(folder)
            source = f"runs:/{run.run_id}/model"
            register: Operation = {
                "op": "register",
                "name": "churn",
                "source": source,
                "run": run.run_id,
                "files": files,
            }
            self._decide(
                days - 0.02, owner, [register], f"Registered a version of churn (v{version})", via="python"
            )
        self._move("churn", 3, "Production", 109, "alice", "first in production")
        self._move("churn", 5, "Production", 60, "alice", "a third fewer false alarms")
        self._move("churn", 6, "Production", 42.2, "bob", "new features")
        back = self._stage("churn", 5, "Production", "latency x3", rollback=True)
        self._decide(41.9, "alice", [back], "Rolled back churn to v5 in Production", via="tui")
        self._move("churn", 7, "Production", 41, "alice", "drift fix", via="cli")
        self._alias("churn", "champion", 7, 41, "alice")
        policy = policy_text(Policy(approvals=1, goal="val/auc"))
        field: Operation = {"op": "model_field", "name": "churn", "field": "policy", "value": policy}
        self._decide(
            30, "alice", [{**field, "reason": "two pairs of eyes"}], "Changed the policy of churn", via="cli"
        )
        self._move("churn", 8, "Staging", 1, "bob", "")
        self._alias("churn", "candidate", 8, 1, "bob")
        ask: Operation = {"op": "request", "name": "churn", "version": 8, "target": "Production"}
        self._decide(
            2 / 24,
            "bob",
            [{**ask, "reason": "passes shadow week 46"}],
            "Asked for churn v8 to Production",
            via="tui",
        )
        return len(_CHURN)

    def _others(self) -> None:
        for version, days in enumerate((70, 31, 9.2, 0.4), start=1):
            self._register("fraud", version, days, "alice")
        self._move("fraud", 2, "Production", 30, "alice", "covers card-not-present")
        self._move("fraud", 3, "Production", 9, "alice", "retrained on the autumn")
        self._move("fraud", 4, "Production", 2 / 24, "alice", "recall +2 % at equal alarms")
        for version, days in enumerate((60, 40, 20, 9.1, 1.1, 1.0), start=1):
            self._register("ranker", version, days, "ci-bot")
        for version, days in ((2, 39), (3, 19), (4, 9)):
            self._move("ranker", version, "Production", days, "ci-bot", "offline gain holds", via="rest")
        for version in (5, 6):
            both = {**self._stage("ranker", version, "Staging", "a/b"), "archive": False}
            self._decide(1, "ci-bot", [both], f"Moved ranker v{version} to Staging", via="rest")
        for version, days in enumerate((25, 7.5), start=1):
            self._register("ocr-lines", version, days, "dan")
        self._move("ocr-lines", 1, "Production", 24, "dan", "good enough to try")
        self._move("ocr-lines", 2, "Production", 7, "dan", "half the errors")
        back = self._stage("ocr-lines", 1, "Production", "reads 0 as O on receipts", rollback=True)
        self._decide(6, "dan", [back], "Rolled back ocr-lines to v1 in Production", via="tui")
        self._move("ocr-lines", 2, "Staging", 6, "dan", "to look at the receipts again", via="tui")
        for version, days in enumerate((260, 240, 221, 201), start=1):
            self._register("tts-small", version, days, "eve")
        self._move("tts-small", 4, "Production", 200, "eve", "warmer voice")
        describe: Operation = {"op": "model_field", "name": "tts-small", "version": 0, "field": "description"}
        self._decide(
            120,
            "alice",
            [{**describe, "value": "Eve has left; nobody looks after this one."}],
            "Described tts-small",
        )

    # -- runs

    def _train(self, version: int, days: float, owner: str, auc: float) -> PastRun:
        name = f"churn-v{version}"
        random = curves.random_for(self._seed, name)
        run = self._run(name, "tabular/churn", owner, "gpu1", self._now_ms - int((days + 0.05) * _DAY))
        run.start(command=["python", "boost.py", f"--seed={version}"], script="boost.py", python="3.11.9")
        run.params({"depth": "8", "eta": "0.1", "rounds": "200", "subsample": "0.8", "seed": str(version)})
        dirty = version == 9
        git = {
            "commit": digest("churn", version)[:40],
            "branch": "main",
            "remote": "git@example.org:tabular/churn.git",
        }
        run.facts(git={**git, "dirty": dirty, "complete": True, "left_out": [], "patch": None})
        steps = np.arange(0, 200, 5, dtype=np.int64)
        reached = auc - 0.2 * np.exp(-steps / 30) + random.normal(0, 0.0006, len(steps)) * np.exp(-steps / 60)
        reached[-1] = auc
        run.log(Series(("val/error", "val/auc"), steps, np.column_stack([1.0 - reached, reached])))
        inputs = [{"name": column, "type": "double", "required": True} for column in _COLUMNS]
        about = {"uuid": digest("model", version)[:32], "run_id": run.run_id, "inputs": json.dumps(inputs)}
        ends = run.time_of(200)
        run.artifact("model/MLmodel", _MLMODEL.format(**about).encode(), ends)
        run.artifact(
            "model/model.pkl", b"made up: a demo has no weights\n" + digest(version).encode() * 40, ends
        )
        run.artifact("model/requirements.txt", b"scikit-learn==1.5.2\nnumpy==2.2.1\n", ends)
        environment = (
            b"python: 3.11.9\nbuild_dependencies: [pip==24.2]\ndependencies: [-r requirements.txt]\n"
        )
        run.artifact("model/python_env.yaml", environment, ends)
        run.end("FINISHED", ends, exit=0)
        return run

    def _serve(self, name: str, version: int, host: str, live_identity: dict[str, object] | None) -> None:
        run = self._run(f"serve-{name}", "serving", "alice", host, self._now_ms - 8 * _DAY)
        if live_identity is not None:
            run.identity = run.journal.identity = live_identity
        tags = {SERVE_MODEL: name, SERVE_VERSION: str(version), SERVE_FOLLOWS: "Production"}
        run.start(command=["mltrack", "models", "serve", f"{name}/Production"], python="3.11.9", tags=tags)
        if live_identity is not None:
            self.serving.append(run)
        else:
            run.fall_silent(self._now_ms)

    def _run(self, name: str, experiment: str, owner: str, host: str, start_ms: int) -> PastRun:
        run_id = digest(self._seed, "model run", name)[:32]
        return PastRun(self._root, run_id, name, experiment, owner, machine(host, 7000 + len(name)), start_ms)

    # -- decisions

    def _register(self, name: str, version: int, days: float, owner: str) -> None:
        operation: Operation = {
            "op": "register",
            "name": name,
            "source": f"s3://models/{name}/{version}",
            "run": "",
        }
        self._decide(days, owner, [operation], f"Registered a version of {name}", via="rest")

    def _stage(self, name: str, version: int, stage: str, reason: str, rollback: bool = False) -> Operation:
        move: Operation = {
            "op": "stage",
            "name": name,
            "version": version,
            "stage": stage,
            "archive": True,
            "reason": reason,
        }
        return {**move, "rollback": True} if rollback else move

    def _move(
        self, name: str, version: int, stage: str, days: float, who: str, reason: str, via: str = "cli"
    ) -> None:
        operation = self._stage(name, version, stage, reason)
        self._decide(days, who, [operation], f"Moved {name} v{version} to {stage}", via=via)

    def _alias(self, name: str, alias: str, version: int, days: float, who: str) -> None:
        operation: Operation = {"op": "alias", "name": name, "alias": alias, "version": version, "reason": ""}
        self._decide(days - 0.001, who, [operation], f"Moved {name} v{version} to @{alias}", via="cli")

    def _decide(
        self, days: float, who: str, operations: list[Operation], sentence: str, via: str = "cli"
    ) -> None:
        self._decided.append((days, who, via, operations, sentence))

    def follow(self, path: Path, days: float) -> None:
        """Somebody had mltrack follow what lies at ``path``."""
        operation: Operation = {
            "op": "source",
            "path": str(path.absolute()),
            "kind": "tensorboard",
            "followed": True,
        }
        self._decide(days, "carol", [operation], f"Follow {path}")

    def append(self) -> None:
        """The file of decisions as it would have grown; whoever opens the store applies them."""
        lines: list[bytes] = []
        newest = 0
        for number, (days, who, via, operations, sentence) in enumerate(
            sorted(self._decided, key=lambda each: -each[0])
        ):
            newest = max(newest + 1, self._now_ms - int(days * _DAY))
            record = {
                "id": digest(self._seed, "decision", number)[:32],
                "time": newest,
                "kind": "do",
                "actor": who,
                "channel": via,
                "identity": "token" if via == "rest" else "kernel",
                "host": "gpu1",
                "sentence": sentence,
                "ops": operations,
            }
            lines.append(orjson.dumps(record) + b"\n")
        make_folder(self._root, self._root)
        path = self._root / FILE
        with open(
            path, "ab", opener=lambda name, flags: open_file(name, flags, share_mode(self._root))
        ) as file:
            file.write(b"".join(lines))
