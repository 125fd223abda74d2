"""How a token dataset comes to stand at its prefix: `PREFIX.bin`, `.idx`, `.provenance` and the manifest.

While it is made, everything lies in `PREFIX.partial/`, locked against a second process. At the end the files
are renamed into place, the `.idx` last: without it nobody opens the dataset.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pile_tools import files, manifest
from pile_tools._core import TokenDataset, Tokenizer
from pile_tools.config import Settings
from pile_tools.errors import ConfigError, PileError
from pile_tools.manifest import MANIFEST_SUFFIX, Entry, Manifest, Request
from pile_tools.tokenizers import load_tokenizer

#: In the order in which they are renamed into place.
SUFFIXES = (".bin", ".provenance", MANIFEST_SUFFIX, ".idx")

_SHARD = re.compile(r"(.+)-[0-9]{5,}-of-[0-9]{5,}\.bin")

#: Makes the dataset's files in a folder; returns the manifest's summary and inputs.
Build = Callable[[Path], tuple[Settings, list[Entry]]]


def with_suffix(prefix: Path, suffix: str) -> Path:
    """`PREFIX` + `suffix`: a suffix is appended, it replaces nothing."""
    return prefix.with_name(prefix.name + suffix)


def prefix_named(path: Path) -> Path | None:
    """The prefix of the dataset of which a path names a file, a shard of its tokens too; else None."""
    if found := _SHARD.fullmatch(path.name):
        return path.with_name(found[1])
    suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)
    return None if suffix is None else path.with_name(path.name.removesuffix(suffix))


def labels_manifest(prefix: Path) -> Path:
    """The manifest of a provenance that was found later, by `label`."""
    return with_suffix(prefix, ".provenance" + MANIFEST_SUFFIX)


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


def tokenizer_of(prefix: Path, given: Path | None) -> Tokenizer:
    """The tokenizer given, or else the one that the dataset's manifest names.

    Raises:
        ConfigError: None is named, or it is not there.
    """
    if given is not None:
        return load_tokenizer(given)
    for found in manifests(prefix):
        entry = found.input("tokenizer")
        if entry is not None and (found.folder / entry["path"]).exists():
            return Tokenizer.from_file(found.folder / entry["path"])
    raise ConfigError("the dataset's tokenizer is not known or not here; give --tokenizer FILE, or --tokens")


def prefix_of(found: Manifest) -> Path:
    """The prefix of the dataset that a manifest speaks of."""
    return found.path.with_name(found.path.name.removesuffix(MANIFEST_SUFFIX))


def stands(prefix: Path, request: Request) -> bool:
    """Whether the dataset at `prefix` is the one asked for."""
    return _is_of(with_suffix(prefix, MANIFEST_SUFFIX), request)


def _is_of(path: Path, request: Request) -> bool:
    return path.exists() and manifest.read(path).request == request.digest


def make(
    prefix: Path, request: Request, build: Build, *, force: bool, suffixes: Sequence[str] = SUFFIXES
) -> tuple[Manifest, bool]:
    """The manifest of the dataset at `prefix`, and whether it was made now or stood there already.

    `suffixes` are those of what is made, the manifest's among them, in the order in which they are renamed
    into place: other things than datasets are made in the same way. A single file's manifest is named after
    the whole file, so that files which differ in their last suffix alone stand side by side.

    Raises:
        OutputExistsError: Something else stands there and `force` is off.
        PileError: Another process is making it.
    """
    made, told = _told_apart(suffixes)
    final = with_suffix(prefix, told)
    partial = with_suffix(prefix, told.removesuffix(MANIFEST_SUFFIX) + ".partial")
    if not partial.exists() and (done := manifest.finished(final, request, force=force)):
        return done, False
    with files.locked(partial, "is making this"):
        unpublished = partial / final.name
        if _is_of(unpublished, request):
            return _publish(partial, prefix, suffixes), True
        if done := manifest.finished(final, request, force=force):
            return done, False
        manifest.refuse_foreign(with_suffix(prefix, made[-1]), final, force=force)
        # Another job's files are about to change under their manifest.
        unpublished.unlink(missing_ok=True)
        summary, inputs = build(partial)
        paths = (partial / (prefix.name + suffix) for suffix in _listed(made))
        outputs = [manifest.file_entry(path, partial) for path in paths if path.exists()]
        manifest.write(unpublished, request, outputs, summary, inputs)
        return _publish(partial, prefix, suffixes), True


def _told_apart(suffixes: Sequence[str]) -> tuple[list[str], str]:
    """The suffixes of what is made, and that of the manifest."""
    (told,) = (suffix for suffix in suffixes if suffix.endswith(MANIFEST_SUFFIX))
    return [suffix for suffix in suffixes if suffix != told], told


def _listed(made: Sequence[str]) -> list[str]:
    """The files in the order of a manifest: the first one, then the others from the last one on."""
    return [made[0], *reversed(made[1:])]


def _publish(partial: Path, prefix: Path, suffixes: Sequence[str]) -> Manifest:
    """Renames finished files into place, where an interrupted run left off if need be."""
    made, told = _told_apart(suffixes)
    if (partial / (prefix.name + made[0])).exists():
        # What stands there is replaced from here on: first it stops being a dataset.
        for suffix in reversed(made[1:]):
            with_suffix(prefix, suffix).unlink(missing_ok=True)
    for suffix in suffixes:
        if suffix == told:
            # Kept in the folder to the end: it is what says that the files are finished.
            files.write_atomically(
                with_suffix(prefix, suffix), (partial / (prefix.name + suffix)).read_bytes()
            )
        elif (partial / (prefix.name + suffix)).exists():
            (partial / (prefix.name + suffix)).replace(with_suffix(prefix, suffix))
    files.clear(partial)
    return manifest.read(with_suffix(prefix, told))
