"""Tokenizes shards into a dataset: `PREFIX.bin`, `.idx`, `.provenance` and its manifest.

A killed job resumes from `PREFIX.partial/` at the first unfinished shard.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pile_tools import _core, manifest
from pile_tools.config import Settings, checked_threads, fingerprint
from pile_tools.errors import ConfigError, UnknownEodError
from pile_tools.manifest import MANIFEST_SUFFIX, Entry, Manifest, Request
from pile_tools.read import shards as shard_files
from pile_tools.read.shards import RecordConfig, checked_entries, entries, find_shards, has_stream
from pile_tools.tokenizers import TokenizerFile, eod_of, find_tokenizer
from pile_tools.tokens import datasets
from pile_tools.tokens.parts import LENIENCE, LONGEST, Part
from pile_tools.types import AnyPath, OnTokens


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizeConfig:
    """The settings of a token dataset."""

    tokenizer: Path = field(
        metadata={
            "help": "A tokenizer.json, a folder that holds one, or a Hugging Face model id[@revision].",
            "metavar": "FILE|FOLDER|ID",
        }
    )
    eod: str | None = field(
        default=None,
        metadata={
            "help": "Token at the end of each document; by default the tokenizer's own.",
            "metavar": "TOKEN",
        },
    )
    add_special_tokens: bool = field(
        default=False,
        metadata={"help": "Add the special tokens of the tokenizer's post-processor, as GPT-NeoX does."},
    )
    append_eod: bool = True
    records: RecordConfig = field(default_factory=RecordConfig)


@dataclass(frozen=True)
class Result:
    """The result of tokenizing.

    Attributes:
        manifest: The dataset's manifest.
        is_new: False if the dataset was already complete.
        n_resumed_shards: Shards that an interrupted run had finished.
    """

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
    renews_part: bool = False,
    force: bool = False,
    on_progress: OnTokens = None,
) -> Result:
    """Tokenizes `shards` in the order given, or resumes an interrupted run of the same job.

    The output has the same bytes for any number of threads and any interruption. Documents with empty texts
    are left out, as GPT-NeoX does.

    Args:
        shards: Shards in the order of the dataset.
        prefix: Prefix of the dataset.
        config: Settings of the dataset.
        threads: Threads that encode.
        part: Make only this part of the dataset, as a dataset that `merge` joins with the others.
        renews_part: Make a finished part again if it is damaged, or if one of its shards has another size.
        force: Replace output made from other inputs or settings.
        on_progress: Called with the compressed bytes read and the tokens made.

    Raises:
        OutputExistsError: The output exists, was made from other inputs or settings, and `force` is off.
        FormatError: A shard or the tokenizer is damaged or not supported; the message names file and
            position.
        ConfigError: The end-of-document token is not in the vocabulary, or the tokenizer names none.
        OSError: A file cannot be read or written.
    """
    passed_over = shard_files.summary(shards, prefix.parent)
    source = find_tokenizer(config.tokenizer)
    tokenizer = source.load()
    eod = _eod(tokenizer, config)
    request = _request(shards, prefix, config, source, eod)
    if part is not None:
        if done := manifest.finished(datasets.with_suffix(prefix, MANIFEST_SUFFIX), request, force=force):
            return Result(done, is_new=False)
        shards, prefix = part.of(shards), part.prefix(prefix)
        more = part.settings(request)
        request = _request(shards, prefix, config, source, eod, more)
        # A part made without skipping bad records had none, so it equals one made with skipping.
        strict = Request(request.kind, {**request.settings, LENIENCE: "error"}, request.inputs)
        for finished_as in (strict, request):
            if datasets.is_complete(prefix, finished_as) and (not force or datasets.is_intact(prefix)):
                # `force` would give the same bytes: this part is of the requested job.
                request, force = finished_as, False
        force = force or (renews_part and _is_outdated(prefix, request))
    n_resumed_shards = 0

    def build(folder: Path) -> tuple[Settings, list[Entry]]:
        nonlocal n_resumed_shards
        eod_id = None if eod is None else eod[1]
        job = _job(shards, request)
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
            text_field=config.records.text_field,
            skip_bad_records=config.records.skips,
            add_special_tokens=config.add_special_tokens,
            max_record=config.records.max_record_bytes,
        )
        n_resumed_shards = built["n_resumed_shards"]
        counts = {name: value for name, value in built.items() if name != "n_resumed_shards"}
        known = {"vocab_size": tokenizer.vocab_size, "eod": None if eod is None else eod[0]}
        summary = {**counts, **known, **passed_over}
        return summary, checked_entries(request.inputs, built["shards"])

    is_stream = has_stream(shards)
    made, is_new = datasets.make(prefix, request, build, force=force, is_stream=is_stream)
    return Result(made, is_new, n_resumed_shards)


def tokenize(
    shards: AnyPath | Iterable[AnyPath],
    prefix: AnyPath,
    *,
    tokenizer: AnyPath,
    eod: str | None = None,
    append_eod: bool = True,
    add_special_tokens: bool = False,
    text_field: str = "text",
    on_bad_record: str = "error",
    max_record: str | int = "1GiB",
    threads: int | None = None,
    force: bool = False,
    on_progress: OnTokens = None,
) -> _core.TokenDataset:
    """Tokenizes shards into a dataset and opens it, as the command `pile-tools tokenize`.

    >>> dataset = tokenize("shards/", "tokens/sample", tokenizer="tokenizer.json")
    >>> dataset.tokens
    array([  12, 1044,  310, ...,   88,   15,    0], dtype=uint16)

    Args:
        shards: A file, a folder or a glob, or several of them; read in byte-wise order of their paths.
        prefix: Path of the dataset without its suffixes. Its folder is created if necessary.
        tokenizer: A tokenizer.json, a folder that holds one, or a Hugging Face model id.
        eod: Token at the end of each document; by default the tokenizer's own.
        append_eod: Whether documents end with the end-of-document token.
        add_special_tokens: Whether to put the special tokens of the post-processor around each text.
        text_field: Key of a record, or column of a parquet file, that holds the text.
        on_bad_record: `error` stops at a bad record; `skip` leaves it out and lists it in the manifest.
        max_record: Maximum bytes of a record, a number or a size such as `1GiB`; a longer record is bad.
        threads: Threads that encode, by default one for each processor. They do not change the output.
        force: Replace output made from other inputs or settings.
        on_progress: Called with the compressed bytes read and the tokens made. An exception stops the job.

    Raises:
        PileError: There are no shards; or as `run`.
    """
    paths = [shards] if isinstance(shards, str | os.PathLike) else list(shards)
    if not Path(prefix).name:
        raise ConfigError(f"the prefix of a dataset has a name, got {str(prefix)!r}")
    config = TokenizeConfig(
        tokenizer=Path(tokenizer),
        eod=eod,
        append_eod=append_eod,
        add_special_tokens=add_special_tokens,
        records=RecordConfig(text_field=text_field, on_bad_record=on_bad_record, max_record=max_record),
    )
    run(
        find_shards([Path(path) for path in paths]),
        Path(prefix),
        config,
        threads=checked_threads(threads),
        force=force,
        on_progress=on_progress,
    )
    return _core.TokenDataset(Path(prefix))


def finished(shards: Sequence[Path], prefix: Path, config: TokenizeConfig, *, force: bool) -> Manifest | None:
    """The manifest of the dataset that `run` would make, if it is complete. Raises as `run`."""
    source = find_tokenizer(config.tokenizer)
    eod = _eod(source.load(), config)
    request = _request(shards, prefix, config, source, eod)
    return manifest.finished(datasets.with_suffix(prefix, MANIFEST_SUFFIX), request, force=force)


def _is_outdated(prefix: Path, request: Request) -> bool:
    """Whether a finished part has the requested settings, but is damaged or was made from other inputs."""
    path = datasets.with_suffix(prefix, MANIFEST_SUFFIX)
    if not path.exists():
        return False
    found = manifest.read(path)
    if found.settings != request.settings:
        return False
    return not found.is_of(request) or not datasets.is_intact(prefix)


def _job(shards: Sequence[Path], request: Request) -> str:
    """A digest that identifies the job whose scratch folder this one can resume from.

    Shards are excluded, as the core compares finished ones one by one: a run that stopped at a damaged shard
    resumes with the repaired one. `on_bad_record` is excluded, as it does not change shards without bad
    records, and `max_record`, as the core compares it.
    """
    # A stream cannot be read again.
    if has_stream(shards):
        return uuid.uuid4().hex
    settings = {name: value for name, value in request.settings.items() if name not in (LENIENCE, LONGEST)}
    return fingerprint(
        {"settings": settings, "inputs": [entry for entry in request.inputs if entry["role"] != "shard"]}
    )


def _eod(tokenizer: _core.Tokenizer, config: TokenizeConfig) -> tuple[str, int] | None:
    """The token at the end of each document and its id, or None for no token."""
    if not config.append_eod:
        return None
    eod = eod_of(tokenizer, config.eod, config.tokenizer)
    if eod is None:
        raise UnknownEodError(f"{config.tokenizer} names no end-of-document token")
    return eod


def _request(
    shards: Sequence[Path],
    prefix: Path,
    config: TokenizeConfig,
    tokenizer: TokenizerFile,
    eod: tuple[str, int] | None,
    more: Settings | None = None,
) -> Request:
    folder = prefix.parent
    inputs: list[Entry] = [tokenizer.entry(folder)]
    inputs += entries(shards, folder)
    settings: Settings = {
        "eod": None if eod is None else eod[0],
        "eod_id": None if eod is None else eod[1],
        **config.records.settings,
    }
    if config.add_special_tokens:
        settings["add_special_tokens"] = True
    return Request("tokens", {**settings, **(more or {})}, inputs)
