"""Publishing: an artifact is made in a locked scratch folder and appears at its name as a whole.

    PREFIX.partial/          the scratch folder of the artifact whose manifest is PREFIX.manifest.json
      pile-tools.lock        proves that the folder is ours; locked while a process works in it
      ...                    unfinished files, and the state of a job that can resume
      PREFIX.manifest.json   written when every file it lists is finished and synced
      replaced.json          files of earlier artifacts at this name, which may be replaced or removed

Publishing removes the old manifest, renames the files and renames the manifest last: a manifest at its
final name says that the artifact is complete. While a manifest is in the scratch folder the artifact is being
replaced, and our readers say so. A killed job leaves the scratch folder; the same command finishes from it
and removes it. Regular files that a manifest of ours lists are replaced or removed, others only by force.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pile_tools import _core, checked, files, manifest, unchanged
from pile_tools.config import Settings
from pile_tools.errors import ConfigError, FormatError, OutputExistsError, PileError, PileWarning
from pile_tools.manifest import MANIFEST_FILE, MANIFEST_SUFFIX, SHA256_DIGITS, Entry, Manifest, Request
from pile_tools.unchanged import Identities

#: The file in a scratch folder that is locked, and by whose name the folder is known to be ours.
MARKER = "pile-tools.lock"

#: The file in a scratch folder that lists files of earlier artifacts.
REPLACED = "replaced.json"

#: The file in a scratch folder by which a killed job resumes.
STATE = "state.json"

SCRATCH_SUFFIX = ".partial"

#: What pages and pictures of ours hold near their start, HTML and SVG alike.
PAGE_MARK = "<!-- made by pile-tools -->"

#: What to do about a page in the way: its commands have no option to replace it.
_OTHER_NAME = "give it another name, or remove it"

#: What a file system without locks answers.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}

#: What a file system without hard links answers.
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK}

#: What only a write is answered, for want of space.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class NoLocksWarning(PileWarning):
    """The file system has no locks: nothing keeps a second process out."""


@dataclass(frozen=True)
class Target:
    """Where an artifact is published.

    Attributes:
        manifest: Its manifest; the other files are in the same folder.
        scratch: Its scratch folder, on the same file system.
    """

    manifest: Path
    scratch: Path

    @classmethod
    def of(cls, path: Path) -> Target:
        """The target of the artifact whose manifest is `path`.

        A folder with a `manifest.json` has its scratch folder beside it, any other artifact beside its files.

        Raises:
            ConfigError: The folder is the root of the file system, beside which there is nothing.
        """
        if path.name == MANIFEST_FILE:
            folder = path.parent
            # The scratch folder is beside the folder itself, by whatever name or link that is given.
            if folder.name in ("", "..") or folder.is_symlink():
                folder = folder.resolve()
            if not folder.name:
                raise ConfigError(f"no artifact is made of the root folder; give another ({folder})")
            return cls(path, folder.with_name(folder.name + SCRATCH_SUFFIX))
        return cls(path, path.with_name(path.name.removesuffix(MANIFEST_SUFFIX) + SCRATCH_SUFFIX))

    @property
    def folder(self) -> Path:
        """The folder of the published files."""
        return self.manifest.parent

    @property
    def unpublished(self) -> Path:
        """The manifest in the scratch folder, of an artifact that is finished but not published."""
        return self.scratch / self.manifest.name


@dataclass(frozen=True)
class Built:
    """What a job made in the scratch folder.

    Attributes:
        names: The files, as the manifest is to list them.
        summary: The manifest's summary.
        inputs: The manifest's inputs, with checksums where the job took them.
        roles: Roles of outputs, by file name.
        sha256: Checksums that the job took while it wrote, by file name.
    """

    names: Sequence[str]
    summary: Settings
    inputs: list[Entry]
    roles: Mapping[str, str] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)


#: Makes an artifact's files in the scratch folder.
Build = Callable[[Path], Built]


def make(
    target: Target,
    request: Request,
    build: Build,
    *,
    force: bool,
    names: Sequence[str] = (),
    resumes: bool = False,
    is_stream: bool = False,
    reads_inputs: bool = True,
    or_else: str = ", another -o keeps both",
) -> tuple[Manifest, bool]:
    """The manifest of the artifact asked for, and whether it was made now or was complete already.

    Args:
        target: Where it is published.
        request: What is asked for.
        build: Makes the files; called with the locked scratch folder.
        force: Make it anew and replace what is in the way.
        names: Files that are sure to be made: refused before the work if they may not be replaced.
        resumes: `build` continues from what a killed run left in the scratch folder, which is otherwise
            cleared first. The folder is then kept when `build` fails.
        is_stream: The input is a stream, of which nobody knows whether it is the same again: neither
            finished nor unpublished output is taken for what is asked for.
        reads_inputs: `build` reads the request's files itself. Otherwise another job has read them, and they
            are compared by their checksums when the same is requested again.
        or_else: What the user can do beside replacing the output.

    Raises:
        OutputExistsError: Something else is in the way and `force` is off, or it is no regular file.
        PileError: Another process makes this, or the scratch folder is not ours.
        OSError: A file cannot be read or written.
    """
    _refuse_own_input(target, request.inputs, names)
    _refuse_scratch(target.folder)
    if is_stream and os.path.lexists(target.manifest) and not force:
        raise OutputExistsError(f"is there already; --force replaces it{or_else} ({target.manifest})")
    force_anew = force or is_stream
    if not os.path.lexists(target.scratch) and (
        done := manifest.finished(target.manifest, request, force=force_anew, or_else=or_else)
    ):
        return done, False
    with locked(target.scratch, "is making this"):
        for path in (target.unpublished, target.scratch / REPLACED, target.scratch / STATE):
            if os.path.lexists(path) and not _is_regular(path):
                _remove_tree(path)
        owned, before = _owned(target), _inode(target.manifest)
        if done := manifest.finished(target.manifest, request, force=force_anew, or_else=or_else):
            _remove_replaced(target, done, owned)
            clear(target.scratch)
            return done, False
        if not is_stream and (resumed := _finished_in_scratch(target, request)):
            return _publish(target, resumed, owned, before, force=force), True
        _refuse_kind(target.manifest)
        for name in names:
            _refuse(target.folder / name, owned, None, force=force)
        _begin(target, owned)
        if not resumes:
            if not force and os.path.lexists(target.scratch / STATE):
                raise OutputExistsError(
                    f"holds finished work of another command, which resumes from it; --force discards it "
                    f"({target.scratch})"
                )
            clear(target.scratch, keep={REPLACED})
        try:
            seen = Identities.of(manifest.resolved(target.folder, of["path"]) for of in request.inputs)
            with _naming(target.manifest):
                try:
                    built = build(target.scratch)
                except OutputExistsError as err:
                    # The core found the finished work of another job there.
                    raise OutputExistsError(f"{err}; --force discards it") from err
                if reads_inputs:
                    _refuse_resized(request.inputs, target.folder)
                made = _write_manifest(target, request, built, owned)
            if reads_inputs:
                paths = list(manifest.hashed_inputs(made.inputs, request, target.folder))
                unchanged.remember(target.unpublished, paths, seen)
        except BaseException:
            if not resumes:
                clear(target.scratch, keep={REPLACED})
            raise
        return _publish(target, made, owned, before, force=force), True


def write_file(
    path: Path,
    fill: Callable[[Path], object],
    *,
    force: bool = False,
    is_ours: Callable[[bytes], bool] = lambda head: False,
    or_else: str = "--force replaces it",
) -> None:
    """Publishes a single file that has no manifest.

    Args:
        path: The file, or a device or pipe, which is written to.
        fill: Writes the file at the path that it is given.
        force: Replace any regular file. Without it only an equal file is replaced, or one that is ours.
        is_ours: Whether a file that begins with these bytes, 4 KiB at most, was written by the same command.
        or_else: What the user can do if another file is in the way.

    Raises:
        OutputExistsError: Another file is in the way.
        OSError: A file cannot be written.
    """
    if _is_stream(path):
        with tempfile.TemporaryDirectory(prefix="pile-tools-") as folder:
            temporary = Path(folder) / "output"
            with _naming(path):
                fill(temporary)
                with path.open("wb") as stream:
                    stream.write(temporary.read_bytes())
        return
    _refuse_scratch(path.parent)
    scratch = path.with_name(path.name + SCRATCH_SUFFIX)
    with locked(scratch, "is writing this"):
        clear(scratch)
        temporary = scratch / path.name
        try:
            with _naming(path):
                fill(temporary)
            _core.check_mapped()
            entry = _synced_entry(temporary, path.name)
            is_forced = force or (_is_regular(path) and is_ours(_head(path)))
            _refuse(path, {}, entry, force=is_forced, or_else=or_else)
            if is_forced:
                temporary.replace(path)
            else:
                _rename_exclusively(temporary, path, entry, or_else)
            sync_folder(path.parent)
        finally:
            clear(scratch)


def write_page(path: Path, text: str) -> None:
    """Publishes a page or picture that holds `PAGE_MARK` near its start; it replaces others that do."""
    write_file(
        path,
        lambda temporary: temporary.write_bytes(text.encode()),
        is_ours=_has_page_mark,
        or_else=_OTHER_NAME,
    )


def refuse_page(path: Path) -> None:
    """Refuses a page that `write_page` would refuse, before the work that it is to show."""
    if not _is_stream(path):
        is_ours = _is_regular(path) and _has_page_mark(_head(path))
        _refuse(path, {}, None, force=is_ours, or_else=_OTHER_NAME)


def _has_page_mark(head: bytes) -> bool:
    return PAGE_MARK.encode() in head


def own_files(target: Target) -> set[str]:
    """Names of the artifact's files in its folder, those of an interrupted publication included."""
    return {target.manifest.name, *_owned(target)}


