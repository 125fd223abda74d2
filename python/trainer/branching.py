"""Runs that start from another run or from a published model, and how they name it.

A branch starts from a kept state, with the optimizer as it was; or from weights alone, with fresh moments.
It is a run like any other: it has a state of its own from its first step on, and does not need its source to
be resumed. Its manifests name the source with a checksum, as an input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from pile_tools import files, manifest
from pile_tools.checked import Values
from pile_tools.config import MAX_THREADS, Settings, from_values
from pile_tools.errors import ConfigError, FormatError, PileError
from pile_tools.manifest import MANIFEST_FILE, RUN_FILE, Entry, Manifest
from pile_tools.tokenizers import tokenizer_in
from trainer.checkpoint import folders
from trainer.config import (
    MAX_COUNT,
    BranchConfig,
    ModelConfig,
    OptimizerConfig,
    Sharding,
    StageConfig,
    TrainConfig,
    ValidationConfig,
    completed,
)
from trainer.launcher import process_count
from trainer.log import BY_NAME, LOG_FILE, read_log

#: Roles of the inputs that name a source.
STATE_ROLE, WEIGHTS_ROLE = "state", "weights"

#: Keys of what a run's work is divided into.
_SHARING = ("micro_batch_size", "deepspeed")

_Config = TypeVar("_Config")


@dataclass(frozen=True)
class Source:
    """What a branch starts from.

    Attributes:
        folder: Of the state, or of the model.
        inputs: Its files that a manifest names: role, path as seen from here, checksum.
    """

    folder: Path
    inputs: tuple[Entry, ...]

    def entries(self, folder: Path) -> list[Entry]:
        """The inputs as a manifest in `folder` names them."""
        return [{**entry, "path": manifest.relative(Path(entry["path"]), folder)} for entry in self.inputs]


def find_source(branch: BranchConfig, output: Path) -> Source:
    """What a branch starts from.

    A source that is gone since the branch started, whole or the step, is taken as its run.json names it.

    Args:
        branch: The table of the config.
        output: The branch's folder.

    Raises:
        ConfigError: The output is the source, or among its checkpoints or states.
        PileError: There is no state or model.
        OSError: A file cannot be read.
    """
    _refuse_in_source(branch.source, output)
    is_run = (branch.source / RUN_FILE).is_file()
    role = _role(branch)
    recorded = _recorded(output, role)
    if is_run:
        parent = folders.checkpoints_folder if branch.fresh_moments else folders.resume_folder
        folder = folders.step_folder(parent(branch.source), branch.step)
        named = [folder / MANIFEST_FILE]
        if not named[0].is_file():
            if recorded:
                return Source(folder, recorded)
            raise PileError(_missing(branch, role))
    elif branch.fresh_moments:
        folder = branch.source
        try:
            named = _weight_files(folder)
        except FileNotFoundError:
            if recorded:
                return Source(folder, recorded)
            raise
    elif recorded:
        return Source(branch.source, recorded)
    else:
        raise PileError(
            f"no run, so there is no state of the optimizer; fresh_moments starts from weights alone "
            f"({branch.source})"
        )
    inputs = [{"role": role, "path": str(path), "sha256": files.sha256(path)} for path in named]
    return Source(folder, tuple(inputs))


def _role(branch: BranchConfig) -> str:
    return WEIGHTS_ROLE if branch.fresh_moments else STATE_ROLE


def _weight_files(folder: Path) -> list[Path]:
    """The files that a model's weights are read from, sorted. Raises FormatError, OSError."""
    # Imported here: it imports torch, which takes seconds.
    from trainer.checkpoint.weights import weight_files

    return sorted(weight_files(folder))


def _refuse_in_source(source: Path, output: Path) -> None:
    """Raises ConfigError for a branch in a folder whose files are read, and replaced with `force`."""
    if output.exists() and files.identity(output) == files.identity(source):
        raise ConfigError(f"output is the run that is branched from; take another ({output})")
    if folders.is_among(output, source):
        raise ConfigError(f"output is among the files of {source}; take another folder ({output})")


def _recorded(output: Path, role: str) -> tuple[Entry, ...]:
    path = output / RUN_FILE
    if not path.is_file():
        return ()
    found = manifest.read(path)
    return tuple(
        {**entry, "path": str(manifest.input_path(found, entry))}
        for entry in found.inputs
        if entry["role"] == role
    )


