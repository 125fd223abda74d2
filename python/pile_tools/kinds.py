"""Schemas of the settings and summaries in manifests, by kind of artifact.

A shape is a function that checks one value, a dictionary from an object's keys to shapes, or a list with the
shape of its items. A key that ends with `?` may be missing, and no others may be there. Null is allowed only
by `_or_null`. What several values have in common is checked by the rules: commands print and draw what is in
a finished artifact, whose manifest may come from anyone, and rely on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from pile_tools.checked import MAX_SEED, Values

Shape: TypeAlias = Any

#: Documents that `dedup` takes at most: the core numbers them with 32 bits.
MAX_DOCUMENTS = (1 << 32) - 2

#: The largest id of a token, an int32.
MAX_TOKEN = (1 << 31) - 1

#: Characters of a listed match and its item at most: comparing them word by word takes the square of this.
MAX_EXCERPT = 2_000

#: Bytes of the name of a subset at most, as in records.
MAX_SUBSET_BYTES = 255

#: Pictures of a report at most: each becomes a part of the page. `vqgan-clip demo` makes six.
MAX_PICTURES = 16


def _count(values: Values, key: str) -> None:
    values.integer(key)


def _seed(values: Values, key: str) -> None:
    values.integer(key, at_most=MAX_SEED)


def _number(values: Values, key: str) -> None:
    values.number(key)


def _text(values: Values, key: str) -> None:
    values.text(key)


def _os_text(values: Values, key: str) -> None:
    # Bytes of a name that are not UTF-8 are half of a surrogate pair each (PEP 383), which `text` refuses.
    if not isinstance(values.values.get(key), str):
        raise values.refuse(key, "text")


def _flag(values: Values, key: str) -> None:
    values.flag(key)


def _digest(values: Values, key: str) -> None:
    values.hexadecimal(key)


def _token(values: Values, key: str) -> None:
    values.integer(key, at_most=MAX_TOKEN)


def _subset(values: Values, key: str) -> None:
    if len(values.text(key).encode()) > MAX_SUBSET_BYTES:
        raise values.refuse(key, f"the name of a subset, at most {MAX_SUBSET_BYTES} bytes")


def _excerpt(values: Values, key: str) -> None:
    if len(values.text(key)) > MAX_EXCERPT:
        raise values.refuse(key, f"text of at most {MAX_EXCERPT:,} characters")


def _token_type(values: Values, key: str) -> None:
    values.text(key, ("uint16", "int32"))


def _positive(values: Values, key: str) -> None:
    values.integer(key, at_least=1)


def _zero(values: Values, key: str) -> None:
    if values.integer(key):
        raise values.refuse(key, "0")


def _empty(values: Values, key: str) -> None:
    if values.integers(key):
        raise values.refuse(key, "an empty list")


def _null(values: Values, key: str) -> None:
    if values.has(key):
        raise values.refuse(key, "null")


def _rank_and_count(values: Values, key: str) -> None:
    if len(values.integers(key, at_least=1)) != 2:
        raise values.refuse(key, "a rank and a count")


def _similarity_and_probability(values: Values, key: str) -> None:
    numbers = values.items_of(key, lambda items, name: items.number(name))
    if len(numbers) != 2 or not all(0 <= number <= 1 for number in numbers):
        raise values.refuse(key, "a similarity and a probability")


def _or_null(shape: Shape) -> Callable[[Values, str], None]:
    def check(values: Values, key: str) -> None:
        if values.has(key):
            check_shape(values, key, shape)

    return check


_RECORDS = {"text_field?": _text, "on_bad_record?": _text, "max_record?": _count}

_PASSED_OVER = {"passed_over?": {"n": _count, "first": [{"path": _os_text, "reason": _os_text}]}}

_SUBSET = {"name": _or_null(_text), "n_documents": _count, "n_tokens": _count, "n_text_bytes?": _count}

_SHARD = {
    "path": _os_text,
    "bytes": _count,
    "sha256": _digest,
    "n_records": _count,
    "n_text_bytes": _count,
}

_CURVE = {"term": _text, "occurrences": [_count]}

#: Counts by Pythia's arithmetic rule have other settings and another summary than those of terms, and so do
#: near duplicates and exact copies.
_ARITHMETIC, _NEAR = "terms, pythia-arithmetic", "deduplicated, near"

_BAD_RECORDS = {"n": _count, "first": [{"record": _count, "byte": _count, "reason": _text}]}

_RANKS = [_rank_and_count]

_DEDUPLICATED = {
    "method": _text,
    "normalize": _text,
    "prefer": _text,
    "mark": _flag,
    "dry_run": _flag,
    **_RECORDS,
}

_DEDUPLICATED_SUMMARY = {
    **_PASSED_OVER,
    "n_documents": _count,
    "n_text_bytes": _count,
    "n_removed": _count,
    "n_removed_bytes": _count,
    "n_marked": _count,
    "n_exact_copies": _count,
    "n_clusters": _count,
    "largest_cluster": _count,
    "n_bad_records?": _count,
    "n_candidates": _count,
    "n_verified": _count,
    "n_capped_buckets": _count,
    "subsets": [
        {
            "name": _or_null(_text),
            "n_documents": _count,
            "n_text_bytes": _count,
            "n_removed": _count,
            "n_removed_bytes": _count,
        }
    ],
}

#: Shapes of settings by kind. Those of an order are checked where they are interpreted, in `order`.
SETTINGS: Mapping[str, Shape] = {
    "shards": {"megabytes": _number, "shards": _count, "seed": _seed, "canaries": _flag, "python": _text},
    "deduplicated": _DEDUPLICATED,
    _NEAR: {
        **_DEDUPLICATED,
        "threshold": _text,
        "shingle": _text,
        "verify": _text,
        "permutations": _count,
        "max_cluster": _count,
        "large_clusters": _flag,
        "unverified?": _flag,
    },
    "passages": {"length?": _count, "min_tokens?": _count, "dry_run": _flag, **_RECORDS},
    "signatures": {
        "shingle": _text,
        "permutations": _count,
        "normalize": _text,
        "function": _digest,
        **_RECORDS,
    },
    "lsh-index": {
        "threshold": _text,
        "permutations": _count,
        "bands": _count,
        "rows": _count,
        "signatures": _digest,
    },
    "contamination": {
        "task": _text,
        "ngram": _count,
        "threshold": _text,
        "max_gap": _count,
        "purify?": _text,
        "task_items?": _digest,
        "checkpoints?": [_count],
        "batch_size?": _count,
        **_RECORDS,
    },
    "tokenizer": {
        "vocab_size": _count,
        "min_frequency": _count,
        "special_tokens": [_text],
        **_RECORDS,
    },
    "tokens": {
        "eod?": _or_null(_text),
        "eod_id?": _or_null(_token),
        "add_special_tokens?": _flag,
        "part?": _text,
        "part_of?": _digest,
        **_RECORDS,
    },
    "token-shards": {"shard_bytes": _positive},
    "token-file": {},
    "labels": {"eod": _or_null(_text), "add_special_tokens?": _flag, **_RECORDS},
    "index": {"texts": _flag, "memory_bytes": _count},
    "pictures": {"steps": _count, "views": _count, "weights": _text},
    "toy": {"vqgan_steps": _count, "clip_steps": _count, "adversarial_steps": _count, "seed": _seed},
    "model": {"format": _text, "step": _or_null(_count)},
    "ngrams": {
        "n": [_count],
        "min_count": _count,
        "top": _or_null(_count),
        "across_documents": _flag,
        "by_subset": _flag,
        "has_text?": _flag,
        "ignore_case?": _flag,
        "rule?": _text,
        "subset_columns?": _text,
        **_RECORDS,
    },
    "terms": {
        "rule": _text,
        "normalizer?": _text,
        "whole_words?": _flag,
        "ignore_case?": _flag,
        "by_subset?": _flag,
        "within?": _text,
        "n_pairs?": _count,
        "steps?": [_count],
        "batch_size?": _or_null(_count),
        **_RECORDS,
    },
    _ARITHMETIC: {"rule": _text, "steps": [_count], "batch_size?": _or_null(_count)},
}

#: Shapes of summaries by kind.
SUMMARIES: Mapping[str, Shape] = {
    "shards": {
        "n_documents": _count,
        "n_text_bytes": _count,
        "is_complete": _flag,
        "subsets": [{"name": _text, "n_documents": _count, "n_text_bytes": _count}],
    },
    "deduplicated": {
        **_DEDUPLICATED_SUMMARY,
        "n_left_alone": _zero,
        "bands": _null,
        "curve": _empty,
        "histogram": _empty,
    },
    _NEAR: {
        **_DEDUPLICATED_SUMMARY,
        "n_estimated?": _count,
        "n_left_alone": _count,
        "bands": {"bands": _count, "rows": _count},
        "curve": [_similarity_and_probability],
        "histogram": [_count],
    },
    "lsh-index": {"n_documents": _count},
    "signatures": {
        **_PASSED_OVER,
        "n_documents": _count,
        "shards": [
            {"n_documents": _count, "n_records": _count, "n_text_bytes": _count, "n_bad_records": _count}
        ],
        "subsets": [_or_null(_subset)],
    },
    "passages": {
        **_PASSED_OVER,
        "n_documents": _count,
        "n_text_bytes": _count,
        "n_repeated_bytes": _count,
        "n_passages": _count,
        "n_bad_records": _count,
        "subsets": [
            {
                "name": _or_null(_text),
                "n_documents": _count,
                "n_text_bytes": _count,
                "n_repeated_bytes": _count,
            }
        ],
    },
    "contamination": {
        **_PASSED_OVER,
        "n_documents": _count,
        "n_bad_records?": _count,
        "n_tokens?": _count,
        "n_items": _positive,
        "n_grams": _count,
        "n_found_grams": _count,
        "n_candidates": _count,
        "n_verbatim": _count,
        "n_normalized": _count,
        "n_partial": _count,
        "n_with_answer": _count,
        "n_too_common": _count,
        "n_too_short": _count,
        "n_clean": _count,
        "n_matches": _count,
        "n_seen_items?": _count,
        "n_purified?": _count,
        "n_cut_bytes?": _or_null(_count),
        "harness?": {
            "version": _text,
            "task_version": _or_null(_text),
            "split": _text,
            "dataset": _or_null(_text),
            "subset": _or_null(_text),
            "template": [_text],
        },
        "worst": [
            {
                "item": _count,
                "id": _or_null(_text),
                "part": _text,
                "kind": _text,
                "score": _number,
                "answer_score": _or_null(_number),
                "n_documents": _count,
                "document": _os_text,
                "first_step?": _or_null(_count),
                "last_step?": _or_null(_count),
                "item_text": _excerpt,
                "text": _excerpt,
            }
        ],
    },
    "tokenizer": {
        **_PASSED_OVER,
        "n_documents": _count,
        "n_text_bytes": _count,
        "vocab_size": _count,
        "n_merges": _count,
        "n_bad_records": _count,
    },
    "tokens": {
        **_PASSED_OVER,
        "dtype": _token_type,
        "n_documents": _count,
        "n_tokens": _count,
        "shards": [
            {
                **_SHARD,
                "first_document": _count,
                "n_empty": _count,
                "n_lone_surrogates": _count,
                "bad_records": _BAD_RECORDS,
            }
        ],
        "subsets": [_SUBSET],
        "vocab_size?": _count,
        "eod?": _or_null(_text),
        "parts?": [
            {
                "path": _os_text,
                "first_document": _count,
                "n_documents": _count,
                "n_tokens": _count,
                "is_document_array_lost": _flag,
                "has_provenance": _flag,
            }
        ],
    },
    "token-shards": {"bytes": _count},
    "token-file": {"bytes": _count},
    "labels": {
        **_PASSED_OVER,
        "n_documents": _count,
        "n_tokens": _count,
        "has_eod": _flag,
        "n_found": _count,
        "n_by_order": _count,
        "n_ambiguous": _count,
        "n_texts": _count,
        "n_bad_records": _count,
        "n_other_texts": _count,
        "shards": [{**_SHARD, "n_documents": _count}],
        "subsets": [_SUBSET],
    },
    "index": {
        "n_documents": _count,
        "n_tokens": _count,
        "n_ids": _count,
        "has_bytes": _flag,
        "end_of_document": _or_null(_token),
        "n_segments": _count,
    },
    "pictures": {"pictures": [{"path": _os_text, "prompts": _text, "about": _text}]},
    "model": {"n_parameters": _count, "vocab_size": _count, "dtype": _text},
    "toy": {"n_bytes": _count, "psnr_db": _number, "torch": _text},
    "ngrams": {
        **_PASSED_OVER,
        "n_documents": _count,
        "n_tokens?": _count,
        "n_bad_records?": _count,
        "lengths": [
            {
                "n": _count,
                "n_distinct": _count,
                "n_occurrences": _count,
                "n_retained": _count,
                "ranks": _RANKS,
            }
        ],
        "groups?": [{"name": _or_null(_text)}],
    },
    "terms": {
        **_PASSED_OVER,
        "n_documents?": _count,
        "n_tokens?": _count,
        "n_bad_records?": _count,
        "n_terms": _count,
        "n_equal": _count,
        "n_normalized?": _count,
        "n_found": _count,
        "n_occurrences": _count,
        "best": [{"number": _count, "term": _text, "occurrences": _count, "units": _count}],
        "ranks": _RANKS,
        "steps?": [_count],
        "curves?": [_CURVE],
    },
    _ARITHMETIC: {
        "n_keys": _count,
        "n_counts": _count,
        "best": [{"term": _text, "occurrences": _count}],
        "steps": [_count],
        "curves": [_CURVE],
    },
    "order": {
        "n_samples": _count,
        "n_epochs?": _or_null(_count),
        "has_separate_epoch?": _flag,
        "tokens_per_epoch?": _count,
        "n_documents?": _count,
        "replaced_by_gpt_neox?": [_count],
        "epochs_of_datasets?": [_or_null(_count)],
        "samples_of_datasets?": [_count],
    },
}


def _check_near(settings: Values, summary: Values) -> None:
    if "unverified" in settings.values and settings.flag("unverified"):
        summary.integer("n_estimated")


def _check_contamination(settings: Values, summary: Values) -> None:
    for one in summary.objects("worst"):
        if one.has("first_step") and not one.has("last_step"):
            raise one.refuse("first_step", "null, as there is no last_step")


def _check_tokens(settings: Values, summary: Values) -> None:
    if "part" in settings.values:
        settings.text("part_of")


def _check_signatures(settings: Values, summary: Values) -> None:
    names = summary.items_of("subsets", lambda items, name: items.values[name])
    if len(set(names)) < len(names):
        raise summary.refuse("subsets", "names that differ")
    n_documents = 0
    for shard in summary.objects("shards"):
        n_bad, n_documents = shard.integer("n_bad_records"), n_documents + shard.integer("n_documents")
        if n_bad and settings.values.get("on_bad_record") == "error":
            raise shard.refuse("n_bad_records", "0, as a bad record is an error")
        if n_bad > shard.integer("n_records") - shard.integer("n_documents"):
            raise shard.refuse("n_bad_records", "at most the records without a document")
    if n_documents > MAX_DOCUMENTS:
        raise summary.refuse("shards", f"at most {MAX_DOCUMENTS:,} documents")


def _check_pictures(settings: Values, summary: Values) -> None:
    if len(summary.objects("pictures")) > MAX_PICTURES:
        raise summary.refuse("pictures", f"at most {MAX_PICTURES} pictures")


def _check_ngrams(settings: Values, summary: Values) -> None:
    if [of.integer("n") for of in summary.objects("lengths")] != settings.integers("n"):
        raise summary.refuse("lengths", "those of the settings")


def _check_terms(settings: Values, summary: Values) -> None:
    if "normalizer" in settings.values:
        summary.integer("n_normalized")
    if "steps" in settings.values or "steps" in summary.values or "curves" in summary.values:
        _check_curves(settings, summary)


def _check_curves(settings: Values, summary: Values) -> None:
    n_steps = len(summary.integers("steps"))
    for curve in summary.objects("curves"):
        if len(curve.integers("occurrences")) != n_steps:
            raise curve.refuse("occurrences", "a count for each step")


#: Rules of kinds whose settings and summary have their shapes.
_RULES: Mapping[str, Callable[[Values, Values], None]] = {
    _NEAR: _check_near,
    "contamination": _check_contamination,
    "signatures": _check_signatures,
    "tokens": _check_tokens,
    "pictures": _check_pictures,
    "ngrams": _check_ngrams,
    "terms": _check_terms,
    _ARITHMETIC: _check_curves,
}


def check(kind: str, settings: Values, summary: Values) -> None:
    """Checks the settings and summary of a manifest. Kinds without a shape pass. Raises FormatError."""
    kind = _form(kind, settings)
    if kind in SETTINGS:
        _check_object(settings, SETTINGS[kind])
    if kind in SUMMARIES:
        _check_object(summary, SUMMARIES[kind])
    if kind in _RULES:
        _RULES[kind](settings, summary)


def _form(kind: str, settings: Values) -> str:
    """The kind, or the name of one of its forms, which has shapes of its own."""
    if kind == "terms" and settings.text("rule") == "pythia-arithmetic":
        return _ARITHMETIC
    if kind == "deduplicated" and settings.text("method", ("exact", "near")) == "near":
        return _NEAR
    return kind


def check_shape(values: Values, key: str, shape: Shape) -> None:
    """Checks the value at a key of an object against a shape. Raises FormatError."""
    if isinstance(shape, dict):
        _check_object(values.object(key), shape)
    elif isinstance(shape, list):
        values.items_of(key, lambda items, name: check_shape(items, name, shape[0]))
    else:
        shape(values, key)


def _check_object(values: Values, shape: Mapping[str, Shape]) -> None:
    required = [name for name in shape if not name.endswith("?")]
    optional = [name.removesuffix("?") for name in shape if name.endswith("?")]
    values.require_keys(required, optional)
    for name, inner in shape.items():
        if (key := name.removesuffix("?")) in values.values:
            check_shape(values, key, inner)
