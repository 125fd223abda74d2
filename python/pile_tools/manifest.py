"""Manifests: the record of an artifact's inputs, settings and files, by which it can be verified.

A manifest is a JSON file beside the files that it lists:

    {"kind": "order", "format": 1, "made_by": {"pile_tools": "0.1.0"},
     "inputs": [{"role": "dataset", "path": "sample", "fingerprint": "..."}],
     "settings": {"seq_length": 256, ...}, "request": "...",
     "outputs": [{"path": "..._doc_idx.npy", "bytes": 1234, "sha256": "..."}],
     "summary": {...}, "checksum": "..."}

Paths are relative to the manifest's folder, so a tree of artifacts can be moved as a whole. `request` is a
digest of kind, settings and inputs, by which the same command recognizes finished output and does nothing.
A manifest contains no times and no machine names: the same request gives the same bytes, but for the checksum
of a run's log, which has times. `checksum` is a digest of all other values, by which `verify` detects damage
to a manifest that no other manifest lists.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pile_tools import checked, files, kinds, unchanged
from pile_tools.checked import Values
from pile_tools.config import Settings, fingerprint
from pile_tools.errors import FormatError, OutputExistsError, PileError, PileWarning
from pile_tools.terminal import counted
from pile_tools.unchanged import Identities

FORMAT = 1

#: Name of the manifest of an artifact that is a folder, and suffix of the manifest of a file or prefix.
MANIFEST_FILE, MANIFEST_SUFFIX = "manifest.json", ".manifest.json"

#: The manifest of an order, in its folder.
ORDER_FILE = "order.json"

#: The file in the folder of a training run that records its settings and machine.
RUN_FILE = "run.json"

Entry: TypeAlias = dict[str, Any]

T = TypeVar("T")

SHA256_DIGITS = 64

#: What a file is expected to be, for messages.
_WHAT = "a manifest of pile-tools"

#: Minimum bytes of inputs to hash for which a warning is printed, as it takes seconds.
_LONG_BYTES = 10**9

#: Keys of an entry other than its path.
_ENTRY_KEYS = (
    "role",
    "bytes",
    "sha256",
    "fingerprint",
    "tokens_sha256",
    "step",
    "hub_id",
    "revision",
    "commit",
)


@dataclass(frozen=True)
class Request:
    """Kind, settings and inputs of an artifact; equal requests make equal artifacts.

    Attributes:
        kind: `shards`, `deduplicated`, `passages`, `signatures`, `lsh-index`, `contamination`, `tokenizer`,
            `tokens`, `labels`, `token-shards`, `token-file`, `ngrams`, `terms`, `index`, `order`, `run`,
            `checkpoint`, `state`, `model`, `study`, `report`, `toy` or `pictures`.
        settings: The settings that change the output, JSON-ready.
        inputs: An entry for each input: `role`, `path`, and `bytes`, `sha256` or `fingerprint`; of a dataset
            also `tokens_sha256` if its manifest has it.
    """

    kind: str
    settings: Settings
    inputs: list[Entry] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """SHA-256 of kind, settings and inputs, in hexadecimal."""
        return fingerprint({"kind": self.kind, "settings": self.settings, "inputs": self.inputs})

    @property
    def job(self) -> str:
        """The digest without the sizes of files that have no checksum: names the work of a killed command.

        The core compares the shards of that work with their checksums, and starts again if one has changed.
        """
        inputs = [
            {key: value for key, value in entry.items() if key != "bytes" or "sha256" in entry}
            for entry in self.inputs
        ]
        return fingerprint({"kind": self.kind, "settings": self.settings, "inputs": inputs})


@dataclass(frozen=True)
class Manifest:
    """The contents of a manifest, with the path, size and SHA-256 of its file."""

    path: Path
    kind: str
    inputs: list[Entry]
    settings: Settings
    request: str
    outputs: list[Entry]
    summary: Settings
    made_by: Settings
    n_bytes: int
    sha256: str

    def entry(self, folder: Path, **more: Any) -> Entry:
        """The manifest, as it was when it was read, as an input of one in `folder`."""
        return {**more, "path": relative(self.path, folder), "bytes": self.n_bytes, "sha256": self.sha256}

    @property
    def folder(self) -> Path:
        """The folder that the manifest's paths are relative to."""
        return self.path.parent

    def input(self, role: str) -> Entry | None:
        """The first input of a role, or None."""
        return next((entry for entry in self.inputs if entry["role"] == role), None)

    def is_of(self, request: Request) -> bool:
        """Whether it is the manifest of a request: of its digest, and of the kind and settings in that.

        A manifest may come from anyone, so its digest does not prove that it has the settings of the digest.
        """
        own, expected = (fingerprint([of.kind, of.settings]) for of in (self, request))
        return self.request == request.digest and own == expected

    @property
    def checked_settings(self) -> Values:
        """The settings with typed accessors."""
        return Values(self.settings, f"{self.path}, settings")

    @property
    def checked_summary(self) -> Values:
        """The summary with typed accessors."""
        return Values(self.summary, f"{self.path}, summary")


