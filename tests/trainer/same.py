"""What two runs of the same command have in common: all bytes but those of the times in their logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainer.log import LOG_FILE

_TIMES = ("time", "tokens_per_second")


def contents(output: Path) -> dict[str, bytes]:
    """Every file of a run by its path, without times and the sizes and checksums of files that have some."""
    files = {p.relative_to(output).as_posix(): p.read_bytes() for p in output.rglob("*") if p.is_file()}
    return {name: _without_times(name, data) for name, data in files.items()}


def _without_times(name: str, data: bytes) -> bytes:
    if name == LOG_FILE:
        lines = [json.loads(line) for line in data.splitlines()]
        for line in lines:
            for key in _TIMES:
                del line[key]
        return json.dumps(lines).encode()
    if name == "manifest.json" or (name.startswith("resume/") and name.endswith("/manifest.json")):
        found: dict[str, Any] = json.loads(data)
        del found["checksum"]
        found["summary"].get("records", {}).pop("log", None)
        for entry in found["outputs"]:
            if entry["path"] == LOG_FILE or (
                entry["path"].startswith("resume/") and entry["path"].endswith("/manifest.json")
            ):
                del entry["sha256"], entry["bytes"]
        return json.dumps(found).encode()
    return data
