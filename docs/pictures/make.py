#!/usr/bin/env python3
"""Makes the pictures of docs/screens.md: the real app on the demo store, in a real xterm.

    docs/pictures/make.py [NAME ...]        all, or those whose name begins so

Those of a launch need a container engine (`export $(tests/services/start-docker.sh)`).
Needs Xvfb, xterm, tmux, ImageMagick and the DejaVu fonts (Debian: xvfb xterm tmux imagemagick fonts-dejavu-core), and a Python
that has what the package needs. tmux stands between the app and the terminal: keys go in there, and what is on the screen
is read back there, so that a picture is taken when everything has come.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The app that is in this working tree, wherever another is installed.
SOURCE = HERE.parents[1].resolve() / "src"
SECONDS = 60.0
# So long nothing may change before a picture is taken.
QUIET_SECONDS = 1.2
SMALL, WIDE = (80, 24), (200, 50)
GROUNDS = {"light": "#ffffff", "contrast": "#000000"}

# Of each session: its size and theme, then keys, `?pattern` to wait for, and `!name` for a picture. Words of one letter and
# `=text` are typed, others are tmux's names of keys.
SESSIONS: list[tuple[tuple[int, int], str, str]] = [
    (
        SMALL,
        "dark",
        """
        ?sweep-7 j ?\\bsweep\\b !runs-all
        Tab ?EXPERIMENT j j j j Enter ?55.runs j Enter ?▾ j j j !runs
        / =opt.name_=_lion_and_lr_<_ ?bytes|lr !runs-typing =1e-3 Enter ?\\d.of.55 Space Space Space !runs-filtered
        c ?Compare !compare Tab g C-d ?step !compare-curves 1
        D ?y/N !question n Escape ?55.of.55
        . ?wider !column-menu Escape C ?found =val !columns Escape
        / =name_=_sage-owl-41 Enter ?1.of.55 Enter ?train/loss !charts
        n Enter !chart-full
        """,
    ),
    (
        SMALL,
        "dark",
        """
        ?sweep-7 / =name_=_sage-owl-41 Enter ?1.of Enter ?train/loss BTab ?started !run-overview
        BTab ?commit !run-code BTab ?line !run-logs BTab ?batch_size !run-params
        """,
    ),
    (SMALL, "dark", "?sweep-7 / =name_=_bold-yak-07 Enter ?1.of L ?line t ?Traceback !run-traceback"),
    (
        (120, 30),
        "dark",
        "?sweep-7 / =name_=_deft-newt-89 Enter ?1.of Enter ?Files Tab Tab Tab ?samples j j !run-files",
    ),
    (
        (120, 40),
        "dark",
        """
        ?sweep-7 / =name_in_(sage-owl-41,calm-elk-12,dim-ram-23) Enter ?3.of A ?3.marked c ?Compare
        v ?step !compare-pictures Escape ?Compare Tab g C-d ?step a ?val/acc !compare-page
        """,
    ),
    (SMALL, "dark", "?sweep-7 2 ?PRODUCTION !models H ?promot !model-history"),
    (
        SMALL,
        "dark",
        "?sweep-7 2 ?PRODUCTION Enter ?lineage|trained|MODEL|files !model-version Escape ?PRODUCTION c ?auc !model-diff",
    ),
    (SMALL, "dark", "?sweep-7 5 ?MEMORY !system"),
    (
        SMALL,
        "dark",
        """
        ?sweep-7 3 ?vision !projects Enter ?ready !launch Tab ?FROM !launch-environment Tab ?experiment !launch-machine
        Tab ?launch d ?[$].mltrack !launch-dry-run q ?▶.launch
        j j Enter C-u =1e-3 Enter ?lr.1e-3 ?ready r ?Step 4 ?building !jobs-building L ?epoch.3 !launch-log q 4 ?running
        3 ?vision Enter ?ready j j Enter C-u =1e-3,3e-4,1e-4 Enter ?ready:.3 !launch-sweep r ?lr=0.001.+running g j ?epoch.2 !jobs
        """,
    ),
    (SMALL, "dark", "?sweep-7 F1 ?Keys !help Escape : =comp ?compare !palette"),
    (
        WIDE,
        "dark",
        "?sweep-7 j ?EXPERIMENT !wide-runs / =name_=_sage-owl-41 Enter ?1.of Enter ?train/loss n !wide-charts",
    ),
    (
        SMALL,
        "light",
        "?sweep-7 j Enter ?▾ j j !light-runs / =name_=_sage-owl-41 Enter ?1.of Enter ?train/loss n !light-charts",
    ),
    (
        SMALL,
        "contrast",
        "?sweep-7 j Enter ?▾ j j !contrast-runs / =name_=_sage-owl-41 Enter ?1.of Enter ?train/loss n !contrast-charts",
    ),
    (
        SMALL,
        "16",
        "?sweep-7 j Enter ?▾ j j !16-runs / =name_=_sage-owl-41 Enter ?1.of Enter ?train/loss n !16-charts",
    ),
    (
        SMALL,
        "plain",
        "?sweep-7 j Enter ?▾ j j !plain-runs / =name_=_sage-owl-41 Enter ?1.of Enter ?train/loss n !plain-charts",
    ),
]


# A project to launch. Its own package takes a while to build, or nobody would see it.
PROJECT = {
    "MLproject": """\
