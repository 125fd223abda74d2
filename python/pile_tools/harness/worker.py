"""Writes the items of a task of lm-evaluation-harness: `python -m pile_tools.harness.worker NAME OUT [DIR]`.

A process of its own, because the harness imports hundreds of modules, prints, and runs the Python of tasks.
It loads the task as the harness itself does, with the user's environment: cache folders, access, offline mode
and what code of datasets may run. `OUT/items.jsonl` gets the items; `OUT/about.json` is written last, with
what is known of the task, or why there are no items. The harness is lm-eval 0.4.12 or later.
"""

from __future__ import annotations

import difflib
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pile_tools.errors import first_line
from pile_tools.harness.items import ABOUT_FILE, ITEMS_FILE, item_of, without_template

#: The harness's own default seeds. Some tasks shuffle their choices when they are loaded.
_SEED, _NUMPY_SEED = 0, 1234

#: Names that are like an unknown one, at most.
_N_LIKE = 3

#: Errors of a network that cannot be reached, by the names of their classes: `requests`, `httpx` and
#: `huggingface_hub` have their own.
_NETWORK_ERRORS = {"ConnectionError", "ConnectError", "ConnectTimeout", "OfflineModeIsEnabled"}


class _NoItemsError(Exception):
    """Why there are no items.

    Attributes:
        about: The object for `about.json`.
    """

    def __init__(self, **about: Any) -> None:
        super().__init__()
        self.about = about


def main(name: str, out: Path, folder: Path | None = None) -> None:
    """Writes the items of the task `name`, which is the harness's or in a YAML file below `folder`."""
    try:
        about = _write(name, out / ITEMS_FILE, folder)
    except _NoItemsError as err:
        about = err.about
    except Exception as err:
        about = {"error": "failed", "reason": _reason(err), "offline": False}
    (out / ABOUT_FILE).write_text(json.dumps(about), encoding="ascii")


def _write(name: str, path: Path, folder: Path | None) -> dict[str, Any]:
    """Writes the items; returns what is known of them."""
    # Imported here, so that a harness that cannot be imported is reported as one.
    from lm_eval.tasks import TaskManager

    if not hasattr(TaskManager, "load"):
        reason = f"lm-eval {version('lm-eval')} is too old, 0.4.12 or later is needed"
        raise _NoItemsError(error="failed", reason=reason, offline=False)
    random.seed(_SEED)
    np.random.seed(_NUMPY_SEED)
    manager = _manager(TaskManager, name, folder)
    entry = manager.task_index.get(name)
    if entry is None:
        like = difflib.get_close_matches(name, manager.all_tasks, _N_LIKE)
        raise _NoItemsError(error="unknown", like=like, own=_below(manager, folder))
    if entry.kind.name in ("GROUP", "TAG"):
        raise _NoItemsError(
            error="several", what=entry.kind.name.lower(), tasks=_tasks_of(name, manager.task_index)
        )
    try:
        [task] = manager.load(name)["tasks"].values()
    except Exception as err:
        raise _failure(err, entry.cfg or {}) from err
    documents = [*task.eval_docs]
    items, template = without_template([*_items(task, documents)], documents)
    if not items:
        raise _NoItemsError(error="empty", split=_split(task))
    path.write_bytes(b"".join(map(_line, items)))
    return {
        "version": version("lm-eval"),
        "task_version": _text(task.VERSION),
        "split": _split(task),
        "dataset": _text(task.DATASET_PATH),
        "subset": _text(task.DATASET_NAME),
        "n_items": len(items),
        "template": list(template),
    }


def _manager(make: Any, name: str, folder: Path | None) -> Any:
    """The harness's index of the tasks that exist, its own and those in `folder`."""
    if folder is None:
        return make()
    # The tasks of a folder come before the harness's, whose 13,000 files take seconds to read.
    own = make(include_path=str(folder), include_defaults=False)
    return own if name in own.all_subtasks else make(include_path=str(folder))


def _items(task: Any, documents: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """The items of the documents, in their order."""
    has_choices = getattr(task.config, "doc_to_choice", None) is not None
    for number, document in enumerate(documents):
        try:
            choices = task.doc_to_choice(document) if has_choices else None
            item = item_of(task.doc_to_text(document), task.doc_to_target(document), choices)
            # Raises for half of a surrogate pair, which the Python of a task may make of UTF-8.
            _line(item)
            yield item
        except Exception as err:
            reason = f"document {number}: {_reason(err)}"
            raise _NoItemsError(error="failed", reason=reason, offline=False) from err


def _line(item: Mapping[str, Any]) -> bytes:
    return json.dumps(item, ensure_ascii=False).encode() + b"\n"


def _split(task: Any) -> str:
    """The name of the split that the harness evaluates: that of tests, or else that of validation."""
    split = "test" if task.has_test_docs() else "validation"
    # A task in Python may name none.
    return str(getattr(task.config, f"{split}_split", None) or split)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _failure(err: Exception, config: Mapping[str, Any]) -> _NoItemsError:
    """The failure to load a task."""
    if isinstance(err, IndexError) and "size 0" in str(err):
        # The harness renders the first document of each task that it loads. `datasets` names the size of the
        # data set in the error for a document that does not exist.
        return _NoItemsError(error="empty", split=config.get("test_split") or config.get("validation_split"))
    return _NoItemsError(
        error="failed",
        reason=_reason(err),
        offline=any(type(cause).__name__ in _NETWORK_ERRORS for cause in _causes(err)),
    )


def _reason(err: Exception) -> str:
    """The type and the first line of an error; the type alone of one without a message."""
    name, line = type(err).__name__, first_line(err)
    return line if line == name else f"{name}: {line}"


def _causes(err: BaseException | None) -> Iterator[BaseException]:
    while err is not None:
        yield err
        err = err.__cause__ or err.__context__


def _tasks_of(name: str, index: Mapping[str, Any]) -> list[str]:
    """The names of the tasks of a group or a tag, those of the groups in it included, each once."""
    found: dict[str, None] = {}
    pending, seen = [name], set()
    while pending:
        member = pending.pop()
        if member in seen:
            continue
        seen.add(member)
        entry = index.get(member)
        if entry is None:
            continue
        if entry.kind.name == "TAG":
            # Of the entry of a tag these are the names of its tasks; of a task, those of its tags.
            pending += sorted(entry.tags, reverse=True)
        elif entry.kind.name == "GROUP":
            pending += reversed(_members((entry.cfg or {}).get("task")))
        else:
            found[member] = None
    return list(found)


def _members(listed: object) -> list[str]:
    """The names in the list of a group. What the list itself defines is in no index: `_tasks_of` skips it."""
    names = []
    for member in [listed] if isinstance(listed, str) else listed if isinstance(listed, list) else []:
        if isinstance(member, str):
            names.append(member)
        elif isinstance(member, dict) and isinstance(member.get("task"), list):
            names += _members(member["task"])
        elif isinstance(member, dict):
            names.append(str(member.get("task", member.get("group"))))
    return names


def _below(manager: Any, folder: Path | None) -> list[str]:
    """The names of the tasks in a folder."""
    if folder is None:
        return []
    # The harness spells these paths from the folder as it was given.
    entries = ((name, manager.task_index[name].yaml_path) for name in manager.all_subtasks)
    return [name for name, path in entries if path is not None and Path(path).is_relative_to(folder)]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(Path, sys.argv[3:]))