def relative(path: Path, folder: Path) -> str:
    """`path` relative to the manifest folder `folder`, as it is without links.

    Links in the folder of `path` are resolved too if it lies no farther from `folder` then: what is in one
    folder can be moved together, and a link to that folder is not in it. A link to data elsewhere stays, as
    it may come to lead to where these are moved.
    """
    folder = Path(os.path.realpath(folder))
    named, real = path.absolute(), Path(os.path.realpath(path.parent)) / path.name
    if ".." in path.parts or _n_shared(named, folder) <= _n_shared(real, folder) > 1:
        named = real
    return Path(os.path.relpath(named, folder)).as_posix()


def _n_shared(path: Path, folder: Path) -> int:
    """How many folders from the root on are above both paths; the root counts."""
    same = itertools.takewhile(
        lambda names: names[0] == names[1], zip(path.parts, folder.parts, strict=False)
    )
    return sum(1 for _ in same)


def resolved(folder: Path, name: str) -> Path:
    """The path of `name` in a manifest in `folder`: the inverse of `relative`."""
    real = Path(os.path.realpath(folder))
    # Without a link the path stays relative to the working directory, as messages show it.
    is_linked = real != Path(os.path.normpath(Path.cwd() / folder))
    return Path(os.path.normpath((real if is_linked else folder) / name))


def file_entry(path: Path, folder: Path, **more: Any) -> Entry:
    """The entry of a file in a manifest in `folder`: path, size, checksum and `more`."""
    return {
        **more,
        "path": relative(path, folder),
        "bytes": path.stat().st_size,
        "sha256": files.sha256(path),
    }


def read_input(read: Callable[[Path], T], path: Path, folder: Path, **more: Any) -> tuple[T, Entry]:
    """What `read(path)` returns, and the file's entry; the two are of the same contents.

    Raises:
        PileError: The file was changed or replaced after `read` began.
    """
    before = files.version(path)
    found = read(path)
    entry = file_entry(path, folder, **more)
    if files.version(path) != before:
        raise PileError(f"changed while it was read; run the command again ({path})")
    return found, entry


def matches(path: Path, entry: Entry) -> bool:
    """Whether a path is a file, or a link to one, with the size and checksum of an entry."""
    return path.is_file() and path.stat().st_size == entry["bytes"] and files.sha256(path) == entry["sha256"]