def _missing(branch: BranchConfig, role: str) -> str:
    if role == WEIGHTS_ROLE:
        return f"no weights of step {branch.step} ({branch.source})"
    known = folders.steps_in(folders.resume_folder(branch.source))
    there = f"there are: {', '.join(map(str, known)) or 'none'}"
    advice = "keep-states keeps more, or fresh_moments starts from a checkpoint"
    return f"no state of step {branch.step} is kept; {there}; {advice} ({branch.source})"


def config_of_branch(
    branch: BranchConfig, output: Path, changes: dict[str, Any], optimizer: dict[str, Any]
) -> TrainConfig:
    """The config of a branch: that of its source, or of a model's folder, with changes.

    If the source is gone since the branch started, it is that of the branch itself.

    Args:
        branch: Where it starts.
        output: Its folder.
        changes: Keys of the config; a model that is no run of ours needs `order`. Its `skip_steps` are added
            to those that the run skips by name.
        optimizer: Keys of `[optimizer]`; a model that is no run of ours needs `lr`.

    Raises:
        ConfigError: A value is missing or wrong.
        PileError: The source is neither.
        OSError: A file cannot be read.
    """
    folder = branch.source
    if not folder.exists() and _recorded(output, _role(branch)):
        folder = output
    run_file = folder / RUN_FILE
    if run_file.is_file():
        found = manifest.read(run_file)
        values = _values_of_run(found, branch.step)
        # Without the changes: what is wrong here is the file's fault.
        _check_source(found, {**values, "output": str(output)})
        if "precision" in changes:
            # They may not fit another one, in memory or by rule.
            values = {name: value for name, value in values.items() if name not in _SHARING}
    else:
        values = _values_of_model(branch.source, changes, optimizer)
    if optimizer or "steps" in changes:
        # One schedule for the whole run, as the options have it.
        values.pop("stages", None)
    values["optimizer"] |= optimizer
    if "lr" in optimizer and "min_lr" not in optimizer:
        # The lowest rate is a tenth of the highest, as in a config that names one.
        values["optimizer"].pop("min_lr", None)
    where = f"branch of {branch.source}"
    skipped = {*_named_skips(folder, branch.step), *changes.get("skip_steps", ())}
    of_branch = {"output": str(output), "skip_steps": sorted(skipped)}
    made = from_values(TrainConfig, {**values, **changes, **of_branch}, where)
    return replace(made, branch=branch)


def _check_source(found: Manifest, values: dict[str, Any]) -> None:
    """Raises FormatError for a manifest of a run, read as a config's values, that no run can have."""
    settings = found.checked_settings
    steps, batch_size, seq_length = (
        settings.integer(name, 1) for name in ("steps", "batch_size", "shape.max_positions")
    )
    try:
        config = from_values(TrainConfig, values, "settings")
        recipe = completed(config, steps, batch_size, seq_length, None)
        if config.micro_batch_size is not None:
            # The source's, of as many processes.
            recipe.split(process_count()[1], config.deepspeed)
    except ConfigError as err:
        raise FormatError(f"not the settings of a run: {err} ({found.path})") from err


def _values_of_run(found: Manifest, step: int) -> dict[str, Any]:
    """A config's values from the manifest of a run, as it trained the update after `step` updates."""
    settings = found.settings
    values: dict[str, Any] = {
        name: settings[name] for name in ("steps", "batch_size", "seed", "precision") if name in settings
    }
    values["model"] = _keys_of(ModelConfig, settings, "shape.") | _keys_of(ModelConfig, settings, "")
    values["optimizer"] = _keys_of(OptimizerConfig, settings, "optimizer.")
    stages = found.checked_settings.objects("stages") if found.checked_settings.has("stages") else []
    values["stages"] = [_stage(stage) for stage in stages]
    for role in ("order", "tokenizer"):
        entry = found.input(role)
        if entry is not None:
            values[role] = str(manifest.input_path(found, entry))
    validation = found.input("validation")
    if validation is not None:
        values["validation"] = _keys_of(ValidationConfig, settings, "validation.")
        values["validation"]["order"] = str(manifest.input_path(found, validation))
    stretch = _in_force(found, step)
    values["checkpoint_every"] = stretch.integer("checkpoint_every", 1)
    for name in ("activation_checkpointing", "compile"):
        # Runs of earlier versions do not say it.
        values[name] = stretch.has(name) and stretch.flag(name)
    if _has_as_many_processes(stretch):
        values["micro_batch_size"] = stretch.integer("micro_batch_size", 1)
    if _has_as_many_processes(stretch) or stretch.integer("pipeline_stages", 1) == 1:
        values["deepspeed"] = {name: stretch.values[name] for name in _keys(Sharding) if stretch.has(name)}
    return values


