"""A training run and its output folder: its configuration, its state and the files it writes.

OUTPUT/run.json             the run's configuration, written at the start; a run with this file can be resumed
OUTPUT/train_log.jsonl      one line per step
OUTPUT/row_losses.f16       the loss of every row
OUTPUT/validation_log.jsonl one line per validation, if the config asks for them
OUTPUT/tensorboard          the same for TensorBoard, if the config asks for it
OUTPUT/checkpoints/step{N}  Hugging Face folders
OUTPUT/resume/step{N}       what a run continues from: fp32 weights and Adam's moments
OUTPUT/resume/checked.json  token files that were verified, until the run is finished
OUTPUT/manifest.json        written at the end; a run with this file is finished
OUTPUT/run.json.partial     locked by the processes that write; unfinished folders
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pile_tools import Tokenizer, checked, files, manifest, publish, scratch_folders
from pile_tools.config import MAX_THREADS
from pile_tools.errors import ConfigError, FormatError, OutputExistsError, PileError
from pile_tools.manifest import MANIFEST_FILE, RUN_FILE
from pile_tools.order.open import open_order
from pile_tools.order.order import Order
from pile_tools.terminal import counted
from pile_tools.tokenizers import TokenizerFile, find_tokenizer
from pile_tools.tokens import datasets
from pile_tools.tokens.concatenated import prefixes
from trainer import tensorboard
from trainer.branching import Source, find_source
from trainer.checkpoint import folders
from trainer.config import MAX_VOCABULARY, Recipe, Sharding, TrainConfig, recipe
from trainer.log import LOG_FILE, VALIDATION_LOG_FILE, read_log
from trainer.retention import FORMS, Retention
from trainer.row_losses import ROW_LOSSES_FILE
from trainer.signals import StopRequest

#: Advice to users, besides replacing a run.
OR_ELSE = ", another `output` keeps both"
#: In the order in which they are removed: RUN_FILE tells whether the file before it is a run's.
_FILES = (MANIFEST_FILE, VALIDATION_LOG_FILE, RUN_FILE, LOG_FILE, ROW_LOSSES_FILE)
_FOLDERS = (folders.CHECKPOINTS_FOLDER, "resume")

#: Upper limit of the processes that a manifest of a run may name.
_MAX_PROCESSES = 1 << 20

#: Holds the lock of the process that writes, and folders until they are finished. No other artifact's has
#: this name: that of a dataset `run` in this folder is `run.partial`.
SCRATCH_FOLDER = RUN_FILE + scratch_folders.SUFFIX
#: What the holder of its lock does.
_WRITING = "trains in this folder"

#: Kinds of the manifests in step folders.
CHECKPOINT_KIND, STATE_KIND = "checkpoint", "state"

#: Notes on verified token files, in the folder of the state: they hold for this machine only.
CHECKED_FILE = "checked.json"
_CHECKED = f"resume/{CHECKED_FILE}"


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """How the steps after `step` were trained: what changes only the rounding, or which steps are published.

    Attributes:
        step: The step of the state that they continued from; the run's first step at the start.
        processes: Processes.
        threads: Threads of each.
        micro_batch_size: Sequences that a process takes at once.
        zero_stage: What DeepSpeed divided among the processes.
        offload_optimizer: Whether the CPU's memory held master weights and moments.
        checkpoint_every: Steps between checkpoints.
        keep_states: Which states are kept, see `retention`.
        pipeline_stages: Groups of blocks, each in other processes; 1 without a pipeline.
        activation_checkpointing: Whether blocks kept only their inputs.
        compile: Whether blocks were compiled.
    """

    step: int
    processes: int
    threads: int
    micro_batch_size: int
    zero_stage: int
    offload_optimizer: bool
    checkpoint_every: int
    keep_states: str
    pipeline_stages: int
    activation_checkpointing: bool = False
    compile: bool = False

    def values(self) -> dict[str, Any]:
        """As a manifest has it."""
        return dataclasses.asdict(self)

    def check(self, recipe: Recipe) -> None:
        """Raises ConfigError if its processes cannot share the batches of `recipe`."""
        sharding = Sharding(
            zero_stage=self.zero_stage,
            offload_optimizer=self.offload_optimizer,
            pipeline_stages=self.pipeline_stages,
        )
        replace(recipe, micro_batch_size=self.micro_batch_size).split(self.processes, sharding)

    @classmethod
    def read(cls, values: checked.Values) -> Stretch:
        """A stretch in a manifest. Raises FormatError."""
        return cls(
            step=values.integer("step"),
            processes=values.integer("processes", 1, _MAX_PROCESSES),
            threads=values.integer("threads", 1, MAX_THREADS),
            micro_batch_size=values.integer("micro_batch_size", 1),
            zero_stage=values.integer("zero_stage", 0, 3),
            offload_optimizer=values.flag("offload_optimizer"),
            checkpoint_every=values.integer("checkpoint_every", 1),
            keep_states=_retention(values),
            pipeline_stages=values.integer("pipeline_stages", 1),
            # Earlier versions did not record them.
            activation_checkpointing=values.has("activation_checkpointing")
            and values.flag("activation_checkpointing"),
            compile=values.has("compile") and values.flag("compile"),
        )


def _retention(values: checked.Values) -> str:
    try:
        return str(Retention.parse(values.text("keep_states")))
    except ConfigError as err:
        raise values.refuse("keep_states", FORMS) from err


@dataclass(frozen=True)
class Start:
    """What is chosen anew at each start of a run.

    Attributes:
        force: Start again and remove the files of an earlier run.
        threads: Of each process; None for as before, or `source_threads`, or the cores divided among the
            processes.
        keep_states: Which states are kept; None for as before, or only the last.
        peak_flops: Operations a second of all processes at best; None to measure them.
        stop: The signal that asks for a stop.
        source_threads: Threads of the run that this one branches off from, if it should have as many.
    """

    force: bool = False
    threads: int | None = None
    keep_states: Retention | None = None
    peak_flops: float | None = None
    stop: StopRequest = field(default_factory=StopRequest)
    source_threads: int | None = None


def extended(stretches: tuple[Stretch, ...], new: Stretch) -> tuple[Stretch, ...]:
    """The stretches of a run that continues as `new`: unchanged if it continues as before."""
    before = tuple(one for one in stretches if one.step < new.step) or stretches[:1]
    if before and replace(before[-1], step=new.step) == new:
        return before
    return (*(one for one in before if one.step < new.step), new)


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
        stretches: How its steps are trained, since when; empty until the run starts or is opened.
        source: What it branches off from, if it does.
    """

    config: TrainConfig
    recipe: Recipe
    order: Order
    tokenizer: Tokenizer | None
    tokenizer_file: TokenizerFile | None
    validation: Order | None = None
    stretches: tuple[Stretch, ...] = field(default=())
    source: Source | None = None

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
        if self.source is not None:
            inputs += self.source.entries(folder)
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
        values = self.recipe.settings()
        if self.config.validation is not None:
            values |= {
                f"validation.{name}": getattr(self.config.validation, name) for name in ("every", "rows")
            }
        return manifest.Request("run", values, self.inputs(self.config.output))

    def checkpoint_every(self, step: int) -> int:
        """The steps between checkpoints that were in force when the update before `step` was made."""
        in_force = [one for one in self.stretches if one.step < step] or self.stretches[:1]
        return in_force[-1].checkpoint_every if in_force else self.config.checkpoint_interval

    def is_regular(self, step: int) -> bool:
        """Whether there is a checkpoint after `step` updates that is not only an early one."""
        return step > 0 and (step % self.checkpoint_every(step) == 0 or step == self.recipe.steps)

    @property
    def retention(self) -> Retention:
        """Which states this start keeps."""
        return Retention.parse(self.stretches[-1].keep_states)

    def is_state(self, step: int) -> bool:
        """Whether the state after `step` updates is saved."""
        is_start = self.recipe.branch is not None and step == self.recipe.first_step
        return is_start or self.is_regular(step) or self.retention.names(step)

    def keeps_state(self, step: int) -> bool:
        """Whether the state after `step` updates is kept when there are later ones."""
        return self.retention.keeps(step, is_regular=self.is_regular(step))

    def is_checkpoint(self, step: int) -> bool:
        """Whether the weights after `step` updates are published."""
        return self.recipe.is_checkpoint(step, self.checkpoint_every(step))


