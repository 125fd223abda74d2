"""Token datasets on disk: `PREFIX.bin`, `.idx`, `.provenance` and the manifest, which is published last."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pile_tools import files, manifest, publish
from pile_tools._core import TokenDataset, Tokenizer
from pile_tools.config import Settings
from pile_tools.errors import PileError, UnknownTokenizerError
from pile_tools.manifest import MANIFEST_SUFFIX, Entry, Manifest, Request
from pile_tools.publish import Built, Target
from pile_tools.tokenizers import TokenizerFile, find_tokenizer
from pile_tools.types import AnyPath

#: The files of a dataset, as its manifest lists them.
FILES = (".bin", ".idx", ".provenance")

#: What follows the prefix in the names of the manifests of its labels, its token shards, and its token file
#: made from shards. The dataset's own has nothing there.
LABELS, SHARDS, TOKEN_FILE = ".provenance", ".shards", ".bin"

#: The ends of the names of its files, by which users may name a dataset.
SUFFIXES = (*FILES, MANIFEST_SUFFIX)

_SHARD = re.compile(r"(.+)-[0-9]{5,}-of-[0-9]{5,}\.bin")

#: Makes the dataset's files in a folder; returns the manifest's summary, with `bin_sha256` for its `.bin`,
#: and inputs.
Build = Callable[[Path], tuple[Settings, list[Entry]]]


def with_suffix(prefix: Path, suffix: str) -> Path:
    """`PREFIX` + `suffix`: a suffix is appended, it replaces nothing."""
    return prefix.parent / (prefix.name + suffix)


def prefix_named(path: Path) -> Path | None:
    """The prefix of the dataset of which a path names a file, a shard of its tokens too; else None."""
    if found := _SHARD.fullmatch(path.name):
        return path.parent / found[1]
    suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)
    return None if suffix is None else path.parent / path.name.removesuffix(suffix)


def labels_manifest(prefix: Path) -> Path:
    """The manifest of a provenance that was found later, by `label`."""
    return with_suffix(prefix, LABELS + MANIFEST_SUFFIX)


def manifest_paths(prefix: Path) -> list[Path]:
    """Where the manifests of the artifacts are that write files of the dataset at `prefix`."""
    return [with_suffix(prefix, stem + MANIFEST_SUFFIX) for stem in ("", LABELS, SHARDS, TOKEN_FILE)]


def manifests(prefix: Path) -> list[Manifest]:
    """What is told of the dataset at `prefix`: its own manifest and that of its labels, those there are."""
    paths = (with_suffix(prefix, MANIFEST_SUFFIX), labels_manifest(prefix))
    return [manifest.read(path) for path in paths if path.exists()]


def token_bytes(prefix: Path) -> int:
    """Bytes of the tokens of a dataset; 0 where it cannot be opened, which the job on it reports."""
    try:
        dataset = TokenDataset(prefix)
    except (PileError, OSError):
        return 0
    return dataset.n_tokens * np.dtype(dataset.dtype).itemsize


def tokenizer_file(prefix: Path, given: AnyPath | None = None) -> TokenizerFile:
    """The file of a dataset's tokenizer: the one given, or else the one that a manifest of the dataset names.

    Args:
        prefix: Of the dataset.
        given: A tokenizer.json, a folder that holds one, or a model's id, as `load_tokenizer` takes them.

    Raises:
        UnknownTokenizerError: None is given or named, or the named one does not exist or was changed since.
        PileError: The one that is given is not found.
    """
    if given is not None:
        return find_tokenizer(given)
    for found in manifests(prefix):
        if (path := manifest.input_file(found, "tokenizer")) is not None:
            entry = found.input("tokenizer")
            if entry is not None and entry.get("sha256") not in (None, files.sha256(path)):
                raise UnknownTokenizerError(f"the dataset's tokenizer was changed since it was made ({path})")
            return TokenizerFile(path)
    raise UnknownTokenizerError(f"the dataset's tokenizer is not known or not here ({prefix})")


def tokenizer_of(prefix: Path, given: AnyPath | None = None) -> Tokenizer:
    """The tokenizer of a dataset; see `tokenizer_file`."""
    return tokenizer_file(prefix, given).load()


def prefix_of(found: Manifest) -> Path:
    """The prefix of the dataset that a manifest speaks of."""
    return found.path.parent / found.path.name.removesuffix(MANIFEST_SUFFIX)


def is_complete(prefix: Path, request: Request) -> bool:
    """Whether the dataset at `prefix` is the one asked for, and all of it is there."""
    try:
        return manifest.finished(with_suffix(prefix, MANIFEST_SUFFIX), request, force=False) is not None
    except PileError:
        return False


def make(
    prefix: Path,
    request: Request,
    build: Build,
    *,
    force: bool,
    is_stream: bool = False,
    reads_inputs: bool = True,
) -> tuple[Manifest, bool]:
    """The manifest of the dataset at `prefix`, and whether it was made now or was complete already.

    `build` continues from what a killed run left in the folder that it is given. Raises as `publish.make`.
    """

    def build_files(folder: Path) -> Built:
        summary, inputs = build(folder)
        sha256 = {prefix.name + ".bin": summary.pop("bin_sha256")}
        made = [name for name in names if (folder / name).exists()]
        return Built(made, summary, inputs, sha256=sha256)

    names = [prefix.name + suffix for suffix in FILES]
    return publish.make(
        Target.of(with_suffix(prefix, MANIFEST_SUFFIX)),
        request,
        build_files,
        force=force,
        names=names,
        resumes=True,
        is_stream=is_stream,
        reads_inputs=reads_inputs,
    )