def remove(found: Manifest) -> None:
    """Removes an artifact: its manifest, then the regular files that it lists and that are as it says."""
    found.path.unlink()
    for entry in found.outputs:
        _remove_own(found.folder, entry)
    sync_folder(found.folder)


def refuse_while_replaced(target: Target) -> None:
    """Raises PileError while the artifact is being replaced.

    A reader that calls this before and after it opens an artifact's files, and finds the same manifest both
    times (`stamp`), has files of one artifact.
    """
    if target.unpublished.is_file() and (target.scratch / MARKER).is_file():
        raise PileError(
            f"is being replaced; try again, or run the command that was making it again ({target.manifest})"
        )


def stamp(target: Target) -> tuple[int, int, int] | None:
    """What tells the published manifest from any other: inode, time of change (ns), bytes; None without one.

    Raises:
        PileError: The artifact is being replaced.
    """
    refuse_while_replaced(target)
    try:
        found = target.manifest.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns, found.st_size


@contextlib.contextmanager
def reading(target: Target) -> Iterator[None]:
    """Opens an artifact's files as those of one artifact. Raises PileError if it is replaced meanwhile."""
    before = stamp(target)
    try:
        yield
    except (OSError, PileError):
        # A file may be missing, or of another artifact, only because it is being replaced.
        _refuse_replaced(target, before)
        raise
    _refuse_replaced(target, before)


