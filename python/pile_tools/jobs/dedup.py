"""Deduplicates shards: writes them again without the documents that are copies of ones that stay.

`OUT/` holds the shards, `clusters.parquet` with every member of every cluster, kept ones too, and
`manifest.json`, written last. A document is removed only if its own verified similarity to a document that
stays reaches the threshold: clusters are reported as connected components, but in a chain A ~ B ~ C the
removal of B does not remove C.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pile_tools import _core, checked, manifest, publish
from pile_tools.config import Settings
from pile_tools.errors import ConfigError
from pile_tools.manifest import MANIFEST_FILE, Manifest, Request
from pile_tools.publish import Built, Target
from pile_tools.read.shards import RecordConfig, checked_entries, entries, has_stream
from pile_tools.read.shards import summary as shards_summary
from pile_tools.read.texts import read_lines
from pile_tools.tokens.documents import shard_named
from pile_tools.types import Deduplication, DuplicateRows, NearDuplicates, OnProgress

#: The table of the members of all clusters, in the output's folder.
CLUSTERS_FILE = "clusters.parquet"

#: What became of a member of a cluster, and how its kept copy was found, by the core's numbers.
DECISIONS = ("kept", "removed", "left alone")
KINDS = (None, "exact", "near")

#: The key of a mark in the `meta` of a record.
MARK = "dedup"

#: Maximum permutations of a signature, which takes 4 bytes for each.
MAX_PERMUTATIONS = 1024

_SHINGLE = re.compile(r"(words|chars):([1-9][0-9]?)")
_THRESHOLD = re.compile(r"0\.[0-9]{1,4}|1(\.0{1,4})?")
_RECORD = re.compile(r"(.+):([0-9]{1,18})")
_SUBSETS = "subset:"


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
    shingle: str = field(
        default="words:5",
        metadata={
            "help": "What is compared: the sets of N consecutive words, or of N characters.",
            "metavar": "words:N|chars:N",
        },
    )
    verify: str = field(
        default="jaccard",
        metadata={
            "help": "Similarity of candidates: shared shingles among those of both, or of the smaller one.",
            "metavar": "jaccard|containment",
        },
    )
    permutations: int = field(
        default=256, metadata={"help": "Minima in a signature; more find pairs with fewer candidates."}
    )
    max_cluster: int = field(
        default=10_000,
        metadata={"help": "Larger clusters are reported and left alone, unless --large-clusters is given."},
    )
    large_clusters: bool = field(default=False, metadata={"help": "Remove copies in clusters of any size."})

    def __post_init__(self) -> None:
        if not _THRESHOLD.fullmatch(self.threshold) or float(self.threshold) == 0:
            raise ConfigError(
                f"threshold must be above 0 and at most 1, with at most 4 digits, got {self.threshold}"
            )
        if not _SHINGLE.fullmatch(self.shingle):
            raise ConfigError(f"shingle must be words:N or chars:N with N from 1 to 99, got {self.shingle}")
        if self.verify not in ("jaccard", "containment"):
            raise ConfigError(f"verify must be jaccard or containment, got {self.verify}")
        if not 16 <= self.permutations <= MAX_PERMUTATIONS:
            raise ConfigError(f"permutations must be from 16 to {MAX_PERMUTATIONS}, got {self.permutations}")
        if self.max_cluster < 2:
            raise ConfigError(f"max-cluster must be at least 2, got {self.max_cluster}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DedupConfig:
    """What counts as a copy, and which of several copies stays.

    Attributes:
        near: Near duplicates too; None for exact copies only.
    """

    normalize: str = field(
        default="none",
        metadata={
            "help": "Compare texts as they are, with white space made equal, or with case folded too.",
            "metavar": "none|whitespace|case",
        },
    )
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
        if self.normalize not in ("none", "whitespace", "case"):
            raise ConfigError(f"normalize must be none, whitespace or case, got {self.normalize}")
        if self.prefer not in ("first", "longest") and not self.subsets:
            raise ConfigError(f"prefer must be first, longest or subset:A,B, got {self.prefer}")

    @property
    def subsets(self) -> list[str]:
        """The subsets of `prefer`, the preferred first."""
        named = self.prefer.removeprefix(_SUBSETS) if self.prefer.startswith(_SUBSETS) else ""
        return [name for name in named.split(",") if name]

    @property
    def settings(self) -> Settings:
        """The settings as manifests record them."""
        near = dataclasses.asdict(self.near) if self.near else {}
        copies = {"normalize": self.normalize, "prefer": self.prefer, "mark": self.mark}
        return {"method": "near" if self.near else "exact", **copies, **near, **self.records.settings}


@dataclass(frozen=True)
class Protected:
    """Documents that are never removed.

    Attributes:
        records: The number of the shard and the record of each.
        texts: Texts whose documents stay, wherever they are.
    """

    records: list[tuple[int, int]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def run(
    shards: Sequence[Path],
    output: Path,
    config: DedupConfig,
    *,
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
        protect: A file that lists documents that stay: see `read_protected`.
        dry_run: Write the table of clusters and the manifest, but no shards.
        memory: Bytes for sorting; what does not fit goes through files beside the output.
        threads: Threads; the output does not depend on it.
        force: Replace an output made from other inputs or settings.
        on_plan: Called before the work with the number of passes over the shards, and their bytes.
        on_progress: Called with the bytes read: up to twice those of the shards, and once more to write them.

    Raises:
        ConfigError: A shard is a stream, or the protected documents are not of these shards.
        OutputExistsError: The output was made from other inputs or settings and `force` is off.
        FormatError: A shard is damaged or changes while it is read; the message names shard and record.
        OSError: A file cannot be read or written.
    """
    import pyarrow  # noqa: F401  # which is missed before hours of work

    if has_stream(shards):
        raise ConfigError("shards are read several times, so they cannot come from standard input or a pipe")
    target = Target.of(output / MANIFEST_FILE)
    names = output_names(shards)
    inputs = entries(shards, output)
    protected = Protected()
    if protect is not None:
        read = functools.partial(read_protected, shards=shards)
        protected, entry = manifest.read_input(read, protect, output, role="protected")
        inputs.append(entry)
    request = Request("deduplicated", {**config.settings, "dry_run": dry_run}, inputs)
    n_bytes = sum(entry["bytes"] for entry in inputs if entry["role"] == "shard")

    def build(folder: Path) -> Built:
        on_plan(2 if dry_run else 3, n_bytes)
        how = _deduplication(config, protected, folder / "duplicates", request, memory, threads, force)
        rows, found = _core.find_duplicates(
            shards,
            how,
            on_progress,
            text_field=config.records.text_field,
            skip_bad_records=config.records.skips,
            max_record=config.records.max_record_bytes,
        )
        sha256 = {}
        if not dry_run:
            rewritten = _core.rewrite_shards(
                shards,
                names,
                folder / "shards",
                request.digest,
                threads,
                force,
                None if on_progress is None else lambda n: on_progress(2 * n_bytes + n),
                sha256=[shard["sha256"] for shard in found["shards"]],
                text_field=config.records.text_field,
                max_record=config.records.max_record_bytes,
                **_changes(rows, is_marked=config.mark),
            )
            written = [shard["output"] for shard in rewritten["shards"]]
            sha256 = {made["name"]: made["sha256"] for made in written if made is not None}
            for name in sha256:
                link(folder / "shards" / name, folder / name)
        write_clusters(folder / CLUSTERS_FILE, rows, shards, output)
        left_out = {"shards", "n_resumed_shards"}
        totals = {name: value for name, value in found.items() if name not in left_out}
        summary = {**totals, "n_marked": len(rows["record"]) if config.mark else 0}
        if config.mark:
            summary |= {"n_removed": 0, "n_removed_bytes": 0}
        roles = dict.fromkeys(sha256, "shard") | {CLUSTERS_FILE: "clusters"}
        checked_inputs = checked_entries(inputs, found["shards"])
        return Built(list(roles), summary | shards_summary(shards, output), checked_inputs, roles, sha256)

    return publish.make(
        target,
        request,
        build,
        force=force,
        names=[CLUSTERS_FILE, *([] if dry_run else names)],
        resumes=True,
        or_else=", another folder keeps both",
    )


