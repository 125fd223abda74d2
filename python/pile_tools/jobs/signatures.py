"""Stores the signatures of shards, so that near duplicates are found without reading the shards first.

`SIGS/` holds for each shard `rows-N`, with the hash, the size, the record and the subset of each document,
and `signatures-N`, with its MinHash signature; and `manifest.json`, written last. Machines that share the
work each make a part: the signatures of consecutive shards.

Signatures are used for a shard of the same name, size and checksum. A folder of them may come from anyone:
whatever it says, a document is removed only after its text was compared with that of one that stays.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pile_tools import _core, checked, files, manifest, publish
from pile_tools.config import Settings
from pile_tools.errors import ConfigError, FormatError, OutputExistsError, PileError
from pile_tools.manifest import MANIFEST_FILE, Entry, Manifest, Request
from pile_tools.publish import Built, Target
from pile_tools.read import shards as shard_files
from pile_tools.read.shards import SIGNATURES, RecordConfig, checked_entries, entries, has_stream
from pile_tools.terminal import counted
from pile_tools.tokens.parts import Part
from pile_tools.types import OnProgress, SignaturesSummary, Sketching, StoredShard, StoredSignatures

#: Maximum permutations of a signature, which takes 4 bytes for each.
MAX_PERMUTATIONS = 1024

#: The folder of signatures in a folder of shards.
BESIDE = "signatures"

#: Metadata of settings that the jobs with signatures have in common.
SHINGLE = {
    "help": "What is compared: the sets of N consecutive words, or of N characters.",
    "metavar": "words:N|chars:N",
}
PERMUTATIONS = {"help": "Values in a signature; more find pairs with fewer candidates."}
NORMALIZE = {
    "help": "Compare texts as they are, with white space made equal, or with case folded too.",
    "metavar": "none|whitespace|case",
}

#: Names of its files; see `_names`.
_FILE = re.compile(r"(rows|signatures)-[0-9]{6}")

_SHINGLE = re.compile(r"(words|chars):([1-9][0-9]?)")

#: A text whose signature identifies the function that makes signatures. It has many shingles, so that any
#: change of the function changes some of the values.
_PROBE = " ".join(f"{word} Straße\u00a0\u0130 {word * word}" for word in range(500))


def check_shingle(shingle: str) -> None:
    """Raises ConfigError unless it is `words:N` or `chars:N`."""
    if not _SHINGLE.fullmatch(shingle):
        raise ConfigError(f"shingle must be words:N or chars:N with N from 1 to 99, got {shingle}")


def check_permutations(permutations: int) -> None:
    """Raises ConfigError for a length that signatures cannot have."""
    if not 16 <= permutations <= MAX_PERMUTATIONS:
        raise ConfigError(f"permutations must be from 16 to {MAX_PERMUTATIONS}, got {permutations}")


def check_normalize(normalize: str) -> None:
    """Raises ConfigError unless it is the name of a normalization."""
    if normalize not in ("none", "whitespace", "case"):
        raise ConfigError(f"normalize must be none, whitespace or case, got {normalize}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SignaturesConfig:
    """What signatures are made of."""

    shingle: str = field(default="words:5", metadata=SHINGLE)
    permutations: int = field(default=256, metadata=PERMUTATIONS)
    normalize: str = field(default="none", metadata=NORMALIZE)
    records: RecordConfig = field(default_factory=RecordConfig)

    def __post_init__(self) -> None:
        check_shingle(self.shingle)
        check_permutations(self.permutations)
        check_normalize(self.normalize)

    @property
    def settings(self) -> Settings:
        """The settings as manifests record them: equal settings give signatures that can be compared."""
        hasher = _core.MinHasher(self.permutations, self.shingle, self.normalize)
        function = hashlib.sha256(hasher.signatures([_PROBE]).astype("<u4").tobytes()).hexdigest()
        return {
            "shingle": self.shingle,
            "permutations": self.permutations,
            "normalize": self.normalize,
            "function": function,
            **self.records.settings,
        }


def part_folder(output: Path, part: Part) -> Path:
    """The folder of a part of the signatures in `output`."""
    return part.prefix(output)


def run(
    shards: Sequence[Path],
    output: Path,
    config: SignaturesConfig,
    *,
    part: Part | None = None,
    memory: int,
    threads: int,
    force: bool = False,
    on_progress: OnProgress = None,
) -> tuple[Manifest, bool]:
    """Writes signatures of `shards` into a folder, or resumes; returns its manifest, and whether it is new.

    Args:
        shards: The shards, in order.
        output: The folder.
        config: What signatures are made of.
        part: Only the shards of this part, into a folder of its own: see `part_folder`.
        memory: Bytes for the shingles of one document.
        threads: Threads; the output does not depend on it.
        force: Replace an output made from other inputs or settings.
        on_progress: Called with the bytes read.

    Raises:
        ConfigError: A shard is a stream, or the output is in a folder of the shards.
        OutputExistsError: The output was made from other inputs or settings and `force` is off.
        FormatError: A shard is damaged; the message names shard and record.
        OSError: A file cannot be read or written.
    """
    shard_files.refuse_output_within(shards, output)
    if has_stream(shards):
        raise ConfigError("signatures are of files, so shards cannot come from standard input or a pipe")
    chosen, folder = (shards, output) if part is None else (part.of(shards), part_folder(output, part))
    request = Request(SIGNATURES, config.settings, entries(chosen, folder))
    passed_over = shard_files.summary(shards, folder)

    def build(scratch: Path) -> Built:
        sketching = Sketching(
            shingle=config.shingle,
            permutations=config.permutations,
            normalize=config.normalize,
            memory=memory,
            threads=threads,
            folder=scratch,
            job=request.job,
            discard=force,
        )
        made = _core.write_signatures(
            chosen,
            sketching,
            on_progress,
            text_field=config.records.text_field,
            skip_bad_records=config.records.skips,
            max_record=config.records.max_record_bytes,
        )
        summary = {
            "n_documents": sum(shard["n_documents"] for shard in made["shards"]),
            "shards": [
                {
                    "n_documents": shard["n_documents"],
                    "n_records": shard["n_records"],
                    "n_text_bytes": shard["n_text_bytes"],
                    "n_bad_records": shard["bad_records"]["n"],
                }
                for shard in made["shards"]
            ],
            "subsets": made["subsets"],
            **passed_over,
        }
        sha256 = {file["name"]: file["sha256"] for file in made["files"]}
        return Built(list(sha256), summary, checked_entries(request.inputs, made["shards"]), sha256=sha256)

    names = [name for number in range(len(chosen)) for name in _names(number)]
    target = Target.of(folder / MANIFEST_FILE)
    return publish.make(target, request, build, force=force, names=names, resumes=[publish.STATE])


def run_beside(
    shards: Sequence[Path],
    output: Path,
    config: SignaturesConfig,
    *,
    memory: int,
    threads: int,
    force: bool = False,
    on_progress: OnProgress = None,
) -> None:
    """Writes the signatures of new shards into their folder, in place of those of its earlier shards.

    The folder was checked by `check_beside` before the shards were made. Takes and raises as `run`.
    """
    folder = output / BESIDE
    target = Target.of(folder / MANIFEST_FILE)
    if target.manifest.exists():
        # Of earlier shards: a killed run may have published the new ones without their signatures.
        request = Request(SIGNATURES, config.settings, entries(shards, folder))
        force = force or not manifest.read(target.manifest).is_of(request)
    run(shards, folder, config, memory=memory, threads=threads, force=force, on_progress=on_progress)


def check_beside(output: Path) -> None:
    """Checks that the signatures in a folder of new shards are those of its earlier shards, if there are any.

    These are replaced with the shards that they are of.

    Raises:
        OutputExistsError: A file of it is not from here, was changed, or is of other shards.
        FormatError: Its manifest is damaged.
        ConfigError: Its folder is a mounted one.
    """
    target = Target.of(output / BESIDE / MANIFEST_FILE)
    publish.refuse_mounted(target)
    if target.manifest.exists():
        found = manifest.read(target.manifest)
        folders = {manifest.input_path(found, entry).parent for entry in found.inputs}
        if found.kind != SIGNATURES or any(files.identity(of) != files.identity(output) for of in folders):
            raise OutputExistsError(
                f"is not of the shards in {output}; force replaces it ({target.manifest})"
            )
    there = sorted(target.folder.iterdir()) if target.folder.is_dir() else ()
    publish.refuse_foreign(target, [path.name for path in there if _FILE.fullmatch(path.name)])


def find(paths: Iterable[Path]) -> list[Manifest]:
    """The signatures in some folders; a folder without a manifest is one of parts.

    Raises:
        PileError: A folder has no signatures, or they are being replaced.
        FormatError: A manifest is damaged.
        OSError: A folder cannot be read.
    """
    return [found for path in paths for found in _in_folder(path)]


def _in_folder(path: Path) -> list[Manifest]:
    if path.name == MANIFEST_FILE:
        path = path.parent
    if not path.is_dir():
        raise PileError(f"no folder of signatures, which `pile-tools dedup signatures` makes ({path})")
    if (path / MANIFEST_FILE).exists():
        return [read(path)]
    folders = sorted(folder for folder in path.iterdir() if (folder / MANIFEST_FILE).is_file())
    if not folders:
        raise PileError(f"no folder of signatures: neither it nor a folder in it has a manifest ({path})")
    return [read(folder) for folder in folders]


def read(folder: Path) -> Manifest:
    """The manifest of the signatures in a folder. Raises as `find`."""
    target = Target.of(folder / MANIFEST_FILE)
    with publish.reading(target):
        found = manifest.read(target.manifest)
        is_intact = manifest.is_intact(target.manifest)
    if found.kind != SIGNATURES:
        raise PileError(f"a manifest of kind {found.kind}, expected signatures ({found.path})")
    if not is_intact:
        raise FormatError(f"was changed after it was written; make the signatures again ({found.path})")
    return found


def difference(found: Manifest, expected: Settings) -> str | None:
    """How the settings of signatures differ from those of a job, in words; None if they do not."""
    for name in sorted({*found.settings, *expected}, key=lambda name: (name == "function", name)):
        old, new = found.settings.get(name, "the default"), expected.get(name, "the default")
        if old == new:
            continue
        if name == "function":
            return "made by another version of pile-tools"
        return f"made with {name} {old}, not {new}"
    return None


@dataclass(frozen=True)
class _Shard:
    """A shard with signatures: the manifest, the number of the shard in it, and the entry of the shard."""

    found: Manifest
    number: int
    entry: Entry


def of_shards(
    signatures: Sequence[Manifest], shards: Sequence[Path], expected: Settings
) -> list[StoredSignatures]:
    """The signatures of all `shards`, which must be as they were when their signatures were made.

    A shard is compared by its checksum, unless it is the same file as then and was not touched.

    Args:
        signatures: What was found.
        shards: The shards of a job.
        expected: The settings of `SignaturesConfig` that the signatures must have.

    Raises:
        PileError: The settings differ, a shard has no signatures, or it has changed.
        FormatError: A manifest is damaged.
        OSError: A shard cannot be read.
    """
    by_name: dict[str, list[_Shard]] = defaultdict(list)
    for found in signatures:
        if how := difference(found, expected):
            raise PileError(f"{how}; make the signatures again ({found.path})")
        for number, entry in enumerate(entries_of(found)):
            by_name[Path(entry["path"]).name].append(_Shard(found, number, entry))
    unchanged = _Unchanged()
    chosen = [_of_shard(path, by_name[path.name], unchanged) for path in shards]
    return [
        stored(found, {index: of.number for index, of in enumerate(chosen) if of.found is found})
        for found in signatures
        if any(of.found is found for of in chosen)
    ]


def stored(found: Manifest, numbers: Mapping[int, int]) -> StoredSignatures:
    """Signatures as the core takes them, of the shards with these indices in a job and numbers in the folder.

    Raises:
        FormatError: The manifest does not list the files of a shard.
    """
    shards, inputs = found.summary["shards"], entries_of(found)
    sha256 = {entry["path"]: entry["sha256"] for entry in found.outputs}

    def shard(index: int, number: int) -> StoredShard:
        of, entry = shards[number], inputs[number]
        rows, values = _names(number)
        if not {rows, values} <= sha256.keys():
            raise FormatError(f"does not list {rows} and {values} ({found.path})")
        return StoredShard(
            index=index,
            number=number,
            n_documents=of["n_documents"],
            bytes=entry["bytes"],
            sha256=entry["sha256"],
            n_records=of["n_records"],
            n_text_bytes=of["n_text_bytes"],
            n_bad_records=of["n_bad_records"],
            rows_sha256=sha256[rows],
            signatures_sha256=sha256[values],
        )

    return StoredSignatures(
        folder=found.folder,
        subsets=found.summary["subsets"],
        shards=[shard(index, number) for index, number in numbers.items()],
    )


def made_of_shard(made: SignaturesSummary, folder: Path, index: int) -> StoredSignatures:
    """Signatures that `_core.write_signatures` has just made of one shard, which has `index` in a job."""
    (shard,), sha256 = made["shards"], {file["name"]: file["sha256"] for file in made["files"]}
    rows, values = _names(0)
    of = StoredShard(
        index=index,
        number=0,
        n_documents=shard["n_documents"],
        bytes=shard["bytes"],
        sha256=shard["sha256"],
        n_records=shard["n_records"],
        n_text_bytes=shard["n_text_bytes"],
        n_bad_records=shard["bad_records"]["n"],
        rows_sha256=sha256[rows],
        signatures_sha256=sha256[values],
    )
    return StoredSignatures(folder=folder, subsets=made["subsets"], shards=[of])


def shards_of(found: Manifest) -> list[Path]:
    """The paths of the shards that signatures are of, which may not be there. Raises FormatError."""
    return [manifest.input_path(found, entry) for entry in entries_of(found)]


def entries_of(found: Manifest) -> list[Entry]:
    """The shards of signatures. Raises FormatError if the manifest does not describe all of them."""
    inputs = [entry for entry in found.inputs if entry["role"] == "shard"]
    shards = found.summary["shards"]
    if len(inputs) != len(shards) or not all({"bytes", "sha256"} <= entry.keys() for entry in inputs):
        what = f"{counted(len(inputs), 'shard')}, and figures of {len(shards):,}"
        raise FormatError(f"not all shards have a size, a checksum and figures: {what} ({found.path})")
    return inputs


def _names(number: int) -> tuple[str, str]:
    """The names of the files of a shard, as the core gives them."""
    return f"rows-{number:06}", f"signatures-{number:06}"


def _is_source(path: Path, of: _Shard) -> bool:
    """Whether `path` is the file that these signatures were made from, as it was or not."""
    source = manifest.input_path(of.found, of.entry)
    return source.exists() and source.samefile(path)


class _Unchanged:
    """Whether the shards that signatures were made from are as they were; each artifact is checked once."""

    def __init__(self) -> None:
        self._known: dict[Path, bool] = {}

    def includes(self, path: Path, of: _Shard) -> bool:
        """Whether `path` is the file that these signatures were made from, and unchanged."""
        if not _is_source(path, of):
            return False
        if of.found.path not in self._known:
            request = Request(of.found.kind, of.found.settings)
            self._known[of.found.path] = manifest.has_same_inputs(of.found, request, of.found.folder)
        return self._known[of.found.path]


def _of_shard(path: Path, named: Sequence[_Shard], unchanged: _Unchanged) -> _Shard:
    """The signatures of a shard, among those of shards of its name. Raises PileError if there are none."""
    if not named:
        raise PileError(
            f"has no signatures among those given: make those of all shards, or all parts ({path})"
        )
    n_bytes = path.stat().st_size
    same_size = [of for of in named if of.entry["bytes"] == n_bytes]
    for of in same_size:
        if unchanged.includes(path, of):
            return of
    if same_size:
        sha256 = checked.sha256(path)[1]
        for of in same_size:
            if of.entry["sha256"] == sha256:
                return of
    if any(_is_source(path, of) for of in named):
        raise PileError(f"changed since its signatures were made; make them again ({path})")
    other = named[0].found.path
    raise PileError(f"has no signatures among those given, only another shard of its name ({path}, {other})")
