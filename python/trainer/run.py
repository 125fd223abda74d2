"""A run and its folder: what is asked for, whether it is done or may go on, what it leaves behind.

OUTPUT/run.json             what was asked for, written at the start; its presence lets a run go on
OUTPUT/train_log.jsonl      one line per step
OUTPUT/checkpoints/step{N}  Hugging Face folders
OUTPUT/resume/step{N}       DeepSpeed's state of the last save
OUTPUT/manifest.json        written at the end; its presence says that the run is finished
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from pile_tools import Tokenizer, files, manifest
from pile_tools.errors import ConfigError
from pile_tools.manifest import MANIFEST_FILE
from pile_tools.orders import Order, open_order
from pile_tools.tokenizers import TokenizerFile, find_tokenizer
from trainer.config import Recipe, TrainConfig, recipe
from trainer.log import LOG_FILE

RUN_FILE = "run.json"
#: What one can do beside replacing a run.
OR_ELSE = ", another `output` keeps both"
_MADE = (MANIFEST_FILE, RUN_FILE, LOG_FILE, "checkpoints", "resume")


@dataclass(frozen=True)
class Run:
    """What is asked for, with its inputs open.

    Attributes:
        config: The TOML file.
        recipe: The config with every default filled in.
        order: The training order.
        tokenizer: The tokenizer, if one is given.
        tokenizer_file: Where it was read from.
        order_sha256: Checksum of the order.
    """

    config: TrainConfig
    recipe: Recipe
    order: Order
    tokenizer: Tokenizer | None
    tokenizer_file: TokenizerFile | None
    order_sha256: str

    @property
    def tokens_per_step(self) -> int:
        """Tokens that a step trains on."""
        return self.recipe.batch_size * self.order.seq_length

    def inputs(self, folder: Path) -> list[manifest.Entry]:
        """The inputs as a manifest in `folder` names them."""
        path = manifest.relative(self.order.path, folder)
        inputs: list[manifest.Entry] = [{"role": "order", "path": path, "sha256": self.order_sha256}]
        if self.tokenizer_file is not None:
            inputs.append(self.tokenizer_file.entry(folder))
        return inputs

    @property
    def request(self) -> manifest.Request:
        """What the run's manifest answers."""
        values = {**self.recipe.settings(), "checkpoint_every": self.config.checkpoint_every}
        return manifest.Request("run", values, self.inputs(self.config.output))


def plan(config: TrainConfig) -> Run:
    """Opens what a config names and fills in its defaults.

    Raises:
        ConfigError: Values that do not fit each other or the order.
        FormatError: An input is malformed.
        OSError: An input cannot be read.
    """
    order = open_order(config.order)
    source = find_tokenizer(config.tokenizer) if config.tokenizer else None
    tokenizer = source.load() if source else None
    dataset = order.dataset_manifest
    if dataset is not None and source is not None:
        _check_tokenizer(dataset, files.sha256(source.path))
    n_known = dataset.summary["vocab_size"] if dataset else tokenizer.vocab_size if tokenizer else None
    order_sha256 = files.sha256(order.path)
    return Run(config, recipe(config, order, n_known), order, tokenizer, source, order_sha256)


def _check_tokenizer(dataset: manifest.Manifest, sha256: str) -> None:
    """Raises ConfigError if a tokenizer is given that is not the dataset's."""
    used = {entry["sha256"] for entry in dataset.inputs if entry["role"] == "tokenizer"}
    if sha256 not in used:
        raise ConfigError(f"the order's dataset was made with another tokenizer ({dataset.path})")


def finished(run: Run, *, force: bool) -> manifest.Manifest | None:
    """The manifest of this very run if it is done. Raises OutputExistsError if another run is."""
    path = run.config.output / MANIFEST_FILE
    return manifest.finished(path, run.request, force=force, or_else=OR_ELSE)


def begun(run: Run, n_processes: int, *, force: bool) -> int | None:
    """The number of threads of this very run if it was begun, or None.

    Raises:
        OutputExistsError: Another run was begun there.
        ConfigError: It was begun with another number of processes.
    """
    path = run.config.output / RUN_FILE
    old = manifest.finished(path, run.request, force=force, or_else=OR_ELSE)
    if old is None:
        for name in _MADE:
            manifest.refuse_foreign(run.config.output / name, path, force=force)
        return None
    if old.summary["processes"] != n_processes:
        before = f"begun with {old.summary['processes']} processes, not {n_processes}"
        raise ConfigError(f"{before}; go on with as many, or begin anew with --force ({path})")
    return int(old.summary["threads"])


def begin(run: Run, n_processes: int, n_threads: int, *, force: bool) -> None:
    """Makes the folder and notes what is asked for; `force` first removes what an earlier run made there."""
    output = run.config.output
    if force:
        _remove_made(output)
    output.mkdir(parents=True, exist_ok=True)
    machine = {"processes": n_processes, "threads": n_threads}
    manifest.write(output / RUN_FILE, run.request, [], machine)


def _remove_made(output: Path) -> None:
    for path in (output / name for name in _MADE):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def finish(run: Run, steps: list[int], n_processes: int, n_threads: int) -> None:
    """Writes the manifest of a run whose checkpoints are of these steps."""
    output = run.config.output
    made = [output / LOG_FILE, *(output / f"checkpoints/step{step}/{MANIFEST_FILE}" for step in steps)]
    summary = {
        "steps": run.recipe.steps,
        "tokens": run.recipe.steps * run.tokens_per_step,
        "n_parameters": run.recipe.shape.n_parameters,
        "checkpoints": steps,
        "processes": n_processes,
        "threads": n_threads,
    }
    outputs = [manifest.file_entry(path, output) for path in made]
    manifest.write(output / MANIFEST_FILE, run.request, outputs, summary)
