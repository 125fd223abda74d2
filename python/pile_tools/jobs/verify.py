"""Checks that artifacts match their manifests."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pile_tools import _core, checked, manifest, publish
from pile_tools.errors import PileError, VerifyError
from pile_tools.jobs import token_shards
from pile_tools.manifest import MANIFEST_FILE, MANIFEST_SUFFIX, ORDER_FILE, RUN_FILE, Entry, Manifest
from pile_tools.publish import Target
from pile_tools.read.shards import STANDARD_INPUT
from pile_tools.terminal import counted
from pile_tools.tokens import datasets
from pile_tools.tokens.concatenated import as_one


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        state: `ok`, `absent` (an input is missing), `unsure` (no checksum is known) or `WRONG`.
        what: The subject of the check and its result, in words.
        artifact: The manifest that lists the subject, or None.
        path: The file that was read and is right, or None.
    """

    state: str
    what: str
    artifact: Path | None = None
    path: Path | None = None


@dataclass(frozen=True)
class Totals:
    """The numbers of artifacts and files checked, of absent inputs, and of files without a known checksum."""

    n_artifacts: int
    n_files: int
    n_absent: int
    n_unsure: int

    @classmethod
    def of(cls, checks: Iterable[Check]) -> Totals:
        """The totals of these checks."""
        checks = list(checks)
        states = [check.state for check in checks]
        return cls(
            n_artifacts=len({check.artifact for check in checks if check.artifact is not None}),
            n_files=len({check.path for check in checks if check.path is not None}),
            n_absent=states.count("absent"),
            n_unsure=states.count("unsure"),
        )


def find_manifests(path: Path) -> list[Path]:
    """The manifests of the artifact with this folder, prefix, manifest or file.

    Raises:
        PileError: There is no manifest, or the artifact is being replaced.
    """
    if path.is_dir():
        found = [path / name for name in (ORDER_FILE, MANIFEST_FILE) if (path / name).exists()]
        found += sorted(path.glob(f"*{MANIFEST_SUFFIX}"))
        if found:
            return found
    if path.is_file() and (manifest.is_name(path.name) or _is_manifest(path)):
        return [path]
    stems = [path.name] + [
        path.name.removesuffix(s) for s in (".bin", ".idx", ".provenance", ".json", ".html")
    ]
    for stem in stems:
        beside = path.parent / (stem + MANIFEST_SUFFIX)
        # A broken link is reported, as it is no missing manifest.
        if os.path.lexists(beside):
            return [beside]
    folders = [path / ORDER_FILE, path / MANIFEST_FILE]
    for candidate in [*folders, *(path.parent / (stem + MANIFEST_SUFFIX) for stem in stems)]:
        publish.refuse_while_replaced(Target.of(candidate))
    raise PileError(f"cannot be verified: no manifest in, of or beside {path}")


def _is_manifest(path: Path) -> bool:
    if path.suffix != ".json":
        return False
    try:
        manifest.read(path)
    except PileError:
        return False
    return True


def run(
    path: Path, *, chain: bool = False, on_check: Callable[[Check], object] = lambda check: None
) -> list[Check]:
    """Checks every output of the artifact at `path` by its checksum, and every input that is here.

    For a dataset of another tool, which has no manifest, the index is checked against the tokens.

    Args:
        path: The folder, prefix, manifest or a file of the artifact.
        chain: Also check the artifacts that were its inputs, and their inputs, each with all its files.
        on_check: Called with each check when it is done.

    Raises:
        VerifyError: A check failed; the message names all that failed.
        PileError: There is no artifact.
    """
    return _all_passed(_Verifier(chain).start(path), on_check)


def run_hashes(
    path: Path, hashes: Path, *, on_check: Callable[[Check], object] = lambda check: None
) -> list[Check]:
    """Checks the files of a folder, such as shards, by a list of names and SHA-256.

    A name may have folders: those below `path`, or those of the machine where the list was written.

    Args:
        path: The folder.
        hashes: The list, see `token_shards.read_hashes`; every file in it must exist.
        on_check: Called with each check when it is done.

    Raises:
        VerifyError: A file is missing or has another checksum; the message names all such files.
        FormatError: `hashes` is not such a list.
        OSError: The list cannot be read.
    """
    expected = token_shards.read_hashes(hashes)
    n_named = Counter(Path(name).name for name in expected)
    verifier = _Verifier(chain=False)
    checks = (
        verifier.file(_listed(path, Path(name), n_named), {"sha256": sha256}, None, "WRONG")
        for name, sha256 in expected.items()
    )
    return _all_passed(checks, on_check)


