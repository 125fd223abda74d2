"""Merges token datasets, or the parts of one, into one dataset with their provenance."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pile_tools import _core, manifest
from pile_tools.config import Settings
from pile_tools.errors import ConfigError, FormatError, PileError
from pile_tools.manifest import MANIFEST_SUFFIX, Entry, Manifest, Request
from pile_tools.tokens import datasets, parts
from pile_tools.types import MergedInput, OnProgress

#: Settings that datasets must have in common: the same ids then mean the same text.
COMMON_SETTINGS = ("eod", "eod_id", "add_special_tokens")


@dataclass(frozen=True)
class Result:
    """The result of a merge.

    Attributes:
        manifest: The manifest of the merged dataset.
        is_new: False if the dataset was already complete.
        is_whole: Whether the inputs were the parts of one dataset. The result then equals that of one run.
    """

    manifest: Manifest
    is_new: bool
    is_whole: bool


def find_datasets(paths: Sequence[Path], output: Path | None = None) -> list[Path]:
    """The prefixes of the datasets at some paths, in the order given. A repeated path repeats its dataset.

    Different files of one dataset, such as the matches of a glob, yield it once.

    Args:
        paths: Prefixes, files of a dataset, or folders. A folder yields all its datasets, byte-wise by name.
        output: The prefix of the merged dataset, which is none of a folder's: the same call finds it there.

    Raises:
        PileError: A folder contains no dataset.
    """
    found: list[Path] = []
    given: Counter[tuple[Path, Path]] = Counter()
    for path in paths:
        for prefix in _prefixes(path, output):
            given[path, prefix] += 1
            if given[path, prefix] > found.count(prefix):
                found.append(prefix)
    return found


def _prefixes(path: Path, output: Path | None) -> list[Path]:
    """The prefixes of the datasets at one path, without that of the output if it is a folder."""
    if not path.is_dir():
        return [_prefix(path)]
    prefixes = [index.with_suffix("") for index in sorted(path.glob("*.idx"), key=os.fsencode)]
    if output is not None and output.parent.is_dir() and output.parent.samefile(path):
        prefixes = [prefix for prefix in prefixes if prefix.name != output.name]
    if not prefixes:
        raise PileError(f"{path} contains no datasets: it has no .idx file")
    return prefixes


def _prefix(path: Path) -> Path:
    """The prefix of a dataset, given as the prefix or as one of the dataset's files."""
    if datasets.with_suffix(path, ".idx").exists():
        return path
    return datasets.prefix_named(path) or path


def run(
    inputs: Sequence[Path],
    output: Path,
    *,
    lenience: str | None = None,
    force: bool = False,
    on_progress: OnProgress = None,
) -> Result:
    """Merges datasets in the order given, or the parts of one dataset in the order of their numbers.

    The files equal those of one run over all shards. Memory does not depend on the size of the datasets. A
    killed merge resumes after the last dataset that was copied completely.

    Args:
        inputs: Prefixes of the datasets.
        output: Prefix of the merged dataset.
        lenience: `on_bad_record` of the job that made parts; by default `skip` if it is that of a part.
        force: Replace output made from other inputs or settings.
        on_progress: Called with the bytes of tokens copied.

    Raises:
        PileError: Parts are missing, or the datasets differ in tokenizer or end-of-document token.
        FormatError: A dataset is damaged; the message names file and position.
        ConfigError: The output is one of the inputs.
        OutputExistsError: The output exists, was made from other inputs or settings, and `force` is off.
        OSError: A file cannot be read or written.
    """
    if os.path.realpath(output) in [os.path.realpath(path) for path in inputs]:
        raise ConfigError(f"{output} cannot be merged into itself; give another output")
    opened = [_core.TokenDataset(path) for path in inputs]
    found = [datasets.manifest_of(path) for path in inputs]
    for dataset, made in zip(opened, found, strict=True):
        if made is not None:
            # The summary of the whole has what those of the parts say.
            intact = manifest.is_intact(made.path)
            fault = datasets.fault(dataset, made) if intact else "was changed after it was written"
            if fault is not None:
                raise FormatError(f"{fault} ({made.path})")
    if any(one is not None and parts.PART in one.settings for one in found):
        return _run_parts(inputs, found, output, lenience, force, on_progress)
    refuse_mixture(inputs, found)
    request = _request(opened, found, output)

    def build(folder: Path) -> tuple[Settings, list[Entry]]:
        merged = _core.merge_datasets(inputs, folder, output.name, request.digest, force, on_progress, [])
        # The manifests were read by path, and the core has opened the datasets again.
        for dataset in opened:
            dataset.check_unchanged()
        summaries = [
            _foreign_summary(part) if one is None else one.summary
            for part, one in zip(merged["parts"], found, strict=True)
        ]
        return {**parts.joined(summaries), **merged}, request.inputs

    # Tokens are copied: no file in the request is read, not even the tokenizer.
    made, is_new = datasets.make(output, request, build, force=force, reads_inputs=False)
    return Result(made, is_new, is_whole=False)


