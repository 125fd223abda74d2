"""Reads GPT-NeoX's YAML files: untrusted, of bounded size and depth, each key once.

GPT-NeoX reads several files as one configuration, `-` in a key as `_`, and refuses a key of two files, if it
is spelled alike. Here both spellings are one key.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pile_tools import checked
from pile_tools.config import MAX_INTEGER, MIN_INTEGER
from pile_tools.errors import ConfigError, FormatError

#: The largest file that is read, in bytes: published ones have under 5 kB.
MAX_BYTES = 1 << 20

#: Nesting of maps and lists. `attention_config` has 4.
MAX_DEPTH = 16


def read_files(paths: Sequence[Path]) -> dict[str, Any]:
    """The values of several files by key, `_` in keys, each value one of JSON's.

    Raises:
        FormatError: Not such a file, a key that occurs twice, a number that is not finite or beyond 64
            bits, or text with half of a surrogate pair.
        ConfigError: PyYAML is not installed.
        OSError: A file cannot be read.
    """
    merged: dict[str, Any] = {}
    source: dict[str, Path] = {}
    for path in paths:
        for key, value in parse(checked.read_bytes(path, MAX_BYTES), path).items():
            if key in merged:
                raise FormatError(f"key {key!r} is in {source[key]} too ({path})")
            merged[key], source[key] = value, path
    return merged


def parse(data: bytes, path: Path | str) -> dict[str, Any]:
    """The values of one file by key; `path` names it in messages.

    Raises:
        FormatError, ConfigError: As `read_files`.
    """
    yaml = _yaml()
    try:
        text = data.decode()
        values = _loader(yaml)(text).get_single_data()
    except UnicodeDecodeError as err:
        raise FormatError(f"not a YAML file of GPT-NeoX: not UTF-8 ({path})") from err
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as err:
        raise FormatError(f"not a YAML file of GPT-NeoX: {_reason(err)} ({path})") from err
    if not isinstance(values, dict):
        raise FormatError(f"not a YAML file of GPT-NeoX: expected keys and values ({path})")
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_") if isinstance(key, str) else repr(key)
        if name in found:
            raise FormatError(f"key {name!r} occurs twice ({path})")
        found[name] = value
    return found


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as err:
        raise ConfigError("reading YAML needs PyYAML: pip install pyyaml") from err
    return yaml


def _loader(yaml: Any) -> Any:
    """PyYAML's safe loader, which makes plain values only, with limits."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Refuses aliases, by which a small file becomes a large value, and keys that occur twice."""

        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                mark = self.peek_event().start_mark
                raise yaml.YAMLError(f"line {mark.line + 1} has an alias, which is not read")
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise yaml.YAMLError(f"nested more than {MAX_DEPTH} deep")
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = [child.value for child, _ in node.value if isinstance(child.value, str)]
            if len(set(names)) < len(names):
                name = next(name for name in names if names.count(name) > 1)
                raise yaml.YAMLError(f"key {name[:40]!r} occurs twice")
            return super().construct_mapping(node, deep)

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            try:
                value = super().construct_object(node, deep)
            except yaml.YAMLError:
                raise
            except Exception as err:
                # PyYAML raises whatever a conversion does for a text that is not of its tag, as in `!!int x`.
                kind = node.tag.rpartition(":")[2]
                raise yaml.YAMLError(
                    f"line {node.start_mark.line + 1} has a value that is no {kind}"
                ) from err
            if isinstance(value, float) and not math.isfinite(value):
                raise yaml.YAMLError(f"line {node.start_mark.line + 1} has a number that is not finite")
            # Texts of other bases than ten have no limit in Python, but a message could not print them.
            if isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
                raise yaml.YAMLError(f"line {node.start_mark.line + 1} has a number beyond 64 bits")
            # YAML's escapes can make half of a pair, as JSON's can.
            if isinstance(value, str) and not checked.is_utf8(value):
                raise yaml.YAMLError(
                    f"line {node.start_mark.line + 1} has text with half of a surrogate pair"
                )
            if value is not None and not isinstance(value, (bool, int, float, str, list, dict)):
                kind = type(value).__name__
                raise yaml.YAMLError(f"line {node.start_mark.line + 1} has a value of type {kind}")
            return value

    return Loader


def _reason(err: Exception) -> str:
    """A parser's message on one line, with the line and column that it names."""
    if isinstance(err, RecursionError):
        return "nested too deep"
    mark, problem = getattr(err, "problem_mark", None), getattr(err, "problem", None)
    if problem and mark is not None:
        return f"{problem}, line {mark.line + 1}, column {mark.column + 1}"
    return " ".join(str(err).split())[:200]