def plan(config: TrainConfig) -> Run:
    """Opens what a config names and fills in its defaults.

    Raises:
        ConfigError: Values that do not fit each other or the order.
        FormatError: An input is malformed.
        OSError: An input cannot be read.
    """
    publish.refuse_scratch(config.output)
    inputs = [("order", config.order), ("tokenizer", config.tokenizer)]
    inputs += [("validation.order", config.validation.order)] if config.validation else []
    inputs += [("branch.source", config.branch.source)] if config.branch else []
    refuse_own_files(config.output, [(name, given) for name, given in inputs if given])
    if config.tensorboard:
        tensorboard.require()
    order = open_order(config.order)
    _refuse_labels(order)
    source = find_tokenizer(config.tokenizer) if config.tokenizer else None
    tokenizer = source.load() if source else None
    made = _dataset_manifests(order)
    _check_tokenizers(made, source)
    n_known = _vocab_size(made)
    if n_known is None and tokenizer is not None:
        n_known = tokenizer.vocab_size
    planned = recipe(config, order, n_known)
    branched = find_source(config.branch, config.output) if config.branch else None
    if branched is not None:
        # Weights can be links to files elsewhere.
        named = [("branch.source", Path(entry["path"])) for entry in branched.inputs]
        refuse_own_files(config.output, named)
    validation = _validation_order(config, order)
    if planned.attention_within_documents:
        for rows in filter(None, (order, validation)):
            _check_documents(rows)
    # The tokens of the orders.
    publish.refuse_mapped_in(config.output / SCRATCH_FOLDER)
    return Run(config, planned, order, tokenizer, source, validation, source=branched)


