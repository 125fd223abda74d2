"""Writes the docstrings of the Rust core to its stub, `python/pile_tools/_core.pyi`.

The doc comments in `rust/pile-py` are the source. Run by `make stub` after they changed.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pile_tools import _core

STUB = Path(__file__).parents[1] / "python" / "pile_tools" / "_core.pyi"

Documented = ast.Module | ast.ClassDef | ast.FunctionDef


def documented(stub: str) -> Iterator[tuple[str, Documented, Any]]:
    """The module and each class, method, property and function of a stub: name, node and runtime object.

    Special methods are left out: Python gives them docstrings of its own. Their class documents them.
    """
    module = ast.parse(stub)
    yield _core.__name__, module, _core
    for node in module.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name, node, getattr(_core, node.name)
        if isinstance(node, ast.ClassDef):
            for member in node.body:
                if isinstance(member, ast.FunctionDef) and not member.name.startswith("__"):
                    value = getattr(getattr(_core, node.name), member.name)
                    yield f"{node.name}.{member.name}", member, value


def with_docstrings(stub: str) -> str:
    """The stub with the docstrings of the core that is installed."""
    lines = stub.splitlines()
    # From the last to the first, so that the line numbers of the others stay right.
    for name, node, value in reversed(list(documented(stub))):
        if ast.get_docstring(node) is None or not value.__doc__:
            raise SystemExit(f"{name} has no docstring, in the core or in the stub; write one, of any text")
        old = node.body[0]
        text = value.__doc__ if "\n" not in value.__doc__ else value.__doc__ + "\n"
        new = f'"""{text}"""'.split("\n")
        indent = " " * old.col_offset
        lines[old.lineno - 1 : old.end_lineno] = [(indent + line).rstrip() for line in new]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    STUB.write_text(with_docstrings(STUB.read_text(encoding="utf-8")), encoding="utf-8")
