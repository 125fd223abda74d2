"""Tokenizes shards into a dataset: `PREFIX.bin`, `.idx`, `.provenance` and its manifest.

While it works, everything lies in `PREFIX.partial/`: a killed job goes on there with the shard it was at.
At the end the files are renamed into place, the `.idx` last: without it nobody opens the dataset.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pile_tools import _core, files, manifest
from pile_tools.errors import ConfigError, PileError
from pile_tools.manifest import MANIFEST_SUFFIX, Entry, Manifest, Request
from pile_tools.tokenizers import TokenizerFile, find_tokenizer
from pile_tools.types import OnProgress

#: In the order in which they are renamed into place.
SUFFIXES = (".bin", ".provenance", MANIFEST_SUFFIX, ".idx")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizeConfig:
    """What a token dataset depends on, its shards aside."""

    tokenizer: Path = field(
        metadata={
            "help": "A tokenizer.json, a folder that holds one, or a Hugging Face model id[@revision].",
            "metavar": "FILE|FOLDER|ID",
        }
    )
    eod: str | None = field(
        default=None,
        metadata={
            "help": "Token to end each document with; by default the tokenizer's own.",
            "metavar": "TOKEN",
        },
    )
    append_eod: bool = True


@dataclass(frozen=True)
class Result:
    """A dataset's manifest, and how it came about."""

    manifest: Manifest
    is_new: bool
    n_resumed_shards: int = 0


def with_suffix(prefix: Path, suffix: str) -> Path:
    """`PREFIX` + `suffix`: a suffix is appended, it replaces nothing."""
    return prefix.with_name(prefix.name + suffix)


def run(
    shards: Sequence[Path],
    prefix: Path,
    config: TokenizeConfig,
    *,
    threads: int,
    force: bool = False,
    on_progress: OnProgress = None,
) -> Result:
    """Tokenizes `shards` in their order, or goes on with an interrupted run of the same job.

    The same bytes for any number of threads and any interruption. Empty texts are left out, as GPT-NeoX does.

    Args:
        shards: In the order that is to be the dataset's.
        prefix: Path of the dataset without its suffixes.
        config: Tokenizer and end-of-document token.
        threads: Threads that encode; not part of the result.
        force: Replace output made before from something else.
        on_progress: Called with the compressed bytes read so far.

    Raises:
        OutputExistsError: The output was made before from something else and `force` is off.
        FormatError: A shard or the tokenizer is damaged or not supported, named with the place.
        ConfigError: The end-of-document token is not in the vocabulary.
        OSError: A file cannot be read or written.
    """
    source = find_tokenizer(config.tokenizer)
    tokenizer = source.load()
    eod = _eod(tokenizer, config)
    request = _request(shards, prefix, source, eod)
    final, parts = with_suffix(prefix, MANIFEST_SUFFIX), with_suffix(prefix, ".partial")
    if _is_of(parts / final.name, request):
        return Result(_publish(parts, prefix), is_new=True)
    if done := manifest.finished(final, request, force=force):
        return Result(done, is_new=False)
    manifest.refuse_foreign(with_suffix(prefix, ".idx"), final, force=force)
    eod_id = None if eod is None else eod[1]
    built = _core.build_dataset(
        shards, tokenizer, eod_id, parts, prefix.name, request.digest, threads, on_progress
    )
    n_resumed_shards = built.pop("n_resumed_shards")
    inputs = _checked_inputs(request.inputs, built["shards"])
    outputs = [
        manifest.file_entry(parts / (prefix.name + suffix), parts)
        for suffix in (".bin", ".idx", ".provenance")
    ]
    summary = {**built, "vocab_size": tokenizer.vocab_size, "eod": None if eod is None else eod[0]}
    manifest.write(parts / final.name, request, outputs, summary, inputs)
    return Result(_publish(parts, prefix), is_new=True, n_resumed_shards=n_resumed_shards)


def _eod(tokenizer: _core.Tokenizer, config: TokenizeConfig) -> tuple[str, int] | None:
    """The token that ends each document, and its id."""
    if not config.append_eod:
        return None
    if config.eod is None:
        if tokenizer.eod is None:
            raise ConfigError(
                f"{config.tokenizer} names no end-of-document token; give --eod TOKEN or --no-eod"
            )
        return tokenizer.eod
    id = tokenizer.token_to_id(config.eod)
    if id is None:
        raise ConfigError(f"--eod {config.eod!r} is not in the vocabulary of {config.tokenizer}")
    return config.eod, id


def _request(
    shards: Sequence[Path], prefix: Path, tokenizer: TokenizerFile, eod: tuple[str, int] | None
) -> Request:
    folder = prefix.parent
    inputs: list[Entry] = [tokenizer.entry(folder)]
    inputs += [
        {"role": "shard", "path": manifest.relative(path, folder), "bytes": path.stat().st_size}
        for path in shards
    ]
    settings = {"eod": None if eod is None else eod[0], "eod_id": None if eod is None else eod[1]}
    return Request("tokens", settings, inputs)


def _checked_inputs(inputs: list[Entry], shards: list[Entry]) -> list[Entry]:
    """The inputs with the shards' checksums, taken while they were read."""
    hashes = iter(shards)
    checked = []
    for entry in inputs:
        if entry["role"] == "shard":
            shard = next(hashes)
            if shard["bytes"] != entry["bytes"]:
                sizes = f"{entry['bytes']} bytes, then {shard['bytes']}"
                raise PileError(f"{shard['path']} changed while it was read: {sizes}")
            entry = {**entry, "sha256": shard["sha256"]}
        checked.append(entry)
    return checked


def _is_of(path: Path, request: Request) -> bool:
    """Whether finished files of this very request wait to be renamed into place."""
    return path.exists() and manifest.read(path).request == request.digest


def _publish(parts: Path, prefix: Path) -> Manifest:
    """Renames finished files into place, where an interrupted run left off if need be."""
    if (parts / (prefix.name + ".bin")).exists():
        # What stands there is replaced from here on: first it stops being a dataset.
        with_suffix(prefix, ".idx").unlink(missing_ok=True)
    for suffix in SUFFIXES:
        if suffix == MANIFEST_SUFFIX:
            # Kept in the parts to the end: it is what says that they are finished.
            files.write_atomically(with_suffix(prefix, suffix), (parts / (prefix.name + suffix)).read_bytes())
        elif (parts / (prefix.name + suffix)).exists():
            (parts / (prefix.name + suffix)).replace(with_suffix(prefix, suffix))
    shutil.rmtree(parts)
    return manifest.read(with_suffix(prefix, MANIFEST_SUFFIX))
