"""Types of arguments that name an artifact; another kind of artifact is answered with what to give instead.

A user who types `tokens/sample.bin` for the dataset `tokens/sample`, or a dataset for its order, should not
have to find that out from a missing file. Only what is certainly something else is refused here: of a path
that is missing, damaged or unknown, the command's own job says what is wrong.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from pile_tools import manifest, scratch_folders
from pile_tools.errors import PileError
from pile_tools.manifest import MANIFEST_FILE, MANIFEST_SUFFIX, ORDER_FILE, RUN_FILE, Manifest
from pile_tools.order import remote
from pile_tools.publish import Target
from pile_tools.read import shards as text_shards
from pile_tools.read.shards import Shards
from pile_tools.terminal import counted, shell_quote
from pile_tools.tokenizers import TOKENIZER_FILE
from pile_tools.tokens import datasets

#: Datasets of a folder that a message names.
_N_NAMED = 3


@dataclass(frozen=True)
class Found:
    """An artifact at a path.

    Attributes:
        kind: A key of `_KINDS`, or `folder of datasets`.
        what: The artifact in words, as in "a file of the dataset tokens/sample".
        related: Paths of artifacts that belong to it, by kind: what to give where that kind is expected.
    """

    kind: str
    what: str
    related: dict[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class _Kind:
    """A kind of artifact in messages: in words, and how a user gets one."""

    what: str
    how: str


_KINDS = {
    "dataset": _Kind(
        "a dataset", "give the prefix of a dataset, such as tokens/sample for tokens/sample.bin"
    ),
    "order": _Kind("an order", "give the folder of an order, which `pile-tools order` makes"),
    "rows": _Kind("rows", "give a folder of rows"),
    "token file": _Kind("a token file", "give NAME.bin, or the folder of its shards"),
    "shards": _Kind("text", "give shards of text: .jsonl, .txt or .parquet files, their folder or a pattern"),
    "tokenizer": _Kind("a tokenizer", "give a tokenizer.json, which `pile-tools train-tokenizer` makes"),
    "index": _Kind("an index", "give the folder of an index, which `pile-tools index` makes"),
    "run": _Kind("a run", "give the folder of a run, which `pile-train` makes"),
    "checkpoint": _Kind("a checkpoint", "give the folder of a checkpoint"),
    "study": _Kind("a study", "give the folder that `pile-study memorization` made"),
    "report": _Kind("a report", "give a report"),
    "table": _Kind("a table of counts", "give a table of counts"),
    "config": _Kind("a config", "give a TOML file; `pile-train train --help` shows one"),
    "text": _Kind("a text file", "give a text file"),
    "items": _Kind("a file of items", "give a file of JSON lines, one item each, and then the corpus"),
    "deduplicated": _Kind("the output of dedup", "give the folder that `pile-tools dedup` wrote"),
}

#: Kinds in the manifests, and how they are called here.
_BY_MANIFEST = {
    "tokens": "dataset",
    "labels": "dataset",
    "token-shards": "rows",
    "token-file": "rows",
    "shards": "shards",
    "ngrams": "table",
    "terms": "table",
} | {kind: kind for kind in ("tokenizer", "index", "order", "run", "checkpoint", "study", "report")}


def recognized(path: Path, *, parses_json: bool = True) -> Found | None:
    """The artifact at a path; None if it is missing, unknown, damaged or being replaced.

    A tokenizer without a manifest is known only by its content, so it is unknown without `parses_json`.
    """
    try:
        if path.is_dir():
            return _folder(path)
        if not path.is_file():
            return _prefix(path)
        return _file(path) or (_tokenizer(path) if parses_json else None)
    except (PileError, OSError, ValueError):
        return None


def _folder(path: Path) -> Found | None:
    for name in (ORDER_FILE, MANIFEST_FILE, RUN_FILE):
        # The artifact is being made or replaced, or that was interrupted: what is here may be of several.
        if os.path.lexists(Target.of(path / name).scratch / scratch_folders.MARKER):
            return None
        if (path / name).is_file() and (found := _by_manifest(path / name, path)):
            return found
    prefixes = [file.with_suffix("") for file in sorted(path.glob("*.idx"))]
    if prefixes:
        return _several(prefixes)
    if any(path.glob("*.bin")):
        return Found("rows", "a folder of token files")
    if (path / TOKENIZER_FILE).is_file():
        return Found("tokenizer", "the folder of a tokenizer", {"tokenizer": path / TOKENIZER_FILE})
    if _has_shards(path):
        return Found("shards", "a folder of shards")
    return None


def _several(prefixes: list[Path]) -> Found:
    named = ", ".join(shell_quote(prefix) for prefix in prefixes[:_N_NAMED])
    more = f" and {len(prefixes) - _N_NAMED:,} more" if len(prefixes) > _N_NAMED else ""
    what = f"a folder with {counted(len(prefixes), 'dataset')}, {named}{more}"
    return Found("folder of datasets", what, {"dataset": prefixes[0]})


def _has_shards(path: Path) -> bool:
    try:
        return bool(text_shards.find_shards([path]))
    except PileError:
        return False


def _file(path: Path) -> Found | None:
    if (
        path.name == ORDER_FILE
        or path.name.endswith(MANIFEST_SUFFIX)
        or path.name in (MANIFEST_FILE, RUN_FILE)
    ):
        return _by_manifest(path, path)
    prefix = datasets.prefix_named(path)
    if prefix is not None and datasets.with_suffix(prefix, ".idx").exists():
        return Found("dataset", f"a file of the dataset {prefix}", {"dataset": prefix, "token file": path})
    # Rows are in training order: one of their files is taken as an order too.
    if path.suffix == ".bin":
        return Found("rows", "a token file", {"rows": path.parent, "order": path, "token file": path})
    if path.name.endswith("_idx.npy"):
        return Found("order", "an array of an order", {"order": path})
    # `.manifest.json` follows the whole name of a table, and replaces the suffix of a tokenizer or a report.
    for stem in (path.name, path.stem):
        beside = path.with_name(stem + MANIFEST_SUFFIX)
        if beside.is_file() and any(entry["path"] == path.name for entry in manifest.read(beside).outputs):
            return _by_manifest(beside, path)
    if path.suffix == ".toml":
        return Found("config", "a config of pile-train")
    # Any other JSON may be a shard, or what a user takes for a tokenizer.
    if path.suffix != ".json" and text_shards.is_shard_name(path.name):
        return Found("shards", "a shard of text", {"text": path})
    return None


def _tokenizer(path: Path) -> Found | None:
    if path.suffix == ".json" and text_shards.artifact(path) == "a tokenizer":
        return Found("tokenizer", "a tokenizer", {"tokenizer": path})
    return None


def _prefix(path: Path) -> Found | None:
    """The dataset or the token shards whose files start with a path at which there is no file."""
    if os.path.lexists(path):
        return None
    if datasets.with_suffix(path, ".idx").exists():
        return _of_dataset(path, "a dataset")
    if any(path.parent.glob(f"{glob.escape(path.name)}-[0-9]*-of-[0-9]*.bin")):
        return Found("rows", "the name of token shards", {"rows": path.parent, "order": path.parent})
    return None


def _of_dataset(prefix: Path, what: str) -> Found:
    order = prefix.parent / ORDER_FILE
    index = prefix.with_name(prefix.name + ".index")
    related = {"dataset": prefix, "token file": datasets.with_suffix(prefix, ".bin")}
    related |= {"order": prefix.parent} if order.is_file() else {}
    return Found("dataset", what, related | ({"index": index} if index.is_dir() else {}))


def _by_manifest(file: Path, given: Path) -> Found | None:
    """The artifact that a manifest describes, given by that, its folder or the file it is named after."""
    found = manifest.read(file)
    kind = _BY_MANIFEST.get(found.kind)
    if kind is None:
        return None
    is_manifest = given == file
    if kind == "dataset":
        prefix = datasets.prefix_of(found)
        prefix = prefix.with_name(prefix.name.removesuffix(datasets.LABELS))
        return _of_dataset(prefix, f"a manifest of the dataset {prefix}")
    related = _inputs(found)
    if not is_manifest:
        related[kind] = given
    elif kind in ("table", "report", "tokenizer") and found.outputs:
        related[kind] = manifest.output_path(found, found.outputs[0])
    else:
        related[kind] = file.parent
    if kind == "checkpoint":
        # The manifest is RUN/checkpoints/stepN/manifest.json, with a copy of the run's tokenizer beside it.
        related |= {"run": file.parent.parent.parent, "tokenizer": file.parent}
    what = _KINDS[kind].what
    return Found(kind, f"the manifest of {what}" if is_manifest else what, related)


def _inputs(found: Manifest) -> dict[str, Path]:
    """The inputs of an artifact, by kind; a dataset only if it still exists."""
    paths = {}
    for role, kind in (
        ("order", "order"),
        ("run", "run"),
        ("dataset", "dataset"),
        ("tokenizer", "tokenizer"),
    ):
        if (entry := found.input(role)) is not None:
            path = manifest.input_path(found, entry)
            # An order or a finished run is an input by its manifest, and is given as its folder.
            path = path.parent if path.name in (ORDER_FILE, MANIFEST_FILE) else path
            if kind != "dataset" or datasets.with_suffix(path, ".idx").exists():
                paths[kind] = path
    return paths


def refusal(path: Path, expected: str, found: Found) -> str:
    """What is at a path that is given for the `expected` kind, and what to give instead."""
    kind = _KINDS[expected]
    related = found.related.get(expected)
    name = shell_quote(path)
    if related is not None and related != path:
        advice = f"give {shell_quote(related)}"
    elif expected == "dataset" and found.kind == "shards":
        advice = f"`pile-tools tokenize {name} -o PREFIX --tokenizer FILE` makes a dataset of it"
    elif expected == "order" and "dataset" in found.related:
        prefix = shell_quote(found.related["dataset"])
        advice = f"`pile-tools order {prefix} --seq-length N --samples N` makes an order of it"
    elif expected == "order" and found.kind == "shards":
        advice = (
            "make a dataset of it with `pile-tools tokenize`, and of that an order with `pile-tools order`"
        )
    else:
        advice = kind.how
    return f"{path} is {found.what}, not {kind.what}; {advice}"


class Artifact(click.Path):
    """The path of an artifact of one of `kinds`. A path that is certainly of another kind is a `PileError`.

    The message names the first of `kinds`, a key of `_KINDS`; all are keys of `_IS_ACCEPTED`.
    """

    def __init__(self, *kinds: str, path_type: type | None = Path) -> None:
        # The job reports a path that is missing or may not be read, with exit code 1.
        super().__init__(path_type=path_type, readable=False)
        self._kinds = kinds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, unless another kind of artifact is there."""
        refuse_other(Path(os.fspath(value)), self._kinds)
        return super().convert(value, param, ctx)


