"""A training run and its output folder: its configuration, its state and the files it writes.

OUTPUT/run.json             the run's configuration, written at the start; a run with this file can be resumed
OUTPUT/train_log.jsonl      one line per step
OUTPUT/row_losses.f16       the loss of every row
OUTPUT/validation_log.jsonl one line per validation, if the config asks for them
OUTPUT/tensorboard          the same for TensorBoard, if the config asks for it
OUTPUT/checkpoints/step{N}  Hugging Face folders
OUTPUT/resume/step{N}       DeepSpeed's state of the last save
OUTPUT/resume/checked.json  token files that were verified, until the run is finished
OUTPUT/manifest.json        written at the end; a run with this file is finished
OUTPUT/run.partial          locked by the process that writes; unfinished folders
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pile_tools import Tokenizer, files, manifest, publish, scratch_folders
from pile_tools.errors import ConfigError, OutputExistsError, PileError
from pile_tools.manifest import MANIFEST_FILE, RUN_FILE
from pile_tools.order.open import open_order
from pile_tools.order.order import Order
from pile_tools.terminal import counted
from pile_tools.tokenizers import TokenizerFile, find_tokenizer
from trainer import tensorboard
from trainer.checkpoint import folders
from trainer.config import MAX_VOCABULARY, Recipe, TrainConfig, recipe
from trainer.log import LOG_FILE, VALIDATION_LOG_FILE
from trainer.row_losses import ROW_LOSSES_FILE

#: Advice to users, besides replacing a run.
OR_ELSE = ", another `output` keeps both"
_FILES = (MANIFEST_FILE, RUN_FILE, LOG_FILE, ROW_LOSSES_FILE, VALIDATION_LOG_FILE)
_FOLDERS = (folders.CHECKPOINTS_FOLDER, "resume")

#: Upper limit of the threads and processes that a manifest of a run may name.
MAX_THREADS = 1 << 20

#: Holds the lock of the process that writes, and folders until they are finished.
SCRATCH_FOLDER = "run" + scratch_folders.SUFFIX

#: Kinds of the manifests in step folders.
CHECKPOINT_KIND, STATE_KIND = "checkpoint", "state"

#: Notes on verified token files, in the folder of the state: they hold for this machine only.
CHECKED_FILE = "checked.json"


def resume_folder(output: Path) -> Path:
    """The folder of a run's saved state."""
    return output / "resume"


@dataclass(frozen=True)
class Run:
    """A configured run, with its inputs open.

    Attributes:
        config: The TOML file.
        recipe: The config with every default filled in.
        order: The training order.
        tokenizer: The tokenizer, if one is given.
        tokenizer_file: Where it was read from.
        validation: The order whose first rows are validated on, if the config has one.
    """

    config: TrainConfig
    recipe: Recipe
    order: Order
    tokenizer: Tokenizer | None
    tokenizer_file: TokenizerFile | None
    validation: Order | None = None

    @property
    def tokens_per_step(self) -> int:
        """Tokens that a step trains on."""
        return self.recipe.batch_size * self.order.seq_length

    def inputs(self, folder: Path) -> list[manifest.Entry]:
        """The inputs as a manifest in `folder` names them."""
        path = manifest.relative(self.order.path, folder)
        inputs: list[manifest.Entry] = [{"role": "order", "path": path, "sha256": self.order.record.sha256}]
        if self.tokenizer_file is not None:
            inputs.append(self.tokenizer_file.entry(folder))
        if self.validation is not None:
            inputs.append({**self.validation.record.entry(folder), "role": "validation"})
        return [*inputs, *self._datasets(folder)]

    def _datasets(self, folder: Path) -> list[manifest.Entry]:
        """The datasets that the order names, by their fingerprints."""
        found = self.order.manifest
        if found is None:
            return []
        return [
            {**entry, "path": manifest.relative(manifest.input_path(found, entry), folder)}
            for entry in found.inputs
            if "fingerprint" in entry
        ]

    @property
    def records(self) -> dict[str, Path]:
        """The files to which training adds, by name: what was logged of steps, rows and validations."""
        output = self.config.output
        found = {"log": output / LOG_FILE, "row_losses": output / ROW_LOSSES_FILE}
        return found | ({"validation_log": output / VALIDATION_LOG_FILE} if self.validation else {})

    @property
    def request(self) -> manifest.Request:
        """What the run's manifest answers."""
        values = {**self.recipe.settings(), "checkpoint_every": self.config.checkpoint_interval}
        if self.config.validation is not None:
            values |= {
                f"validation.{name}": getattr(self.config.validation, name) for name in ("every", "rows")
            }
        return manifest.Request("run", values, self.inputs(self.config.output))


