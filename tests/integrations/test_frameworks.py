"""Real frameworks, each in an environment that has nothing else of ours than the standard library's part."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests.conftest import tool_environment

from mltrack.store import open_store
from mltrack.store.records import Run

ROOT = Path(__file__).parents[2]


def train(python: Path, store: Path, code: str) -> dict[str, Run]:
    """Run a training; its runs by name."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "MLTRACK_STORE": str(store),
        "PYTHONUNBUFFERED": "1",
    }
    done = subprocess.run(
        [str(python), "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
        cwd=store.parent,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with open_store(str(store)) as opened:
        opened.refresh(None)
        return {run.name: run for run in opened.runs(opened.search("").run_ids)}


SKLEARN = """
import mltrack, numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
features = np.random.RandomState(0).rand(80, 3)
labels = (features[:, 0] > 0.5).astype(int)
mltrack.sklearn.autolog()
model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5)).fit(features, labels)
with mltrack.start_run(run_name="search"):
    GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=3).fit(features, labels)
try:
    LogisticRegression().fit(features, labels[:5])
except ValueError:
    pass
mltrack.sklearn.autolog(disable=True)
LogisticRegression().fit(features, labels)
"""

LIGHTGBM = """
import lightgbm, mltrack, numpy as np
features = np.random.RandomState(0).rand(200, 3)
data = lightgbm.Dataset(features, label=features[:, 0] + features[:, 1])
with mltrack.start_run(run_name="trees"):
    lightgbm.train({"objective": "l2", "num_leaves": 7, "verbose": -1}, data, num_boost_round=12, valid_sets=[data],
                   callbacks=[mltrack.lightgbm.log_evaluation()])
"""

LIGHTNING = """
import lightning, mltrack, torch
from torch.utils.data import DataLoader, TensorDataset
class Net(lightning.LightningModule):
    def __init__(self, lr=0.1, sizes=(3, 1)):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(3, 1)
    def training_step(self, batch, index):
        loss = ((self.layer(batch[0]) - batch[1]) ** 2).mean()
        self.log("train_loss", loss)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)
features = torch.rand(64, 3)
loader = DataLoader(TensorDataset(features, features.sum(1, keepdim=True)), batch_size=8)
trainer = lightning.Trainer(max_epochs=3, logger=mltrack.lightning.MltrackLogger("light", "net"), log_every_n_steps=2,
                            enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")
trainer.fit(Net(), loader)
"""

TRANSFORMERS = """
import mltrack, torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
model = BertForSequenceClassification(BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                                 intermediate_size=16, max_position_embeddings=16))
data = [{"input_ids": torch.randint(0, 50, (8,)), "labels": torch.tensor(i % 2)} for i in range(32)]
arguments = TrainingArguments("out", per_device_train_batch_size=8, num_train_epochs=2, logging_steps=1, report_to=[],
                              save_strategy="no", use_cpu=True, eval_strategy="epoch", run_name="bert")
Trainer(model, arguments, train_dataset=data, eval_dataset=data, callbacks=[mltrack.transformers.MltrackCallback()]).train()
"""


def test_scikit_learn_logs_every_fit_that_a_person_called(store_root: Path) -> None:
    runs = train(tool_environment("frameworks"), store_root, SKLEARN)
    assert sorted(runs) == ["LogisticRegression", "Pipeline", "search"]
    pipeline = runs["Pipeline"]
    assert pipeline.status == "FINISHED" and pipeline.params["logisticregression__C"] == "0.5"
    assert pipeline.metrics["training_score"].last > 0.9 and pipeline.metrics["fit_seconds"].last > 0
    assert runs["search"].params["best.C"] in ("0.1", "1.0") and "best_cv_score" in runs["search"].metrics
    assert runs["LogisticRegression"].status == "FAILED"


def test_lightgbm_logs_evaluations_and_progress(store_root: Path) -> None:
    run = train(tool_environment("frameworks"), store_root, LIGHTGBM)["trees"]
    assert run.params["num_leaves"] == "7" and (run.step, run.total) == (12, 12)
    errors = run.metrics["training/l2"]
    assert errors.count == 12 and errors.max is not None and errors.last < errors.max


@pytest.mark.long
def test_lightning_logs_metrics_params_progress_and_checkpoints(store_root: Path) -> None:
    run = train(tool_environment("torch"), store_root, LIGHTNING)["net"]
    assert (run.experiment, run.status, run.params["lr"]) == ("light", "FINISHED", "0.1")
    assert run.metrics["train_loss"].count == 12 and (run.step, run.total) == (23, 24)
    assert run.folder is not None and list((run.folder / "artifacts" / "checkpoints").glob("*.ckpt"))


@pytest.mark.long
def test_transformers_log_metrics_arguments_and_progress(store_root: Path) -> None:
    run = train(tool_environment("torch"), store_root, TRANSFORMERS)["bert"]
    assert run.status == "FINISHED" and (run.step, run.total) == (8, 8)
    assert run.metrics["train/loss"].count == 8 and run.metrics["eval/loss"].count == 2
    assert run.params["model.hidden_size"] == "16" and run.params["per_device_train_batch_size"] == "8"


KERAS = """
import os
os.environ["KERAS_BACKEND"] = "torch"
import keras, mltrack, numpy as np
model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
model.compile(optimizer=keras.optimizers.SGD(0.05), loss="mse")
features = np.random.RandomState(0).rand(64, 3)
with mltrack.start_run(run_name="dense"):
    model.fit(features, features.sum(1), epochs=3, batch_size=16, validation_split=0.25, verbose=0,
              callbacks=[mltrack.keras.MltrackCallback()])
"""

XGBOOST = """
import mltrack, numpy as np, xgboost
features = np.random.RandomState(0).rand(200, 3)
data = xgboost.DMatrix(features, label=features.sum(1))
params = {"max_depth": 2, "eta": 0.3}
with mltrack.start_run(run_name="boosted"):
    xgboost.train(params, data, num_boost_round=8, evals=[(data, "train")], verbose_eval=False,
                  callbacks=[mltrack.xgboost.MltrackCallback(params)])
"""


@pytest.mark.long
def test_keras_logs_epochs_and_progress(store_root: Path) -> None:
    run = train(tool_environment("torch"), store_root, KERAS)["dense"]
    assert (run.step, run.total) == (9, 9) and run.params["fit.epochs"] == "3"
    assert run.metrics["train/loss"].count == 3 and run.metrics["val/loss"].count == 3
    assert float(run.params["optimizer.learning_rate"]) == pytest.approx(0.05)


@pytest.mark.long
def test_xgboost_logs_every_evaluation(store_root: Path) -> None:
    run = train(tool_environment("torch"), store_root, XGBOOST)["boosted"]
    assert run.metrics["train/rmse"].count == 8 and run.step == 8 and run.params["max_depth"] == "2"
