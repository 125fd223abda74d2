"""Checks that artifacts are what their manifests say."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pile_tools import _core, datasets, files, manifest
from pile_tools.errors import PileError, VerifyError
from pile_tools.manifest import MANIFEST_FILE, MANIFEST_SUFFIX, Entry, Manifest
from pile_tools.orders import ORDER_FILE
from pile_tools.stages import token_shards


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: `ok`, `absent` (an input that is not here) or `WRONG`."""

    state: str
    what: str


def find_manifests(path: Path) -> list[Path]:
    """The manifests of an artifact named by its folder, prefix, manifest or one of its files.

    Raises:
        PileError: There is none.
    """
    if path.is_dir():
        found = [path / name for name in (ORDER_FILE, MANIFEST_FILE) if (path / name).exists()]
        found += sorted(path.glob(f"*{MANIFEST_SUFFIX}"))
        if found:
            return found
    if path.is_file() and path.suffix == ".json" and _is_manifest(path):
        return [path]
    stems = [path.name] + [
        path.name.removesuffix(s) for s in (".bin", ".idx", ".provenance", ".json", ".html")
    ]
    for stem in stems:
        beside = path.with_name(stem + MANIFEST_SUFFIX)
        if beside.exists():
            return [beside]
    raise PileError(f"nothing to verify it by: no manifest in, of or beside {path}")


def _is_manifest(path: Path) -> bool:
    try:
        manifest.read(path)
    except PileError:
        return False
    return True


def run(
    path: Path, *, chain: bool = False, on_check: Callable[[Check], object] = lambda check: None
) -> list[Check]:
    """Checks the artifact at `path`: every output by its checksum, every input that is here.

    A dataset without a manifest, as other tools write them, has its index checked against its tokens.

    Args:
        path: An artifact's folder, prefix, manifest or one of its files.
        chain: Also check the artifacts it was made from, and theirs.
        on_check: Called with each check as it is done.

    Raises:
        VerifyError: Something is not what its manifest says; the message names all of it.
        PileError: There is nothing to check.
    """
    return _all_right(_Verifier(chain).artifact(path), on_check)


def run_hashes(
    path: Path, hashes: Path, *, on_check: Callable[[Check], object] = lambda check: None
) -> list[Check]:
    """Checks the files of a folder, shards say, by a list of their SHA-256; each of the list must be there.

    Raises:
        VerifyError: A file is missing or another; the message names all of them.
        FormatError: Not such a list.
    """
    expected = token_shards.read_hashes(hashes).items()
    checks = (_file(path / name, {"sha256": sha256}, absent="WRONG") for name, sha256 in expected)
    return _all_right(checks, on_check)


def _all_right(checks: Iterable[Check], on_check: Callable[[Check], object]) -> list[Check]:
    """The checks, told one by one as they are done; VerifyError names all that are wrong."""
    done = []
    for check in checks:
        on_check(check)
        done.append(check)
    wrong = [check.what for check in done if check.state == "WRONG"]
    if wrong:
        raise VerifyError(f"{len(wrong)} of {len(done)} checks failed: {'; '.join(wrong)}")
    return done


class _Verifier:
    """Checks artifacts, no file twice."""

    def __init__(self, chain: bool) -> None:
        self._chain = chain
        self._seen: set[Path] = set()

    def artifact(self, path: Path) -> Iterator[Check]:
        prefix = path.with_name(path.name.removesuffix(".idx").removesuffix(".bin"))
        has_index = prefix.with_name(prefix.name + ".idx").exists()
        if has_index and not prefix.with_name(prefix.name + MANIFEST_SUFFIX).exists():
            yield _structure(prefix)
            labels = datasets.labels_manifest(prefix)
            if labels.exists():
                yield from self._manifest(manifest.read(labels), self._chain)
            return
        for found in find_manifests(path):
            yield from self._manifest(manifest.read(found), self._chain)

    def _is_new(self, path: Path) -> bool:
        path = path.resolve()
        is_new = path not in self._seen
        self._seen.add(path)
        return is_new

    def _manifest(self, found: Manifest, chain: bool) -> Iterator[Check]:
        if not self._is_new(found.path):
            return
        for entry in found.outputs:
            yield from self._output(_place(found, entry), entry)
        if found.kind == "tokens":
            yield _structure(found.path.with_name(found.path.name.removesuffix(MANIFEST_SUFFIX)))
        for entry in found.inputs:
            yield from self._input(_place(found, entry), entry, chain)

    def _output(self, path: Path, entry: Entry) -> Iterator[Check]:
        is_manifest = path.name == MANIFEST_FILE and path.exists()
        if is_manifest:
            yield _file(path, entry, absent="WRONG")
            yield from self._manifest(manifest.read(path), False)
        elif self._is_new(path):
            yield _file(path, entry, absent="WRONG")

    def _input(self, path: Path, entry: Entry, chain: bool) -> Iterator[Check]:
        if "fingerprint" in entry:
            yield _dataset(path, entry)
        elif path.name == MANIFEST_FILE or self._is_new(path):
            yield _file(path, entry, absent="absent")
        if chain:
            yield from self._made_from(path)

    def _made_from(self, path: Path) -> Iterator[Check]:
        """The checks of an input that is an artifact itself."""
        try:
            manifests = find_manifests(path)
        except PileError:
            return
        for found in manifests:
            yield from self._manifest(manifest.read(found), True)


def _place(found: Manifest, entry: Entry) -> Path:
    return Path(os.path.normpath(found.folder / entry["path"]))


def _file(path: Path, entry: Entry, *, absent: str) -> Check:
    if not path.exists():
        return _in_shards(path, entry) or Check(absent, f"{path} is not here")
    n_bytes = path.stat().st_size
    if "bytes" in entry and n_bytes != entry["bytes"]:
        return Check("WRONG", f"{path} has {n_bytes} bytes, the manifest says {entry['bytes']}")
    if "sha256" in entry and files.sha256(path) != entry["sha256"]:
        return Check("WRONG", f"{path} has another SHA-256 than it should have")
    return Check("ok", f"{path} ({n_bytes:,} bytes)")


def _in_shards(path: Path, entry: Entry) -> Check | None:
    """The check of a token file whose shards are here in its place; None where they are not."""
    if path.suffix != ".bin" or not any(path.parent.glob(glob.escape(path.stem) + "-*-of-*.bin")):
        return None
    try:
        shards = token_shards.find_token_shards(path.with_suffix(""))
        digest = token_shards.sha256(shards)
    except (PileError, OSError) as err:
        return Check("WRONG", str(err))
    if digest != entry["sha256"]:
        return Check("WRONG", f"the {len(shards)} shards of {path} have another SHA-256 than it should have")
    return Check("ok", f"{path} ({len(shards)} shards)")


def _dataset(path: Path, entry: Entry) -> Check:
    """A dataset that something was made from, by its fingerprint."""
    try:
        found = _core.TokenSource(path).fingerprint
    except FileNotFoundError:
        return Check("absent", f"{path} is not here")
    except PileError as err:
        return Check("WRONG", str(err))
    if found != entry["fingerprint"]:
        return Check("WRONG", f"{path} is another dataset than the one it was made from")
    return Check("ok", f"{path} (fingerprint {found[:16]})")


def _structure(prefix: Path) -> Check:
    """A token dataset's index against its tokens."""
    try:
        _core.TokenDataset(prefix).check()
    except (PileError, OSError) as err:
        return Check("WRONG", str(err))
    return Check("ok", f"{prefix}: each document stands where its index says")
