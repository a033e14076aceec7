"""Files and texts of the story's runs: images without an image library, logs with progress bars, patches."""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import numpy.typing as npt

CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

PATCH = """\
diff --git a/train.py b/train.py
--- a/train.py
+++ b/train.py
@@ -41,7 +41,7 @@ def build_transforms(config):
     return Compose([
-        RandomCrop(32, padding=4),
+        RandomCrop(config.crop, padding=config.crop // 8),
         RandomHorizontalFlip(),
     ])
diff --git a/optim.py b/optim.py
--- a/optim.py
+++ b/optim.py
@@ -12,3 +12,4 @@ def build_optimizer(config, parameters):
+    # lion wants a tenth of the learning rate
     return OPTIMIZERS[config.opt.name](parameters, lr=config.lr)
"""

PACKAGES = """\
numpy==2.2.1
pillow==11.1.0
timm==1.0.14
torch==2.{minor}.0
torchvision==0.{vision}.0
tqdm==4.67.1
"""

OUT_OF_MEMORY = """\
Traceback (most recent call last):
  File "train.py", line 118, in <module>
    main(parse_config())
  File "train.py", line 96, in main
    loss = step(model, batch)
  File "train.py", line 61, in step
    logits = model(images)
  File "timm/models/resnet.py", line 571, in forward
    x = self.layer3(x)
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.53 GiB. GPU 0 has a total capacity of 79.15 GiB
of which 812.00 MiB is free. Process 40962 has 78.36 GiB memory in use."""


def packages(minor: int) -> str:
    """An installed-packages listing with this minor version of torch."""
    return PACKAGES.format(minor=minor, vision=minor + 15)


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """pixels[height, width, 3] as a PNG file."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\x00" + pixels[row].tobytes() for row in range(height))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def samples_image(random: np.random.Generator) -> bytes:
    """A sheet of 8 x 4 blurry patches, as augmented inputs look."""
    cells = random.integers(0, 256, (4 * 4, 8 * 4, 3), dtype=np.uint8)
    return png(np.repeat(np.repeat(cells, 8, axis=0), 8, axis=1))


def predictions_image(number: int, progress: float, quality: float) -> bytes:
    """What a model paints of a disc: out of noise the better, the longer and the better it was trained."""
    noise = np.random.default_rng(number).random((24, 24, 3))
    across, down = np.meshgrid(np.linspace(-1, 1, 24), np.linspace(-1, 1, 24))
    disc = (across**2 + down**2 < 0.5)[..., None] * np.array([0.95, 0.6, 0.15])
    learned = min(1.0, progress * 1.5) * quality
    pixels = (disc * learned + noise * (1 - learned)) * 255
    return png(np.repeat(np.repeat(pixels.astype(np.uint8), 2, axis=0), 2, axis=1))


def confusion_matrix(random: np.random.Generator, accuracy: float) -> bytes:
    """Ten classes, 1,000 images each; cats and dogs are confused most."""
    matrix = np.full((10, 10), (1 - accuracy) / 9)
    np.fill_diagonal(matrix, accuracy)
    matrix[3, 5] += 0.03
    matrix[5, 3] += 0.03
    matrix[3, 3] -= 0.03
    matrix[5, 5] -= 0.03
    counts = [random.multinomial(1000, row / row.sum()).tolist() for row in np.clip(matrix, 0, None)]
    return json.dumps({"classes": CLASSES, "matrix": counts}, indent=1).encode()


def training_log(stop: int, total: int, losses: dict[int, float], extra: dict[int, str]) -> list[str]:
    """Lines of a training with a progress bar that was redrawn with carriage returns."""
    lines = ["loading data/c100 (50,000 images)", "model resnet50, 23.7M parameters, bf16, compile"]
    for step in sorted({*losses, *extra}):
        if step >= stop:
            break
        if step in extra:
            lines.append(extra[step])
        if step in losses:
            done = max(1, 20 * step // total)
            states = [
                f"{step - 200 + part * 50:>7}/{total} |{'#' * done:<20}| {1.7 + part / 10:.1f} it/s"
                for part in range(1, 5)
            ]
            lines.append("\r".join(states))
            lines.append(f"{step:>7} INFO train/loss {losses[step]:.4f}")
    return lines