def _refuse_replaced(target: Target, before: tuple[int, int, int] | None) -> None:
    if stamp(target) != before:
        raise PileError(f"was replaced while it was opened; try again ({target.manifest})")


@contextlib.contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Makes a scratch folder, or takes over one of ours, and keeps other processes out of it.

    The lock ends with the process. A folder that holds nothing but the marker afterwards is removed.

    Args:
        folder: The scratch folder.
        what: What a process that holds the lock does, as in "another process is making this".

    Raises:
        PileError: Another process holds the lock, or the folder is not ours.
    """
    with contextlib.closing(_Lock(folder, what)):
        try:
            yield
        finally:
            if [path.name for path in folder.iterdir()] == [MARKER]:
                (folder / MARKER).unlink()
                # Another process may have come in between.
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    sync_folder(folder.parent)


def clear(folder: Path, keep: set[str] | frozenset[str] = frozenset()) -> None:
    """Removes what is in a locked scratch folder but the marker; no link is followed."""
    for path in sorted(folder.iterdir()):
        if path.name != MARKER and path.name not in keep:
            _remove_tree(path)


def sync_folder(folder: Path) -> None:
    """Makes renames and removals in a folder durable, where the file system can."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as err:
        if err.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Names the output in the error of a full disk: a write to an open file does not, unlike the core."""
    try:
        yield
    except OSError as err:
        # numpy says only how many items it could not write.
        if err.errno is None and err.filename is None:
            raise PileError(f"could not be written whole, {err}; is the disk full? ({path})") from err
        # The core names the file itself; Arrow's text holds the number.
        is_unnamed = err.strerror == os.strerror(err.errno or 0) or "[errno" in (err.strerror or "")
        if err.filename is None and err.errno in _FULL and is_unnamed:
            err.filename = str(path)
        raise


class _Lock:
    """The locked marker of a scratch folder."""

    def __init__(self, folder: Path, what: str) -> None:
        while True:
            _make_folder(folder)
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                self._file = os.open(folder / MARKER, flags, 0o644)
            except FileNotFoundError:
                # The process that held it has removed the folder just now.
                continue
            except OSError as err:
                if err.errno == errno.ELOOP:
                    raise PileError(
                        f"is a link, so this is no scratch folder of ours ({folder / MARKER})"
                    ) from None
                raise
            try:
                self._refuse_foreign(folder)
                if self._take(folder, what):
                    return
            except BaseException:
                self.close()
                raise
            self.close()

    def _refuse_foreign(self, folder: Path) -> None:
        """Refuses a file or pipe that has the marker's name only: ours is empty."""
        found = os.fstat(self._file)
        if not stat.S_ISREG(found.st_mode) or found.st_size:
            raise PileError(
                f"is not from pile-tools, so this is no scratch folder of ours ({folder / MARKER})"
            )

    def _take(self, folder: Path, what: str) -> bool:
        """Locks the marker; False if the process that held it has removed it meanwhile."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            if err.errno == errno.EWOULDBLOCK:
                raise PileError(f"another process {what}; wait for it or stop it ({folder})") from None
            if err.errno not in _NO_LOCKS:
                raise
            warnings.warn(
                f"the file system has no locks: do not run this twice at once ({folder})",
                NoLocksWarning,
                stacklevel=4,
            )
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.lstat(folder / MARKER), os.fstat(self._file))
        return False

    def close(self) -> None:
        """Ends the lock."""
        os.close(self._file)


def _make_folder(folder: Path) -> None:
    """Makes a scratch folder, or checks that the one that is there is ours or empty."""
    # A broken link in place of a parent exists too, and no waiting changes that: this error is not ours.
    files.make_folders(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        return
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise PileError(f"is in the way of a scratch folder; rename or remove it ({folder})")
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return
    if names and MARKER not in names:
        raise PileError(
            f"has the name of a scratch folder, but its files are not from pile-tools; "
            f"rename or remove it ({folder})"
        )


def _finished_in_scratch(target: Target, request: Request) -> Manifest | None:
    """The unpublished manifest of this request, if each file it lists is there, or published, as it says."""
    if not _is_regular(target.unpublished):
        return None
    try:
        found = manifest.read(target.unpublished)
    except FormatError:
        return None
    if found.request != request.digest or not manifest.has_same_inputs(found, request, target.folder):
        return None
    is_whole = all(
        _is_as_told(target.scratch / entry["path"], entry)
        or _is_as_told(target.folder / entry["path"], entry)
        for entry in found.outputs
    )
    return found if is_whole else None


def _begin(target: Target, owned: Mapping[str, Entry]) -> None:
    """Discards an unpublished manifest, whose files may already be published: they stay known as ours."""
    if os.path.lexists(target.unpublished):
        _write_replaced(target, owned)
        target.unpublished.unlink()


def _write_manifest(target: Target, request: Request, built: Built, owned: Mapping[str, Entry]) -> Manifest:
    """Syncs the files and writes their manifest: from here on a rerun only publishes."""
    _core.check_mapped()
    outputs = []
    for name in built.names:
        role = {"role": built.roles[name]} if name in built.roles else {}
        outputs.append({**role, **_synced_entry(target.scratch / name, name, built.sha256.get(name))})
    _write_replaced(target, owned)
    made = manifest.write(target.unpublished, request, outputs, built.summary, built.inputs)
    sync_folder(target.scratch)
    return made


def _refuse_own_input(target: Target, inputs: Sequence[Entry], names: Sequence[str]) -> None:
    """Refuses to write over what is still to be read. Raises ConfigError."""
    read = [manifest.resolved(target.folder, entry["path"]) for entry in inputs]
    for path in (target.folder / name for name in names):
        if path.is_file() and any(one.is_file() and path.samefile(one) for one in read):
            raise ConfigError(f"is one of the files that are read; give another output ({path})")


def _refuse_scratch(folder: Path) -> None:
    """Refuses an output in a scratch folder, which its job clears. Raises ConfigError."""
    for parent in (folder, *folder.parents):
        if parent.name.endswith(SCRATCH_SUFFIX) and (parent / MARKER).is_file():
            raise ConfigError(f"is the scratch folder of a job; give another output ({parent})")


def _refuse_resized(inputs: Sequence[Entry], folder: Path) -> None:
    """Refuses inputs that grew or shrank while the job read them. Raises PileError."""
    for entry in inputs:
        path = manifest.resolved(folder, entry["path"])
        if "bytes" in entry and path.is_file() and path.stat().st_size != entry["bytes"]:
            sizes = f"{entry['bytes']:,} bytes before, {path.stat().st_size:,} after"
            raise PileError(f"changed while it was read: {sizes}; run the command again ({path})")


def _publish(
    target: Target, made: Manifest, owned: Mapping[str, Entry], before: int | None, *, force: bool
) -> Manifest:
    """Renames finished files to their names, the manifest last, and removes what they replace.

    `before` is the inode of the manifest that was there when the job began.
    """
    files.make_folders(target.folder)
    for entry in made.outputs:
        _refuse(target.folder / entry["path"], owned, entry, force=force)
    _refuse_kind(target.manifest)
    if os.path.lexists(target.manifest):
        if not force and _inode(target.manifest) != before:
            raise OutputExistsError(f"came here while this was made; --force replaces it ({target.manifest})")
        target.manifest.unlink()
    # Readers that know no manifests open the first file of a list, `.bin` say: it goes first and comes last.
    entries = [entry for entry in made.outputs if os.path.lexists(target.scratch / entry["path"])]
    replaceable = {entry["path"] for entry in entries if force or entry["path"] in owned}
    for entry in entries:
        if entry["path"] in replaceable:
            (target.folder / entry["path"]).unlink(missing_ok=True)
    for entry in reversed(entries):
        made_file, final = target.scratch / entry["path"], target.folder / entry["path"]
        if entry["path"] in replaceable:
            made_file.replace(final)
        else:
            _rename_exclusively(made_file, final, entry)
    sync_folder(target.folder)
    if force:
        target.unpublished.replace(target.manifest)
    else:
        _rename_exclusively(target.unpublished, target.manifest, None)
    sync_folder(target.folder)
    published = manifest.read(target.manifest)
    _remove_replaced(target, published, owned)
    clear(target.scratch)
    return published


def _rename_exclusively(
    made: Path, final: Path, entry: Entry | None, or_else: str = "--force replaces it"
) -> None:
    """Renames a finished file to a name that was free, or had an equal file, when it was looked at last.

    A rename replaces what has come to the name since; a hard link does not.

    Args:
        made: The finished file in the scratch folder.
        final: Its name.
        entry: What the manifest says of it: an equal file stays, of the manifest itself none does.
        or_else: What the user can do if another file is there.

    Raises:
        OutputExistsError: Another file came to the name.
    """
    try:
        os.link(made, final, follow_symlinks=False)
    except FileExistsError:
        if entry is None or not _is_as_told(final, entry):
            raise OutputExistsError(f"came here while this was made; {or_else} ({final})") from None
    except OSError as err:
        if err.errno not in _NO_LINKS:
            raise
        made.replace(final)
        return
    made.unlink()


def _refuse(
    path: Path,
    owned: Mapping[str, Entry],
    new: Entry | None,
    *,
    force: bool,
    or_else: str = "--force replaces it",
) -> None:
    """Refuses to replace what is not ours, or no regular file. An equal file may be replaced by any."""
    _refuse_kind(path)
    is_replaceable = force or path.name in owned or (new is not None and _is_as_told(path, new))
    if os.path.lexists(path) and not is_replaceable:
        raise OutputExistsError(f"exists and is not from pile-tools; {or_else} ({path})")


def _refuse_kind(path: Path) -> None:
    """Refuses to replace a folder, link, device, pipe or socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise OutputExistsError(f"is {_kind(mode)} and is not replaced; give another output ({path})")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a link",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def _owned(target: Target) -> dict[str, Entry]:
    """Files beside the manifest that artifacts published at this name list as theirs."""
    owned: dict[str, Entry] = {}
    for path in (target.scratch / REPLACED, target.unpublished, target.manifest):
        if _is_regular(path):
            with contextlib.suppress(FormatError):
                entries = _read_replaced(path) if path.name == REPLACED else manifest.read(path).outputs
                # A killed publication may have renamed a file, or another command may have made one there.
                is_listed = path != target.unpublished
                owned.update(
                    (entry["path"], entry)
                    for entry in entries
                    if _is_plain(entry["path"])
                    and (is_listed or _is_as_told(target.folder / entry["path"], entry))
                )
    return owned