def link(made: Path, finished: Path) -> None:
    """Gives a new shard its name among the finished files. Its other name stays, so a killed job has it."""
    finished.unlink(missing_ok=True)
    try:
        os.link(made, finished)
    except OSError:
        # A file system without links.
        made.replace(finished)


def _deduplication(
    config: DedupConfig,
    protected: Protected,
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
        job=request.digest,
        discard=force,
    )


def _changes(rows: DuplicateRows, *, is_marked: bool) -> dict[str, Any]:
    """What `rewrite_shards` does with the members of clusters: marks all, or leaves the removed ones out."""
    is_removed = rows["decision"] == DECISIONS.index("removed")
    chosen: NDArray[np.bool_] = np.ones(len(is_removed), dtype=bool) if is_marked else is_removed
    # By document, and so by shard and record.
    shards, records = rows["shard"][chosen], rows["record"][chosen]
    if not is_marked:
        return {"removed": (shards, records)}
    members = [
        ("cluster", rows["cluster"][chosen].astype(np.uint64)),
        ("size", rows["cluster_size"][chosen].astype(np.uint64)),
    ]
    return {"marks": (shards, records, MARK, members)}


def output_names(shards: Sequence[Path]) -> list[str]:
    """The names of the new shards: those of the old ones, if these are unique and keep their order.

    Otherwise they are numbered, since a folder of shards is read in the order of its names.
    """
    names = [path.name for path in shards]
    if all(a.encode() < b.encode() for a, b in itertools.pairwise(names)):
        return names
    return [f"{number:06}-{name}" for number, name in enumerate(names)]