def refuse_other(path: Path, kinds: Sequence[str]) -> None:
    """Raises PileError if there is certainly something else than one of these kinds at a path."""
    if remote.is_address(str(path)) or any(_IS_ACCEPTED[kind](path) for kind in kinds):
        return
    found = recognized(path)
    if found is not None:
        raise PileError(refusal(path, kinds[0], found))


def find_shards(inputs: Sequence[Path], kind: str = "shards") -> Shards:
    """The shards at some inputs. Raises as the reader does; for another artifact, with what to give instead.

    `kind` is the kind that the message names, of a command that takes others too.
    """
    try:
        return text_shards.find_shards(inputs)
    except PileError:
        for path in inputs:
            found = recognized(path)
            if found is not None and found.kind != "shards":
                raise PileError(refusal(path, kind, found)) from None
        raise


def _is_dataset(path: Path) -> bool:
    return datasets.with_suffix(path, ".idx").exists()


def _is_order(path: Path) -> bool:
    if path.is_dir():
        # Rows may have an index, and only reading it tells them from documents.
        return (path / ORDER_FILE).exists() or any(path.glob("*.bin"))
    return path.suffix == ".npy" or path.name == ORDER_FILE or (path.suffix == ".bin" and path.exists())


def _is_text(path: Path) -> bool:
    return str(path) == "-" or (path.is_file() and not _is_binary(path))