def _is_plain(name: str) -> bool:
    """Whether a name is that of a file in the folder itself."""
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


def _read_replaced(path: Path) -> list[Entry]:
    entries = checked.read_json(path, what="a list of replaced files").objects("files")
    return [
        {
            "path": entry.path("path"),
            "bytes": entry.integer("bytes"),
            "sha256": entry.hexadecimal("sha256", SHA256_DIGITS),
        }
        for entry in entries
    ]


def _write_replaced(target: Target, owned: Mapping[str, Entry]) -> None:
    """Records which files are ours, before the manifest that says so is removed."""
    if not owned:
        return
    keys = ("path", "bytes", "sha256")
    entries = [{key: entry[key] for key in keys} for entry in owned.values()]
    files.write_atomically(target.scratch / REPLACED, json.dumps({"files": entries}))


def _remove_replaced(target: Target, published: Manifest, owned: Mapping[str, Entry]) -> None:
    """Removes files of earlier artifacts that the published one does not have."""
    current = {entry["path"] for entry in published.outputs}
    for name, entry in owned.items():
        if name not in current:
            _remove_own(target.folder, entry)


def _remove_own(folder: Path, entry: Entry) -> None:
    """Removes a file that a manifest of ours lists, if it is the one: by kind, size and checksum."""
    path = folder / entry["path"]
    if _is_plain(entry["path"]) and _is_as_told(path, entry):
        path.unlink()


