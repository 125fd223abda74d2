"""Manifests: every artifact says what it was made from, with which settings, and can be verified.

A manifest is a JSON file beside the files it speaks of:

    {"kind": "order", "format": 1, "made_by": {"pile_tools": "0.1.0"},
     "inputs": [{"role": "dataset", "path": "sample", "fingerprint": "..."}],
     "settings": {"seq_length": 256, ...}, "request": "...",
     "outputs": [{"path": "..._doc_idx.npy", "bytes": 1234, "sha256": "..."}],
     "summary": {...}, "checksum": "..."}

Paths are relative to the manifest's folder, so a tree of artifacts can be moved as a whole. `request` is
a digest of kind, settings and inputs: the same command on finished output finds it and does nothing. There
are no times and no machine names in it: the same request gives the same bytes. `checksum` is a digest of all
other values: by it `verify` finds a damaged manifest that no other one names.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from pile_tools import checked, files, kinds, unchanged
from pile_tools.checked import Values
from pile_tools.config import Settings, fingerprint
from pile_tools.errors import FormatError, OutputExistsError, PileWarning
from pile_tools.unchanged import Identities

FORMAT = 1

#: The manifest of an artifact that is a folder, and the end of the name of one beside a file or prefix.
MANIFEST_FILE, MANIFEST_SUFFIX = "manifest.json", ".manifest.json"

Entry: TypeAlias = dict[str, Any]

SHA256_DIGITS = 64

#: To hash more than this takes long enough to be worth a word.
_LONG_BYTES = 10**9

#: Keys of an entry beside its path.
_ENTRY_KEYS = ("role", "bytes", "sha256", "fingerprint", "step", "hub_id", "revision", "commit")


@dataclass(frozen=True)
class Request:
    """What is asked for: the same request makes the same artifact.

    Attributes:
        kind: `shards`, `tokenizer`, `tokens`, `labels`, `token-shards`, `token-file`, `ngrams`, `terms`,
            `index`, `order`, `run`, `checkpoint`, `state`, `study` or `report`.
        settings: What changes the output, JSON-ready.
        inputs: What it is made from: `role`, `path`, and `bytes`, `sha256` or `fingerprint` each.
    """

    kind: str
    settings: Settings
    inputs: list[Entry] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """SHA-256 over kind, settings and inputs."""
        return fingerprint({"kind": self.kind, "settings": self.settings, "inputs": self.inputs})


@dataclass(frozen=True)
class Manifest:
    """A manifest read from a file, or about to be written to it."""

    path: Path
    kind: str
    inputs: list[Entry]
    settings: Settings
    request: str
    outputs: list[Entry]
    summary: Settings
    made_by: Settings

    @property
    def folder(self) -> Path:
        """The folder that the manifest's paths are relative to."""
        return self.path.parent

    def input(self, role: str) -> Entry | None:
        """The first input of a role, or None."""
        return next((entry for entry in self.inputs if entry["role"] == role), None)

    @property
    def checked_settings(self) -> Values:
        """The settings, to be read by type."""
        return Values(self.settings, f"{self.path}, settings")

    @property
    def checked_summary(self) -> Values:
        """The summary, to be read by type."""
        return Values(self.summary, f"{self.path}, summary")


def relative(path: Path, folder: Path) -> str:
    """`path` as a manifest in `folder` names it.

    Steps up (`..`) begin at the real folder, where the system begins them, whatever links lead to it. Links
    on the way down to `path` stay links.
    """
    if ".." in path.parts:
        path = Path(os.path.realpath(path.parent)) / path.name
    return Path(os.path.relpath(path, os.path.realpath(folder))).as_posix()


def resolved(folder: Path, name: str) -> Path:
    """The path that a manifest in `folder` names; see `relative`."""
    real = Path(os.path.realpath(folder))
    # Messages name files from where the user is, where no link leads to the folder.
    is_linked = real != Path(os.path.normpath(Path.cwd() / folder))
    return Path(os.path.normpath((real if is_linked else folder) / name))


def file_entry(path: Path, folder: Path, **more: Any) -> Entry:
    """A file with its size and checksum."""
    return {
        **more,
        "path": relative(path, folder),
        "bytes": path.stat().st_size,
        "sha256": files.sha256(path),
    }