def _refuse_labels(order: Order) -> None:
    """Raises ConfigError for an order whose labels mask tokens: the loss here is that of all tokens."""
    if order.labels is not None:
        what = (
            "the order has labels, which mask tokens in the loss of GPT-NeoX; here all tokens are trained on"
        )
        raise ConfigError(f"{what} ({order.name})")


def _check_documents(order: Order) -> None:
    """Raises ConfigError for an order of rows, in which no documents are known."""
    if not order.knows_documents:
        message = "attention_within_documents needs an order of documents; these are rows of tokens"
        raise ConfigError(f"{message} ({order.name})")


def _validation_order(config: TrainConfig, order: Order) -> Order | None:
    """The order of `[validation]`, if there is one. Raises ConfigError if it does not fit that of the run."""
    if config.validation is None:
        return None
    found = open_order(config.validation.order)
    _refuse_labels(found)
    if found.seq_length != order.seq_length or found.samples.sample_length != order.samples.sample_length:
        lengths = f"{found.seq_length:,} tokens, those of the run {order.seq_length:,}"
        raise ConfigError(f"rows of the validation order have {lengths} ({found.name})")
    if config.validation.rows > len(found.samples):
        what = f"{counted(len(found.samples), 'row')} in the validation order"
        raise ConfigError(f"{what}, rows = {config.validation.rows} ({found.name})")
    used, known = (_tokenizers(_dataset_manifests(one)) for one in (found, order))
    if used and known and used != known:
        raise ConfigError(f"the validation order's dataset was made with another tokenizer ({found.name})")
    return found


def _dataset_manifests(order: Order) -> list[manifest.Manifest]:
    """The manifests of an order's datasets; a dataset of another tool has none."""
    found = [datasets.manifest_of(prefix) for prefix in prefixes(order.dataset)]
    datasets.check_unchanged(order.dataset)
    return [made for made in found if made is not None]


def _tokenizers(made: list[manifest.Manifest]) -> set[str]:
    """The checksums of the tokenizers that datasets were made with; none if they are not known."""
    entries = [entry for one in made for entry in one.inputs if entry["role"] == "tokenizer"]
    return {entry["sha256"] for entry in entries if "sha256" in entry}


def _vocab_size(made: list[manifest.Manifest]) -> int | None:
    """The ids that have a meaning in any of the datasets, if one says it."""
    summaries = [one.checked_summary for one in made if one.checked_summary.has("vocab_size")]
    return max((summary.integer("vocab_size", 1, MAX_VOCABULARY) for summary in summaries), default=None)


def refuse_own_files(output: Path, inputs: Sequence[tuple[str, Path]]) -> None:
    """Raises ConfigError for an input among the files of the run or its scratch, which it would remove."""
    own = {files.identity(output / name) for name in _FILES} - {None}
    for name, given in inputs:
        if folders.is_among(given, output) or files.identity(given) in own:
            raise ConfigError(f"{name} is among the files of the run; copy it elsewhere first ({given})")
    publish.refuse_in_scratch(output / SCRATCH_FOLDER, [given for _, given in inputs])


