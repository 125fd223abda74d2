"""The table of the members of all clusters, which `dedup exact` and `dedup near` write beside new shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pile_tools import files
from pile_tools.jobs import rewriting
from pile_tools.jobs.rewriting import CLUSTERS_FILE
from pile_tools.manifest import Manifest
from pile_tools.types import DuplicateRows

#: Rows of the table of clusters that are read at a time.
_BATCH_ROWS = 1 << 16

#: What became of a member of a cluster, and how its kept copy was found, by the core's numbers.
DECISIONS = ("kept", "removed", "left alone")
KINDS = (None, "exact", "near", "estimate")


def write_clusters(path: Path, rows: DuplicateRows, shards: Sequence[Path], folder: Path) -> None:
    """Writes the table of the members of all clusters, by cluster and then in reading order.

    Columns: `shard` (the path of the old shard from `folder`) and `record`; `cluster`, the number of its
    first document in reading order, and `cluster_size`; `decision`: `kept`, `removed` or `left alone`; for a
    removed document `kept_shard`, `kept_record`, the verified `similarity` to that document, and `kind`:
    `exact` or `near`, or `estimate` for a similarity of signatures.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    order = np.argsort(rows["cluster"], kind="stable")
    column: dict[str, NDArray[Any]] = {name: np.asarray(values)[order] for name, values in rows.items()}
    # The kept copy is a member of the same cluster.
    kept = np.searchsorted(rows["document"], column["kept_copy"])
    hidden = column["decision"] != DECISIONS.index("removed")
    names = pa.array(rewriting.table_names(shards, folder), pa.string())

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
    with files.new_file(path) as file:
        pq.write_table(table, file, compression="zstd")


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
    """The `n` largest clusters of an output of `run`, the largest first; raises as `reading_table`."""
    import pyarrow.parquet as pq

    with rewriting.reading_table(made, CLUSTERS_FILE) as file:
        table = pq.ParquetFile(file)
        largest: list[tuple[int, int]] = []
        n_before, last = 0, -1
        # In batches: the table may have a row for each document.
        for batch in table.iter_batches(_BATCH_ROWS, columns=["cluster", "cluster_size"], use_threads=False):
            clusters, sizes = (batch[name].to_numpy() for name in ("cluster", "cluster_size"))
            if not len(batch):
                continue
            # The rows of a cluster follow each other.
            starts = np.flatnonzero(np.diff(clusters, prepend=last))
            starts = starts[np.argsort(-sizes[starts], kind="stable")][:n]
            largest += zip((-sizes[starts]).tolist(), (n_before + starts).tolist(), strict=True)
            largest = sorted(largest)[:n]
            n_before, last = n_before + len(clusters), clusters[-1]
        found = {start: _ClusterRows(-size) for size, start in largest}
        n_before = 0
        for batch in table.iter_batches(_BATCH_ROWS, use_threads=False):
            for start, rows in found.items():
                first, end = max(start - n_before, 0), min(start + rows.size - n_before, len(batch))
                if first < end:
                    rows.add(batch.slice(first, end - first))
            n_before += len(batch)
        return [rows.cluster() for rows in found.values()]


class _ClusterRows:
    """What is shown of a cluster, from its rows."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._decisions: Counter[str] = Counter()
        self._first: dict[str, Any] | None = None
        self._removed: dict[str, Any] | None = None

    def add(self, rows: Any) -> None:
        """Adds rows of the table, a record batch."""
        for row in rows.to_pylist():
            self._first = self._first or row
            self._decisions[row["decision"]] += 1
            is_removed = row["decision"] == "removed"
            if is_removed and (self._removed is None or row["similarity"] < self._removed["similarity"]):
                self._removed = row

    def cluster(self) -> Cluster:
        """The cluster, once all rows are added."""
        first, removed, kept = self._first or {}, None, None
        if of := self._removed:
            removed, kept = f"{of['shard']}:{of['record']}", f"{of['kept_shard']}:{of['kept_record']}"
        return Cluster(
            name=f"{first['shard']}:{first['record']}",
            size=self.size,
            n_removed=self._decisions["removed"],
            n_kept=self._decisions["kept"],
            n_left_alone=self._decisions["left alone"],
            removed=removed,
            kept=kept,
            similarity=float(self._removed["similarity"]) if self._removed else 1.0,
        )