def write(
    path: Path,
    request: Request,
    outputs: list[Entry],
    summary: Settings,
    inputs: list[Entry] | None = None,
    *,
    scratch: Path | None = None,
) -> Manifest:
    """Writes the manifest of a finished artifact, by rename; `scratch` as in `files.write_atomically`.

    `inputs` replaces the request's where more is known of them after the job, checksums say.
    """
    manifest = Manifest(
        path=path,
        kind=request.kind,
        inputs=request.inputs if inputs is None else inputs,
        settings=request.settings,
        request=request.digest,
        outputs=outputs,
        summary=summary,
        made_by={"pile_tools": version("pile-tools")},
    )
    values = {
        "kind": manifest.kind,
        "format": FORMAT,
        "made_by": manifest.made_by,
        "inputs": manifest.inputs,
        "settings": manifest.settings,
        "request": manifest.request,
        "outputs": manifest.outputs,
        "summary": manifest.summary,
    }
    values["checksum"] = fingerprint(values)
    files.write_atomically(path, json.dumps(values, indent=1) + "\n", scratch=scratch)
    return manifest


def read(path: Path) -> Manifest:
    """Reads a manifest, every part of it that all kinds share checked.

    Raises:
        FormatError: Not a manifest, of another format, or damaged.
        OSError: The file cannot be read.
    """
    values = checked.read_json(path, what="a manifest of pile-tools")
    number = values.integer("format") if values.has("format") else None
    if number != FORMAT:
        raise FormatError(f"manifest format {number!r}, expected {FORMAT} ({path})")
    values.require_keys(
        ("kind", "format", "made_by", "inputs", "settings", "request", "outputs", "summary"), ("checksum",)
    )
    if not re.fullmatch("[a-z][a-z-]{0,39}", values.text("kind")):
        raise values.refuse("kind", "a word")
    values.optional("checksum", lambda key: values.hexadecimal(key, SHA256_DIGITS))
    kinds.check(values.text("kind"), values.object("settings"), values.object("summary"))
    return Manifest(
        path=path,
        kind=values.text("kind"),
        inputs=[_input(entry) for entry in values.objects("inputs")],
        settings=dict(values.object("settings").values),
        request=values.hexadecimal("request", SHA256_DIGITS),
        outputs=[_output(entry) for entry in values.objects("outputs")],
        summary=dict(values.object("summary").values),
        made_by=dict(values.object("made_by").values),
    )


def is_intact(path: Path) -> bool:
    """Whether a manifest's values are those its checksum was made of; older ones have no checksum."""
    values = dict(checked.read_json(path, what="a manifest of pile-tools").values)
    found = values.pop("checksum", None)
    return found is None or found == fingerprint(values)


def _input(entry: Values) -> Entry:
    entry.text("role")
    return _checked_entry(entry)


def _output(entry: Values) -> Entry:
    entry.integer("bytes")
    entry.hexadecimal("sha256", SHA256_DIGITS)
    return _checked_entry(entry)


def _checked_entry(entry: Values) -> Entry:
    """An entry whose known keys are of their types. Raises FormatError."""
    entry.require_keys(("path",), _ENTRY_KEYS)
    entry.path("path")
    for key in ("role", "hub_id", "revision", "commit"):
        entry.optional(key, entry.text)
    for key in ("bytes", "step"):
        entry.optional(key, entry.integer)
    entry.optional("sha256", lambda key: entry.hexadecimal(key, SHA256_DIGITS))
    entry.optional("fingerprint", entry.hexadecimal)
    # A null is like a missing key to those who look for the key.
    return {key: value for key, value in entry.values.items() if value is not None}


def output_path(found: Manifest, entry: Entry) -> Path:
    """The path of an output, which is below the manifest's folder: a manifest may come from anyone.

    Raises:
        FormatError: The path is absolute, leaves the folder, or passes a link that does.
    """
    name = Path(entry["path"])
    if name.is_absolute() or ".." in name.parts or name == Path():
        raise FormatError(f"output {entry['path']!r} is not below the manifest's folder ({found.path})")
    path = found.folder / name
    # Unlike `resolve`, this takes links in a circle.
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(found.folder)):
        raise FormatError(f"output {entry['path']!r} is a link that leads elsewhere ({found.path})")
    return path


def input_path(found: Manifest, entry: Entry) -> Path:
    """The path of an input, which may be anywhere: inputs are only read."""
    return resolved(found.folder, entry["path"])


