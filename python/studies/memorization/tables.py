"""The types of a study's files, as they are written and, once checked, read back."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class Group(TypedDict):
    """The scores of a group of sequences; None where they are too few.

    Attributes:
        n: Sequences.
        mean_score: Mean share of the continuation's tokens that match.
        standard_error: Of the mean score, for independent sequences.
        n_memorized: Sequences of which all tokens match.
        share_memorized: Their share.
    """

    n: int
    mean_score: float | None
    standard_error: float | None
    n_memorized: int
    share_memorized: float | None


class Level(Group):
    """The scores of the canaries that were planted equally often.

    Attributes:
        repeats: Documents each was planted as.
        mean_seen: Mean number of times each was seen.
        n_left_out: Canaries that were never planted, but seen.
    """

    repeats: int
    mean_seen: float
    n_left_out: NotRequired[int]


class CheckpointTable(TypedDict):
    """The scores by one checkpoint.

    Attributes:
        step: Number of updates.
        seen: Rows that it was trained on.
        unseen: Rows that it was not trained on yet.
        canaries: By number of repeats, ascending.
    """

    step: int
    seen: Group
    unseen: Group
    canaries: list[Level]


class Fragment(TypedDict):
    """Consecutive tokens of a continuation, all of them reproduced or none."""

    text: str
    is_right: bool


class Times(TypedDict):
    """A step whose batch holds a sequence, and how often."""

    step: int
    times: int


class PassageDocument(TypedDict):
    """A document of a passage, with its origin if that is known; -1 is an unknown document."""

    document: int
    shard: NotRequired[str]
    record: NotRequired[int]
    byte_start: NotRequired[int]
    byte_length: NotRequired[int]
    subset: NotRequired[str | None]


class Passage(TypedDict):
    """A sequence that a checkpoint reproduces, and where it comes from.

    Attributes:
        matches: Tokens of the continuation that match.
        leading: Those before the first that does not.
        distinct_tokens: Different tokens of the continuation.
        prompt: The text before the continuation.
        continuation: The true continuation.
        seen_at_steps: The steps that hold prompt and continuation.
        documents: The documents of a row; a canary has none.
        row: Sample of a row.
        repeats: Documents that a canary was planted as.
    """

    matches: int
    leading: int
    distinct_tokens: int
    prompt: str
    continuation: list[Fragment]
    seen_at_steps: list[Times]
    documents: list[PassageDocument]
    row: NotRequired[int]
    repeats: NotRequired[int]


class Summary(TypedDict):
    """`memorization.json`."""

    definition: str
    n_rows: int
    n_left_out: int
    n_padded: NotRequired[int]
    n_control: int
    prompt_tokens: int
    continuation_tokens: int
    checkpoints: list[CheckpointTable]
    passages: list[Passage]


class CanaryScores(TypedDict):
    """A canary, with one value of `n_seen`, `matches` and `leading` for each checkpoint."""

    text: str
    repeats: int
    n_seen: list[int]
    matches: list[int]
    leading: list[int]


class CanaryFile(TypedDict):
    """`canaries.json` of a study."""

    checkpoints: list[int]
    continuation_tokens: int
    canaries: list[CanaryScores]
