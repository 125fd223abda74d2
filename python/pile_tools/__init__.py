"""Tools for text at the size of the Pile: read, tokenize, order, and trace every token.

>>> import pile_tools
>>> tokenizer = pile_tools.Tokenizer.from_file("tokenizer.json")  # doctest: +SKIP
>>> tokenizer.encode("Every token can be traced.")  # doctest: +SKIP

A module is imported when one of these names is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pile_tools._core import MinHasher, TokenDataset, Tokenizer, TrainingOrder
    from pile_tools.errors import ConfigError, FormatError, OutputExistsError, PileError, VerifyError
    from pile_tools.jobs.count_ngrams import ngrams
    from pile_tools.jobs.dedup import dedup
    from pile_tools.jobs.tokenize import tokenize
    from pile_tools.lsh import LshIndex
    from pile_tools.order.open import open_order
    from pile_tools.order.order import Order
    from pile_tools.search import Index, open_index
    from pile_tools.tokenizers import load_tokenizer

    __version__: str

_MODULES = {
    "ConfigError": "pile_tools.errors",
    "FormatError": "pile_tools.errors",
    "Index": "pile_tools.search",
    "LshIndex": "pile_tools.lsh",
    "MinHasher": "pile_tools._core",
    "Order": "pile_tools.order.order",
    "OutputExistsError": "pile_tools.errors",
    "PileError": "pile_tools.errors",
    "TokenDataset": "pile_tools._core",
    "Tokenizer": "pile_tools._core",
    "TrainingOrder": "pile_tools._core",
    "VerifyError": "pile_tools.errors",
    "dedup": "pile_tools.jobs.dedup",
    "load_tokenizer": "pile_tools.tokenizers",
    "ngrams": "pile_tools.jobs.count_ngrams",
    "open_index": "pile_tools.search",
    "open_order": "pile_tools.order.open",
    "tokenize": "pile_tools.jobs.tokenize",
}

__all__ = [
    "ConfigError",
    "FormatError",
    "Index",
    "LshIndex",
    "MinHasher",
    "Order",
    "OutputExistsError",
    "PileError",
    "TokenDataset",
    "Tokenizer",
    "TrainingOrder",
    "VerifyError",
    "__version__",
    "dedup",
    "load_tokenizer",
    "ngrams",
    "open_index",
    "open_order",
    "tokenize",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("pile-tools")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
