"""The plan of a memorization study: its settings, with its run, rows and canaries read."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path

from pile_tools import ConfigError, PileError, _core, manifest
from pile_tools.config import settings
from pile_tools.manifest import MANIFEST_FILE, Entry, Manifest, Request
from pile_tools.tokens import datasets
from studies.memorization import canaries, rows
from studies.memorization.canaries import Canaries
from studies.memorization.rows import Rows
from studies.memorization.scores import MAX_CONTINUATION_TOKENS
from studies.runs import Run, open_run

#: Sequences continued at once. Part of the request: it may tip the balance between two equal logits.
BATCH_SIZE = 128

#: What "not seen" means. Part of the request, so that studies with another meaning do not count as finished.
UNSEEN_RULE = "in no earlier batch as a whole"

#: The shortest sequences that are searched for in the rows of a run.
MIN_TOKENS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class MemorizationConfig:
    """What is scored and how."""

    rows: int = field(default=512, metadata={"help": "Training rows to score, evenly spaced over the run."})
    prompt_tokens: int = field(default=32, metadata={"help": "Tokens of a row that prompt the model."})
    continuation_tokens: int = field(default=32, metadata={"help": "Tokens after them that it should know."})
    checkpoints: str = field(
        default="all",
        metadata={"help": "Which to score: all, or numbers of steps.", "metavar": "all|1,2,..."},
    )
    ban_eod: bool = field(
        default=False, metadata={"help": "Never generate the end of a document, as the published code does."}
    )

    def __post_init__(self) -> None:
        for name in ("rows", "prompt_tokens", "continuation_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if self.n_tokens < MIN_TOKENS:
            raise ConfigError(f"prompt and continuation must have at least {MIN_TOKENS} tokens together")
        if self.continuation_tokens > MAX_CONTINUATION_TOKENS:
            raise ConfigError(f"continuation-tokens must be at most {MAX_CONTINUATION_TOKENS}")

    @property
    def n_tokens(self) -> int:
        """Tokens of a sequence, prompt and continuation."""
        return self.prompt_tokens + self.continuation_tokens

    def steps(self, available: list[int]) -> list[int]:
        """The checkpoints to score, ascending. Raises ConfigError for one that is not `available`."""
        if self.checkpoints == "all":
            return available
        try:
            steps = sorted({int(step) for step in self.checkpoints.split(",")})
        except ValueError as err:
            raise ConfigError(
                f"checkpoints must be all or numbers like 1,2,4, got {self.checkpoints!r}"
            ) from err
        missing = [step for step in steps if step not in available]
        if missing:
            raise ConfigError(f"no checkpoint {missing[0]}; there are {', '.join(map(str, available))}")
        return steps


@dataclass(frozen=True)
class Plan:
    """A study that could begin: what it reads is here and in order.

    Attributes:
        canaries_entry: The file of canaries as an input of the run's manifest, None without one.
        checkpoints: The manifests of the checkpoints to score, by step.
    """

    run: Run
    config: MemorizationConfig
    canaries_entry: Entry | None
    checkpoints: dict[int, Manifest]
    rows: Rows
    canaries: Canaries
    ban: int | None

    @property
    def steps(self) -> list[int]:
        """The steps of the checkpoints to score, ascending."""
        return list(self.checkpoints)

    def check_unchanged(self, step: int) -> None:
        """Raises PileError if a checkpoint was replaced since the plan was made."""
        planned = self.checkpoints[step]
        if manifest.read(planned.path).sha256 != planned.sha256:
            raise PileError(f"the checkpoint was replaced; run the command again ({planned.path.parent})")

    @property
    def n_sequences(self) -> int:
        """Sequences to score, over all checkpoints."""
        return len(self.steps) * (len(self.rows.numbers) + len(self.canaries))

    def request(self, folder: Path) -> Request:
        """The study's settings and inputs, as a manifest in `folder` names them."""
        inputs = [
            self.run.manifest.entry(folder, role="run"),
            self.run.order.record.entry(folder, role="order"),
        ]
        inputs += datasets.origin_entries(self.run.order.dataset, folder)
        inputs += [
            found.entry(folder, role="checkpoint", step=step) for step, found in self.checkpoints.items()
        ]
        if self.canaries_entry is not None:
            path = manifest.input_path(self.run.manifest, self.canaries_entry)
            inputs.append({**self.canaries_entry, "path": manifest.relative(path, folder)})
        values = {
            **settings(self.config),
            "checkpoints": self.steps,
            "dtype": "fp32",
            "batch_size": BATCH_SIZE,
            "unseen": UNSEEN_RULE,
        }
        if self.rows.n_padded:
            # Earlier versions scored these rows, and took skipped ones for seen: theirs are other studies.
            values["padded"] = "left out"
        if self.run.skipped:
            values["skipped"] = "not seen"
        return Request("study", {"study": "memorization", **values}, inputs)


def prepare(run_folder: Path, config: MemorizationConfig, canaries_file: Path | None) -> Plan:
    """Reads the run, the rows and the canaries.

    Raises:
        ConfigError: A checkpoint that is not there, rows too short, or no end-of-document token to ban.
        PileError: No run, or one without checkpoints; canaries that cannot be used.
        OSError: A file cannot be read.
    """
    run = open_run(run_folder)
    found, entry = canaries.no_canaries(config.n_tokens), None
    if canaries_file is not None:
        load = functools.partial(canaries.load, run=run, n_tokens=config.n_tokens)
        found, entry = manifest.read_input(load, canaries_file, run.manifest.folder, role="canaries")
    chosen = rows.choose(run, config.rows, config.n_tokens)
    # A map of a dataset that was cut short reads as zeros: they must not be scored.
    _core.check_mapped()
    steps = config.steps(run.checkpoints)
    return Plan(
        run=run,
        config=config,
        canaries_entry=entry,
        checkpoints={step: manifest.read(run.checkpoint(step) / MANIFEST_FILE) for step in steps},
        rows=chosen,
        canaries=found,
        ban=_eod(run) if config.ban_eod else None,
    )


def _eod(run: Run) -> int:
    """The id of the run's end-of-document token."""
    eod = run.tokenizer.eod if run.tokenizer else None
    if eod is None:
        raise ConfigError(f"the run's tokenizer names no end-of-document token to ban ({run.folder})")
    return eod[1]