def _is_as_told(path: Path, entry: Entry) -> bool:
    """Whether a path is the regular file that an entry describes."""
    return (
        _is_regular(path) and path.stat().st_size == entry["bytes"] and files.sha256(path) == entry["sha256"]
    )


def _inode(path: Path) -> int | None:
    """The inode of a file or link itself; None where there is none."""
    with contextlib.suppress(FileNotFoundError):
        return path.lstat().st_ino
    return None


def _is_regular(path: Path) -> bool:
    """Whether a path is a regular file itself, not a link to one."""
    with contextlib.suppress(OSError):
        return stat.S_ISREG(path.lstat().st_mode)
    return False


def _is_stream(path: Path) -> bool:
    """Whether a path names a device or pipe, also by a link, as /dev/stdout does."""
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode
        return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)
    return False


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4096)


def _synced_entry(path: Path, name: str, sha256: str | None = None) -> Entry:
    """A finished file of the scratch folder, synced, as its manifest lists it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return {"path": name, "bytes": path.stat().st_size, "sha256": sha256 or files.sha256(path)}


def _remove_tree(path: Path) -> None:
    """Removes a file, a link, or a folder with what is in it; no link is followed."""
    # No recursion: folders may be nested deeper than Python's stack.
    pending = [path]
    while pending:
        if not stat.S_ISDIR(pending[-1].lstat().st_mode):
            pending.pop().unlink()
        elif children := list(pending[-1].iterdir()):
            pending += children
        else:
            pending.pop().rmdir()
