"""Deduplicates shards: writes them again without the documents that are copies of ones that stay.

`OUT/` holds the shards, `clusters.parquet` with every member of every cluster, kept ones too, and
`manifest.json`, written last. A document is removed only if its own similarity to a document that stays
reaches the threshold: clusters are reported as connected components, but in a chain A ~ B ~ C the removal of
B does not remove C. Similarities are verified, but for those to older documents whose texts are not read.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pile_tools import _core, manifest, publish, scratch_folders
from pile_tools.config import Settings, checked_threads, checked_threshold, fingerprint
from pile_tools.errors import ConfigError, PileError, PileWarning
from pile_tools.jobs import rewriting, signatures
from pile_tools.jobs.clusters import DECISIONS, KINDS, write_clusters
from pile_tools.jobs.rewriting import CLUSTERS_FILE
from pile_tools.jobs.signatures import SignaturesConfig
from pile_tools.manifest import MANIFEST_FILE, Entry, Manifest, Request
from pile_tools.publish import Built, Target
from pile_tools.read.shards import (
    OLDER,
    RecordConfig,
    checked_entries,
    entries,
    find_shards,
    together,
)
from pile_tools.read.shards import summary as shards_summary
from pile_tools.sizes import parse_size
from pile_tools.terminal import counted
from pile_tools.types import (
    AnyPath,
    Deduplication,
    DuplicateRows,
    NearDuplicates,
    OnProgress,
    SignaturesSummary,
    Sketching,
    StoredSignatures,
)

#: The key of a mark in the `meta` of a record.
MARK = "dedup"

_SUBSETS = "subset:"


def preferred_subsets(prefer: str) -> list[str]:
    """The names in a setting `subset:A,B`, empty ones too; none of another setting."""
    return prefer.removeprefix(_SUBSETS).split(",") if prefer.startswith(_SUBSETS) else []


@dataclass(frozen=True, kw_only=True, slots=True)
class NearConfig:
    """When two documents are near duplicates."""

    threshold: str = field(
        default="0.87",
        metadata={
            "help": "Least similarity of a document to the one that stays. Pythia's Pile has 0.87.",
            "metavar": "J",
        },
    )
    shingle: str = field(default="words:5", metadata=signatures.SHINGLE)
    verify: str = field(
        default="jaccard",
        metadata={
            "help": "Similarity of candidates: shared shingles among those of both, or of the smaller one.",
            "metavar": "jaccard|containment",
        },
    )
    permutations: int = field(default=256, metadata=signatures.PERMUTATIONS)
    max_cluster: int = field(
        default=10_000,
        metadata={"help": "Larger clusters are reported and left alone, unless --large-clusters is given."},
    )
    large_clusters: bool = field(default=False, metadata={"help": "Remove copies in clusters of any size."})

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", checked_threshold(self.threshold))
        signatures.check_shingle(self.shingle)
        if self.verify not in ("jaccard", "containment"):
            raise ConfigError(f"verify must be jaccard or containment, got {self.verify}")
        signatures.check_permutations(self.permutations)
        if self.max_cluster < 2:
            raise ConfigError(f"max-cluster must be at least 2, got {self.max_cluster}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DedupConfig:
    """What counts as a copy, and which of several copies stays.

    Attributes:
        near: Near duplicates too; None for exact copies only.
    """

    normalize: str = field(default="none", metadata=signatures.NORMALIZE)
    prefer: str = field(
        default="first",
        metadata={
            "help": "The copy that stays: the first, the longest, or that of the subset named first.",
            "metavar": "first|longest|subset:A,B",
        },
    )
    mark: bool = field(
        default=False,
        metadata={"help": "Remove nothing: put cluster and size into the meta of each member."},
    )
    near: NearConfig | None = None
    records: RecordConfig = field(default_factory=RecordConfig)

    def __post_init__(self) -> None:
        signatures.check_normalize(self.normalize)
        if self.prefer not in ("first", "longest") and not self.subsets:
            raise ConfigError(f"prefer must be first, longest or subset:A,B, got {self.prefer}")

    @property
    def subsets(self) -> list[str]:
        """The subsets of `prefer`, the preferred first."""
        return [name for name in preferred_subsets(self.prefer) if name]

    @property
    def settings(self) -> Settings:
        """The settings as manifests record them."""
        near = dataclasses.asdict(self.near) if self.near else {}
        # As the subsets are compared: `subset:A,` is `subset:A`.
        prefer = _SUBSETS + ",".join(self.subsets) if self.subsets else self.prefer
        copies = {"normalize": self.normalize, "prefer": prefer, "mark": self.mark}
        return {"method": "near" if self.near else "exact", **copies, **near, **self.records.settings}

    @property
    def signatures(self) -> SignaturesConfig | None:
        """What stored signatures must be made of to be used; None for exact copies only."""
        if self.near is None:
            return None
        return SignaturesConfig(
            shingle=self.near.shingle,
            permutations=self.near.permutations,
            normalize=self.normalize,
            records=self.records,
        )


class Workers(rewriting.RewriteWorkers, Protocol):
    """Other processes that do the parts of a job that take long."""

    def sketch(
        self,
        shards: Sequence[Path],
        sketchings: Sequence[Sketching],
        records: RecordConfig,
        on_progress: OnProgress,
    ) -> list[SignaturesSummary]:
        """Calls `_core.write_signatures` for each shard with its own settings."""

    def run_tasks(
        self,
        shards: Sequence[Path],
        how: Deduplication,
        records: RecordConfig,
        tasks: Sequence[tuple[str, str]],
    ) -> None:
        """Calls `_core.run_dedup_task` for tasks, of which each has a name that is that of its folder."""


def run(
    shards: Sequence[Path],
    output: Path,
    config: DedupConfig,
    *,
    against: Path | None = None,
    unverified: bool = False,
    stored: Sequence[Path] = (),
    workers: Workers | None = None,
    keep_signatures: bool = False,
    protect: Path | None = None,
    dry_run: bool = False,
    memory: int,
    threads: int,
    force: bool = False,
    on_plan: Callable[[int, int], object] = lambda n_passes, n_bytes: None,
    on_progress: OnProgress = None,
) -> tuple[Manifest, bool]:
    """Deduplicates `shards` into the folder `output`; returns its manifest, and whether it was made now.

    Args:
        shards: The shards, in order.
        output: The folder of the new shards.
        config: What counts as a copy, and which copy stays.
        against: A folder of older shards: documents that are copies of theirs are removed too, whatever is
            preferred, and none of theirs is. If it has a folder of signatures of these shards and settings,
            they are used instead of a pass over the shards.
        unverified: Do not read the older shards, which need not be there: similarities to their documents are
            estimated from signatures, and copies have the same hash.
        stored: Folders with the signatures of all shards, which are used instead of a pass over these. The
            output is the same, so its manifest does not list them.
        workers: Processes that compute signatures, find and verify candidates, and write new shards. Without
            them this one does.
        keep_signatures: Store the signatures of the new shards in the folder `signatures` of the output,
            which takes another pass over these. They are an artifact of their own, so that they describe the
            new shards as the signatures of any others do, and an output that has none can get them later.
        protect: A file that lists documents that stay: see `rewriting.read_protected`.
        dry_run: Write the table of clusters and the manifest, but no shards.
        memory: Bytes for sorting; what does not fit goes through files beside the output.
        threads: Threads; the output does not depend on it.
        force: Replace an output made from other inputs or settings.
        on_plan: Called before the work with the number of passes over the shards, and their bytes.
        on_progress: Called with the bytes read: up to twice those of the shards, and once more to write them.

    Raises:
        ConfigError: A shard is a stream, the protected documents are not of these shards, an older shard
            is one of them, or there are signatures for a search for exact copies only.
        PileError: The signatures are of other settings or shards, or not of all of them; or older shards are
            not there, and `unverified` is off.
        OutputExistsError: The output was made from other inputs or settings and `force` is off.
        FormatError: A shard is damaged or changes while it is read; the message names shard and record.
        OSError: A file cannot be read or written.
    """
    rewriting.check_before(shards, output)
    if config.near is None and (stored or workers or keep_signatures or unverified):
        raise ConfigError("signatures are for near duplicates; exact copies are found without them")
    if keep_signatures and dry_run:
        raise ConfigError("a dry run writes no shards, so there are no signatures of them to keep")
    target = Target.of(output / MANIFEST_FILE)
    names = rewriting.output_names(shards)
    kept = output / signatures.BESIDE
    for written in (output, kept) if keep_signatures else (output,):
        if against is not None:
            rewriting.refuse_within(against, written, "older shards")
        for folder in stored:
            rewriting.refuse_within(folder, written, "signatures")
    if keep_signatures and force:
        publish.refuse_mounted(Target.of(kept / MANIFEST_FILE))
    elif keep_signatures:
        signatures.check_beside(output)
    older_used = _Older.of(against, shards, config, unverified=unverified)
    older = older_used.shards
    every = [*older, *shards]
    protected, protected_entries = rewriting.protected_documents(protect, shards, output)
    older_entries, shard_entries = older_used.entries(output), entries(shards, output)
    inputs = [*older_entries, *shard_entries, *protected_entries]
    estimates = {"unverified": True} if unverified else {}
    request = Request("deduplicated", {**config.settings, "dry_run": dry_run, **estimates}, inputs)
    n_bytes, n_older_bytes = sum(entry["bytes"] for entry in shard_entries), older_used.n_bytes

    def build(folder: Path) -> Built:
        n_read_bytes = n_bytes if unverified else n_bytes + n_older_bytes
        on_plan((2 if dry_run else 3) - bool(stored) + keep_signatures, n_read_bytes)
        used = _Used.of(shards, config, stored).after(older_used.used(config))
        if workers is not None:
            folders = scratch_folders.inner(folder, "signatures")
            used = used.completed(workers, every, folders, config, request, memory, force, on_progress)
        how = _deduplication(
            config, protected, scratch_folders.inner(folder, "duplicates"), request, memory, threads, force
        )
        how = dataclasses.replace(
            how,
            n_older=len(older),
            protected=_after(protected.records, len(older)),
            stored=used.stored,
            estimates_older=unverified,
            job=used.job(request),
        )
        run_tasks = (
            None if workers is None else functools.partial(workers.run_tasks, every, how, config.records)
        )
        rows, found = _core.find_duplicates(
            every,
            how,
            # The bytes of signatures that were made now have been reported.
            _from(used.n_sketched_bytes, on_progress),
            run_tasks=run_tasks,
            text_field=config.records.text_field,
            skip_bad_records=config.records.skips,
            max_record=config.records.max_record_bytes,
        )
        sha256 = {}
        # The core reports shards that it need not read, in both passes, as if it had read them.
        n_before = 2 * (n_bytes + n_older_bytes)
        if not dry_run:
            sha256 = rewriting.write_shards(
                shards,
                folder,
                request,
                [shard["sha256"] for shard in found["shards"]],
                config.records,
                threads=threads,
                force=force,
                on_progress=None if on_progress is None else lambda n: on_progress(n_before + n),
                workers=workers,
                **_changes(rows, len(older), is_marked=config.mark),
            )
        write_clusters(folder / CLUSTERS_FILE, rows, every, output)
        left_out = {"shards", "n_resumed_shards"}
        totals = {name: value for name, value in found.items() if name not in left_out}
        totals["n_bad_records"] = used.n_bad_records(len(older)) + sum(
            shard["bad_records"]["n"] for shard in found["shards"][len(older) :]
        )
        n_marked = int((rows["shard"] >= len(older)).sum()) if config.mark else 0
        summary = {**totals, "n_marked": n_marked}
        if unverified:
            summary["n_estimated"] = int((rows["kind"] == KINDS.index("estimate")).sum())
        if config.mark:
            none = {"n_removed": 0, "n_removed_bytes": 0}
            summary |= {**none, "subsets": [subset | none for subset in found["subsets"]]}
        roles = dict.fromkeys(sha256, "shard") | {CLUSTERS_FILE: "clusters"}
        checked_inputs = checked_entries(inputs, found["shards"])
        summary |= shards_summary(together(shards, older), output)
        return Built(list(roles), summary, checked_inputs, roles, sha256)

    made, is_new = publish.make(
        target,
        request,
        build,
        force=force,
        names=[CLUSTERS_FILE, *([] if dry_run else names)],
        resumes=["signatures", "duplicates", rewriting.NEW_SHARDS],
        or_else=", another folder keeps both",
    )
    if keep_signatures and config.signatures is not None:
        n_before = 2 * (n_bytes + n_older_bytes) + n_bytes if is_new else 0
        signatures.run_beside(
            [made.folder / entry["path"] for entry in made.outputs if entry.get("role") == "shard"],
            output,
            config.signatures,
            memory=memory,
            threads=threads,
            # Those of shards that were replaced now are no longer of use.
            force=force or is_new,
            on_progress=None if on_progress is None else lambda n: on_progress(n_before + n),
        )
    return made, is_new


def dedup(
    shards: AnyPath | Iterable[AnyPath],
    output: AnyPath,
    *,
    near: bool = True,
    threshold: str | float = "0.87",
    shingle: str = "words:5",
    verify: str = "jaccard",
    permutations: int = 256,
    max_cluster: int = 10_000,
    large_clusters: bool = False,
    normalize: str = "none",
    prefer: str = "first",
    mark: bool = False,
    against: AnyPath | None = None,
    unverified: bool = False,
    signatures: Iterable[AnyPath] = (),
    keep_signatures: bool = False,
    protect: AnyPath | None = None,
    dry_run: bool = False,
    text_field: str = "text",
    on_bad_record: str = "error",
    max_record: str | int = "1GiB",
    memory: str | int = "1GiB",
    threads: int | None = None,
    force: bool = False,
    on_progress: OnProgress = None,
) -> Settings:
    """Writes shards again without copies of documents, as the command `pile-tools dedup near`, or `exact`.

    >>> found = dedup("shards/", "deduped/", threshold=0.8)  # doctest: +SKIP
    >>> found["n_removed"]  # doctest: +SKIP
    16

    Args:
        shards: A file, a folder or a glob, or several of them; read in byte-wise order of their paths.
        output: The folder of the new shards, of `clusters.parquet` and of the manifest.
        near: Whether near duplicates are removed too.
        threshold: The least similarity of a removed document to the one that stays.
        shingle: `words:N` or `chars:N`.
        verify: `jaccard` or `containment`.
        permutations: Values in a signature.
        max_cluster: Documents of a cluster above which it is left alone.
        large_clusters: Whether copies in larger clusters are removed too.
        normalize: `none`, `whitespace` or `case`.
        prefer: The copy that stays: `first`, `longest` or `subset:A,B`.
        mark: Remove nothing, and put cluster and size into the `meta` of each member.
        against: A folder of older shards, copies of whose documents are removed too.
        unverified: Estimate similarities to older documents from the signatures in that folder.
        signatures: Folders with the signatures of the shards, which `pile-tools dedup signatures` wrote.
        keep_signatures: Store the signatures of the new shards in the output.
        protect: A file that lists documents that stay.
        dry_run: Write no shards.
        text_field: Key of a record, or column of a parquet file, that holds the text.
        on_bad_record: `error` stops at a bad record; `skip` leaves it where it is and counts it.
        max_record: Maximum bytes of a record, a number or a size such as `1GiB`; a longer record is bad.
        memory: Bytes for sorting, a number or a size.
        threads: By default one for each processor. They do not change the output.
        force: Replace an output made from other inputs or settings.
        on_progress: Called with the compressed bytes read. An exception stops the job.

    Returns:
        The summary of the manifest, as `docs/json.md` describes it.

    Raises:
        PileError: There are no shards; or as `run`.
    """
    paths = [shards] if isinstance(shards, str | os.PathLike) else list(shards)
    if not paths:
        raise PileError("no shards are given")
    similar = NearConfig(
        threshold=str(threshold),
        shingle=shingle,
        verify=verify,
        permutations=permutations,
        max_cluster=max_cluster,
        large_clusters=large_clusters,
    )
    config = DedupConfig(
        normalize=normalize,
        prefer=prefer,
        mark=mark,
        near=similar if near else None,
        records=RecordConfig(text_field=text_field, on_bad_record=on_bad_record, max_record=max_record),
    )
    made, _ = run(
        find_shards([Path(path) for path in paths]),
        Path(output),
        config,
        against=None if against is None else Path(against),
        unverified=unverified,
        stored=[Path(path) for path in signatures],
        keep_signatures=keep_signatures,
        protect=None if protect is None else Path(protect),
        dry_run=dry_run,
        memory=parse_size(str(memory)),
        threads=checked_threads(threads),
        force=force,
        on_progress=on_progress,
    )
    return made.summary


def _deduplication(
    config: DedupConfig,
    protected: rewriting.Protected,
    folder: Path,
    request: Request,
    memory: int,
    threads: int,
    force: bool,
) -> Deduplication:
    near = config.near
    return Deduplication(
        near=None
        if near is None
        else NearDuplicates(
            threshold=near.threshold,
            shingle=near.shingle,
            verify=near.verify,
            permutations=near.permutations,
        ),
        normalize=config.normalize,
        prefer="subset" if config.subsets else config.prefer,
        subset_priority=config.subsets,
        protected=protected.records,
        protected_texts=protected.texts,
        max_cluster=near.max_cluster if near else 1 << 32,
        large_clusters=near.large_clusters if near else True,
        memory=memory,
        threads=threads,
        folder=folder,
        job=request.job,
        discard=force,
    )


def _from(n_bytes: int, on_progress: OnProgress) -> OnProgress:
    """Progress that is reported as `n_bytes` until it has passed these."""
    if on_progress is None:
        return None
    return lambda n: on_progress(max(n, n_bytes))


@dataclass(frozen=True)
class _Used:
    """The signatures that a job uses.

    Attributes:
        n_shards: Number of shards, with signatures or without.
        sha256: The checksums of what describes them: of their manifests, or of the files themselves.
        stored: The signatures.
        n_sketched_bytes: Bytes of the shards that were read for signatures that the job has made itself.
    """

    n_shards: int
    sha256: list[str] = field(default_factory=list)
    stored: list[StoredSignatures] = field(default_factory=list)
    n_sketched_bytes: int = 0

    @classmethod
    def of(cls, shards: Sequence[Path], config: DedupConfig, folders: Sequence[Path]) -> _Used:
        """The signatures of all shards; nothing without folders. Raises as `signatures.of_shards`."""
        if not folders or config.signatures is None:
            return cls(len(shards))
        found = signatures.find(folders)
        stored = signatures.of_shards(found, shards, config.signatures.settings)
        return cls(len(shards), [of.sha256 for of in found], stored)

    def after(self, older: _Used) -> _Used:
        """The signatures of a job over older shards and these."""
        moved = [
            dataclasses.replace(
                of,
                shards=[
                    dataclasses.replace(shard, index=shard.index + older.n_shards) for shard in of.shards
                ],
            )
            for of in self.stored
        ]
        n_shards = older.n_shards + self.n_shards
        return _Used(n_shards, [*older.sha256, *self.sha256], [*older.stored, *moved])

    def completed(
        self,
        workers: Workers,
        shards: Sequence[Path],
        folder: Path,
        config: DedupConfig,
        request: Request,
        memory: int,
        force: bool,
        on_progress: OnProgress,
    ) -> _Used:
        """These, and those of all other shards, which the workers make in `folder`."""
        known = {shard.index for of in self.stored for shard in of.shards}
        missing = [index for index in range(len(shards)) if index not in known]
        if config.signatures is None or not missing:
            return self
        sketchings = [
            Sketching(
                shingle=config.signatures.shingle,
                permutations=config.signatures.permutations,
                normalize=config.signatures.normalize,
                memory=memory,
                threads=1,
                folder=folder / f"{index:06}",
                job=request.job,
                discard=force,
            )
            for index in missing
        ]
        made = workers.sketch([shards[index] for index in missing], sketchings, config.records, on_progress)
        sha256 = [file["sha256"] for summary in made for file in summary["files"]]
        stored = [
            signatures.made_of_shard(summary, Path(sketching.folder), index)
            for index, sketching, summary in zip(missing, sketchings, made, strict=True)
        ]
        n_bytes = sum(shards[index].stat().st_size for index in missing)
        return _Used(self.n_shards, [*self.sha256, *sha256], [*self.stored, *stored], n_bytes)

    def n_bad_records(self, n_older: int) -> int:
        """Bad records of the shards after the first `n_older`, which were skipped for the signatures."""
        every = [shard for of in self.stored for shard in of.shards]
        return sum(shard.n_bad_records for shard in every if shard.index >= n_older)

    def job(self, request: Request) -> str:
        """The name of the job, whose unfinished files depend on the signatures; see `Deduplication`."""
        return f"{request.job}.{fingerprint(self.sha256)}" if self.sha256 else request.job


@dataclass(frozen=True)
class _Older:
    """The shards of an older corpus.

    Attributes:
        shards: The shards.
        folder: The folder of their signatures, if there is one.
        estimated: The manifest of the signatures, if these are all that is read.
    """

    shards: list[Path] = field(default_factory=list)
    folder: Path | None = None
    estimated: Manifest | None = None

    @classmethod
    def of(
        cls, against: Path | None, shards: Sequence[Path], config: DedupConfig, *, unverified: bool
    ) -> _Older:
        """The older corpus in the folder `against`; nothing without a folder. Raises as `run`."""
        if against is None:
            if unverified:
                raise ConfigError("only similarities to an older corpus are estimated, and none is given")
            return cls()
        folder = against / signatures.BESIDE
        if not (folder / MANIFEST_FILE).is_file():
            if unverified:
                raise PileError(f"has no signatures, from which similarities are estimated ({folder})")
            return cls(rewriting.older_shards(against, shards))
        if not unverified:
            _refuse_absent(folder)
            return cls(rewriting.older_shards(against, shards), folder)
        if config.near is not None and config.near.verify != "jaccard":
            raise ConfigError(f"signatures estimate the Jaccard similarity, not the {config.near.verify}")
        found = signatures.read(folder)
        if config.signatures and (how := signatures.difference(found, config.signatures.settings)):
            raise PileError(f"{how}, and nothing else can be compared ({found.path})")
        older = signatures.shards_of(found)
        rewriting.refuse_common(older, shards)
        _refuse_resized(older, found)
        return cls(older, folder, found)

    def entries(self, folder: Path) -> list[Entry]:
        """The shards, or what is read instead, as inputs of a manifest in `folder`."""
        if self.estimated is None:
            return rewriting.older_entries(self.shards, folder)
        # Without sizes: the shards need not be there.
        older = [{"role": OLDER, "path": manifest.relative(path, folder)} for path in self.shards]
        return [self.estimated.entry(folder, role="signatures"), *older]

    @property
    def n_bytes(self) -> int:
        """The bytes of the shards."""
        if self.estimated is None:
            return sum(path.stat().st_size for path in self.shards)
        return sum(entry["bytes"] for entry in signatures.entries_of(self.estimated))

    def used(self, config: DedupConfig) -> _Used:
        """The signatures of the shards. Warns if there are some that cannot be used."""
        n = len(self.shards)
        if self.estimated is not None:
            stored = [signatures.stored(self.estimated, {i: i for i in range(n)})]
            return _Used(n, [self.estimated.sha256], stored)
        if self.folder is None or config.signatures is None:
            return _Used(n)
        try:
            found = [signatures.read(self.folder)]
            stored = signatures.of_shards(found, self.shards, config.signatures.settings)
        except PileError as err:
            warnings.warn(
                f"the older shards are read, as their signatures do not fit: {err}", PileWarning, stacklevel=2
            )
            return _Used(n)
        return _Used(n, [of.sha256 for of in found], stored)


def _refuse_resized(shards: Sequence[Path], of: Manifest) -> None:
    """Raises PileError for a shard that is here and has another size than when its signatures were made."""
    for path, entry in zip(shards, signatures.entries_of(of), strict=True):
        if path.is_file() and (size := path.stat().st_size) != entry["bytes"]:
            was = f"was of {entry['bytes']:,} bytes when its signatures were made, and is of {size:,}"
            raise PileError(f"{was}; make the signatures again ({path})")


def _refuse_absent(folder: Path) -> None:
    """Raises PileError if a shard that has signatures is not there."""
    found = signatures.shards_of(signatures.read(folder))
    absent = [path for path in found if not path.exists()]
    if absent:
        raise PileError(
            f"{len(absent):,} of {counted(len(found), 'older shard')} are not here, only their signatures; "
            f"unverified estimates similarities from these ({absent[0]})"
        )


def _after(records: list[tuple[int, int]], n_older: int) -> list[tuple[int, int]]:
    """Shards and records, with the number of each shard among all, the older ones first."""
    return [(shard + n_older, record) for shard, record in records]


def _changes(rows: DuplicateRows, n_older: int, *, is_marked: bool) -> dict[str, Any]:
    """What `rewrite_shards` does with the members of clusters: marks all, or leaves the removed ones out."""
    is_removed = rows["decision"] == DECISIONS.index("removed")
    chosen: NDArray[np.bool_] = (rows["shard"] >= n_older) if is_marked else is_removed
    # By document, and so by shard and record.
    shards, records = rows["shard"][chosen] - np.uint32(n_older), rows["record"][chosen]
    if not is_marked:
        return {"removed": (shards, records)}
    members = [
        ("cluster", rows["cluster"][chosen].astype(np.uint64)),
        ("size", rows["cluster_size"][chosen].astype(np.uint64)),
    ]
    return {"marks": (shards, records, MARK, members)}