def _check_tokenizers(made: list[manifest.Manifest], given: TokenizerFile | None) -> None:
    """Raises ConfigError if datasets were made with several tokenizers, or not with the given one."""
    expected = {given.sha256} if given else set()
    for dataset in made:
        used = _tokenizers([dataset])
        if used and expected and used != expected:
            than = "" if given else " than the one before it"
            raise ConfigError(f"the order's dataset was made with another tokenizer{than} ({dataset.path})")
        expected = expected or used


def finished(run: Run, *, force: bool) -> manifest.Manifest | None:
    """The manifest of this very run if it is done.

    Raises:
        OutputExistsError: Another run is done.
        ConfigError: As `refuse_skipping_the_past`.
    """
    path = run.config.output / MANIFEST_FILE
    found = manifest.finished(path, run.request, force=force, or_else=OR_ELSE)
    if found is not None:
        refuse_skipping_the_past(run)
    return found


def refuse_skipping_the_past(run: Run) -> None:
    """Raises ConfigError for a step to skip that was trained on before the newest state."""
    path = run.config.output / LOG_FILE
    for line in read_log(path) if run.config.skip_steps else ():
        if line["step"] in run.config.skip_steps and "skipped" not in line:
            what = f"skip_steps names step {line['step']}, which was trained on before the newest state"
            raise ConfigError(f"{what}; branch from an earlier one ({path})")


@contextlib.contextmanager
def writing(output: Path, n_processes: int = 1) -> Iterator[Path]:
    """The scratch folder of a run, locked against every process of another start.

    Args:
        output: The run's folder.
        n_processes: How many train; the others hold the lock by `writing_too`.

    Raises:
        PileError: Another process trains in this folder.
        ConfigError: A folder of the run is on another mount than the run.
    """
    scratch = output / SCRATCH_FOLDER
    for folder in (scratch, folders.checkpoints_folder(output), folders.resume_folder(output)):
        if files.mount(folder) not in (None, files.mount(output)):
            raise ConfigError(
                f"is a mounted folder, between which and the run's no file is renamed; "
                f"unmount it, or mount it as the whole run's folder ({folder})"
            )
    with scratch_folders.locked(scratch, _WRITING) as lock:
        scratch_folders.clear(scratch)
        if n_processes > 1:
            lock.share()
        try:
            yield scratch
        finally:
            # Another process of a failed run may still write here: the next start clears it.
            with contextlib.suppress(OSError):
                scratch_folders.clear(scratch)


def writing_too(output: Path) -> contextlib.AbstractContextManager[None]:
    """Holds the lock of a run in a process other than rank 0, which outlives it if it alone is killed."""
    return scratch_folders.joined(output / SCRATCH_FOLDER, _WRITING)


def tidy(output: Path) -> None:
    """Removes the scratch folder that a killed process left beside a finished run."""
    scratch_folders.discard(output / SCRATCH_FOLDER, _WRITING)


def previous_stretches(run: Run, *, force: bool) -> tuple[Stretch, ...]:
    """How an unfinished run with the same request was trained so far; empty if there is none.

    Raises:
        OutputExistsError: The folder has another run, or files that are not of a run.
        ConfigError: It is that of another artifact, to which an input of the run belongs.
        FormatError: No run can have been trained as run.json says.
    """
    output = run.config.output
    _check_kinds(output)
    sources = [manifest.resolved(output, entry["path"]) for entry in run.request.inputs]
    publish.refuse_in_artifact(output / MANIFEST_FILE, run.request.kind, sources)
    path = output / RUN_FILE
    old = manifest.finished(path, run.request, force=force, or_else=OR_ELSE)
    if old is None:
        for name in (*_FILES, *_FOLDERS):
            manifest.refuse_foreign(output / name, path, force=force)
        return ()
    stretches = stretches_of(old)
    for one in stretches:
        try:
            one.check(run.recipe)
        except ConfigError as err:
            raise FormatError(f"not how this run can have been trained: {err} ({path})") from err
    return stretches


def stretches_of(found: manifest.Manifest) -> tuple[Stretch, ...]:
    """How a run was trained, by its manifest or run.json. Raises FormatError."""
    return tuple(Stretch.read(values) for values in found.checked_summary.objects("stretches"))