def _listed(folder: Path, name: Path, n_named: Counter[str]) -> Path:
    """The file in `folder` that a list names, with its folders or, if that is not ambiguous, without."""
    whole = folder / name.relative_to(name.anchor)
    is_known = n_named[name.name] > 1 or os.path.lexists(whole)
    return whole if is_known else folder / name.name


def _all_passed(checks: Iterable[Check], on_check: Callable[[Check], object]) -> list[Check]:
    """Does all checks and reports each; raises VerifyError with all that failed."""
    done = []
    for check in checks:
        on_check(check)
        done.append(check)
    wrong = [check.what for check in done if check.state == "WRONG"]
    if wrong:
        raise VerifyError(f"{len(wrong):,} of {counted(len(done), 'check')} failed: {'; '.join(wrong)}")
    return done


class _Verifier:
    """Checks artifacts, each once. A file of several artifacts is hashed once."""

    def __init__(self, chain: bool) -> None:
        self._chain = chain
        # A queue, not recursion: a chain may have any length.
        self._pending: deque[Path] = deque()
        self._artifacts: set[str] = set()
        self._digests: dict[str, tuple[int, str]] = {}
        # The manifest of a folder lists thousands of shards, and is asked for each of them.
        self._outputs: dict[Path, frozenset[str] | None] = {}
        self._reported: set[tuple[str, str]] = set()

    def start(self, path: Path) -> Iterator[Check]:
        """The checks of the artifact at `path` and of its chain. Raises PileError if there is no artifact."""
        prefix = path.parent / path.name.removesuffix(".idx").removesuffix(".bin")
        beside = datasets.with_suffix(prefix, MANIFEST_SUFFIX)
        has_index = datasets.with_suffix(prefix, ".idx").exists()
        if has_index and beside not in (made := datasets.existing_manifests(prefix)):
            self._pending += made
            # `prefix` may also be meant as the name of another artifact.
            self._pending += [beside] if path == prefix and beside.exists() else []
            yield from self._foreign_dataset(prefix, made, None)
        else:
            self._pending += find_manifests(path)
        while self._pending:
            found = self._pending.popleft()
            if (real := os.path.realpath(found)) not in self._artifacts:
                self._artifacts.add(real)
                yield from self._new(self._artifact(found))

    def _new(self, checks: Iterable[Check]) -> Iterator[Check]:
        """The checks that were not reported before: several artifacts may have the same input."""
        for check in checks:
            if (check.state, check.what) not in self._reported:
                self._reported.add((check.state, check.what))
                yield check

    def _artifact(self, path: Path) -> Iterator[Check]:
        try:
            found, is_intact = manifest.read(path), manifest.is_intact(path)
        except (PileError, OSError) as err:
            yield Check("WRONG", _reason(err), path)
            return
        if not is_intact:
            yield Check("WRONG", f"{path} was changed after it was written", path)
        else:
            yield Check("ok", f"{path} (manifest, {found.kind})", path, path)
        for entry in found.outputs:
            yield self._output(found, entry)
        if found.kind == "tokens":
            yield _structure(datasets.prefix_of(found), path, found)
        for entry in found.inputs:
            yield from self._input(found, entry)
        if self._chain:
            self._pending += [other for other in _unlisted_manifests(found) if other.exists()]

    def _output(self, found: Manifest, entry: Entry) -> Check:
        try:
            path = manifest.output_path(found, entry)
        except PileError as err:
            return Check("WRONG", str(err), found.path)
        if manifest.is_name(path.name) and path.exists():
            self._pending.append(path)
        return self._whole_or_shards(path, entry, found.path, absent="WRONG")

    def _whole_or_shards(self, path: Path, entry: Entry, artifact: Path, absent: str) -> Check:
        """The check of a file, or of its shards if it is a token file of which only shards are here."""
        if path.suffix == ".bin" and "sha256" in entry and not path.exists() and (shards := _shards_of(path)):
            return _check_shards(shards, entry, artifact)
        return self.file(path, entry, artifact, absent)

    def _input(self, found: Manifest, entry: Entry) -> Iterator[Check]:
        path = manifest.input_path(found, entry)
        if entry["path"] == os.fspath(STANDARD_INPUT):
            yield Check("absent", f"standard input, an input of {found.path}", found.path)
            return
        is_dataset = "sha256" not in entry and "fingerprint" in entry
        if is_dataset:
            yield _dataset(path, entry, found.path)
        else:
            yield self._whole_or_shards(path, entry, found.path, absent="absent")
        if self._chain:
            made = _manifests_of_dataset(path) if is_dataset else self._manifests_of(path)
            self._pending += made
            if is_dataset and datasets.with_suffix(path, MANIFEST_SUFFIX) not in made:
                yield from self._foreign_dataset(path, made, found.path)

    def _foreign_dataset(self, prefix: Path, made: list[Path], artifact: Path | None) -> Iterator[Check]:
        """The checks of a dataset whose index no manifest lists; a manifest may list its tokens."""
        if datasets.with_suffix(prefix, ".idx").exists():
            yield _structure(prefix, artifact)
        labels = datasets.labels_manifest(prefix)
        if any(one != labels for one in made):
            return
        yield from _equal_shards(_shards_of(datasets.with_suffix(prefix, ".bin")), artifact)
        known = ", only its fingerprint is known" if artifact else ""
        yield Check("unsure", f"{prefix}: no manifest has checksums of its tokens{known}", artifact)

    def file(self, path: Path, entry: Entry, artifact: Path | None, absent: str) -> Check:
        """The check of a file against an entry's size and SHA-256; `absent` is the state if it is missing."""
        try:
            n_bytes = path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return Check(absent, f"{path} is not here", artifact)
        except OSError as err:
            return Check("WRONG", _reason(err), artifact)
        if "bytes" in entry and n_bytes != entry["bytes"]:
            wrong = f"{path} has {counted(n_bytes, 'byte')}, the manifest says {entry['bytes']:,}"
            return Check("WRONG", wrong, artifact)
        if "sha256" not in entry:
            return Check("unsure", f"{path} ({counted(n_bytes, 'byte')}): its checksum is unknown", artifact)
        try:
            n_bytes, found = self._sha256(path)
        except (PileError, OSError) as err:
            return Check("WRONG", _reason(err), artifact)
        if found != entry["sha256"]:
            return Check("WRONG", f"{path} has another SHA-256 than the expected one", artifact)
        return Check("ok", f"{path} ({counted(n_bytes, 'byte')})", artifact, path)

    def _manifests_of(self, path: Path) -> list[Path]:
        """The manifests that list an input as an output: itself, beside it, or in its folder."""
        if manifest.is_name(path.name):
            return [path] if path.exists() else []
        stems = dict.fromkeys((path.name, path.stem))
        candidates = [path.parent / (stem + MANIFEST_SUFFIX) for stem in stems]
        candidates += [path.parent / name for name in (MANIFEST_FILE, ORDER_FILE)]
        if prefix := datasets.prefix_named(path):
            candidates += datasets.manifest_paths(prefix)
        return [one for one in dict.fromkeys(candidates) if self._lists(one, path)]

    def _lists(self, found: Path, path: Path) -> bool:
        """Whether a manifest is there and lists a file; True for a damaged one, so that it is reported."""
        if found not in self._outputs:
            self._outputs[found] = _outputs_of(found) if found.exists() else frozenset()
        outputs = self._outputs[found]
        return outputs is None or os.path.normpath(path) in outputs

    def _sha256(self, path: Path) -> tuple[int, str]:
        real = os.path.realpath(path)
        if real not in self._digests:
            self._digests[real] = checked.sha256(path)
        return self._digests[real]


