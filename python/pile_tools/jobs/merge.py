"""Joins token datasets, or the parts of one, into one dataset with their provenance."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pile_tools import _core, files, manifest
from pile_tools.config import Settings
from pile_tools.errors import ConfigError, FormatError, PileError
from pile_tools.manifest import MANIFEST_SUFFIX, Entry, Manifest, Request
from pile_tools.tokens import datasets, parts
from pile_tools.types import MergedInput, OnProgress

#: Settings that must be alike for tokens to mean the same.
MEANING = ("eod", "eod_id", "add_special_tokens")


@dataclass(frozen=True)
class Result:
    """A dataset's manifest, and how it came about.

    Attributes:
        manifest: Of the merged dataset.
        is_new: False if it stood there already.
        is_whole: Whether the inputs were the parts of one dataset; it is then what one run makes.
    """

    manifest: Manifest
    is_new: bool
    is_whole: bool


def find_datasets(places: Sequence[Path]) -> list[Path]:
    """The prefixes of the datasets at some places, in the order given; one given again is there again.

    Different files of one dataset, as a shell's pattern gives them, name it once.

    Args:
        places: Prefixes, files of a dataset, or folders: all datasets in one, sorted byte-wise by name.

    Raises:
        PileError: There is no dataset at a place.
    """
    found: list[Path] = []
    given: Counter[tuple[Path, Path]] = Counter()
    for place in places:
        for prefix in _prefixes(place):
            given[place, prefix] += 1
            if given[place, prefix] > found.count(prefix):
                found.append(prefix)
    return found


def _prefixes(place: Path) -> list[Path]:
    """The prefixes of the datasets at one place."""
    if not place.is_dir():
        return [_prefix(place)]
    inside = [path.with_suffix("") for path in sorted(place.glob("*.idx"), key=os.fsencode)]
    if not inside:
        raise PileError(f"{place} holds no datasets: there is no .idx in it")
    return inside


def _prefix(place: Path) -> Path:
    """The prefix of the dataset that a prefix or one of its files names."""
    if datasets.with_suffix(place, ".idx").exists():
        return place
    return datasets.prefix_named(place) or place


def run(
    inputs: Sequence[Path], output: Path, *, force: bool = False, on_progress: OnProgress = None
) -> Result:
    """Joins datasets in the order given, or the parts of one dataset in theirs.

    The files are those that one run over all their shards makes. Memory does not depend on their size; a
    killed merge goes on after the last dataset that was copied whole.

    Args:
        inputs: Prefixes of the datasets.
        output: Prefix of the result.
        force: Replace output made before from something else.
        on_progress: Called with the bytes of tokens copied so far.

    Raises:
        PileError: Parts are missing, or tokens of different tokenizers or endings would be mixed.
        FormatError: A dataset is damaged, named with the place.
        ConfigError: The output is one of the inputs.
        OutputExistsError: The output was made before from something else and `force` is off.
        OSError: A file cannot be read or written.
    """
    if output.resolve() in [path.resolve() for path in inputs]:
        raise ConfigError(f"{output} cannot be merged into itself; give another -o")
    known = [_manifest(path) for path in inputs]
    if any(found is not None and parts.PART in found.settings for found in known):
        return _run_parts(inputs, known, output, force, on_progress)
    _refuse_mixture(inputs, known)
    request = _request(inputs, known, output)

    def build(folder: Path) -> tuple[Settings, list[Entry]]:
        merged = _core.merge_datasets(inputs, folder, output.name, request.digest, force, on_progress, [])
        summaries = [
            _foreign_summary(part) if found is None else found.summary
            for part, found in zip(merged["parts"], known, strict=True)
        ]
        return {**parts.joined(summaries), **merged}, request.inputs

    # Tokens are copied: of the files in the request none is read, the tokenizer included.
    made, is_new = datasets.make(output, request, build, force=force, reads_inputs=False)
    return Result(made, is_new, is_whole=False)


def _run_parts(
    inputs: Sequence[Path],
    known: Sequence[Manifest | None],
    output: Path,
    force: bool,
    on_progress: OnProgress,
) -> Result:
    """Makes of the parts what one run would have made, its manifest included."""
    for path, found in zip(inputs, known, strict=True):
        if found is None or parts.PART not in found.settings:
            raise PileError(f"{path} is not a part, the others are; merge the parts first, then with it")
    request, entries, ordered = parts.whole_of([found for found in known if found is not None], output)
    prefixes = [datasets.prefix_of(found) for found in ordered]
    summary = parts.joined([found.summary for found in ordered])
    if summary["n_documents"] == 0:
        raise FormatError(f"no documents: every shard is empty ({ordered[0].folder})")

    def build(folder: Path) -> tuple[Settings, list[Entry]]:
        sha256 = [_checked_bin_sha256(found) for found in ordered]
        merged = _core.merge_datasets(
            prefixes, folder, output.name, request.digest, force, on_progress, sha256
        )
        return summary | {"bin_sha256": merged["bin_sha256"]}, entries

    return Result(*datasets.make(output, request, build, force=force, reads_inputs=False), is_whole=True)


def _checked_bin_sha256(part: Manifest) -> str:
    """The SHA-256 that a part's manifest records for its `.bin`, of which the core compares it as it copies.

    Raises:
        FormatError: Another file of the part is not what the manifest says.
    """
    recorded: dict[str, str] = {entry["path"]: entry["sha256"] for entry in part.outputs}
    bin_sha256 = recorded.pop(datasets.prefix_of(part).name + ".bin", None)
    if bin_sha256 is None:
        raise FormatError(f"lists no .bin of the part ({part.path})")
    for name, sha256 in recorded.items():
        if files.sha256(part.folder / name) != sha256:
            raise FormatError(f"{name} is not what its manifest says; make the part again ({part.path})")
    return bin_sha256


def _manifest(prefix: Path) -> Manifest | None:
    path = datasets.with_suffix(prefix, MANIFEST_SUFFIX)
    return manifest.read(path) if path.exists() else None


def _tokenizers(found: Manifest) -> list[Entry]:
    return [entry for entry in found.inputs if entry["role"] == "tokenizer"]


def _refuse_mixture(inputs: Sequence[Path], known: Sequence[Manifest | None]) -> None:
    """Refuses tokens that do not mean the same. What another tool wrote says nothing of its tokens."""
    told = [(path, found) for path, found in zip(inputs, known, strict=True) if found is not None]
    for path, found in told[1:]:
        first_path, first = told[0]
        hashes = [[entry.get("sha256") for entry in _tokenizers(m)] for m in (first, found)]
        if hashes[0] != hashes[1]:
            raise PileError(
                f"{path} was made with another tokenizer than {first_path}: "
                "the same ids would mean different texts"
            )
        for name in MEANING:
            before, now = first.settings.get(name), found.settings.get(name)
            if before != now:
                raise PileError(f"{path} was made with {name} = {now!r}, {first_path} with {before!r}")


def _request(inputs: Sequence[Path], known: Sequence[Manifest | None], output: Path) -> Request:
    told = [found for found in known if found is not None]
    settings = dict(told[0].settings) if told else {}
    for found in told[1:]:
        settings = {k: v for k, v in settings.items() if found.settings.get(k) == v}
    entries: list[Entry] = []
    if told:
        entries = [entry for entry in parts.rebased(told[0], output.parent) if entry["role"] == "tokenizer"]
    for path in inputs:
        fingerprint = _core.TokenDataset(path).fingerprint
        name = manifest.relative(path, output.parent)
        entries.append({"role": "dataset", "path": name, "fingerprint": fingerprint})
    return Request("tokens", settings, entries)


def _foreign_summary(part: MergedInput) -> Settings:
    """What is known of a dataset without a manifest."""
    counts = {"n_documents": part["n_documents"], "n_tokens": part["n_tokens"]}
    return {**counts, "shards": [], "subsets": [{"name": None, **counts}]}
