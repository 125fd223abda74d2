"""What a run continues from: `OUTPUT/resume/step{N}`, fp32 weights and Adam's moments of each parameter.

    resume/step40/state-00000.safetensors  weight/NAME, exp_avg/NAME and exp_avg_sq/NAME of some parameters
    resume/step40/manifest.json            written last: every file's checksum, and what `Summary` has

Nothing in it depends on the number of processes, on the ZeRO stage or on the micro-batch: any of them
continues from it. No pickle is written or read. A new state gets its name before an old one is removed, so a
kill at any time leaves a whole one.
"""

from __future__ import annotations

import hashlib
import math
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pile_tools import checked, manifest
from pile_tools.errors import FormatError, VerifyError
from pile_tools.manifest import MANIFEST_FILE, Entry, Manifest, Request
from trainer.checkpoint import folders
from trainer.checkpoint.tensor_files import Shapes, TensorFile
from trainer.model.neox import GPTNeoX
from trainer.partitions import KINDS, SCALER_VALUES
from trainer.run import STATE_KIND, Run

_ADVICE = "restore it; force starts again"

#: Files are at most so large, unless one parameter is larger: a process writes them from its memory.
MAX_FILE_BYTES = 1 << 30
#: A smaller state has at least this number of files, so that the processes of a node share the writing.
_MIN_FILES = 8

#: Values of the fixed batch: tokens of the one sequence, and logits that the manifest has in full.
_N_TOKENS, _N_LOGITS = 32, 8
#: Largest difference of logits, relative to the largest, between machines, ZeRO stages and dtypes.
_LOGITS_TOLERANCE = 0.05