name: vision
python_env: python_env.yaml
entry_points:
  main:
    parameters:
      lr: {type: float, default: 3e-4}
      epochs: {type: int, default: 30}
      data: {type: path, default: data}
    command: "python train.py --lr {lr} --epochs {epochs} {data}"
  evaluate: {command: "python train.py --epochs 0"}
""",
    "python_env.yaml": 'python: "3.11"\ndependencies: [./lib]\n',
    "lib/pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    '[project]\nname = "layers"\nversion = "1.2"\n',
    "lib/backend.py": """\
import time, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    time.sleep(12)
    name = "layers-1.2-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as file:
        file.writestr("layers.py", "")
        file.writestr("layers-1.2.dist-info/METADATA", "Metadata-Version: 2.1\\nName: layers\\nVersion: 1.2\\n")
        file.writestr("layers-1.2.dist-info/WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\n")
        file.writestr("layers-1.2.dist-info/RECORD", "")
    return name
""",
    "train.py": """\
import sys, time
import layers, mltrack
with mltrack.start_run():
    for epoch in range(30):
        loss = 2.3 * 0.9**epoch
        mltrack.log_metric("train/loss", loss, step=epoch)
        print(f"epoch {epoch}  loss {loss:.4f}", flush=True)
        time.sleep(1)