def _check_kinds(output: Path) -> None:
    """Raises OutputExistsError for a link, device, mounted file or the like with a name of the run's."""
    for names, is_kind, what in (
        ((*_FILES, _CHECKED), stat.S_ISREG, "a regular file"),
        (_FOLDERS, stat.S_ISDIR, "a folder"),
    ):
        for path in (output / name for name in names):
            if os.path.lexists(path) and not is_kind(path.lstat().st_mode):
                raise OutputExistsError(f"in the way of a run: expected {what}, not a link or else ({path})")
            publish.refuse_mounted_file(path)


def begin(run: Run, scratch: Path, *, force: bool) -> None:
    """Writes run.json; `force` first removes what an earlier run made in the folder.

    Raises:
        PileError: `force` would remove what is not a run's.
    """
    output = run.config.output
    if force:
        own = {MANIFEST_FILE, RUN_FILE, _CHECKED, *(path.name for path in run.records.values())}
        if any(_has_validated(output / name) for name in (MANIFEST_FILE, RUN_FILE)):
            own.add(VALIDATION_LOG_FILE)
        _remove_made(output, scratch, [name for name in (*_FILES, _CHECKED) if name in own])
    # A manifest that is still here is of this run, made from inputs that have changed since: `finished`
    # refuses any other one.
    (output / MANIFEST_FILE).unlink(missing_ok=True)
    summary = {
        "stretches": [one.values() for one in run.stretches],
        # A branch skips them too.
        "skip_steps": list(run.config.skip_steps),
    }
    manifest.write(output / RUN_FILE, run.request, [], summary, scratch=scratch)


def _has_validated(path: Path) -> bool:
    """Whether a file is the manifest of a run with a log of validations."""
    with contextlib.suppress(PileError, OSError):
        found = manifest.read(path)
        return found.kind == "run" and found.input("validation") is not None
    return False


def _remove_made(output: Path, scratch: Path, names: Sequence[str]) -> None:
    """Removes a run's files, its manifest first: a partly removed run is never taken for a whole one."""
    kinds = (
        (folders.checkpoints_folder(output), CHECKPOINT_KIND),
        (folders.resume_folder(output), STATE_KIND),
    )
    for parent, kind in kinds:
        folders.check_ours(parent, kind, folders.steps_in(parent))
    for path in (output / name for name in names):
        if os.path.lexists(path):
            path.rename(scratch / f"removed-{secrets.token_hex(8)}")
    for parent, kind in kinds:
        folders.remove_steps(parent, kind, folders.steps_in(parent), scratch)
        # What someone else put there stays.
        with contextlib.suppress(OSError):
            parent.rmdir()


def due_steps(run: Run, n_updates: int) -> list[int]:
    """The steps whose checkpoints exist after `n_updates` updates."""
    return [step for step in range(run.recipe.first_step, n_updates + 1) if run.is_checkpoint(step)]


def validated_steps(run: Run, n_updates: int) -> list[int]:
    """The numbers of updates up to `n_updates` after which the run validates: first, every n-th, and last."""
    if run.config.validation is None:
        return []
    every, ends = run.config.validation.every, (run.recipe.first_step, run.recipe.steps)
    return [step for step in range(ends[0], n_updates + 1) if step % every == 0 or step in ends]


def finish(run: Run, states: list[Path], unverified: list[str]) -> None:
    """Writes the manifest of a run that was checked to be whole.

    Args:
        run: The run.
        states: The manifests of its states.
        unverified: Datasets without checksums.
    """
    output = run.config.output
    steps = due_steps(run, run.recipe.steps)
    checkpoints = (folders.step_folder(folders.checkpoints_folder(output), step) for step in steps)
    made = [
        *run.records.values(),
        output / RUN_FILE,
        *(folder / MANIFEST_FILE for folder in checkpoints),
        *states,
    ]
    summary = {
        "steps": run.recipe.steps,
        "tokens": run.recipe.steps * run.tokens_per_step,
        "n_parameters": run.recipe.shape.n_parameters,
        "checkpoints": steps,
        "stretches": [one.values() for one in run.stretches],
        "skipped": [line["step"] for line in read_log(output / LOG_FILE) if "skipped" in line],
        "unverified": unverified,
    }
    outputs = [manifest.file_entry(path, output) for path in made]
    (folders.resume_folder(output) / CHECKED_FILE).unlink(missing_ok=True)
    scratch = output / SCRATCH_FOLDER
    written = scratch / f"finished-{MANIFEST_FILE}"
    manifest.write(written, run.request, outputs, summary, scratch=scratch)
    publish.rename_exclusively(written, output / MANIFEST_FILE, None, "move it away")
    files.sync_folder(output)
