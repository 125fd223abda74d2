"""The colours of charts, each with its counterpart on a dark page."""

from __future__ import annotations

#: Background, text, secondary text, lines of a grid, and a line that another one summarizes.
PAPER, INK, GREY, GRID, PALE = "#ffffff", "#24292f", "#6e7781", "#e4e7eb", "#9ecae1"
#: After Okabe and Ito, whose colours colour-blind readers can distinguish.
SERIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a800", "#7f7f9f")
#: The colour of all further series.
OTHERS = "#c9ced6"
#: Colours of a quantity, from little to much, and the colour of none of it, which base lines have too.
SCALE, NONE = ("#f2b134", "#e8743b", "#c0356a", "#6a1f8a", "#2b0f54"), "#8c959f"

_DARK = {
    PAPER: "#16181c",
    INK: "#e6e8eb",
    GREY: "#a0a7b0",
    GRID: "#30353c",
    PALE: "#35607d",
    **dict(
        zip(
            SERIES,
            ("#4aa3df", "#f0b429", "#2fbf91", "#d98fb8", "#8fd3f7", "#f0723a", "#dcd24a", "#a3a3c6"),
            strict=True,
        )
    ),
    OTHERS: "#565d68",
    **dict(zip(SCALE, ("#ffd166", "#f79256", "#ef5d8f", "#bd7cf0", "#a9b1ff"), strict=True)),
    NONE: "#8c959f",
}


def of_series(i: int) -> str:
    """The colour of series `i`; all series beyond the colours share one."""
    return SERIES[i] if i < len(SERIES) else OTHERS


def dark_rules() -> str:
    """CSS that recolors charts on a dark page.

    Charts have plain attributes, which every program that shows SVG knows; rules of a style sheet override
    attributes.
    """
    return "\n".join(
        f'svg [fill="{light}"] {{ fill: {dark}; }} svg [stroke="{light}"] {{ stroke: {dark}; }}'
        for light, dark in _DARK.items()
    )
