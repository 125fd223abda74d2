"""The stub of the Rust core, which IDEs read, has the docstrings of the core."""

from __future__ import annotations

import ast
import inspect
import runpy
from pathlib import Path

from pile_tools import _core

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "stub.py"))
STUB: str = SCRIPT["STUB"].read_text(encoding="utf-8")
DOCUMENTED = {name: (node, value) for name, node, value in SCRIPT["documented"](STUB)}


def test_the_stub_names_everything_public() -> None:
    public = {"pile_tools._core", *_core.__all__}
    for name, value in inspect.getmembers(_core, inspect.isclass):
        public |= {f"{name}.{member}" for member in vars(value) if not member.startswith("__")}
    assert set(DOCUMENTED) == public


def test_docstrings_are_those_of_the_core() -> None:
    differing = {
        name: (ast.get_docstring(node), value.__doc__)
        for name, (node, value) in DOCUMENTED.items()
        if not value.__doc__ or ast.get_docstring(node) != value.__doc__
    }
    assert not differing, "run `make stub`"


def test_the_script_replaces_each_docstring_and_nothing_else() -> None:
    old = STUB
    for node, _ in DOCUMENTED.values():
        # The source of a docstring is unique, or its copies are equal: each is replaced.
        old = old.replace(ast.get_source_segment(STUB, node.body[0]) or "", '"""Old."""')
    assert old.count('"""Old."""') == len(DOCUMENTED)
    assert SCRIPT["with_docstrings"](old) == STUB
