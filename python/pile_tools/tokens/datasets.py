"""Token datasets on disk: `PREFIX.bin`, `.idx`, `.provenance` and the manifest, which is written last."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pile_tools import files, manifest, publish
from pile_tools._core import TokenDataset, Tokenizer, TokenSource
from pile_tools.config import Settings
from pile_tools.errors import PileError, PileWarning, UnknownTokenizerError
from pile_tools.manifest import MANIFEST_SUFFIX, Entry, Manifest, Request
from pile_tools.publish import Built, Target
from pile_tools.tokenizers import TokenizerFile, find_tokenizer
from pile_tools.tokens.concatenated import prefixes, sources
from pile_tools.types import AnyPath, Documents

#: Suffixes of the files of a dataset, in the order of its manifest.
FILES = (".bin", ".idx", ".provenance")

#: Infixes, between prefix and `MANIFEST_SUFFIX`, of the manifests of a dataset's labels, its token shards,
#: and its token file made from shards. The dataset's own manifest has none. `LABELS` is also the suffix of
#: the provenance file, which the labels are.
LABELS, SHARDS, TOKEN_FILE = ".provenance", ".shards", ".bin"

#: Kinds of the artifacts with these manifests. One of another kind is that of a file of a similar name, such
#: as a tokenizer `PREFIX.json`, and says nothing about the dataset.
_KINDS = {"": "tokens", LABELS: "labels", SHARDS: "token-shards", TOKEN_FILE: "token-file"}

#: Suffixes of the files by which users may name a dataset.
SUFFIXES = (*FILES, MANIFEST_SUFFIX)

_SHARD = re.compile(r"(.+)-[0-9]{5,}-of-[0-9]{5,}\.bin", re.DOTALL)

#: Makes the dataset's files in a folder. Returns the manifest's summary, with the checksum of the `.bin` as
#: `bin_sha256`, and the manifest's inputs.
Build = Callable[[Path], tuple[Settings, list[Entry]]]


def with_suffix(prefix: Path, suffix: str) -> Path:
    """`PREFIX` + `suffix`. Unlike `Path.with_suffix` it keeps an existing suffix."""
    return prefix.parent / (prefix.name + suffix)


def prefix_named(path: Path) -> Path | None:
    """The prefix of the dataset to which a file belongs by its name, token shards included; else None.

    Of a name that a part's token file and a token shard may have, the index beside it tells. A manifest must
    be the dataset's own: of that of its labels or shards the result keeps the infix.
    """
    if path.suffix == ".bin" and path.with_suffix(".idx").exists():
        return path.with_suffix("")
    if found := _SHARD.fullmatch(path.name):
        return path.parent / found[1]
    suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)
    return None if suffix is None else path.parent / path.name.removesuffix(suffix)


def labels_manifest(prefix: Path) -> Path:
    """The path of the manifest of a provenance that `label` found."""
    return with_suffix(prefix, LABELS + MANIFEST_SUFFIX)


def manifest_paths(prefix: Path) -> list[Path]:
    """The paths of the manifests of all artifacts that may write files of the dataset at `prefix`."""
    return [with_suffix(prefix, infix + MANIFEST_SUFFIX) for infix in _KINDS]


def manifests(prefix: Path) -> list[Manifest]:
    """The manifest of the dataset at `prefix` and that of its labels, if they exist."""
    return [found for infix in ("", LABELS) if (found := _read(prefix, infix)) is not None]


def manifest_of(prefix: Path) -> Manifest | None:
    """The manifest of the dataset at `prefix`, or None if it has none. Raises FormatError, OSError."""
    return _read(prefix, "")


def _read(prefix: Path, infix: str) -> Manifest | None:
    path = with_suffix(prefix, infix + MANIFEST_SUFFIX)
    # A broken link is an error, not a dataset without a manifest.
    found = manifest.read(path) if os.path.lexists(path) else None
    return found if found is not None and found.kind == _KINDS[infix] else None


def existing_manifests(prefix: Path) -> list[Path]:
    """The paths, of `manifest_paths`, at which the dataset has a manifest, which may be damaged."""
    return [path for infix, path in zip(_KINDS, manifest_paths(prefix), strict=True) if _is_here(path, infix)]


def _is_here(path: Path, infix: str) -> bool:
    try:
        return os.path.lexists(path) and manifest.read(path).kind == _KINDS[infix]
    except (PileError, OSError):
        return True


def token_bytes(prefix: Path) -> int:
    """Bytes of the tokens of a dataset; 0 if it cannot be opened, as the job that reads it reports that."""
    try:
        dataset = TokenDataset(prefix)
    except (PileError, OSError):
        return 0
    return dataset.n_tokens * np.dtype(dataset.dtype).itemsize


def check_unchanged(documents: Documents) -> None:
    """Checks that open datasets are those that are at their prefixes now.

    What was read by path before this, such as a manifest, is then of the same dataset.

    Raises:
        FormatError: A dataset was replaced since it was opened.
    """
    for source in sources(documents):
        if isinstance(source, (TokenDataset, TokenSource)):
            source.check_unchanged()


def tokenizer_file(dataset: Documents, given: AnyPath | None = None) -> TokenizerFile:
    """The file of a dataset's tokenizer: `given`, or by default the one that the dataset's manifests name.

    Args:
        dataset: The dataset, open.
        given: A tokenizer.json, a folder that holds one, or a model's id, as `load_tokenizer` takes them.

    Raises:
        UnknownTokenizerError: None is given or named, or the named one does not exist or was changed since.
        PileError: The given one is not found.
        FormatError: The dataset was replaced since it was opened.
    """
    found_in = manifests(Path(dataset.prefix))
    check_unchanged(dataset)
    if given is not None:
        file = find_tokenizer(given)
        known = {(found.input("tokenizer") or {}).get("sha256") for found in found_in} - {None}
        if known and file.sha256 not in known:
            # It may be the same one in other bytes.
            what = f"{file.path} is not the tokenizer file with which {dataset.prefix} was made"
            warnings.warn(what, PileWarning, stacklevel=2)
        return file
    for found in found_in:
        if (path := manifest.input_file(found, "tokenizer")) is not None:
            recorded = found.input("tokenizer")
            if recorded is not None and recorded.get("sha256") not in (None, files.sha256(path)):
                raise UnknownTokenizerError(f"the dataset's tokenizer was changed since it was made ({path})")
            # With `named_by`, loading it later checks again that the dataset was not replaced since.
            return TokenizerFile(path, named_by=dataset if isinstance(dataset, TokenDataset) else None)
    raise UnknownTokenizerError(f"the dataset's tokenizer is unknown or does not exist ({dataset.prefix})")


def eod_of(dataset: Documents, tokenizer: Tokenizer) -> int | None:
    """The id of the end-of-document token: the manifest's, else the tokenizer's own. None for no token.

    Raises as `manifest_of` and `check_unchanged`.
    """
    own = manifest_of(Path(str(dataset.prefix)))
    check_unchanged(dataset)
    settings = {} if own is None else own.settings
    if "eod_id" in settings:
        eod: int | None = settings["eod_id"]
        return eod
    return None if tokenizer.eod is None else tokenizer.eod[1]


def tokenizer_of(dataset: Documents, given: AnyPath | None = None) -> Tokenizer:
    """Loads the tokenizer of a dataset; see `tokenizer_file`."""
    return tokenizer_file(dataset, given).load()


def entry(dataset: Documents, folder: Path, role: str = "dataset") -> Entry:
    """The entry of a dataset as an input in a manifest in `folder`: path and `identity`."""
    return {"role": role, "path": manifest.relative(Path(dataset.prefix), folder), **identity(dataset)}


def identity(dataset: Documents) -> Entry:
    """What tells a dataset from others: its fingerprint, and the SHA-256 of its tokens from its manifest.

    A fingerprint reads samples of the tokens, so two datasets that differ elsewhere have the same one.

    Raises:
        FormatError: The manifest is damaged, or the dataset was replaced since it was opened.
    """
    known = _tokens_sha256(dataset)
    return {"fingerprint": dataset.fingerprint, **({} if known is None else {"tokens_sha256": known})}


def is_of(dataset: Documents, known: Entry) -> bool:
    """Whether a dataset is the one of an entry, as far as both say. Raises as `identity`."""
    found = identity(dataset)
    return all(found[key] == known[key] for key in found if key in known)


def _tokens_sha256(dataset: Documents) -> str | None:
    if not isinstance(dataset, (TokenDataset, TokenSource)):
        return None
    found = manifest_of(Path(str(dataset.prefix)))
    check_unchanged(dataset)
    outputs = () if found is None else found.outputs
    return next((entry["sha256"] for entry in outputs if entry["path"].endswith(".bin")), None)


def origin_entries(documents: Documents, folder: Path) -> list[Entry]:
    """The entries of the origins of documents as inputs in a manifest in `folder`, if there are any.

    What is made from subsets or records depends on them, and the dataset's fingerprint leaves them out.

    Raises:
        FormatError: The dataset was replaced since it was opened.
    """
    paths = [with_suffix(prefix, LABELS) for prefix in prefixes(documents)]
    entries = [
        manifest.file_entry(path, folder, role="provenance") for path in paths if os.path.lexists(path)
    ]
    check_unchanged(documents)
    return entries


def subset_of(documents: Documents, document: int) -> str | None:
    """The subset of a document, or None if it is unknown; an inserted text has one and no other origin."""
    (number,) = documents.subset_numbers(np.array([document], dtype=np.int64)).tolist()
    return documents.subsets[number] if number >= 0 else None


def prefix_of(found: Manifest) -> Path:
    """The prefix of the dataset whose own manifest this is; for that of its labels, `PREFIX` + `LABELS`."""
    return found.path.parent / found.path.name.removesuffix(MANIFEST_SUFFIX)


def is_intact(prefix: Path) -> bool:
    """Whether the files of a complete dataset are those of its manifest, and the manifest is undamaged."""
    path = with_suffix(prefix, MANIFEST_SUFFIX)
    found = manifest.read(path)
    entries = ((manifest.output_path(found, entry), entry) for entry in found.outputs)
    return manifest.is_intact(path) and all(manifest.matches(*entry) for entry in entries)


def fault(dataset: TokenDataset, made: Manifest) -> str | None:
    """What a dataset's manifest says otherwise than the dataset's index; None if it fits."""
    found = {"dtype": dataset.dtype, "n_documents": len(dataset), "n_tokens": dataset.n_tokens}
    names = (name for name, value in found.items() if made.summary[name] != value)
    return next((f"{name} is {made.summary[name]}, the index says {found[name]}" for name in names), None)


def is_complete(prefix: Path, request: Request) -> bool:
    """Whether the dataset at `prefix` is the requested one and complete."""
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
    """Makes and publishes the dataset at `prefix`, unless it is complete. Takes and raises as `publish.make`.

    `build` must resume from the files that a killed run left in its folder.

    Returns:
        The manifest, and whether the dataset was made now (True) or was already complete (False).
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
        resumes=[publish.STATE],
        is_stream=is_stream,
        reads_inputs=reads_inputs,
    )