""",
    "data/classes.txt": "cat\ndog\n",
    "notes.txt": f"{time.time()}\n",  # or the image might be there
}  # fmt: skip


def write_project(folder: Path) -> None:
    """The project above as a repository with one commit."""
    for name, text in PROJECT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git = ("git", "-C", str(folder), "-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "A first model")):
        run(*git, *words)


def run(*words: str, **options: str) -> str:
    """The output of a command that must not fail."""
    return subprocess.run(
        words, check=True, capture_output=True, text=True, env={**os.environ, **options}
    ).stdout


@contextmanager
def display() -> Iterator[str]:
    """A display of our own that nobody else sees."""
    reader, writer = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "2200x1400x24", "-nolisten", "tcp"],
        pass_fds=(writer,),
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    try:
        yield ":" + os.read(reader, 16).decode().strip()
    finally:
        server.terminate()
        server.wait()
        os.close(reader)


class Window:
    """The app in tmux in an xterm."""

    def __init__(self, folder: Path, screen: str, size: tuple[int, int], theme: str) -> None:
        self._screen = screen
        self._tmux = ("tmux", "-S", str(folder / "tmux"), "-f", os.devnull)
        app = f"{sys.executable} -m mltrack.tui.entry --store demo --theme {theme}"
        state = {
            name: str(folder / name)
            for name in (
                "XDG_DATA_HOME",
                "XDG_STATE_HOME",
                "XDG_CONFIG_HOME",
                "XDG_CACHE_HOME",
            )
        }
        columns, lines = map(str, size)
        given = [
            f"{name}={value}"
            for name, value in {**state, "COLORTERM": "truecolor", "PYTHONPATH": str(SOURCE)}.items()
        ]
        command = ["env", "-u", "TMUX", "-C", str(folder), *given, *app.split()]
        run(*self._tmux, "new-session", "-d", "-x", columns, "-y", lines, *command, LC_ALL="C.UTF-8")
        for option in ("status off", "escape-time 0"):
            run(*self._tmux, "set-option", "-g", *option.split())
        run(*self._tmux, "set-option", "-as", "terminal-features", ",xterm*:RGB")
        look = [
            "-fa",
            "DejaVu Sans Mono",
            "-fs",
            "10",
            "-b",
            "2",
            "+sb",
            "-bg",
            GROUNDS.get(theme, "#121212"),
            "-fg",
            "#dddddd",
        ]
        self._xterm = subprocess.Popen(
            [
                "xterm",
                "-u8",
                "-T",
                "picture",
                "-geometry",
                f"{columns}x{lines}+0+0",
                *look,
                "-xrm",
                "*allowTitleOps: false",
                "-e",
                *self._tmux,
                "attach",
            ],
            env={**os.environ, "DISPLAY": screen, "LC_ALL": "C.UTF-8"},
            stderr=subprocess.DEVNULL,
        )
        self.until(r"\d runs", "the first rows")

    def text(self) -> str:
        """What is on the screen."""
        return run(*self._tmux, "capture-pane", "-p")

    def until(self, pattern: str, what: str) -> None:
        """Wait for a pattern."""
        deadline = time.monotonic() + SECONDS
        while not re.search(pattern, text := self.text()):
            if time.monotonic() > deadline:
                raise SystemExit(f"{what}: {pattern!r} never came; on the screen:\n{text}")
            time.sleep(0.05)

    def rest(self) -> None:
        """Wait until nothing changes any more."""
        before, since, end = "", time.monotonic(), time.monotonic() + 10 * QUIET_SECONDS
        while time.monotonic() - since < QUIET_SECONDS and time.monotonic() < end:
            if (text := self.text()) != before:
                before, since = text, time.monotonic()
            time.sleep(0.05)

    def key(self, word: str) -> None:
        """A key by its name, or a text as it is (with blanks for `_`)."""
        if word.startswith("="):
            run(*self._tmux, "send-keys", "-l", word[1:].replace("_", " ").replace("opt name", "opt_name"))
        else:
            run(*self._tmux, "send-keys", word)
        time.sleep(0.25)

    def picture(self, path: Path) -> None:
        """As few colours as a terminal needs: a few kB each."""
        self.rest()
        small = [
            "-dither",
            "None",
            "-colors",
            "96",
            "-depth",
            "8",
            "-define",
            "png:compression-level=9",
            "-strip",
        ]
        run("import", "-window", "picture", *small, f"PNG8:{path}", DISPLAY=self._screen)
        print(f"{path.name:28} {path.stat().st_size / 1000:5.1f} kB", flush=True)

    def close(self) -> None:
        """End the app and its windows."""
        subprocess.run([*self._tmux, "kill-server"], capture_output=True)
        self._xterm.wait()


def main() -> None:
    """Make the pictures whose names begin with one of the arguments."""
    wanted = tuple(sys.argv[1:]) or ("",)
    for program in ("Xvfb", "xterm", "tmux", "import"):
        if shutil.which(program) is None:
            raise SystemExit(
                f"{program} is not installed (Debian: apt-get install xvfb xterm tmux imagemagick)"
            )
    with (
        tempfile.TemporaryDirectory(prefix="pictures-", ignore_cleanup_errors=True) as above,
        display() as screen,
    ):
        for number, (size, theme, steps) in enumerate(SESSIONS):
            words = steps.split()
            if not any(
                word[1:].startswith(wanted) for word in words if word.startswith("!") and len(word) > 1
            ):
                continue
            folder = Path(above) / str(number)
            folder.mkdir()
            if "?vision" in words:
                write_project(folder / "vision")
            run(sys.executable, "-m", "mltrack.tui.cli", "demo", str(folder / "demo"), PYTHONPATH=str(SOURCE))
            window = Window(folder, screen, size, theme)
            try:
                for word in words:
                    if word.startswith("?") and len(word) > 1:
                        window.until(word[1:], steps)
                    elif word.startswith("!") and len(word) > 1:
                        window.picture(HERE / f"{word[1:]}.png")
                    else:
                        window.key(word)
            finally:
                window.close()


if __name__ == "__main__":
    main()
