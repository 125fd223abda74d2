"""Text from data as the content of elements of HTML and SVG."""

from __future__ import annotations

import html

from pile_tools.terminal import escape, escape_text


def markup(text: str) -> str:
    """The text on one line; control characters, which XML forbids, are escaped as on a terminal."""
    return html.escape(escape(text))


def markup_lines(text: str) -> str:
    """The text with its lines and tabs; other control characters are escaped."""
    return html.escape(escape_text(text))
