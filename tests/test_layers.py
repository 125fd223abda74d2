"""Packages import downward only, the data tools without torch, and the wheel holds every package."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / "python"
ALLOWED = {
    "pile_tools": {"pile_tools"},
    "trainer": {"pile_tools", "trainer"},
    "studies": {"pile_tools", "trainer", "studies"},
}
HEAVY = {"torch", "deepspeed", "transformers", "matplotlib"}

#: Rooms of `pile_tools`: commands use stages, stages use the modules below, never the other way.
ROOMS = ["", "stages", "commands"]


def imported(path: Path) -> set[str]:
    """The dotted names a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_go_downward(package: str) -> None:
    forbidden = (set(ALLOWED) - ALLOWED[package]) | (HEAVY if package == "pile_tools" else set())
    files = sorted((PYTHON / package).rglob("*.py"))
    assert files, f"no such package: {package}"
    for path in files:
        assert not {name.split(".")[0] for name in imported(path)} & forbidden, path


def room(name: str) -> int:
    """The room of a module of `pile_tools`, by its dotted name."""
    part = name.split(".")[1] if name.count(".") >= 1 else ""
    return ROOMS.index(part) if part in ROOMS else 0


def test_rooms_of_the_data_tools_are_used_downward() -> None:
    for path in (PYTHON / "pile_tools").rglob("*.py"):
        name = ".".join(path.relative_to(PYTHON).with_suffix("").parts)
        # The command line names its commands and imports none until asked; the package shows its rooms.
        if name not in ("pile_tools.cli", "pile_tools.__init__"):
            for used in imported(path):
                assert not used.startswith("pile_tools.") or room(used) <= room(name), (path, used)


def test_only_the_engine_knows_deepspeed() -> None:
    users = [p for p in PYTHON.rglob("*.py") if "deepspeed" in {n.split(".")[0] for n in imported(p)}]
    assert [path.name for path in users] == ["engine.py"]


def test_only_one_stage_knows_ray() -> None:
    users = [p for p in PYTHON.rglob("*.py") if "ray" in {n.split(".")[0] for n in imported(p)}]
    assert [path.name for path in users] == ["distributed.py"]


@pytest.mark.parametrize("module", ["pile_tools.cli", "trainer.cli", "studies.cli"])
def test_help_needs_no_torch(module: str) -> None:
    program = (
        f"import sys\nfrom {module} import main\nsys.argv = ['x', '--help']\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code\n"
        f"assert not {HEAVY | {'ray'}!r} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_the_wheel_lists_every_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["maturin"]["python-packages"]
    assert sorted(listed) == sorted(p.parent.name for p in PYTHON.glob("*/__init__.py"))