def _reason(err: Exception) -> str:
    """The message of an error with the file's name, without the error number."""
    if not isinstance(err, OSError) or err.filename is None:
        return str(getattr(err, "strerror", None) or err)
    return f"{err.strerror} ({err.filename})"


def _unlisted_manifests(found: Manifest) -> list[Path]:
    """The possible manifests of an artifact that its main manifest does not list."""
    if found.kind == "tokens":
        return [datasets.labels_manifest(datasets.prefix_of(found))]
    return [found.folder / RUN_FILE] if found.kind == "run" else []


def _manifests_of_dataset(path: Path) -> list[Path]:
    """The existing manifests of a dataset, its labels, its token shards and its token file.

    `path` is a prefix, or for rows a folder, a token file, or one of its shards.
    """
    prefixes = {path: None}
    with contextlib.suppress(PileError, OSError):
        first = _core.token_files(path)[0][0]
        prefixes[datasets.prefix_named(Path(first)) or path] = None
    return [made for prefix in prefixes for made in datasets.existing_manifests(prefix)]


def _outputs_of(found: Path) -> frozenset[str] | None:
    """The paths of the outputs that a manifest lists; None for a damaged one."""
    try:
        made = manifest.read(found)
    except (PileError, OSError):
        return None
    return frozenset(os.path.normpath(made.folder / entry["path"]) for entry in made.outputs)


