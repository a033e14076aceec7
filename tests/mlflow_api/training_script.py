# pyright: reportMissingImports=false
"""Real trainings by PyTorch's frameworks that log through MLflow's client: training_script.py NAME ADDRESS. Prints the run's id.

Halfway each waits for a line on standard input, so that somebody can look at the run while it lives.
"""

from __future__ import annotations

import os
import sys
import tempfile

import mlflow
import torch

STEPS = 12


def halt(step: int) -> None:
    if step == STEPS // 2:
        run = mlflow.search_runs(search_all_experiments=True, output_format="list", max_results=1)
        print("half", run[0].info.run_id, flush=True)
        sys.stdin.readline()


def lightning(autolog: bool) -> None:
    import lightning as L
    from lightning.pytorch.loggers import MLFlowLogger

    class Net(L.LightningModule):
        def __init__(self, width: int = 8) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Linear(width, 1))

        def training_step(self, batch, number):
            x, y = batch
            loss = torch.nn.functional.mse_loss(self.net(x), y)
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            return loss

        def on_train_epoch_start(self) -> None:
            halt(self.current_epoch)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.01)

    data = torch.utils.data.TensorDataset(torch.randn(64, 4), torch.randn(64, 1))
    loader = torch.utils.data.DataLoader(data, batch_size=16)
    logger = False
    if autolog:
        mlflow.set_experiment("lightning/autolog")
        mlflow.pytorch.autolog(log_every_n_epoch=1)
    else:
        logger = MLFlowLogger("lightning/logger", tracking_uri=mlflow.get_tracking_uri(), log_model=True)
    trainer = L.Trainer(
        max_epochs=STEPS, logger=logger, log_every_n_steps=1, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tempfile.mkdtemp(),
    )  # fmt: skip
    trainer.fit(Net(), loader)


def transformers() -> None:
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    class Halt(TrainerCallback):
        def on_step_end(self, args, state, control, **rest):
            halt(state.global_step)

    os.environ["MLFLOW_EXPERIMENT_NAME"] = "transformers"
    os.environ["HF_MLFLOW_LOG_ARTIFACTS"] = "0"
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=16, n_embd=8, n_layer=1, n_head=2))
    rows = [{"input_ids": torch.arange(8) % 50, "labels": torch.arange(8) % 50} for _ in range(32)]
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(), report_to=["mlflow"], max_steps=STEPS, logging_steps=1, use_cpu=True,
        per_device_train_batch_size=4, save_strategy="no", disable_tqdm=True, run_name="tiny gpt",
    )  # fmt: skip
    Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[Halt()]).train()


mlflow.set_tracking_uri(sys.argv[2])
{"logger": lambda: lightning(False), "autolog": lambda: lightning(True), "transformers": transformers}[
    sys.argv[1]
]()
print("done", flush=True)
