"""Reads a finished study's files back, every value checked: a study folder may come from anyone."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from pile_tools.errors import FormatError
from pile_tools.terminal import counted
from studies.checked import Check, flag, items, optional, read_object, real, record, text, whole
from studies.memorization.scores import MAX_CONTINUATION_TOKENS
from studies.memorization.tables import CanaryFile, Group, Summary

_GROUP = {
    "n": whole(),
    "mean_score": optional(real(0, 1)),
    "standard_error": optional(real(0)),
    "n_memorized": whole(),
    "share_memorized": optional(real(0, 1)),
}
_LEVEL = {"repeats": whole(), "mean_seen": real(0), **_GROUP}
_TABLE = {
    "step": whole(),
    "seen": record(_GROUP),
    "unseen": record(_GROUP),
    "canaries": items(record(_LEVEL)),
}
#: -1 is an unknown document: an order of rows names none.
_DOCUMENT = record({"document": whole(-1)}, {"shard": text, "record": whole(), "subset": optional(text)})
_PASSAGE = record(
    {
        "matches": whole(0, MAX_CONTINUATION_TOKENS),
        "leading": whole(0, MAX_CONTINUATION_TOKENS),
        "distinct_tokens": whole(),
        "prompt": text,
        "continuation": items(record({"text": text, "is_right": flag})),
        "seen_at_steps": items(record({"step": whole(), "times": whole(1)})),
        "documents": items(_DOCUMENT),
    },
    {"row": whole(), "repeats": whole()},
)
_SUMMARY = record(
    {
        "n_rows": whole(),
        "n_left_out": whole(),
        "prompt_tokens": whole(1),
        "continuation_tokens": whole(1, MAX_CONTINUATION_TOKENS),
        "checkpoints": items(record(_TABLE)),
        "passages": items(_PASSAGE),
    },
    # Studies of earlier versions have none.
    {"n_padded": whole()},
)


def read_summary(path: Path, steps: int) -> Summary:
    """`memorization.json` of a study of a run of `steps` steps.

    Raises:
        FormatError: A value that no study writes, or checkpoints that do not fit each other.
        OSError: It cannot be read.
    """
    found = cast(Summary, read_object(path, _SUMMARY))
    tables = found["checkpoints"]
    numbers = [table["step"] for table in tables]
    if not numbers or numbers != sorted(set(numbers)) or numbers[-1] > steps:
        raise FormatError(f"checkpoints are not steps from 0 to {steps}, ascending ({path})")
    levels = [level["repeats"] for level in tables[0]["canaries"]]
    for table in tables:
        if [level["repeats"] for level in table["canaries"]] != levels or levels != sorted(set(levels)):
            raise FormatError(f"canaries of step {table['step']} have other levels of repeats ({path})")
        for group in (table["seen"], table["unseen"], *table["canaries"]):
            _check_group(group, f"step {table['step']}", path)
    for passage in found["passages"]:
        last = max((seen["step"] for seen in passage["seen_at_steps"]), default=-1)
        if any("shard" in origin and "record" not in origin for origin in passage["documents"]):
            raise FormatError(f"a passage's document has a shard and no record ({path})")
        if last >= steps:
            raise FormatError(f"a passage was seen at step {last} of a run of {steps} ({path})")
    return found


def _check_group(group: Group, name: str, path: Path) -> None:
    is_empty = group["n"] == 0
    values = (group["mean_score"], group["share_memorized"])
    if any((value is None) != is_empty for value in values) or group["n_memorized"] > group["n"]:
        raise FormatError(
            f"a group of {counted(group['n'], 'sequence')} has contradictory scores ({path}, {name})"
        )


def read_canaries(path: Path, summary: Summary) -> CanaryFile:
    """`canaries.json` of the study whose summary this is.

    Raises:
        FormatError: A value that no study writes, or other checkpoints than the summary's.
        OSError: It cannot be read.
    """
    steps, n_tokens = [table["step"] for table in summary["checkpoints"]], summary["continuation_tokens"]
    counts: Check = items(whole(0, n_tokens), len(steps))
    canary = {
        "text": text,
        "repeats": whole(),
        "n_seen": items(whole(), len(steps)),
        "matches": counts,
        "leading": counts,
    }
    check = record({"checkpoints": items(whole()), "canaries": items(record(canary))})
    found = cast(CanaryFile, read_object(path, check))
    if found["checkpoints"] != steps or not found["canaries"]:
        raise FormatError(f"not the canaries of the study's checkpoints ({path})")
    return found