def plan(config: TrainConfig) -> Run:
    """Opens what a config names and fills in its defaults.

    Raises:
        ConfigError: Values that do not fit each other or the order.
        FormatError: An input is malformed.
        OSError: An input cannot be read.
    """
    _refuse_own_files(config)
    if config.tensorboard:
        tensorboard.require()
    order = open_order(config.order)
    source = find_tokenizer(config.tokenizer) if config.tokenizer else None
    tokenizer = source.load() if source else None
    dataset = order.dataset_manifest
    if dataset is not None and source is not None:
        _check_tokenizer(dataset, source.sha256)
    n_known = _vocab_size(dataset) if dataset else None
    if n_known is None and tokenizer is not None:
        n_known = tokenizer.vocab_size
    planned = recipe(config, order, n_known)
    validation = _validation_order(config, order)
    if planned.attention_within_documents:
        for rows in filter(None, (order, validation)):
            _check_documents(rows)
    return Run(config, planned, order, tokenizer, source, validation)


def _check_documents(order: Order) -> None:
    """Raises ConfigError for an order of rows, in which no documents are known."""
    if all(document == -1 for _, document, _, _ in order.samples.spans(0, 1).tolist()):
        message = "attention_within_documents needs an order of documents; these are rows of tokens"
        raise ConfigError(f"{message} ({order.name})")


def _validation_order(config: TrainConfig, order: Order) -> Order | None:
    """The order of `[validation]`, if there is one. Raises ConfigError if it does not fit that of the run."""
    if config.validation is None:
        return None
    found = open_order(config.validation.order)
    if found.seq_length != order.seq_length or found.samples.sample_length != order.samples.sample_length:
        lengths = f"{found.seq_length:,} tokens, those of the run {order.seq_length:,}"
        raise ConfigError(f"rows of the validation order have {lengths} ({found.name})")
    if config.validation.rows > len(found.samples):
        what = f"{counted(len(found.samples), 'row')} in the validation order"
        raise ConfigError(f"{what}, rows = {config.validation.rows} ({found.name})")
    if (used := _tokenizers(found)) and (known := _tokenizers(order)) and used != known:
        raise ConfigError(f"the validation order's dataset was made with another tokenizer ({found.name})")
    return found


def _tokenizers(order: Order) -> set[str | None]:
    """The checksums of the tokenizers that an order's dataset was made with; none if they are not known."""
    dataset = order.dataset_manifest
    inputs = dataset.inputs if dataset is not None else []
    return {entry.get("sha256") for entry in inputs if entry["role"] == "tokenizer"}


def _vocab_size(dataset: manifest.Manifest) -> int | None:
    summary = dataset.checked_summary
    return summary.integer("vocab_size", 1, MAX_VOCABULARY) if summary.has("vocab_size") else None


def _refuse_own_files(config: TrainConfig) -> None:
    """Raises ConfigError for an input among the files of the run, which it would remove or replace."""
    made = [
        Path(os.path.realpath(folder))
        for folder in (folders.checkpoints_folder(config.output), resume_folder(config.output))
    ]
    inputs = {"order": config.order, "tokenizer": config.tokenizer}
    inputs |= {"validation.order": config.validation.order} if config.validation else {}
    for name, given in inputs.items():
        if given and any(Path(os.path.realpath(given)).is_relative_to(folder) for folder in made):
            raise ConfigError(f"{name} is among the files of the run; copy it elsewhere first ({given})")


def _check_tokenizer(dataset: manifest.Manifest, sha256: str) -> None:
    """Raises ConfigError if a tokenizer is given that is not the dataset's."""
    used = {entry.get("sha256") for entry in dataset.inputs if entry["role"] == "tokenizer"}
    if sha256 not in used:
        raise ConfigError(f"the order's dataset was made with another tokenizer ({dataset.path})")


def finished(run: Run, *, force: bool) -> manifest.Manifest | None:
    """The manifest of this very run if it is done. Raises OutputExistsError if another run is."""
    path = run.config.output / MANIFEST_FILE
    return manifest.finished(path, run.request, force=force, or_else=OR_ELSE)


@contextlib.contextmanager
def writing(output: Path) -> Iterator[Path]:
    """The scratch folder of a run, locked against every other process that would write there.

    Raises:
        PileError: Another process trains in this folder.
    """
    scratch = output / SCRATCH_FOLDER
    with scratch_folders.locked(scratch, "trains in this folder"):
        scratch_folders.clear(scratch)
        try:
            yield scratch
        finally:
            # Another process of a failed run may still write here: the next start clears it.
            with contextlib.suppress(OSError):
                scratch_folders.clear(scratch)


def tidy(output: Path) -> None:
    """Removes the scratch folder that a killed process left beside a finished run."""
    if (output / SCRATCH_FOLDER).is_dir():
        # Whoever holds it removes it.
        with contextlib.suppress(PileError), writing(output):
            pass


