"""Runs the process that loads a task, and reads the items that it wrote."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pile_tools import checked, contamination, files
from pile_tools.checked import Values
from pile_tools.config import Settings
from pile_tools.contamination import Benchmark
from pile_tools.errors import ConfigError, PileError
from pile_tools.harness.items import ABOUT_FILE, ITEMS_FILE
from pile_tools.read.texts import encoded
from pile_tools.terminal import counted

#: Tasks of a group, or of a folder, that a message names.
_N_NAMED = 100

#: Bytes of the process's messages that are read for the last line.
_MESSAGE_BYTES = 1 << 16


@dataclass(frozen=True)
class HarnessTask:
    """The name of a task of lm-evaluation-harness.

    Attributes:
        name: The name.
        folder: A folder with tasks in YAML, its own folders included, beside the harness's.
    """

    name: str
    folder: Path | None = None

    def __post_init__(self) -> None:
        encoded(self.name)  # Raises for a name that is not valid Unicode.
        if not self.name:
            raise ConfigError("the task has no name; give one, such as arc_easy")
        if "\0" in self.name:
            raise ConfigError(f"the name of a task has a zero byte ({self.name!r})")


@dataclass(frozen=True)
class LoadedTask:
    """The items of a task.

    Attributes:
        name: The name of the task.
        benchmark: The items; an item's number is that of its document in the harness.
        sha256: SHA-256 of the items, in hexadecimal.
        about: What manifests record of it: `version` of the harness and `task_version`, the `split` that it
            evaluates, the `dataset` and its `subset`, and the `template` that is left out of the questions,
            its start and its end.
    """

    name: str
    benchmark: Benchmark
    sha256: str
    about: Settings


def check_before(task: HarnessTask) -> None:
    """Raises an error for what would be noticed only after the harness has been loaded, which takes seconds.

    Raises:
        ModuleNotFoundError: lm-eval is not installed.
        OSError: The folder of tasks cannot be read.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise ModuleNotFoundError("No module named 'lm_eval'", name="lm_eval")
    if task.folder is not None:
        # The harness ignores a folder that does not exist.
        next(task.folder.iterdir(), None)


def load(task: HarnessTask) -> LoadedTask:
    """Loads the items of a task with the installed harness, which may download its data.

    The Python of a task, such as its `process_docs`, runs in a process of its own, as the harness would run
    it. Nothing here allows Python of data sets; the harness's own rules and the user's environment hold.

    Raises:
        ConfigError: No task has this name, or several tasks do.
        PileError: The harness cannot load the task, or the task has no documents.
        ModuleNotFoundError: lm-eval is not installed.
        OSError: The folder of tasks cannot be read.
    """
    check_before(task)
    with tempfile.TemporaryDirectory(prefix="pile-tools-") as folder:
        items, about_path = Path(folder, ITEMS_FILE), Path(folder, ABOUT_FILE)
        _run(task, Path(folder))
        about = checked.read_json(about_path, "what the harness said of a task")
        if about.has("error"):
            raise _error(task, about)
        benchmark = contamination.read_items(items)
        # An item's number is that of its document.
        assert len(benchmark.items) == about.integer("n_items")
        keys = ("version", "task_version", "split", "dataset", "subset", "template")
        return LoadedTask(task.name, benchmark, files.sha256(items), {key: about.values[key] for key in keys})


def _run(task: HarnessTask, folder: Path) -> None:
    """Runs the process. Raises PileError if it ends without saying what came of it."""
    # -P: the working folder may have files with the names of modules.
    command = [sys.executable, "-P", "-m", "pile_tools.harness.worker", task.name, str(folder)]
    command += [] if task.folder is None else [str(task.folder)]
    with tempfile.TemporaryFile() as messages:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=messages, check=False
        )
        if done.returncode < 0:
            reason = f"its process was stopped by signal {-done.returncode}; is there enough memory?"
        elif done.returncode or not (folder / ABOUT_FILE).is_file():
            reason = _last_line(messages) or f"its process ended with exit code {done.returncode}"
        else:
            return
        raise PileError(f"the harness cannot load task {task.name}: {reason}")


def _last_line(messages: IO[bytes]) -> str:
    n_bytes = messages.seek(0, 2)
    messages.seek(max(0, n_bytes - _MESSAGE_BYTES))
    lines = messages.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _error(task: HarnessTask, about: Values) -> PileError:
    """The error for a task without items."""
    match about.text("error"):
        case "unknown":
            like, own = about.texts("like"), about.texts("own")
            advice = f"; did you mean {' or '.join(like)}?" if like else ""
            if task.folder is not None:
                names = _named(own) if own else "none"
                advice += f"; the tasks in its YAML files are: {names} ({task.folder})"
            return ConfigError(f"the harness has no task {task.name!r}{advice}")
        case "several":
            tasks = about.texts("tasks")
            what = f"is a {about.text('what')} of {counted(len(tasks), 'task')}"
            return ConfigError(f"{task.name} {what}; give one of them for each run: {_named(tasks)}")
        case "empty":
            split = about.optional("split", about.text)
            where = "" if split is None else f" in its split {split}"
            return PileError(f"task {task.name} has no documents{where}")
        case _:
            advice = ""
            if about.flag("offline"):
                advice = "; its data are not on this machine, and could not be downloaded"
            return PileError(f"the harness cannot load task {task.name}: {about.text('reason')}{advice}")


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _N_NAMED:,} more" if len(names) > _N_NAMED else ""
    return ", ".join(names[:_N_NAMED]) + more
