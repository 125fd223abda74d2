"""When the model saw what: steps of texts and documents, repeated data, and the mixture of subsets.

Steps and rows refer to a batch size: the order's, or the one passed. A table is a structured array:
`table["step"]` is a column, `table[0]["step"]` a value of a row.
"""

from pile_tools.timeline.mixture import Mixture, mixture
from pile_tools.timeline.repeats import Repeats, repeats
from pile_tools.timeline.steps import extent, is_searchable
from pile_tools.timeline.terms import TermsInTime, count_arithmetic, count_terms
from pile_tools.timeline.trace import trace
from pile_tools.timeline.when import RULE, Finder, When, when, when_bytes

__all__ = [
    "RULE",
    "Finder",
    "Mixture",
    "Repeats",
    "TermsInTime",
    "When",
    "count_arithmetic",
    "count_terms",
    "extent",
    "is_searchable",
    "mixture",
    "repeats",
    "trace",
    "when",
    "when_bytes",
]