def _run_parts(
    inputs: Sequence[Path],
    manifests: Sequence[Manifest | None],
    output: Path,
    lenience: str | None,
    force: bool,
    on_progress: OnProgress,
) -> Result:
    """Merges the parts of a dataset into the dataset that one run would make, with an equal manifest."""
    for path, found in zip(inputs, manifests, strict=True):
        if found is None or parts.PART not in found.settings:
            raise PileError(f"{path} is not a part, but others are; merge the parts first, then add it")
    made = [found for found in manifests if found is not None]
    request, entries, ordered = parts.whole_of(made, output, lenience)
    prefixes = [datasets.prefix_of(part) for part in ordered]
    if not force:
        _refuse_outdated(ordered, output, request)
    summary = parts.joined([part.summary for part in ordered])
    if summary["n_documents"] == 0:
        raise FormatError(f"no documents: the shards have no text ({ordered[0].folder})")

    def build(folder: Path) -> tuple[Settings, list[Entry]]:
        sha256 = [_checked_bin_sha256(part) for part in ordered]
        merged = _core.merge_datasets(
            prefixes, folder, output.name, request.digest, force, on_progress, sha256
        )
        return summary | {"bin_sha256": merged["bin_sha256"]}, entries

    return Result(*datasets.make(output, request, build, force=force, reads_inputs=False), is_whole=True)


def _refuse_outdated(ordered: Sequence[Manifest], output: Path, request: Request) -> None:
    """Raises PileError if a shard changed after the output was made, but its part was not made again.

    The output would be made again from the old part, with the old text, at each run.
    """
    path = datasets.with_suffix(output, MANIFEST_SUFFIX)
    if not path.exists() or manifest.finished(path, request, force=False) is not None:
        return
    for part in ordered:
        if not manifest.has_same_inputs(part, Request(part.kind, part.settings), part.folder):
            raise PileError(f"a shard changed since this part was made: make the part again ({part.path})")


def _checked_bin_sha256(part: Manifest) -> str:
    """The SHA-256 that a part's manifest records for its `.bin`, which the core compares while it copies.

    Raises:
        FormatError: Another file of the part does not match the manifest.
    """
    entries: dict[str, Entry] = {entry["path"]: entry for entry in part.outputs}
    of_bin = entries.pop(datasets.prefix_of(part).name + ".bin", None)
    if of_bin is None:
        raise FormatError(f"lists no .bin file of the part ({part.path})")
    for name, entry in entries.items():
        if not manifest.matches(manifest.output_path(part, entry), entry):
            raise FormatError(f"{name} does not match its manifest; make the part again ({part.path})")
    bin_sha256: str = of_bin["sha256"]
    return bin_sha256


def _tokenizers(found: Manifest) -> list[Entry]:
    return [entry for entry in found.inputs if entry["role"] == "tokenizer"]


def refuse_mixture(inputs: Sequence[Path], manifests: Sequence[Manifest | None]) -> None:
    """Raises PileError if the ids of datasets mean different texts, if manifests tell."""
    described = [
        (path, found)
        for path, found in zip(inputs, manifests, strict=True)
        if found is not None and _tokenizers(found)
    ]
    for path, found in described[1:]:
        first_path, first = described[0]
        hashes = [[entry.get("sha256") for entry in _tokenizers(m)] for m in (first, found)]
        if hashes[0] != hashes[1]:
            raise PileError(
                f"{path} was made with another tokenizer than {first_path}: "
                "the same ids would mean different texts"
            )
        for name in COMMON_SETTINGS:
            before, now = first.settings.get(name), found.settings.get(name)
            if before != now:
                raise PileError(f"{path} was made with {name} = {now!r}, {first_path} with {before!r}")


def _request(
    inputs: Sequence[_core.TokenDataset], manifests: Sequence[Manifest | None], output: Path
) -> Request:
    # One that is merged from datasets of other tools names no tokenizer: it is like these.
    known = [found for found in manifests if found is not None and _tokenizers(found)]
    settings = dict(known[0].settings) if known else {}
    for found in known[1:]:
        settings = {k: v for k, v in settings.items() if found.settings.get(k) == v}
    entries: list[Entry] = []
    if known:
        entries = [entry for entry in parts.rebased(known[0], output.parent) if entry["role"] == "tokenizer"]
    for dataset in inputs:
        entries.append(datasets.entry(dataset, output.parent))
        entries += datasets.origin_entries(dataset, output.parent)
    return Request("tokens", settings, entries)


def _foreign_summary(part: MergedInput) -> Settings:
    """The summary of a dataset without a manifest: its counts."""
    counts = {"n_documents": part["n_documents"], "n_tokens": part["n_tokens"]}
    return {**counts, "shards": [], "subsets": [{"name": None, **counts}]}