def input_file(found: Manifest, role: str) -> Path | None:
    """The first input of a role, if it is there. Raises FormatError for anything but a regular file."""
    entry = found.input(role)
    if entry is None or not (path := input_path(found, entry)).exists():
        return None
    checked.open_regular(path).close()
    return path


def required(found: Manifest, entry: Entry, key: str) -> str:
    """The `sha256` or `fingerprint` of an entry. Raises FormatError where it has none."""
    return Values(entry, f"{found.path}, {entry.get('role', 'output')} {entry['path']!r}").text(key)


def finished(
    path: Path, request: Request, *, force: bool, or_else: str = ", another -o keeps both"
) -> Manifest | None:
    """The manifest of this very request if its output is complete, or None if it is to be made.

    Output of inputs that have changed since is to be made anew. `or_else` is what the user can do beside
    replacing the output.

    Raises:
        OutputExistsError: Something else is there, or not all of the output, and `force` is off.
    """
    if force or not path.exists():
        return None
    old = read(path)
    if old.request != request.digest:
        raise OutputExistsError(
            f"made before with {_difference(old, request)}; --force replaces it{or_else} ({path})"
        )
    for entry in old.outputs:
        if fault := _fault(output_path(old, entry), entry):
            raise OutputExistsError(f"{fault} of finished output; --force makes it anew ({path})")
    return old if has_same_inputs(old, request, old.folder) else None


def has_same_inputs(found: Manifest, request: Request, folder: Path) -> bool:
    """Whether the input files that exist are those that an artifact was made from.

    One that was changed, replaced or touched since is compared by its checksum, see `pile_tools.unchanged`.

    Args:
        found: The manifest.
        request: The request that made it.
        folder: What its paths are relative to.
    """
    inputs = hashed_inputs(found.inputs, request, folder)
    present = {path: entry for path, entry in inputs.items() if path.is_file()}
    seen = Identities.of(present)
    paths = list(inputs)
    touched = [paths[i] for i in unchanged.changed(found.path, paths, seen) if paths[i] in present]
    n_bytes = {path: path.stat().st_size for path in touched}
    if any(present[path].get("bytes", n) != n for path, n in n_bytes.items()):
        return False
    if sum(n_bytes.values()) > _LONG_BYTES:
        warnings.warn(
            f"{len(touched):,} inputs, {sum(n_bytes.values()) / 1e9:,.1f} GB, may have changed: "
            f"comparing their checksums ({found.path})",
            PileWarning,
            stacklevel=2,
        )
    if any(checked.sha256(path)[1] != present[path]["sha256"] for path in touched):
        return False
    if touched:
        unchanged.remember(found.path, paths, seen)
    return True


def hashed_inputs(inputs: list[Entry], request: Request, folder: Path) -> dict[Path, Entry]:
    """The inputs whose checksum the job itself took, by path; an input given twice is one file.

    A checksum that the request has is compared with the request.
    """
    requested = {entry["path"] for entry in request.inputs if "sha256" in entry}
    return {
        resolved(folder, entry["path"]): entry
        for entry in inputs
        if "sha256" in entry and entry["path"] not in requested
    }


def _fault(path: Path, entry: Entry) -> str | None:
    """What is wrong with a file of finished output, told without reading it; None if nothing is."""
    if not path.exists():
        return f"{entry['path']} is missing"
    if path.stat().st_size != entry["bytes"]:
        return f"{entry['path']} has {path.stat().st_size} bytes instead of {entry['bytes']}"
    if path.name != MANIFEST_FILE:
        return None
    # An artifact within an artifact, as a run's checkpoints are.
    inner = read(path)
    faults = (_fault(output_path(inner, of), of) for of in inner.outputs)
    fault = next((fault for fault in faults if fault), None)
    return fault and f"{Path(entry['path']).parent / fault}"


def refuse_foreign(output: Path, manifest_path: Path, *, force: bool) -> None:
    """Refuses to replace a file that has no manifest of ours beside it. Raises OutputExistsError."""
    if output.exists() and not manifest_path.exists() and not force:
        raise OutputExistsError(f"exists and is not from pile-tools; --force replaces it ({output})")


def _difference(old: Manifest, request: Request) -> str:
    """The first setting in which finished output differs from what is asked for."""
    if old.kind != request.kind:
        return f"kind {old.kind}, not {request.kind}"
    for name in {**old.settings, **request.settings}:
        before, now = old.settings.get(name), request.settings.get(name)
        if before != now:
            return f"{name} = {before!r}, not {now!r}"
    return "other inputs"
