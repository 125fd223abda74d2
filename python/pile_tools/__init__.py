"""Tools for text at the size of the Pile: read, tokenize, order, and trace every token.

>>> import pile_tools
>>> tokenizer = pile_tools.Tokenizer.from_file("tokenizer.json")  # doctest: +SKIP
>>> tokenizer.encode("Every token can be traced.")  # doctest: +SKIP
"""

from importlib.metadata import version

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

__version__ = version("pile-tools")

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