def with_checksums(entries: Sequence[Entry], sha256: Sequence[str]) -> list[Entry]:
    """Entries with the checksums of their files, in the same order."""
    return [{**entry, "sha256": digest} for entry, digest in zip(entries, sha256, strict=True)]


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

    `inputs` replaces the request's inputs, with values known only after the job such as checksums.

    Raises:
        FormatError: `read` would refuse it: settings and summary may be copied from other manifests.
        OSError: The file cannot be written.
    """
    values: dict[str, Any] = {
        "kind": request.kind,
        "format": FORMAT,
        "made_by": {"pile_tools": version("pile-tools")},
        "inputs": request.inputs if inputs is None else inputs,
        "settings": request.settings,
        "request": request.digest,
        "outputs": outputs,
        "summary": summary,
    }
    values["checksum"] = fingerprint(values)
    data = _encoded(values)
    if len(data) > checked.MAX_BYTES:
        raise FormatError(
            f"a manifest of {len(data):,} bytes, at most {checked.MAX_BYTES:,} are read ({path})"
        )
    _parsed(data, path)
    files.write_atomically(path, data, scratch=scratch)
    del values["format"], values["checksum"]
    return Manifest(path=path, **values, n_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def _encoded(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()


def read(path: Path) -> Manifest:
    """Reads and checks a manifest.

    Raises:
        FormatError: Not a manifest, of another format, or damaged.
        OSError: The file cannot be read.
    """
    return _parsed(checked.read_bytes(path), path)


def _parsed(data: bytes, path: Path) -> Manifest:
    values = checked.parse_json(data, path, what=_WHAT)
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
        n_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def is_name(name: str) -> bool:
    """Whether a file with this name is a manifest."""
    return name in (MANIFEST_FILE, ORDER_FILE) or name.endswith(MANIFEST_SUFFIX)


def is_intact(path: Path) -> bool:
    """Whether a manifest's checksum matches its values; older manifests, without a checksum, pass."""
    values = dict(checked.read_json(path, what=_WHAT).values)
    found = values.pop("checksum", None)
    return found is None or found == fingerprint(values)


def is_as_written(path: Path) -> bool:
    """Whether a manifest is intact and has the bytes that `write` gives its values."""
    values = checked.read_json(path, what=_WHAT).values
    return is_intact(path) and path.read_bytes() == _encoded(values)


def _input(entry: Values) -> Entry:
    entry.text("role")
    return _checked_entry(entry)


def _output(entry: Values) -> Entry:
    entry.integer("bytes")
    entry.hexadecimal("sha256", SHA256_DIGITS)
    return _checked_entry(entry)


def _checked_entry(entry: Values) -> Entry:
    """An entry with checked keys and types. Raises FormatError."""
    entry.require_keys(("path",), _ENTRY_KEYS)
    entry.path("path")
    for key in ("role", "hub_id", "revision", "commit"):
        entry.optional(key, entry.text)
    for key in ("bytes", "step"):
        entry.optional(key, entry.integer)
    for key in ("sha256", "tokens_sha256"):
        entry.optional(key, lambda key: entry.hexadecimal(key, SHA256_DIGITS))
    entry.optional("fingerprint", entry.hexadecimal)
    # Callers test for keys: a null must look like a missing key.
    return {key: value for key, value in entry.values.items() if value is not None}


def output_path(found: Manifest, entry: Entry) -> Path:
    """The path of an output. It must be below the manifest's folder, as manifests are untrusted.

    Raises:
        FormatError: The path is absolute, or leaves the folder by `..` or a link.
    """
    name = Path(entry["path"])
    if name.is_absolute() or ".." in name.parts or name == Path():
        raise FormatError(f"output {entry['path']!r} is not below the manifest's folder ({found.path})")
    path = found.folder / name
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(found.folder)):
        raise FormatError(f"output {entry['path']!r} is a link out of the manifest's folder ({found.path})")
    return path


def input_path(found: Manifest, entry: Entry) -> Path:
    """The path of an input. It may be outside the manifest's folder, as inputs are only read."""
    return resolved(found.folder, entry["path"])


def input_file(found: Manifest, role: str) -> Path | None:
    """The path of the first input of a role, None if it does not exist. Raises FormatError if not a file."""
    entry = found.input(role)
    if entry is None or not (path := input_path(found, entry)).exists():
        return None
    checked.open_regular(path).close()
    return path


def checked_entry(found: Manifest, entry: Entry) -> Values:
    """An entry with typed accessors: of an input, all values but role and path may be missing."""
    return Values(entry, f"{found.path}, {entry.get('role', 'output')} {entry['path']!r}")