def previous_threads(run: Run, n_processes: int, *, force: bool) -> int | None:
    """The number of threads that an unfinished run with the same request used; None if there is none.

    Raises:
        OutputExistsError: The folder has another run, or files that are not of a run.
        ConfigError: The unfinished run has another number of processes.
    """
    output = run.config.output
    _check_kinds(output)
    path = output / RUN_FILE
    old = manifest.finished(path, run.request, force=force, or_else=OR_ELSE)
    if old is None:
        for name in (*_FILES, *_FOLDERS):
            manifest.refuse_foreign(output / name, path, force=force)
        return None
    before, threads = (old.checked_summary.integer(key, 1, MAX_THREADS) for key in ("processes", "threads"))
    if before != n_processes:
        found = f"started with {counted(before, 'process')}, not {n_processes:,}"
        raise ConfigError(f"{found}; use as many; force starts again ({path})")
    return threads


def _check_kinds(output: Path) -> None:
    """Raises OutputExistsError for a link, device or the like with the name of a file of the run."""
    for names, is_kind, what in (
        (_FILES, stat.S_ISREG, "a regular file"),
        (_FOLDERS, stat.S_ISDIR, "a folder"),
    ):
        for path in (output / name for name in names):
            if os.path.lexists(path) and not is_kind(path.lstat().st_mode):
                raise OutputExistsError(f"in the way of a run: expected {what}, not a link or else ({path})")


def begin(run: Run, scratch: Path, n_processes: int, n_threads: int, *, force: bool) -> None:
    """Writes run.json; `force` first removes what an earlier run made in the folder.

    Raises:
        PileError: `force` would remove what is not a run's.
    """
    output = run.config.output
    if force:
        _remove_made(output, scratch)
    # A manifest that is still here is of this run, made from inputs that have changed since: `finished`
    # refuses any other one.
    (output / MANIFEST_FILE).unlink(missing_ok=True)
    machine = {"processes": n_processes, "threads": n_threads}
    manifest.write(output / RUN_FILE, run.request, [], machine, scratch=scratch)


def _remove_made(output: Path, scratch: Path) -> None:
    """Removes a run's files, manifests first: a partly removed run is never taken for a whole one."""
    kinds = (
        (folders.checkpoints_folder(output), CHECKPOINT_KIND),
        (resume_folder(output), STATE_KIND),
    )
    for parent, kind in kinds:
        folders.check_ours(parent, kind, folders.steps_in(parent))
    for path in (*(output / name for name in _FILES), resume_folder(output) / CHECKED_FILE):
        if os.path.lexists(path):
            path.rename(scratch / f"removed-{secrets.token_hex(8)}")
    for parent, kind in kinds:
        folders.remove_steps(parent, kind, folders.steps_in(parent), scratch)
        # What someone else put there stays.
        with contextlib.suppress(OSError):
            parent.rmdir()


def due_steps(run: Run, n_updates: int) -> list[int]:
    """The steps whose checkpoints exist after `n_updates` updates."""
    every = run.config.checkpoint_interval
    return [step for step in range(n_updates + 1) if run.recipe.is_checkpoint(step, every)]


def validated_steps(run: Run, n_updates: int) -> list[int]:
    """The numbers of updates up to `n_updates` after which the run validates: 0, every n-th, and the last."""
    if run.config.validation is None:
        return []
    every, last = run.config.validation.every, run.recipe.steps
    return [step for step in range(n_updates + 1) if step % every == 0 or step == last]


def finish(run: Run, state: Path, n_processes: int, n_threads: int, unverified: list[str]) -> None:
    """Writes the manifest of a run that was checked to be whole.

    Args:
        run: The run.
        state: The manifest of the last state.
        n_processes: Processes that trained.
        n_threads: Threads of each.
        unverified: Datasets without checksums.
    """
    output = run.config.output
    steps = due_steps(run, run.recipe.steps)
    checkpoints = (folders.step_folder(folders.checkpoints_folder(output), step) for step in steps)
    made = [
        *run.records.values(),
        output / RUN_FILE,
        *(folder / MANIFEST_FILE for folder in checkpoints),
        state,
    ]
    summary = {
        "steps": run.recipe.steps,
        "tokens": run.recipe.steps * run.tokens_per_step,
        "n_parameters": run.recipe.shape.n_parameters,
        "checkpoints": steps,
        "processes": n_processes,
        "threads": n_threads,
        "unverified": unverified,
    }
    outputs = [manifest.file_entry(path, output) for path in made]
    (resume_folder(output) / CHECKED_FILE).unlink(missing_ok=True)
    scratch = output / SCRATCH_FOLDER
    written = scratch / f"finished-{MANIFEST_FILE}"
    manifest.write(written, run.request, outputs, summary, scratch=scratch)
    publish.rename_exclusively(written, output / MANIFEST_FILE, None, "move it away")
    files.sync_folder(output)