def _is_binary(path: Path) -> bool:
    return path.suffix in (*datasets.FILES, ".npy") or path.name.endswith(
        (".zst", ".zstd", ".gz", ".parquet")
    )


def _is_shards(path: Path) -> bool:
    if path.is_dir():
        # All files of these folders are ours. Shards may be in one folder with datasets and orders.
        artifact = recognized(path)
        return artifact is None or artifact.kind not in ("run", "checkpoint", "study", "index")
    # A shell that expands `folder/*` names artifacts too, which the reader ignores by their content.
    if path.is_file():
        return text_shards.is_shard_name(path.name) or recognized(path) is None
    return not _is_dataset(path)


def _is(kind: str, *, parses_json: bool = True) -> Callable[[Path], bool]:
    def is_accepted(path: Path) -> bool:
        found = recognized(path, parses_json=parses_json)
        return found is None or (found.kind == kind and found.related.get(kind, path) == path)

    return is_accepted


def _is_tokenizer(path: Path) -> bool:
    # JSON of unknown content may be a tokenizer, and the job parses it anyway: parsing the 2.4 MB of
    # GPT-NeoX's here as well would add 30 ms to each command that takes one.
    return (path / TOKENIZER_FILE).is_file() or _is("tokenizer", parses_json=False)(path)