def _dataset(path: Path, entry: Entry, artifact: Path) -> Check:
    """The check of an input dataset by its fingerprint."""
    try:
        found = _fingerprint(path)
    except (PileError, OSError) as err:
        is_here = path.exists() or any(datasets.with_suffix(path, end).exists() for end in (".idx", ".bin"))
        if is_here or _shards_of(datasets.with_suffix(path, ".bin")):
            return Check("WRONG", _reason(err), artifact)
        return Check("absent", f"{path} is not here", artifact)
    if found != entry["fingerprint"]:
        with contextlib.suppress(PileError, OSError):
            if not _core.TokenSource(path).has_tokens:
                # The fingerprint is over the tokens too.
                return Check("absent", f"the tokens of {path} are not here", artifact)
        return Check("WRONG", f"{path} is another dataset than the input: its fingerprint differs", artifact)
    if "tokens_sha256" in entry:
        try:
            is_input = datasets.is_of(_core.TokenSource(path), entry)
        except (PileError, OSError) as err:
            return Check("WRONG", _reason(err), artifact)
        if not is_input:
            what = "its manifest has another SHA-256 of the tokens"
            return Check("WRONG", f"{path} is another dataset than the input: {what}", artifact)
    return Check("ok", f"{path} (fingerprint {found[:16]})", artifact)


def _fingerprint(path: Path) -> str:
    """The fingerprint of a dataset, or of rows without an index. Raises FormatError, OSError."""
    with contextlib.suppress(FileNotFoundError):
        return _core.TokenSource(path).fingerprint
    # The fingerprint of rows is that of their bytes, so any row length and type gives it.
    return as_one(_core.rows_order(path, 1, "uint16").dataset).fingerprint


def _structure(prefix: Path, artifact: Path | None, made: Manifest | None = None) -> Check:
    """The check of a dataset's index against its tokens, and of its manifest's counts against the index."""
    try:
        if not _core.TokenSource(prefix).has_tokens:
            return Check("absent", f"the tokens of {prefix} are not here", artifact)
        dataset = _core.TokenDataset(prefix)
        dataset.check()
        fault = datasets.fault(dataset, made) if made is not None else None
    except (PileError, OSError) as err:
        return Check("WRONG", _reason(err), artifact)
    if fault is not None:
        return Check("WRONG", f"{fault} ({artifact})", artifact)
    return Check("ok", f"{prefix}: the index fits the tokens", artifact)


def _shards_of(path: Path) -> list[Path]:
    """The shards of the token file `NAME.bin`, in order; empty if there are none."""
    return sorted(path.parent.glob(f"{glob.escape(path.stem)}-[0-9]*-of-[0-9]*.bin"))


def _check_shards(shards: list[Path], entry: Entry, artifact: Path) -> Check:
    """The check of all shards of a token file against size and SHA-256 of the whole file."""
    digest, n_bytes = hashlib.sha256(), 0
    try:
        for path in shards:
            with checked.open_regular(path) as file:
                while data := file.read(1 << 20):
                    digest.update(data)
                    n_bytes += len(data)
    except (PileError, OSError) as err:
        return Check("WRONG", _reason(err), artifact)
    files = f"{shards[0]} and {counted(len(shards) - 1, 'more shard')}"
    # The entry of an input may have no size.
    if n_bytes != entry.get("bytes", n_bytes):
        return Check(
            "WRONG", f"{files}: {counted(n_bytes, 'byte')}, the manifest says {entry['bytes']:,}", artifact
        )
    if digest.hexdigest() != entry["sha256"]:
        return Check("WRONG", f"{files} with another SHA-256 than the expected one", artifact)
    return Check("ok", f"{files} ({counted(n_bytes, 'byte')})", artifact, shards[0])


def _equal_shards(shards: list[Path], artifact: Path | None) -> Iterator[Check]:
    """A failed check for each shard that is a copy of another one, which the index cannot reveal."""
    known: dict[str, Path] = {}
    for path in shards:
        try:
            n_bytes, sha256 = checked.sha256(path)
        except (PileError, OSError) as err:
            yield Check("WRONG", _reason(err), artifact)
            continue
        if n_bytes and (other := known.setdefault(sha256, path)) != path:
            yield Check("WRONG", f"{path} has the same bytes as {other}", artifact)
