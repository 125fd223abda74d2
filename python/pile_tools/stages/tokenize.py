"""Tokenizes shards into a dataset: `PREFIX.bin`, `.idx`, `.provenance` and its manifest.

While it works, everything lies in `PREFIX.partial/`: a killed job goes on there with the shard it was at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pile_tools import _core, datasets, manifest
from pile_tools.config import Settings, fingerprint
from pile_tools.errors import ConfigError, PileError
from pile_tools.manifest import MANIFEST_SUFFIX, Entry, Manifest, Request
from pile_tools.parts import Part
from pile_tools.types import OnProgress


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizeConfig:
    """What a token dataset depends on, its shards aside."""

    tokenizer: Path = field(metadata={"help": "A tokenizer.json of a byte-level BPE.", "metavar": "FILE"})
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


def run(
    shards: Sequence[Path],
    prefix: Path,
    config: TokenizeConfig,
    *,
    threads: int,
    part: Part | None = None,
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
        part: Make this part of the dataset only, in a dataset of its own, for `merge` to join.
        force: Replace output made before from something else.
        on_progress: Called with the compressed bytes read so far.

    Raises:
        OutputExistsError: The output was made before from something else and `force` is off.
        FormatError: A shard or the tokenizer is damaged or not supported, named with the place.
        ConfigError: The end-of-document token is not in the vocabulary.
        OSError: A file cannot be read or written.
    """
    tokenizer = _core.Tokenizer.from_file(config.tokenizer)
    eod = _eod(tokenizer, config)
    request = _request(shards, prefix, config, eod)
    if part is not None:
        if done := manifest.finished(datasets.with_suffix(prefix, MANIFEST_SUFFIX), request, force=force):
            return Result(done, is_new=False)
        shards, prefix = part.of(shards), part.prefix(prefix)
        request = _request(shards, prefix, config, eod, part.settings(request))
        # What is finished of this very job is kept: it is the rest that is to be replaced.
        force = force and not datasets.stands(prefix, request)
    n_resumed_shards = 0

    def build(folder: Path) -> tuple[Settings, list[Entry]]:
        nonlocal n_resumed_shards
        eod_id = None if eod is None else eod[1]
        job = _resumable(request)
        built = _core.build_dataset(
            shards,
            tokenizer,
            eod_id,
            folder,
            prefix.name,
            job,
            threads,
            part is not None,
            force,
            on_progress,
        )
        n_resumed_shards = built.pop("n_resumed_shards")
        summary = {**built, "vocab_size": tokenizer.vocab_size, "eod": None if eod is None else eod[0]}
        return summary, _checked_inputs(request.inputs, built["shards"])

    made, is_new = datasets.make(prefix, request, build, force=force)
    return Result(made, is_new, n_resumed_shards)


def finished(shards: Sequence[Path], prefix: Path, config: TokenizeConfig, *, force: bool) -> Manifest | None:
    """The manifest of what `run` would make, if it stands already. Raises as `run` does."""
    eod = _eod(_core.Tokenizer.from_file(config.tokenizer), config)
    request = _request(shards, prefix, config, eod)
    return manifest.finished(datasets.with_suffix(prefix, MANIFEST_SUFFIX), request, force=force)


def _resumable(request: Request) -> str:
    """A digest of all but the shards: the core compares those that are finished one by one.

    So a run that stopped at a damaged shard goes on with the mended one, whatever its size.
    """
    others = [entry for entry in request.inputs if entry["role"] != "shard"]
    return fingerprint({"settings": request.settings, "inputs": others})


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
    shards: Sequence[Path],
    prefix: Path,
    config: TokenizeConfig,
    eod: tuple[str, int] | None,
    more: Settings | None = None,
) -> Request:
    folder = prefix.parent
    inputs: list[Entry] = [manifest.file_entry(config.tokenizer, folder, role="tokenizer")]
    inputs += [
        {"role": "shard", "path": manifest.relative(path, folder), "bytes": path.stat().st_size}
        for path in shards
    ]
    settings = {"eod": None if eod is None else eod[0], "eod_id": None if eod is None else eod[1]}
    return Request("tokens", {**settings, **(more or {})}, inputs)


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
