"""When the model saw what: from texts and documents to steps; what repeats; how much of each subset.

Steps and rows are given for a batch size, the order's own or one given. A table is a structured array:
`table["step"]` is a column, `table[0]["step"]` a value of a row.
"""

from pile_tools.timeline.mixture import Mixture, mixture
from pile_tools.timeline.repeats import Repeats, repeats
from pile_tools.timeline.steps import extent
from pile_tools.timeline.terms import TermsInTime, count_arithmetic, count_terms
from pile_tools.timeline.trace import trace
from pile_tools.timeline.when import RULE, Finder, When, when

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
    "mixture",
    "repeats",
    "trace",
    "when",
]
