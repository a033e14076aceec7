"""The story: three people, three machines, a week of work, and one run of everything that goes wrong."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mltrack.store.demo import curves, files
from mltrack.store.demo.models import Models
from mltrack.store.demo.sweep import EXPERIMENT, HOSTS, OWNERS, TOTAL_STEPS, Trial, common_params, trials
from mltrack.store.demo.tensorboard import write_events
from mltrack.store.demo.writer import PastRun, Series, damage_run, digest, machine

_MINUTE = 60_000
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_STEP_MS = 280.0
_PICTURE_STEPS = 4_000
_GPU = {"name": "Demo GPU 80 GB (made up)", "memory_bytes": 80_000_000_000}


@dataclass(frozen=True)
class GoingOn:
    """A run of the story that has not ended: who continues it, and from where."""

    run: PastRun
    trial: Trial


class Story:
    """Writes the runs below `root`. `live`: runs in progress are left open for a process that continues them."""

    def __init__(self, root: Path, seed: int, now_ms: int | None = None) -> None:
        self.root = root
        self.seed = seed
        self.now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        self.going_on: list[GoingOn] = []
        self.companions: list[PastRun] = []
        """Runs in progress that log nothing of their own: the parent of the sweep."""
        self._pid = 8000

    def write(self, live_identity: dict[str, object] | None = None) -> int:
        """All runs; returns how many. With `live_identity` runs in progress belong to that process."""
        count = self._sweep(live_identity)
        count += self._seed_groups()
        count += (
            self._resumed()
            + self._lost()
            + self._ranks()
            + self._many_metrics()
            + self._strange_names()
            + self._small_models()
            + self._registered_models(live_identity)
        )
        damage_run(self.root, self._id("run_0007"), self.now_ms - 9 * _DAY)
        return count + 1

    # -- chapters

    def _sweep(self, live_identity: dict[str, object] | None) -> int:
        began = self.now_ms - 6 * _HOUR
        parent = self._run("sweep-7", EXPERIMENT, "alice", "gpu3", began)
        if live_identity is not None:
            parent.identity = parent.journal.identity = live_identity
        parent.start(
            command=["python", "sweep.py", "--trials", "41"],
            script="sweep.py",
            cwd="/home/alice/cifar",
            python="3.11.9",
        )
        parent.params({"sweep.method": "random", "sweep.trials": "41", "sweep.goal": "val/acc"})
        parent.meta("note", v="41 trials around the lr of the paper; is it the lr or the crop?")
        count = 1
        for index, trial in enumerate(trials(self.seed)):
            self._trial(trial, parent.run_id, index, live_identity)
            count += 1
        if live_identity is not None:
            self.companions.append(parent)
        else:
            parent.fall_silent(self.now_ms)
        return count

    def _trial(self, trial: Trial, parent: str, index: int, live_identity: dict[str, object] | None) -> None:
        random = curves.random_for(self.seed, trial.name)
        took = int(trial.stop * _STEP_MS)
        ends = self.now_ms - _HOUR - int(random.integers(0, 90)) * _MINUTE
        if trial.outcome == "RUNNING":
            ends = self.now_ms
        elif trial.outcome == "QUIET":
            ends = self.now_ms - 6 * _MINUTE
        host = "gpu1" if trial.name == "sage-owl-41" else HOSTS[index % 3]
        owner = "alice" if index % 5 else OWNERS[index % 3]
        run = self._run(trial.name, EXPERIMENT, owner, host, ends - took)
        alive = trial.outcome == "RUNNING" and live_identity is not None
        if alive and live_identity is not None:
            run.identity = run.journal.identity = live_identity
        run.step_ms = _STEP_MS
        command = [
            "python",
            "train.py",
            *(
                f"--{key}={value}"
                for key, value in trial.params.items()
                if key in ("lr", "opt.name", "data.crop")
            ),
        ]
        tags = {"sweep": "7"}
        if trial.name in ("sage-owl-41", "calm-elk-12"):
            tags |= {"baseline": "", "paper": ""}
        run.start(
            parent=parent,
            total=TOTAL_STEPS,
            command=command,
            script="train.py",
            cwd=f"/home/{owner}/cifar",
            python="3.11.9",
            tags=tags,
        )
        run.params(trial.params)
        self._circumstances(run, trial, random)
        stop = trial.stop
        train = curves.train(random, stop, lr=trial.lr, floor=trial.floor, pace=trial.pace, total=TOTAL_STEPS)
        validate = curves.validate(random, stop, best=trial.best, peak=trial.peak, pace=trial.pace)
        if trial.name == "sage-owl-41":
            train = curves.with_nan(train, ("train/loss", "grad_norm"), 16_500, 16_700)
            train = curves.with_spike(
                curves.with_spike(train, "train/loss", 33_600, 15.4), "grad_norm", 33_600, 60
            )
        elif trial.outcome == "NAN":
            train = curves.with_nan(train, ("train/loss", "grad_norm"), 912, stop)
            validate = curves.with_nan(validate, ("val/loss",), 912, stop)
        for series in (train, validate, curves.hardware(random, stop)):
            run.log(series)
        self._console(run, train, stop)
        number = int(trial.name.rpartition("-")[2])
        for step in range(_PICTURE_STEPS, stop + 1, _PICTURE_STEPS):
            picture = files.predictions_image(number, step / TOTAL_STEPS, trial.best)
            run.artifact(f"images/predictions/{step:09d}.png", picture, ends)
        if trial.name == "glad-fox-88":
            run.meta("note", v="crop 32 was the trick")
        if alive:
            run.meta("progress", self.now_ms, step=stop, total=TOTAL_STEPS)
            self.going_on.append(GoingOn(run, trial))
            return
        self._finish(run, trial, random, ends)

    def _finish(self, run: PastRun, trial: Trial, random: curves.Random, ends: int) -> None:
        run.meta("progress", ends, step=trial.stop, total=TOTAL_STEPS)
        if trial.outcome in ("RUNNING", "QUIET"):
            run.fall_silent(ends)
        elif trial.outcome == "OOM":
            run.console(files.OUT_OF_MEMORY.split("\n"))
            run.end("FAILED", ends, exit=1, reason="CUDA OOM", traceback=files.OUT_OF_MEMORY)
        elif trial.outcome == "NAN":
            run.end(
                "FAILED",
                ends,
                exit=1,
                reason="NaN @912",
                traceback="FloatingPointError: train/loss is NaN at step 912",
            )
        elif trial.outcome == "KILLED":
            run.end("KILLED", ends, signal="SIGTERM", reason="SIGTERM")
        else:
            run.artifact("samples/train_batch.png", files.samples_image(random), ends)
            run.artifact("confusion_matrix.json", files.confusion_matrix(random, trial.best), ends)
            run.artifact("checkpoints/best.txt", f"step {trial.peak}\nval/acc {trial.best}\n".encode(), ends)
            run.end("FINISHED", ends, exit=0)

    def _seed_groups(self) -> int:
        for opt, spread, failing in (("adamw", 0.0011, -1), ("lion", 0.0024, 3)):
            began = self.now_ms - 30 * _HOUR
            parent = self._run(f"seeds-{opt}", EXPERIMENT, "bob", "gpu2", began)
            parent.start(
                command=["python", "seeds.py", opt], script="seeds.py", cwd="/home/bob/cifar", python="3.11.9"
            )
            parent.params({"opt.name": opt, "seeds": "5"})
            for seed in range(5):
                name = f"seeds-{opt}-{seed}"
                random = curves.random_for(self.seed, name)
                base = 0.9281 if opt == "adamw" else 0.9240
                stop = 8_400 if seed != failing else 2_600
                run = self._run(name, EXPERIMENT, "bob", "gpu2", began + seed * 50 * _MINUTE)
                run.start(
                    parent=parent.run_id,
                    total=8_400,
                    command=["python", "train.py", f"--seed={seed}"],
                    script="train.py",
                    python="3.11.9",
                )
                run.params(
                    {
                        **common_params(),
                        "lr": "3e-4",
                        "batch_size": "256",
                        "opt.name": opt,
                        "data.crop": "32",
                        "seed": seed,
                    }
                )
                best = round(base + float(random.normal(0, spread)), 4)
                run.log(curves.train(random, stop, lr=3e-4, floor=0.205, pace=1.0, total=8_400))
                run.log(curves.validate(random, stop, best=best, peak=8_000, pace=1.0))
                ends = run.time_of(stop)
                if seed == failing:
                    run.end(
                        "FAILED",
                        ends,
                        exit=1,
                        reason="DataLoader worker killed",
                        traceback="RuntimeError: DataLoader worker (pid 9120) is killed by signal: Killed.",
                    )
                else:
                    run.end("FINISHED", ends, exit=0)
            parent.end("FINISHED", began + 5 * 50 * _MINUTE, exit=0)
        return 12

    def _resumed(self) -> int:
        random = curves.random_for(self.seed, "long-jay-02")
        first = self._run("long-jay-02", EXPERIMENT, "carol", "gpu1", self.now_ms - 2 * _DAY)
        first.start(
            total=20_000, command=["python", "train.py", "--long"], script="train.py", python="3.11.9"
        )
        first.params(
            {
                **common_params(),
                "lr": "3e-4",
                "batch_size": "256",
                "opt.name": "adamw",
                "data.crop": "32",
                "seed": "2",
            }
        )
        whole = curves.train(random, 20_000, lr=3e-4, floor=0.21, pace=1.3, total=20_000)
        checks = curves.validate(random, 20_000, best=0.9266, peak=18_000, pace=1.3)
        first.log(whole.cut(9_400))
        first.log(checks.cut(9_400))
        first.fall_silent(first.time_of(9_400))
        # The checkpoint was of step 9,000: what the first attempt logged after it is superseded.
        again = self._run("long-jay-02", EXPERIMENT, "carol", "gpu2", self.now_ms - 2 * _DAY + 3 * _HOUR)
        again.first_step = 9_000
        again.start(
            resumed=True,
            total=20_000,
            command=["python", "train.py", "--long", "--resume"],
            script="train.py",
            python="3.11.9",
        )
        for series in (whole, checks):
            kept = series.steps >= 9_000
            again.log(Series(series.keys, series.steps[kept], series.values[kept]))
        again.end("FINISHED", again.time_of(20_000), exit=0)
        return 1

    def _lost(self) -> int:
        random = curves.random_for(self.seed, "lone-eel-77")
        run = self._run("lone-eel-77", EXPERIMENT, "carol", "gpu3", self.now_ms - 3 * _DAY - 2 * _HOUR)
        run.start(total=9_000, command=["python", "train.py"], script="train.py", python="3.11.9")
        run.params(
            {
                **common_params(),
                "lr": "3e-4",
                "batch_size": "256",
                "opt.name": "adamw",
                "data.crop": "32",
                "seed": "77",
            }
        )
        run.log(curves.train(random, 5_200, lr=3e-4, floor=0.24, pace=1.0, total=9_000))
        run.log(curves.validate(random, 5_200, best=0.9105, peak=5_000, pace=1.0))
        run.fall_silent(self.now_ms - 3 * _DAY)
        return 1

    def _ranks(self) -> int:
        start = self.now_ms - 20 * _HOUR
        name = "ddp-bee-64"
        for rank in range(8):
            random = curves.random_for(self.seed, f"{name} {rank}")
            run = self._run(name, "nlp/gpt-small", "bob", f"gpu{1 + rank // 4}", start)
            run.rank = run.journal.rank = rank
            run.journal.role = "main" if rank == 0 else "rank"
            if rank == 0:
                run.start(
                    total=6_000,
                    command=["torchrun", "--nproc-per-node=4", "train_lm.py"],
                    script="train_lm.py",
                    python="3.11.9",
                )
                run.params(
                    {
                        "model": "gpt-small",
                        "layers": "12",
                        "width": "768",
                        "lr": "6e-4",
                        "batch_size": "512",
                        "world_size": "8",
                    }
                )
                run.facts(gpus=[_GPU] * 4)
            run.log(
                curves.train(random, 6_000, lr=6e-4, floor=2.9 - 4.2 * 0 + 0.01 * rank, pace=1.1, total=6_000)
            )
            if rank == 0:
                run.log(curves.validate(random, 6_000, best=0.41, peak=5_800, pace=1.2))
            run.end("FINISHED", run.time_of(6_000), exit=0)
        return 1

    def _many_metrics(self) -> int:
        random = curves.random_for(self.seed, "wide-bee-15")
        run = self._run("wide-bee-15", "nlp/gpt-small", "bob", "gpu2", self.now_ms - 40 * _HOUR)
        run.start(
            total=2_000,
            command=["python", "train_lm.py", "--log-layers"],
            script="train_lm.py",
            python="3.11.9",
        )
        run.params({"model": "gpt-small", "layers": "24", "width": "1024", "lr": "3e-4", "batch_size": "256"})
        kinds = ("grad_norm", "weight_norm", "update_ratio", "act_mean", "act_std")
        parts = (
            "attn.q",
            "attn.k",
            "attn.v",
            "attn.out",
            "mlp.in",
            "mlp.out",
            "norm1",
            "norm2",
            "resid",
            "drop",
            "rope",
            "bias",
            "gate",
        )
        keys = [
            f"layers/{layer:02d}/{part}/{kind}" for layer in range(24) for part in parts for kind in kinds
        ][:1494]
        steps = np.arange(0, 2_000, 100, dtype=np.int64)
        run.log(
            Series(
                keys,
                steps,
                np.abs(random.normal(1.0, 0.2, (len(steps), len(keys)))) * (1 + steps[:, None] / 4_000),
            )
        )
        run.log(curves.train(random, 2_000, lr=3e-4, floor=3.1, pace=0.5, total=2_000))
        run.log(curves.validate(random, 2_000, best=0.38, peak=1_800, pace=0.6))
        run.end("FINISHED", run.time_of(2_000), exit=0)
        return 1

    def _strange_names(self) -> int:
        names = (
            "\x1b]0;owned\x07\x1b]52;c;Y3VybCBldmlsCg==\x07\u202egnp.exe [red]x[/] $(touch /tmp/pwned)",
            "größe-日本語-🦊-ночь-שלום",
            "ablation/" + "-".join(f"remove_layer{layer:02d}" for layer in range(12)) + "/final",
            "zalgo-" + "".join(letter + "\u0301\u0322\u0335\u0348" * 6 for letter in "he comes"),
        )
        for index, name in enumerate(names):
            random = curves.random_for(self.seed, f"strange {index}")
            run = self._run(name, "scratch", "carol", "gpu1", self.now_ms - 4 * _DAY - index * _HOUR)
            run.start(
                command=["python", "try.py"],
                script="try.py",
                python="3.12.1",
                tags={"owner\x1b[2J": '=HYPERLINK("http://x")'} if index == 0 else {},
            )
            run.params({"note": "=1+1", "lr": "1e-3"} if index == 0 else {"lr": "1e-3"})
            run.log(curves.train(random, 600, lr=1e-3, floor=0.6, pace=0.2, total=600))
            run.end("FINISHED", run.time_of(600), exit=0)
        return len(names)

    def _small_models(self) -> int:
        """A side project with another goal: an error that should fall."""
        for index, depth in enumerate((4, 6, 8, 10)):
            name = f"trees-depth-{depth}"
            random = curves.random_for(self.seed, name)
            run = self._run(name, "tabular/churn", "alice", "gpu1", self.now_ms - 41 * _DAY + index * _HOUR)
            run.start(command=["python", "boost.py", f"--depth={depth}"], script="boost.py", python="3.11.9")
            run.params({"depth": depth, "eta": "0.1", "rounds": "200", "subsample": "0.8"})
            steps = np.arange(200, dtype=np.int64)
            error = (
                0.31 * np.exp(-steps / 60) + 0.088 + 0.004 * abs(depth - 8) + random.normal(0, 0.0008, 200)
            )
            auc = 0.912 - 0.006 * abs(depth - 8) - 0.2 * np.exp(-steps / 30)
            run.log(Series(("val/error", "val/auc"), steps, np.column_stack([error, auc])))
            run.end("FINISHED", run.time_of(200), exit=0)
        return 4

    def _registered_models(self, live_identity: dict[str, object] | None) -> int:
        models = Models(self.root, self.seed, self.now_ms)
        count = models.write(live_identity)
        self.companions += models.serving
        models.follow(write_events(self.root, self.seed, self.now_ms - 11 * _DAY), 2)
        models.append()
        return count + 1

    # -- parts

    def _circumstances(self, run: PastRun, trial: Trial, random: curves.Random) -> None:
        other_data = trial.params["data.crop"] == "224"
        dirty = trial.name in ("sage-owl-41", "bold-yak-07", "dim-ram-23")
        commit = digest("commit", "old" if other_data else "sweep-7")[:40]
        git = {
            "commit": commit,
            "branch": "main",
            "remote": "git@example.org:vision/cifar.git",
            "dirty": dirty,
            "complete": True,
            "left_out": [],
        }
        run.facts(
            git={**git, "patch": files.PATCH if dirty else None},
            packages=files.packages(15 if trial.name == "sage-owl-41" else 14),
            gpus=[_GPU],
        )
        data = digest("data", "c100 at 224" if other_data else "c100")
        run.meta(
            "input",
            name="c100",
            context="train",
            source="/data/c100-224" if other_data else "/data/c100",
            digest=data,
            digest_kind="full",
            size=169_001_437,
        )

    def _console(self, run: PastRun, train: Series, stop: int) -> None:
        column = list(train.keys).index("train/loss")
        losses = {
            int(step): float(value)
            for step, value in zip(train.steps[::50], train.values[::50, column], strict=True)
        }
        extra = {
            16_502: " 16502 WARN NaN in 2 micro-batches, step skipped",
            33_602: " 33602 WARN loss scale reduced 16384 -> 8192",
        }
        extra[40_961] = " 40961 \x1b[33mWARN\x1b[0m loss scale 16384 -> 8192, NaN in 2 micro-batches"
        run.console(files.training_log(stop, TOTAL_STEPS, losses, extra))

    def _run(self, name: str, experiment: str, owner: str, host: str, start_ms: int) -> PastRun:
        self._pid += 37
        return PastRun(
            self.root, self._id(name), name, experiment, owner, machine(host, self._pid), start_ms, _STEP_MS
        )

    def _id(self, name: str) -> str:
        return digest(self.seed, "run", name)[:32]