def required(found: Manifest, entry: Entry, key: str) -> str:
    """The `sha256` or `fingerprint` of an entry. Raises FormatError if it is missing."""
    return checked_entry(found, entry).text(key)


def finished(
    path: Path, request: Request, *, force: bool, or_else: str = ", another output keeps both"
) -> Manifest | None:
    """The manifest of this request if its output is complete, or None if the output has to be made.

    Output whose inputs have changed has to be made again. `or_else` is advice in addition to replacing the
    output, for the message.

    Raises:
        OutputExistsError: The output is another one or incomplete, and `force` is off.
    """
    if force or not path.exists():
        return None
    old = read(path)
    if not old.is_of(request):
        raise OutputExistsError(
            f"made before with {_difference(old, request)}; force replaces it{or_else} ({path})"
        )
    if fault := _fault(old):
        raise OutputExistsError(f"{fault} of finished output; force makes it again ({path})")
    return old if has_same_inputs(old, request, old.folder) else None


def has_same_inputs(found: Manifest, request: Request, folder: Path) -> bool:
    """Whether the input files that exist have the contents that an artifact was made from.

    A file that was written, replaced or touched since is compared by its checksum, see
    `pile_tools.unchanged`.

    Args:
        found: The manifest.
        request: The request that made it.
        folder: The folder that the manifest's paths are relative to.
    """
    inputs = hashed_inputs(found.inputs, request, folder)
    present = {path: entry for path, entry in inputs.items() if path.is_file()}
    identities = Identities.of(present)
    paths = list(inputs)
    touched = [paths[i] for i in unchanged.changed(found.path, paths, identities) if paths[i] in present]
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
        unchanged.remember(found.path, paths, identities)
    return True


def hashed_inputs(inputs: list[Entry], request: Request, folder: Path) -> dict[Path, Entry]:
    """The inputs whose checksum the job itself computed, by path; an input given twice is one file.

    Inputs with a checksum in the request are excluded: the request's digest covers them.
    """
    requested = {entry["path"] for entry in request.inputs if "sha256" in entry}
    return {
        resolved(folder, entry["path"]): entry
        for entry in inputs
        if "sha256" in entry and entry["path"] not in requested
    }


def _fault(found: Manifest) -> str | None:
    """The fault of the first file of finished output that is missing or of another size, None if none is."""
    manifests, seen = [(found, Path())], {os.path.realpath(found.path)}
    for inner, folder in manifests:
        for entry in inner.outputs:
            path, name = output_path(inner, entry), folder / entry["path"]
            if fault := _file_fault(path, entry):
                return f"{name} {fault}"
            # A manifest among the outputs, such as a checkpoint of a run: its files are checked too. One that
            # lists itself, or one that lists it, is checked once.
            if path.name == MANIFEST_FILE and (real := os.path.realpath(path)) not in seen:
                seen.add(real)
                manifests.append((read(path), name.parent))
    return None


def _file_fault(path: Path, entry: Entry) -> str | None:
    if not path.exists():
        return "is missing"
    # A folder has a size too.
    if not path.is_file():
        return "is no file"
    if path.stat().st_size != entry["bytes"]:
        return f"has {counted(path.stat().st_size, 'byte')} instead of {entry['bytes']:,}"
    return None


def refuse_foreign(output: Path, manifest_path: Path, *, force: bool) -> None:
    """Raises OutputExistsError for an existing file without a manifest of ours, unless `force`."""
    if output.exists() and not manifest_path.exists() and not force:
        raise OutputExistsError(f"exists and is not from pile-tools; force replaces it ({output})")


def _difference(old: Manifest, request: Request) -> str:
    """The first setting in which finished output differs from a request, in words."""
    if old.kind != request.kind:
        return f"kind {old.kind}, not {request.kind}"
    for name in {**old.settings, **request.settings}:
        before, now = old.settings.get(name), request.settings.get(name)
        if before != now:
            return f"{name} = {before!r}, not {now!r}"
    return "other inputs"