def _in_force(found: Manifest, step: int) -> Values:
    """How a run trained the update after `step` updates. Raises FormatError."""
    stretches = found.checked_summary.objects("stretches")
    if not stretches:
        raise found.checked_summary.refuse("stretches", "one at least")
    return next((one for one in reversed(stretches) if one.integer("step") <= step), stretches[0])


def _has_as_many_processes(stretch: Values) -> bool:
    return stretch.integer("processes", 1) == process_count()[1]


def threads_of_source(branch: BranchConfig) -> int | None:
    """The threads of each process with which the source trained on from the branch's step.

    None where it had another number of processes, or is no run: sums in another order round differently.
    """
    run_file = branch.source / RUN_FILE
    if not run_file.is_file():
        return None
    stretch = _in_force(manifest.read(run_file), branch.step)
    n_threads = stretch.integer("threads", 1)
    return n_threads if _has_as_many_processes(stretch) and n_threads <= MAX_THREADS else None


def _named_skips(folder: Path, first_step: int) -> set[int]:
    """The steps from the first on that a run skips by name: those of its config, and of its log."""
    if not (folder / RUN_FILE).is_file():
        return set()
    summary = manifest.read(folder / RUN_FILE).checked_summary
    # Runs of earlier versions record none. A step that an earlier config named is in the log alone.
    named = set(summary.integers("skip_steps", 0, MAX_COUNT)) if summary.has("skip_steps") else set()
    log = folder / LOG_FILE
    if log.exists():
        named |= {line["step"] for line in read_log(log) if line.get("skipped") == BY_NAME}
    return {step for step in named if first_step <= step <= MAX_COUNT}


def _stage(stage: Values) -> dict[str, Any]:
    optimizer = stage.object("optimizer").values if stage.has("optimizer") else {}
    return {"steps": stage.values.get("steps"), **_keys_of(StageConfig, optimizer, "")}


def _keys_of(config: type[_Config], settings: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name: settings[prefix + name] for name in _keys(config) if prefix + name in settings}


def _keys(config: type[_Config]) -> list[str]:
    return [field.name for field in fields(config)]  # type: ignore[arg-type]


def _values_of_model(folder: Path, changes: dict[str, Any], optimizer: dict[str, Any]) -> dict[str, Any]:
    """A config's values from a model's folder of Hugging Face's."""
    from trainer.checkpoint.config_json import read_shape

    if not (folder / "config.json").is_file():
        raise PileError(f"neither a run of pile-train nor a model: no config.json ({folder})")
    missing = [name for name in ("order",) if name not in changes]
    missing += [name for name in ("lr",) if name not in optimizer]
    if missing:
        raise ConfigError(
            f"a model names no {' and no '.join(missing)}; give {' and '.join(missing)} ({folder})"
        )
    shape = read_shape(folder / "config.json")
    model = {field.name: getattr(shape, field.name, None) for field in fields(ModelConfig)}
    values: dict[str, Any] = {"model": {name: value for name, value in model.items() if value is not None}}
    tokenizer = tokenizer_in(folder)
    if tokenizer is not None:
        values["tokenizer"] = str(tokenizer.path)
    return values | {"optimizer": {}}


def check_shape(state: Manifest, settings: Settings) -> None:
    """Raises ConfigError unless a state is of a model with the shape in a run's settings."""
    for name, value in settings.items():
        if name.startswith("shape.") and name != "shape.init" and state.settings.get(name) != value:
            found = f"{name.removeprefix('shape.')} is {value}, of the state {state.settings.get(name)}"
            raise ConfigError(f"another model than the run that is branched from: {found} ({state.path})")
    if state.settings.get("batch_size") != settings["batch_size"]:
        size = state.settings.get("batch_size")
        raise ConfigError(
            f"batch_size is {settings['batch_size']}, of the state {size}: steps would not be the same rows "
            f"({state.path})"
        )
