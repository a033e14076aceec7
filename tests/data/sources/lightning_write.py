"""Logs with Lightning's CSVLogger, a new metric coming in the middle. Argument: the folder."""

import sys

from lightning.pytorch.loggers import CSVLogger

logger = CSVLogger(sys.argv[1], name="lightning_logs", flush_logs_every_n_steps=3)
logger.log_hyperparams({"lr": 0.1, "model": {"depth": 3}, "name": None})
for step in range(100):
    logger.log_metrics({"train_loss": 1 / (step + 1), "epoch": step // 10}, step=step)
    if step % 10 == 9:
        logger.log_metrics(
            {"val_loss": float("nan") if step == 9 else step / 7, "epoch": step // 10}, step=step
        )
logger.finalize("success")