def write_clusters(path: Path, rows: DuplicateRows, shards: Sequence[Path], folder: Path) -> None:
    """Writes the table of the members of all clusters, by cluster and then in reading order.

    Columns: `shard` (the path of the old shard from `folder`) and `record`; `cluster`, the number of its
    first document in reading order, and `cluster_size`; `decision`: `kept`, `removed` or `left alone`; for a
    removed document `kept_shard`, `kept_record`, the verified `similarity` to that document, and `kind`:
    `exact` or `near`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    order = np.argsort(rows["cluster"], kind="stable")
    column: dict[str, NDArray[Any]] = {name: np.asarray(values)[order] for name, values in rows.items()}
    # The kept copy is a member of the same cluster.
    kept = np.searchsorted(rows["document"], column["kept_copy"])
    hidden = column["decision"] != DECISIONS.index("removed")
    names = pa.array([manifest.relative(shard, folder) for shard in shards], pa.string())

    def named(numbers: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(numbers.astype(np.int32), mask=mask), names)

    decisions = pa.array(DECISIONS, pa.string())
    kinds = pa.array(KINDS[1:], pa.string())
    table = pa.table(
        {
            "shard": named(column["shard"]),
            "record": pa.array(column["record"].astype(np.int64)),
            "cluster": pa.array(column["cluster"].astype(np.int64)),
            "cluster_size": pa.array(column["cluster_size"].astype(np.int64)),
            "decision": pa.DictionaryArray.from_arrays(column["decision"].astype(np.int32), decisions),
            "kept_shard": named(rows["shard"][kept], hidden),
            "kept_record": pa.array(rows["record"][kept].astype(np.int64), mask=hidden),
            "similarity": pa.array(column["similarity"], mask=hidden),
            "kind": pa.DictionaryArray.from_arrays(
                pa.array(np.maximum(column["kind"].astype(np.int32) - 1, 0), mask=hidden), kinds
            ),
        }
    )
    pq.write_table(table, path, compression="zstd")


def read_protected(path: Path, shards: Sequence[Path]) -> Protected:
    """The documents that a file lists: lines SHARD:RECORD, or the `canaries.json` of a sample.

    Raises:
        ConfigError: A line names no record, no shard or several of them.
        FormatError: Not such a file, or too large.
        OSError: The file cannot be read.
    """
    if path.suffix == ".json":
        passages = checked.read_json(path, what="a list of canaries").objects("passages")
        return Protected(texts=[passage.text("text") for passage in passages])
    records = []
    for number, data in enumerate(read_lines(path), 1):
        # File names may have any bytes except a line feed.
        line = data.decode(errors="surrogateescape").strip(" \t")
        if line:
            found = _RECORD.fullmatch(line)
            if found is None:
                raise ConfigError(f"line {number} is not SHARD:RECORD ({path})")
            records.append((_shard_number(found[1], shards), int(found[2])))
    return Protected(records=records)


def _shard_number(name: str, shards: Sequence[Path]) -> int:
    """The number of the shard whose path is `name` or ends with it. Raises ConfigError if not exactly one."""
    paths = [str(path) for path in shards]
    return paths.index(shard_named(paths, name))


@dataclass(frozen=True)
class Cluster:
    """A cluster of copies.

    Attributes:
        name: SHARD:RECORD of its first member.
        size: Its documents.
        n_removed, n_kept, n_left_alone: How many of them have each decision.
        removed: SHARD:RECORD of the removed member that is least like the kept one, None if none is removed.
        kept: SHARD:RECORD of the kept member to which that one is charged.
        similarity: The similarity of these two.
    """

    name: str
    size: int
    n_removed: int
    n_kept: int
    n_left_alone: int
    removed: str | None
    kept: str | None
    similarity: float


def largest_clusters(made: Manifest, n: int) -> list[Cluster]:
    """The `n` largest clusters of an output of `run`, the largest first."""
    import pyarrow.parquet as pq

    table = pq.read_table(made.folder / CLUSTERS_FILE)
    clusters, sizes = (table[name].to_numpy() for name in ("cluster", "cluster_size"))
    # The rows of a cluster follow each other.
    starts = np.flatnonzero(np.diff(clusters, prepend=-1))
    chosen = starts[np.argsort(-sizes[starts], kind="stable")][:n]
    found = []
    for start in chosen.tolist():
        rows = table.slice(start, int(sizes[start])).to_pylist()
        decisions = [row["decision"] for row in rows]
        removed = min(
            (row for row in rows if row["decision"] == "removed"),
            key=lambda row: row["similarity"],
            default=None,
        )
        found.append(
            Cluster(
                name=f"{rows[0]['shard']}:{rows[0]['record']}",
                size=len(rows),
                n_removed=decisions.count("removed"),
                n_kept=decisions.count("kept"),
                n_left_alone=decisions.count("left alone"),
                removed=removed and f"{removed['shard']}:{removed['record']}",
                kept=removed and f"{removed['kept_shard']}:{removed['kept_record']}",
                similarity=removed["similarity"] if removed else 1.0,
            )
        )
    return found


def text_of(made: Manifest, name: str) -> str:
    """The text of a record of the shards from which `made` was made. Takes and raises as `restored`."""
    return _read(made, name)[1]


def restored(output: Path, name: str) -> bytes:
    """A record of the shards from which `output` was made, removed or not, as it is stored there.

    Args:
        output: The deduplicated folder.
        name: `SHARD:RECORD`, as `clusters.parquet` names it; the end of the shard's path is enough.

    Raises:
        ConfigError: The name is no SHARD:RECORD of these shards.
        FormatError: The shard is damaged or was changed.
        OSError: The shard is not here any more.
    """
    made = manifest.read(output / MANIFEST_FILE)
    if made.kind != "deduplicated":
        raise ConfigError(f"{made.kind}, not the output of pile-tools dedup ({output})")
    return _read(made, name)[0]


def _read(made: Manifest, name: str) -> tuple[bytes, str]:
    match = _RECORD.fullmatch(name)
    if match is None:
        raise ConfigError(f"expected SHARD:RECORD, such as 04.jsonl.zst:52, got {name!r}")
    inputs = [entry for entry in made.inputs if entry["role"] == "shard"]
    shards = [manifest.input_path(made, entry) for entry in inputs]
    named = [entry["path"] for entry in inputs]
    number = named.index(match[1]) if match[1] in named else _shard_number(match[1], shards)
    text_field = str(made.settings["text_field"])
    return _core.read_record(shards[number], int(match[2]), text_field=text_field)