@dataclass(frozen=True)
class Layout:
    """Which tensors are in which file of a state.

    Attributes:
        files: The shapes of the tensors of each file, by name.
    """

    files: tuple[dict[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, parameters: Shapes, *, max_bytes: int = MAX_FILE_BYTES) -> Layout:
        """The layout of a model's parameters, given in their order."""
        sizes = {name: len(KINDS) * 4 * math.prod(shape) for name, shape in parameters.items()}
        limit = min(max_bytes, -(-sum(sizes.values()) // _MIN_FILES))
        files: list[dict[str, tuple[int, ...]]] = []
        n_bytes = 0
        for name, shape in parameters.items():
            if not files or n_bytes + sizes[name] > limit:
                files.append({})
                n_bytes = 0
            files[-1] |= {f"{kind}/{name}": shape for kind in KINDS}
            n_bytes += sizes[name]
        return cls(tuple(files))

    @classmethod
    def of_run(cls, run: Run) -> Layout:
        """The layout of a run's model."""
        with torch.device("meta"):
            model: nn.Module = GPTNeoX(run.recipe.shape)
        return cls.of({name: tuple(parameter.shape) for name, parameter in model.named_parameters()})

    def file_of(self, tensor: str) -> int:
        """The number of a tensor's file."""
        return next(number for number, shapes in enumerate(self.files) if tensor in shapes)

    @property
    def names(self) -> list[str]:
        """The names of the files."""
        return [f"state-{number:05d}.safetensors" for number in range(len(self.files))]


def fixed_batch(vocab_size: int) -> Tensor:
    """The tokens for which a state records the logits: (1, 32) int64, spread over the vocabulary."""
    return (torch.arange(_N_TOKENS) * 7919 % vocab_size)[None]


@dataclass(frozen=True)
class Logits:
    """The logits of the fixed batch, as a manifest has them.

    Attributes:
        sha256: Of all, float32 and little-endian.
        last: Those of the last token's first entries of the vocabulary.
        largest: The largest magnitude of all.
    """

    sha256: str
    last: tuple[float, ...]
    largest: float

    @classmethod
    def of(cls, logits: Tensor) -> Logits:
        """What a manifest has of (1, t, v) logits."""
        values = logits.detach().float().cpu().contiguous()
        flat: Any = values.flatten().numpy()
        digest = hashlib.sha256(memoryview(flat).cast("B")).hexdigest()
        last = tuple(float(value) for value in values[0, -1, :_N_LOGITS])
        return cls(digest, last, float(values.abs().max()))

    def check(self, found: Logits, path: Path) -> None:
        """Raises VerifyError unless a restored model has these logits, to the rounding of other machines."""
        if self.sha256 == found.sha256:
            return
        # A manifest of someone else may have fewer.
        has_equal_length = len(self.last) == len(found.last)
        pairs = [*zip(self.last, found.last, strict=False), (self.largest, found.largest)]
        largest = max(
            (abs(value) for value in (*self.last, self.largest) if math.isfinite(value)), default=0.0
        )
        limit = _LOGITS_TOLERANCE * max(largest, 1e-6)

        def are_close(a: float, b: float) -> bool:
            # Weights that diverged have logits of which no number is left.
            return abs(a - b) <= limit or not (math.isfinite(a) or math.isfinite(b))

        if not has_equal_length or not all(are_close(a, b) for a, b in pairs):
            raise VerifyError(f"the restored model has other logits than the saved one ({path})")


@dataclass(frozen=True)
class Summary:
    """What a state's manifest says beside its files.

    Attributes:
        tokens: Tokens of the steps so far, skipped ones included.
        records: Length and checksum of the log and the other records at that time, by name.
        adam_updates: Updates that Adam has counted.
        loss_scale: The state of fp16's loss scaling; None in fp32 and bf16.
        logits: Of the fixed batch.
    """

    tokens: int
    records: dict[str, Entry]
    adam_updates: int
    loss_scale: dict[str, float] | None
    logits: Logits

    def values(self, run: Run) -> dict[str, Any]:
        """As the manifest has it."""
        return {
            "order": run.order.record.sha256,
            "tokens": self.tokens,
            "records": self.records,
            "adam_updates": self.adam_updates,
            "loss_scale": self.loss_scale,
            "logits": {
                "sha256": self.logits.sha256,
                "last": [_or_null(value) for value in self.logits.last],
                "largest": _or_null(self.logits.largest),
            },
            "torch": torch.__version__,
            "deepspeed": version("deepspeed"),
        }

    @classmethod
    def read(cls, found: Manifest) -> Summary:
        """The summary of a manifest. Raises FormatError."""
        values = found.checked_summary
        logits = values.object("logits")
        last = tuple(logits.items_of("last", _number_or_nan))
        if len(last) > _N_LOGITS:
            raise FormatError(f"{len(last)} logits, expected {_N_LOGITS} at most ({found.path})")
        scale = values.object("loss_scale") if values.has("loss_scale") else None
        return cls(
            tokens=values.integer("tokens"),
            records={
                name: _record(values.object("records"), name) for name in values.object("records").values
            },
            adam_updates=values.integer("adam_updates"),
            loss_scale=None if scale is None else {key: scale.number(key) for key in SCALER_VALUES},
            logits=Logits(logits.hexadecimal("sha256"), last, _number_or_nan(logits, "largest")),
        )


def _or_null(value: float) -> float | None:
    """A number as JSON has it: what is not finite is null."""
    return value if math.isfinite(value) else None


def _number_or_nan(values: checked.Values, key: str) -> float:
    return values.number(key) if values.has(key) else math.nan


def request(run: Run, step: int) -> Request:
    """What a state's manifest answers: another run's state is refused."""
    folder = folders.step_folder(folders.resume_folder(run.config.output), step)
    return Request(STATE_KIND, {"step": step, **run.request.settings}, run.inputs(folder))


def check_state(run: Run, step: int) -> Manifest:
    """The manifest of a state that this run saved, its files there, and no others; their bytes are not read.

    Raises:
        VerifyError: It is not this run's, files are missing, or the log is another one.
        PileError: A file of someone else is in the folder.
    """
    parent = folders.resume_folder(run.config.output)
    folder = folders.step_folder(parent, step)
    folders.check_ours(parent, STATE_KIND, [step])
    found = manifest.read(folder / MANIFEST_FILE)
    if not found.is_of(request(run, step)):
        raise VerifyError(f"not the state of this run; force starts again ({found.path})")
    if not manifest.is_intact(found.path):
        raise VerifyError(f"damaged; force starts again ({found.path})")
    check_files(run, found)
    return found


def check_files(run: Run, found: Manifest) -> None:
    """Raises VerifyError unless a state's manifest lists the files of this model, and they are there."""
    names = [entry["path"] for entry in found.outputs]
    if names != Layout.of_run(run).names:
        raise VerifyError(f"not the files of a state of this model: {names} ({found.path})")
    for path in (found.folder / name for name in names):
        if not path.is_file():
            raise VerifyError(f"missing of the training state; force starts again ({path})")


def _record(records: checked.Values, name: str) -> Entry:
    values = records.object(name)
    return {"bytes": values.integer("bytes"), "sha256": values.hexadecimal("sha256", manifest.SHA256_DIGITS)}


def record_lengths(run: Run) -> dict[str, int]:
    """The lengths of a run's log and other records, to which training only adds."""
    return {name: path.stat().st_size for name, path in run.records.items()}


def record_entries(run: Run, lengths: dict[str, int]) -> dict[str, Entry]:
    """Length and checksum of a run's records as they were with these lengths."""
    return {
        name: {"bytes": n_bytes, "sha256": sha256_of_start(run.records[name], n_bytes)}
        for name, n_bytes in lengths.items()
    }


def check_records(run: Run, found: Manifest) -> None:
    """Raises VerifyError unless the records start as they were when a state was saved."""
    summary = Summary.read(found)
    for name, path in run.records.items():
        entry = summary.records.get(name)
        if entry is None or sha256_of_start(path, entry["bytes"]) != entry["sha256"]:
            what = "not the lines that were logged" if path.suffix == ".jsonl" else "not the losses"
            raise VerifyError(f"{what} before the state was saved; {_ADVICE} ({path})")


def sha256_of_start(path: Path, n_bytes: int) -> str:
    """SHA-256 of a file's first bytes, of all if there are fewer."""
    digest = hashlib.sha256()
    with checked.open_regular(path) as file:
        while chunk := file.read(min(1 << 22, n_bytes)):
            digest.update(chunk)
            n_bytes -= len(chunk)
    return digest.hexdigest()


class OpenState:
    """The files of a state, open; a context manager.

    Args:
        run: The run.
        found: The state's manifest, see `check_state`.

    Raises:
        VerifyError: A file is not of this model.
    """

    def __init__(self, run: Run, found: Manifest) -> None:
        self.manifest, self._stack = found, ExitStack()
        layout = Layout.of_run(run)
        self._files: dict[str, TensorFile] = {}
        self._opened: list[tuple[TensorFile, Entry]] = []
        try:
            for name, shapes, entry in zip(layout.names, layout.files, found.outputs, strict=True):
                file = self._stack.enter_context(TensorFile(found.folder / name, shapes))
                self._opened.append((file, entry))
                self._files |= dict.fromkeys(shapes, file)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> OpenState:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def verify(self, rank: int = 0, size: int = 1) -> None:
        """Compares each `size`-th file with its checksum: the processes share the work.

        Raises:
            VerifyError: A file has other bytes.
        """
        for file, entry in self._opened[rank::size]:
            file.verify(entry)

    def tensor(self, kind: str, name: str) -> Tensor:
        """A value of a parameter, float32 on the CPU."""
        return self._files[f"{kind}/{name}"].tensor(f"{kind}/{name}")


def states(output: Path) -> list[int]:
    """The steps of a run's states, ascending."""
    return folders.steps_in(folders.resume_folder(output))


def newest_state(output: Path) -> int | None:
    """The step of the newest state, or None."""
    return max(states(output), default=None)