def _is_deduplicated(path: Path) -> bool:
    """Whether a folder may be the output of dedup: its manifest is of no kind known here.

    The manifest decides, as dedup may leave a folder without shards. Without one any artifact is refused.
    """
    file = path / MANIFEST_FILE
    try:
        return manifest.read(file).kind not in _BY_MANIFEST if file.is_file() else recognized(path) is None
    except (PileError, OSError, ValueError):
        return True


def _is_token_file(path: Path) -> bool:
    if path.suffix == ".bin" or _is_dataset(path) or (path.is_dir() and any(path.glob("*.bin"))):
        return True
    found = recognized(path)
    return found is not None and found.kind == "rows"


def _is_file_of_dataset(path: Path) -> bool:
    found = recognized(path)
    return (
        found is not None and "dataset" in found.related and found.kind in ("dataset", "folder of datasets")
    )


#: Whether a path is, or may be, of a kind; all else is refused if it is recognized.
_IS_ACCEPTED: dict[str, Callable[[Path], bool]] = {
    "dataset": _is_dataset,
    "order": _is_order,
    "shards": _is_shards,
    "text": _is_text,
    "items": _is_text,
    "deduplicated": _is_deduplicated,
    "token file": _is_token_file,
    "tokenizer": _is_tokenizer,
    "files of a dataset": _is_file_of_dataset,
    "index": _is("index"),
    "run": _is("run"),
    "study": _is("study"),
    "config": _is("config"),
}

DATASET, ORDER, RUN, STUDY = Artifact("dataset"), Artifact("order"), Artifact("run"), Artifact("study")
#: An order, or the address of rows.
ORDER_OR_ADDRESS = Artifact("order", path_type=None)
#: The prefix of a dataset that has an index, or the folder of the index.
INDEXED = Artifact("dataset", "index")
#: A dataset, given by its prefix or by any of its files or its folder.
FILES_OF_DATASET = Artifact("dataset", "files of a dataset")
DATASET_OR_SHARDS = Artifact("dataset", "files of a dataset", "shards")
#: The inputs of `count-terms`. Its file of terms is the first value of the same argument, hence `text`.
ORDER_DATASET_OR_SHARDS = Artifact("order", "dataset", "files of a dataset", "shards", "text")
#: What is searched for the items of a benchmark. The file of items is the first value of the same argument.
CORPUS_KINDS = ("order", "dataset", "files of a dataset", "shards")
ITEMS_AND_CORPUS = Artifact(*CORPUS_KINDS, "text")
SHARDS, TOKENIZER, TEXT = Artifact("shards"), Artifact("tokenizer"), Artifact("text")
TOKEN_FILE, CONFIG, DEDUPLICATED = Artifact("token file"), Artifact("config"), Artifact("deduplicated")
