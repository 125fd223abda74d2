"""Packages import downward only, the data tools without torch, and the wheel holds every package."""

from __future__ import annotations

import ast
import re
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
    "vqgan_clip": {"pile_tools", "vqgan_clip"},
}
HEAVY = {"torch", "deepspeed", "transformers"}

#: Layers of `pile_tools`, packages or modules, from the lowest: a module imports from its own layer and those
#: before it. Layers on one line have no order among them.
LAYERS = [
    "errors start types",
    "_core",
    "config sizes checked terminal",
    "devices kinds files pickles progress unchanged",
    "torch_files",
    "scratch_folders",
    "manifest",
    "publish http_client tables",
    "http_reads",
    "lsh read tokenizers",
    "tokens",
    "search",
    "order",
    "timeline",
    "contamination",
    "harness",
    "jobs",
    "present",
    "arguments",
    "commands",
    "cli",
    "__init__ __main__",
]


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


def layer(name: str) -> int:
    """The layer of a module of `pile_tools`, by its dotted name."""
    part = name.split(".")[1] if "." in name else "__init__"
    return next(i for i, names in enumerate(LAYERS) if part in names.split())


def modules_used(path: Path) -> set[str]:
    """What a file imports of `pile_tools`, inside functions too; the package's own names as `pile_tools`."""
    used = {name for name in imported(path) if name.split(".")[0] == "pile_tools"}
    parts = {name for names in LAYERS for name in names.split()}
    used = {name for name in used if name != "pile_tools"}
    known = {name for name in used if name.split(".")[1] in parts}
    return known | ({"pile_tools"} if used != known else set())


def test_layers_of_the_data_tools_are_used_downward() -> None:
    package = PYTHON / "pile_tools"
    for path in sorted(package.rglob("*.py")):
        name = ".".join(path.relative_to(PYTHON).with_suffix("").parts).removesuffix(".__init__")
        for used in modules_used(path):
            assert layer(used) <= layer(name), f"{name} uses {used}"


def test_the_extension_imports_nothing_of_the_layers_above_it() -> None:
    named = {
        found
        for path in (ROOT / "rust/pile-py/src").rglob("*.rs")
        for found in re.findall(r'"(pile_tools\.[a-z_.]+)"', path.read_text())
    }
    assert named
    assert {name for name in named if layer(name) > layer("pile_tools._core")} == set()


def test_only_the_engines_know_deepspeed() -> None:
    users = [p for p in PYTHON.rglob("*.py") if "deepspeed" in {n.split(".")[0] for n in imported(p)}]
    assert sorted(path.name for path in users) == ["engine.py", "pipeline.py"]


def test_only_one_module_knows_ray() -> None:
    users = [p for p in PYTHON.rglob("*.py") if "ray" in {n.split(".")[0] for n in imported(p)}]
    assert [path.name for path in users] == ["cluster.py"]


def test_only_the_process_that_loads_tasks_knows_the_harness() -> None:
    users = [p for p in PYTHON.rglob("*.py") if "lm_eval" in {n.split(".")[0] for n in imported(p)}]
    assert [path.name for path in users] == ["worker.py"]


def test_no_path_is_resolved_by_a_method_that_raises_for_circular_links() -> None:
    """`Path.resolve` raises RuntimeError for a link in a circle, which `os.path.realpath` does not."""
    for path in sorted(PYTHON.rglob("*.py")):
        nodes = ast.walk(ast.parse(path.read_text()))
        attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        assert "resolve" not in attributes, path


@pytest.mark.parametrize("module", ["pile_tools.cli", "trainer.cli", "studies.cli", "vqgan_clip.cli"])
def test_help_needs_no_torch(module: str) -> None:
    program = (
        f"import sys\nfrom {module} import main\nsys.argv = ['x', '--help']\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code\n"
        f"assert not {HEAVY | {'ray', 'lm_eval'}!r} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_a_command_that_draws_nothing_imports_no_charts() -> None:
    program = (
        "import sys, pile_tools.commands.tokenize\n"
        "assert not [name for name in sys.modules if name.startswith('pile_tools.present')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_the_wheel_lists_every_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["maturin"]["python-packages"]
    assert sorted(listed) == sorted(p.parent.name for p in PYTHON.glob("*/__init__.py"))
