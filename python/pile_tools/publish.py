"""Publishing: an artifact is made in a locked scratch folder and appears at its final name complete.

    PREFIX.partial/          the scratch folder of the artifact whose manifest is PREFIX.manifest.json
      pile-tools.lock        marks the folder as ours; locked while a process works in it
      ...                    unfinished files, and the state of a job that can resume
      PREFIX.manifest.json   written once every file it lists is finished and synced
      replaced.json          files of earlier artifacts with this name, which may be replaced or removed

Publishing removes the old manifest, renames the files and renames the manifest last: a manifest at its
final name means that the artifact is complete. While a manifest is in the scratch folder the artifact is
being replaced, and our readers report it. A killed job leaves the scratch folder; the same command resumes
from it and removes it. Regular files as a manifest of ours records them are replaced or removed, others only
with `force`.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import glob
import itertools
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pile_tools import _core, checked, files, manifest, scratch_folders, unchanged
from pile_tools.config import Settings
from pile_tools.errors import ConfigError, FormatError, OutputExistsError, PileError
from pile_tools.manifest import (
    MANIFEST_FILE,
    MANIFEST_SUFFIX,
    ORDER_FILE,
    SHA256_DIGITS,
    Entry,
    Manifest,
    Request,
)
from pile_tools.terminal import counted
from pile_tools.unchanged import Identities

#: The file in a scratch folder that lists files of earlier artifacts.
REPLACED = "replaced.json"

#: The file in a scratch folder from which a killed job resumes.
STATE = "state.json"

#: How far down in the scratch folder it is, at most in the folder of a task of one step of a job.
_STATE_LEVELS = ("", "*/", "*/*/", "*/*/*/")

#: Names that no output takes.
RESERVED = frozenset({scratch_folders.MARKER, REPLACED, STATE, MANIFEST_FILE, ORDER_FILE})

#: The kinds of artifacts that a run consists of, in folders of their own.
_PARTS_OF_RUNS = ("checkpoint", "state")

#: A comment near the start of our pages and pictures, HTML and SVG alike.
PAGE_MARK = "<!-- made by pile-tools -->"

#: Advice when another file has the name of a page: the commands for pages have no option to replace it.
_OTHER_NAME = "give it another name, or remove it"

#: Error numbers of `link` on a file system without hard links; `EMLINK` where a file has one link at most.
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK}

#: A link to the file from which standard input comes. No output replaces it: an input `-` does not name it.
_STDIN = Path("/dev/stdin")

#: Error numbers of a write that exceeds the disk, a quota or a size limit.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Target:
    """The paths at which an artifact is published and made.

    Attributes:
        manifest: Path of the manifest; the other files are in the same folder.
        scratch: Path of the scratch folder, on the same file system.
    """

    manifest: Path
    scratch: Path

    @classmethod
    def of(cls, path: Path) -> Target:
        """The target of the artifact whose manifest is `path`.

        The scratch folder of a folder with a `manifest.json` is beside that folder, that of any other
        artifact beside its files.

        Raises:
            ConfigError: The folder is the root of the file system, which has no parent for a scratch folder.
            FileNotFoundError: `..` follows a folder that is missing.
        """
        files.check_parents(path.parent)
        if path.name == MANIFEST_FILE:
            folder = path.parent
            # `..` and links have no sibling of their name: the scratch folder is a sibling of the real
            # folder.
            if folder.name in ("", "..") or folder.is_symlink():
                folder = Path(os.path.realpath(folder))
            if not folder.name:
                raise ConfigError(f"the root folder cannot be an artifact; give another folder ({folder})")
            return cls(path, folder.with_name(folder.name + scratch_folders.SUFFIX))
        return cls(path, path.with_name(path.name.removesuffix(MANIFEST_SUFFIX) + scratch_folders.SUFFIX))

    @property
    def folder(self) -> Path:
        """The folder of the published files."""
        return self.manifest.parent

    @property
    def unpublished(self) -> Path:
        """Path of the manifest in the scratch folder, of an artifact that is finished but not published."""
        return self.scratch / self.manifest.name


@dataclass(frozen=True)
class Built:
    """The files that a job made in the scratch folder, and what their manifest records.

    Attributes:
        names: File names, in the order in which the manifest lists them.
        summary: The manifest's summary.
        inputs: The manifest's inputs, with the checksums that the job computed while reading.
        roles: Roles of outputs, by file name.
        sha256: Checksums that the job computed while writing, by file name.
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
    resumes: Sequence[str] | None = None,
    is_stream: bool = False,
    reads_inputs: bool = True,
    or_else: str = ", another output keeps both",
) -> tuple[Manifest, bool]:
    """Makes and publishes the requested artifact, unless it is complete.

    Args:
        target: Where it is published.
        request: Kind, settings and inputs of the artifact.
        build: Makes the files; called with the locked scratch folder.
        force: Make the artifact again although it is complete, and replace existing files. What a killed run
            of the same request had finished but not published is published without making it again.
        names: Files that are certain to be made. If one may not be replaced, the job is refused before the
            work.
        resumes: What `build` continues from after a killed run: names of folders in the scratch folder, and
            `STATE`. The scratch folder is then kept when `build` fails. None if `build` starts again: the
            folder is cleared before `build` and on failure.
        is_stream: The input is a stream, which may differ from one run to the next: neither finished nor
            unpublished output counts as the requested artifact.
        reads_inputs: `build` reads the request's files itself. Otherwise another job has read them, and they
            are compared by their checksums when the same is requested again.
        or_else: Advice in addition to replacing the output, for the message.

    Returns:
        The manifest, and whether the artifact was made now (True) or was already complete (False).

    Raises:
        ConfigError: It would replace an input, the artifact of one, or files of another kind of artifact.
        OutputExistsError: Other output exists and `force` is off, or it is not a regular file.
        PileError: Another process makes the same artifact, or the scratch folder is not ours.
        OSError: A file cannot be read or written.
    """
    _refuse_reserved(names)
    _refuse_no_folder(target.folder)
    _refuse_own_input(target, request.kind, request.inputs, names)
    refuse_mapped_in(target.scratch)
    refuse_scratch(target.folder)
    if is_stream and os.path.lexists(target.manifest) and not force:
        raise OutputExistsError(f"already exists; force replaces it{or_else} ({target.manifest})")
    ignores_finished = force or is_stream

    def finished() -> Manifest | None:
        done = manifest.finished(target.manifest, request, force=ignores_finished, or_else=or_else)
        if done is not None:
            _refuse_other_names(target, request.kind, names)
        return done

    # A scratch folder that this user may not change was left by another's job: only that user can remove it.
    if not scratch_folders.is_writable(target.scratch) and (done := finished()):
        return done, False
    refuse_mounted(target)
    with scratch_folders.locked(target.scratch, "is making this output"), _naming_damage(target):
        for path in (target.unpublished, target.scratch / REPLACED, target.scratch / STATE):
            if os.path.lexists(path) and not files.is_regular(path):
                scratch_folders.remove_tree(path)
        owned, before = _owned(target), files.version(target.manifest)
        if done := finished():
            if _others_output(target) is None:
                scratch_folders.clear(target.scratch)
            return done, False
        for name in owned:
            refuse_mounted_file(target.folder / name)
        if not is_stream and (resumed := _finished_in_scratch(target, request)):
            return _publish(target, resumed, owned, before, force=force), True
        if not force:
            _refuse_to_discard(target, request)
        _refuse_kind(target.manifest)
        _refuse_other_names(target, request.kind, names)
        for name in names:
            _refuse(target.folder / name, owned, None, force=force)
        _discard_unpublished(target, owned)
        scratch_folders.remove_links(target.scratch)
        _discard_others_work(target.scratch, resumes or (), force=force)
        if resumes is None:
            scratch_folders.clear(target.scratch, keep={REPLACED})
        try:
            identities = Identities.of(
                manifest.resolved(target.folder, entry["path"]) for entry in request.inputs
            )
            with _naming(target.manifest):
                try:
                    built = build(target.scratch)
                except OutputExistsError as err:
                    # The core found the finished work of another job in the scratch folder.
                    raise OutputExistsError(f"{err}; force discards it") from err
                if reads_inputs:
                    refuse_resized(request.inputs, target.folder)
                # The job may have found more inputs than it was asked for, such as a tokenizer that a
                # manifest names. Refused here, it leaves no finished output for which readers would wait.
                _refuse_own_input(target, request.kind, built.inputs, built.names)
                made = _write_manifest(target, request, built, owned)
            if reads_inputs:
                paths = list(manifest.hashed_inputs(made.inputs, request, target.folder))
                # A later run with these inputs skips their checksums while their identities are the same.
                unchanged.remember(target.unpublished, paths, identities)
        except BaseException:
            if resumes is None:
                scratch_folders.clear(target.scratch, keep={REPLACED})
            raise
        return _publish(target, made, owned, before, force=force), True


#: What the holder of the lock of a single file does.
_WRITING = "is writing this file"


def write_file(
    path: Path,
    fill: Callable[[Path], object],
    *,
    force: bool = False,
    is_ours: Callable[[bytes], bool] = lambda head: False,
    or_else: str = "force replaces it",
    inputs: Iterable[Path] = (),
) -> None:
    """Publishes a single file that has no manifest.

    Args:
        path: The file. A device or pipe is written to directly.
        fill: Writes the file to the path that it is called with.
        force: Replace any regular file. Otherwise only an equal file is replaced, or one that `is_ours`
            accepts.
        is_ours: Whether an existing file that starts with these bytes, at most 4 KiB, may be replaced.
        or_else: Advice for the message when another file exists.
        inputs: Files that it is made from, beside those that are mapped.

    Raises:
        ConfigError: The file is one of the inputs, belongs to an artifact, or has the name of a manifest; or
            an input is in its scratch folder.
        OutputExistsError: Another file exists, also in its scratch folder.
        OSError: A file cannot be written.
    """
    if is_stream(path):
        with tempfile.TemporaryDirectory(prefix="pile-tools-") as folder:
            temporary = Path(folder) / "output"
            with _naming(path):
                fill(temporary)
                with path.open("wb") as stream, temporary.open("rb") as made:
                    shutil.copyfileobj(made, stream)
        return
    refuse_name(path)
    scratch = scratch_of(path)
    refuse_in_scratch(scratch, inputs)
    refuse_mapped_in(scratch)
    _refuse_mounted(path.parent, scratch)
    with contextlib.nullcontext() if scratch in _HELD else scratch_folders.locked(scratch, _WRITING):
        _clear_file(scratch, path.name)
        temporary = scratch / path.name
        try:
            with _naming(path):
                fill(temporary)
            # An input that was cut short while it was mapped reads as zeros, which must not be published.
            _core.check_mapped()
            entry = _synced_entry(temporary, path.name)
            is_forced = force or (files.is_regular(path) and is_ours(first_bytes(path)))
            _refuse(path, {}, entry, force=is_forced, or_else=or_else)
            _refuse_input_or_part(path, inputs)
            if is_forced:
                temporary.replace(path)
            else:
                rename_exclusively(temporary, path, entry, or_else)
            files.sync_folder(path.parent)
        finally:
            scratch_folders.clear(scratch)


#: Scratch folders of single files that this process holds for a whole job.
_HELD: set[Path] = set()


@contextlib.contextmanager
def holding(path: Path) -> Iterator[None]:
    """Keeps other processes from writing a single file until the block ends, between our own writes too.

    Raises:
        PileError: Another process holds it.
    """
    if is_stream(path):
        yield
        return
    scratch = scratch_of(path)
    with scratch_folders.locked(scratch, _WRITING):
        _HELD.add(scratch)
        try:
            yield
        finally:
            _HELD.discard(scratch)


def tidy(path: Path) -> None:
    """Removes the scratch folder of a single file, which a killed process left, unless one works in it."""
    scratch = scratch_of(path)
    # Other files in it are left to `write_file`.
    scratch_folders.discard(scratch, _WRITING, lambda folder: _clear_file(folder, path.name))


def _clear_file(scratch: Path, name: str) -> None:
    """Removes the unfinished file of a killed process from a scratch folder.

    Raises:
        OutputExistsError: There are other files, such as what a stopped job of another kind has finished.
    """
    for path in sorted(scratch.iterdir()):
        if path.name not in (scratch_folders.MARKER, name) or scratch_folders.is_folder(path):
            raise OutputExistsError(
                f"holds files that are not this command's; run the command again that made them, or remove "
                f"them ({scratch}: {path.name})"
            )
    scratch_folders.clear(scratch)


def scratch_of(path: Path) -> Path:
    """The scratch folder of a single file that has no manifest."""
    return path.with_name(path.name + scratch_folders.SUFFIX)


def is_stream(path: Path) -> bool:
    """Whether a path names a device or pipe, directly or through a link such as /dev/stdout."""
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode
        return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)
    return False


def write_page(path: Path, text: str, inputs: Iterable[Path] = ()) -> None:
    """Publishes a page or plot: a tag at its start, `PAGE_MARK` near it. Replaces only files like it."""
    write_file(
        path,
        lambda temporary: temporary.write_bytes(text.encode()),
        is_ours=_has_page_mark,
        or_else=_OTHER_NAME,
        inputs=inputs,
    )


def refuse_page(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Raises the error of `write_page` for an existing file, before the page's contents are computed."""
    if not is_stream(path):
        refuse_name(path)
        is_ours = files.is_regular(path) and _has_page_mark(first_bytes(path))
        _refuse(path, {}, None, force=is_ours, or_else=_OTHER_NAME)
        _refuse_input_or_part(path, inputs)


def refuse_name(path: Path) -> None:
    """Raises ConfigError or OutputExistsError for a path at which no single file is written."""
    if is_stream(path):
        return
    _refuse_reserved([path.name])
    _refuse_no_folder(path.parent)
    refuse_scratch(path.parent)
    _refuse_kind(path)


def _refuse_input_or_part(path: Path, inputs: Iterable[Path]) -> None:
    """Raises ConfigError for a file that is read here, or that a manifest beside it lists, there or not."""
    read = {files.identity(source) for source in (*inputs, _STDIN)}
    if path.is_file() and (_core.is_mapped(path) or files.identity(path) in read):
        raise ConfigError(f"is one of the inputs; give another output ({path})")
    for beside in sorted(path.parent.iterdir()) if path.parent.is_dir() else ():
        found = _read_whole(beside) if manifest.is_name(beside.name) else None
        if found is not None and any(entry["path"] == path.name for entry in found.outputs):
            raise ConfigError(f"is a file of another output; give another name ({path}, {beside})")


def _read_whole(path: Path) -> Manifest | None:
    """A manifest; None if there is none, it is damaged, or it is not ours."""
    try:
        return manifest.read(path)
    except (PileError, OSError):
        return None


def _has_page_mark(head: bytes) -> bool:
    # A page starts with a tag. JSON can hold the mark too: a tokenizer that the command reads, for one.
    # Editors may write a byte-order mark.
    is_page = head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<")
    return is_page and PAGE_MARK.encode() in head


def own_files(target: Target) -> set[str]:
    """Names of the artifact's files in its folder, including those of an interrupted publication."""
    return {target.manifest.name, *_owned(target)}


def remove(found: Manifest) -> None:
    """Removes an artifact: the regular files it lists whose size and checksum match, then its manifest.

    The manifest is the last, as only it says which files are ours: a stopped removal can be repeated.
    """
    for entry in found.outputs:
        _remove_own(found.folder, entry)
    found.path.unlink()
    files.sync_folder(found.folder)


def refuse_while_replaced(target: Target) -> None:
    """Raises PileError while the artifact is being replaced.

    A reader that calls this before and after it opens an artifact's files, and finds the same manifest both
    times (`stamp`), has opened files of a single artifact.
    """
    if target.unpublished.is_file() and (target.scratch / scratch_folders.MARKER).is_file():
        raise PileError(
            f"is being replaced; try again, or run again the command that makes it ({target.manifest})"
        )


def stamp(target: Target) -> files.Version | None:
    """The version of the published manifest, None if there is none.

    Raises:
        PileError: The artifact is being replaced.
    """
    refuse_while_replaced(target)
    return files.version(target.manifest)


@contextlib.contextmanager
def reading(target: Target) -> Iterator[None]:
    """A context in which to open an artifact's files. Raises PileError if it is replaced meanwhile."""
    before = stamp(target)
    try:
        yield
    except (OSError, PileError):
        # The error may be a consequence of the replacement: files are missing or belong to different
        # artifacts.
        _refuse_replaced(target, before)
        raise
    _refuse_replaced(target, before)


def _refuse_replaced(target: Target, before: files.Version | None) -> None:
    if stamp(target) != before:
        raise PileError(f"was replaced while it was opened; try again ({target.manifest})")


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Adds the output's path to the full-disk error. A write to an open file raises it without a path."""
    try:
        yield
    except OSError as err:
        # numpy reports only the number of items that it could not write.
        if err.errno is None and err.filename is None:
            raise PileError(f"could not be written completely: {err}; is the disk full? ({path})") from err
        # An error of the core already names the file in its text, so its text is not the system's own. Arrow
        # names no file, and puts the error number into the text.
        is_unnamed = err.strerror == os.strerror(err.errno or 0) or "[errno" in (err.strerror or "")
        if err.filename is None and err.errno in _FULL and is_unnamed:
            err.filename = str(path)
        raise


def _finished_in_scratch(target: Target, request: Request) -> Manifest | None:
    """The unpublished manifest of this request, if each file it lists is intact, published or not."""
    if not files.is_regular(target.unpublished) or not _is_whole(target.unpublished):
        return None
    found = manifest.read(target.unpublished)
    # Someone else may have put it there, with outputs in other folders, which must not be moved or removed.
    if not all(_is_file_name(entry["path"]) and not is_reserved(entry["path"]) for entry in found.outputs):
        return None
    if not found.is_of(request) or not manifest.has_same_inputs(found, request, target.folder):
        return None
    return found if all(_is_here(target, entry) for entry in found.outputs) else None


def _is_here(target: Target, entry: Entry) -> bool:
    """Whether a file of an unpublished manifest is intact, published or not. Removes a damaged copy of it."""
    made = target.scratch / entry["path"]
    if _is_own(made, entry):
        return True
    if not _is_own(target.folder / entry["path"], entry):
        return False
    # A run that was killed after it linked the file to its final name leaves both names, which are two files
    # once the folders are copied. What is in the scratch folder would replace the published one.
    if os.path.lexists(made):
        scratch_folders.remove_tree(made)
    return True


def _discard_unpublished(target: Target, owned: Mapping[str, Entry]) -> None:
    """Discards an unpublished manifest. Its files may already be published, so they are recorded as ours."""
    if os.path.lexists(target.unpublished):
        _write_replaced(target, owned)
        target.unpublished.unlink()


def _write_manifest(target: Target, request: Request, built: Built, owned: Mapping[str, Entry]) -> Manifest:
    """Syncs the files and writes their manifest; a rerun after that only publishes."""
    # An input that was cut short while it was mapped reads as zeros, which must not be published.
    _core.check_mapped()
    outputs = []
    for name in built.names:
        role = {"role": built.roles[name]} if name in built.roles else {}
        outputs.append({**role, **_synced_entry(target.scratch / name, name, built.sha256.get(name))})
    _write_replaced(target, owned)
    made = manifest.write(target.unpublished, request, outputs, built.summary, built.inputs)
    files.sync_folder(target.scratch)
    return made


def _refuse_to_discard(target: Target, request: Request) -> None:
    """Raises OutputExistsError if a killed command left the finished artifact of other settings or inputs.

    Or another artifact: a tokenizer `t.json` and a folder `t` have one scratch folder.
    """
    if (other := _others_output(target)) is not None:
        raise OutputExistsError(
            f"is of another output, whose command finishes it; run that again, or force discards it ({other})"
        )
    if not target.unpublished.is_file():
        return
    try:
        found = manifest.read(target.unpublished)
    except FormatError:
        return
    # Inputs of other sizes are those of the same command, which were changed since.
    made_from, expected = (
        (of.kind, of.settings, [(entry["role"], entry["path"]) for entry in of.inputs])
        for of in (found, request)
    )
    if made_from == expected:
        return
    raise OutputExistsError(
        f"holds a finished output of other settings or inputs, which its command publishes; "
        f"force discards it ({target.scratch})"
    )


def _others_output(target: Target) -> Path | None:
    """A file of another artifact in the scratch folder, which it has not finished publishing."""
    there = (path for path in sorted(target.scratch.iterdir()) if files.is_regular(path))
    return next((path for path in there if _is_of_another(path, target)), None)


def _is_of_another(path: Path, target: Target) -> bool:
    if path.name == REPLACED:
        with contextlib.suppress(FormatError):
            return not _is_list_of(checked.read_json(path, what="a list of replaced files"), target)
        return False
    return manifest.is_name(path.name) and path != target.unpublished


def _discard_others_work(scratch: Path, own: Iterable[str], *, force: bool) -> None:
    """Clears a scratch folder with the state of a job of another kind: one that is not in `own`, nor below.

    Raises:
        OutputExistsError: There is one, and `force` is off.
    """
    states = itertools.chain.from_iterable(scratch.glob(levels + STATE) for levels in _STATE_LEVELS)
    if all(state.relative_to(scratch).parts[0] in own for state in states if files.is_regular(state)):
        return
    if not force:
        raise OutputExistsError(
            f"holds finished work of another command, which can resume from it; force discards it ({scratch})"
        )
    scratch_folders.clear(scratch, keep={REPLACED})


def _refuse_reserved(names: Sequence[str]) -> None:
    """Raises ConfigError for an output with the name of a manifest or of a file of the scratch folder."""
    for name in names:
        if is_reserved(name):
            raise ConfigError(f"is a name that pile-tools itself uses; give another output ({name})")


def is_reserved(name: str) -> bool:
    """Whether a name is that of a manifest or of a file of the scratch folder, which no output takes."""
    return name in RESERVED or name.endswith(MANIFEST_SUFFIX)


@contextlib.contextmanager
def _naming_damage(target: Target) -> Iterator[None]:
    """Adds to an error about an existing file that a killed run may have published it.

    Which files that run has published is known from its unpublished manifest only, which may be damaged.
    """
    is_damaged = files.is_regular(target.unpublished) and not _is_whole(target.unpublished)
    try:
        yield
    except OutputExistsError as err:
        if is_damaged:
            what = f"it may be of a killed run, whose manifest is damaged ({target.unpublished})"
            raise OutputExistsError(f"{err}; {what}") from err
        raise


def _is_whole(path: Path) -> bool:
    """Whether a file is a manifest with the bytes that it was written with."""
    with contextlib.suppress(FormatError):
        manifest.read(path)
        return manifest.is_as_written(path)
    return False


def _refuse_own_input(target: Target, kind: str, inputs: Sequence[Entry], names: Iterable[str]) -> None:
    """Raises ConfigError if an output would overwrite an input, or if an input is a file of the old artifact.

    The files of the old artifact are removed before the manifest is renamed: a job that is killed between
    could not be run again. An artifact of another kind in whose folder an input is, such as the run whose
    checkpoints a study scores, is not replaced either.
    """
    sources = [manifest.resolved(target.folder, entry["path"]) for entry in inputs]
    refuse_in_scratch(target.scratch, sources)
    refuse_in_artifact(target.manifest, kind, sources)
    paths = [path for source in sources for path in _files_of(source)]
    read = {of for path in (*paths, _STDIN) if (of := files.identity(path))}
    for name in dict.fromkeys([target.manifest.name, *names, *_owned(target)]):
        path = target.folder / name
        if path.is_file() and files.identity(path) in read:
            raise ConfigError(f"is one of the inputs; give another output ({path})")


def refuse_in_artifact(path: Path, kind: str, sources: Iterable[Path]) -> None:
    """Raises ConfigError for an input in the folder of an artifact of another kind, which would be replaced.

    Also for a part of a run, whose other parts may be inputs. `path` is that of the artifact's manifest, if
    it has a folder of its own.
    """
    is_folder = path.name == MANIFEST_FILE and path.is_file()
    if is_folder and (old := _read_whole(path)) is not None and old.kind != kind:
        if old.kind in _PARTS_OF_RUNS:
            raise ConfigError(f"is a {old.kind} of a run; give another output ({path.parent})")
        folders = files.folders_in(path.parent)
        if any(files.is_in(source, folders) for source in sources):
            raise ConfigError(
                f"an input is in the folder of this {old.kind}; give another output ({path.parent})"
            )


def _refuse_other_names(target: Target, kind: str, names: Sequence[str]) -> None:
    """Raises ConfigError for an artifact that has only the name of its manifest in common with the new one.

    A tokenizer `t.json` and a dataset `t.bin`, say, or a tokenizer `t`: who names the one does not mean the
    other's files, which would be removed. Of a folder that is an artifact, whoever gives the folder means
    what is in it.
    """
    is_folder = target.manifest.name in (MANIFEST_FILE, ORDER_FILE)
    if is_folder or (old := _read_whole(target.manifest)) is None:
        return
    others = [entry["path"] for entry in old.outputs if entry["path"] not in names]
    # Of an artifact of several files, names may depend on settings.
    is_other_file = len(names) == len(old.outputs) == len(others) == 1
    if others and (old.kind != kind or is_other_file):
        what = f"is the manifest of other files, such as {others[0]}"
        raise ConfigError(f"{what}; give another name ({target.manifest})")


def refuse_in_scratch(scratch: Path, sources: Iterable[Path]) -> None:
    """Raises ConfigError for an input in the scratch folder of the output, which is cleared."""
    known = files.identity(scratch)
    for source in sources:
        if known is not None and files.is_in(source, {known}):
            raise _in_scratch(source)


def refuse_mapped_in(scratch: Path) -> None:
    """Raises ConfigError for a file in the scratch folder of the output that this process has mapped.

    It is an input of inputs, such as the tokens of an order, which no request names.
    """
    for folder, _, names in os.walk(scratch):
        for path in (Path(folder, name) for name in names):
            if _core.is_mapped(path):
                raise _in_scratch(path)


def _in_scratch(source: Path) -> ConfigError:
    return ConfigError(f"is in the scratch folder of the output, which is cleared; move it ({source})")


def _files_of(source: Path) -> list[Path]:
    """The files of an input: itself, or those of the tokens at a prefix."""
    if source.exists():
        return [source]
    shards = source.parent.glob(f"{glob.escape(source.name)}-*-of-*.bin")
    return [Path(f"{source}.bin"), Path(f"{source}.idx"), *shards]


def refuse_scratch(folder: Path) -> None:
    """Raises ConfigError for an output in a scratch folder, there or not: the folder's job clears it."""
    for parent in (folder, *folder.parents):
        is_named = parent.name.endswith(scratch_folders.SUFFIX)
        if is_named and (not parent.is_dir() or scratch_folders.is_ours(parent)):
            raise ConfigError(f"has the name of a scratch folder; give another output ({parent})")


def _refuse_no_folder(folder: Path) -> None:
    """Raises ConfigError if the folder of an output, or one above it, is a file or a broken link."""
    found = next((parent for parent in (folder, *folder.parents) if os.path.lexists(parent)), None)
    if found is not None and not found.is_dir():
        raise ConfigError(f"is no folder, and the output needs one; give another path ({found})")


def refuse_resized(inputs: Sequence[Entry], folder: Path) -> None:
    """Raises PileError if an input changed its size while a job of an artifact in `folder` read it."""
    for entry in inputs:
        path = manifest.resolved(folder, entry["path"])
        if "bytes" in entry and path.is_file() and path.stat().st_size != entry["bytes"]:
            sizes = f"{counted(entry['bytes'], 'byte')} before, {path.stat().st_size:,} after"
            raise PileError(f"changed while it was read: {sizes}; run the command again ({path})")


def refuse_mounted(target: Target) -> None:
    """Raises ConfigError for a folder on another mount than its scratch folder: renames fail."""
    _refuse_mounted(target.folder, target.scratch)


def _refuse_mounted(folder: Path, scratch: Path) -> None:
    # A folder that is still to be made will be on the mount of the nearest folder above it.
    parent = files.mount(next(path for path in scratch.parents if path.is_dir()))
    if scratch.is_dir() and files.mount(scratch) != parent:
        raise ConfigError(f"is a mounted folder, out of which no file is renamed; unmount it ({scratch})")
    if folder.is_dir() and files.mount(folder) != parent:
        raise ConfigError(
            f"a file system is mounted here, and the scratch folder is beside this folder; "
            f"give a folder in it ({folder})"
        )


def refuse_mounted_file(path: Path) -> None:
    """Raises OutputExistsError for a file that is mounted at this name: it cannot be removed."""
    if files.is_regular(path) and files.mount(path) not in (None, files.mount(path.parent)):
        raise OutputExistsError(f"is a mounted file, which is not replaced; give another output ({path})")


def _publish(
    target: Target,
    made: Manifest,
    owned: Mapping[str, Entry],
    before: files.Version | None,
    *,
    force: bool,
) -> Manifest:
    """Renames finished files to their names, the manifest last, and removes what they replace.

    `before` is the version of the manifest that existed when the job began, None if there was none.
    """
    # What a killed run has finished was checked then; files may have been moved since.
    _refuse_own_input(target, made.kind, made.inputs, [entry["path"] for entry in made.outputs])
    files.make_folders(target.folder)
    entries = [entry for entry in made.outputs if os.path.lexists(target.scratch / entry["path"])]
    # The files may take long to compare, so what was compared is looked at again when it is removed.
    published = {entry["path"]: target.folder / entry["path"] for entry in made.outputs}
    versions = {name: files.version(final) for name, final in published.items()}
    for entry in made.outputs:
        _refuse(published[entry["path"]], owned, entry, force=force)
    if not force and os.path.lexists(target.manifest):
        _refuse_changed(target.manifest, before)
    try:
        _remove_regular(target.manifest)
    except PermissionError:
        # Only its owner may remove it, or nobody: nothing is replaced, and the manifest in the scratch folder
        # would tell readers that it is.
        target.unpublished.unlink()
        raise
    # Readers of other tools, which ignore manifests, open the first file of the list, for example `.bin`. It
    # is removed first and renamed last, so that its presence means that the others exist.
    for entry in entries:
        name, final = entry["path"], published[entry["path"]]
        if not force:
            _refuse_changed(final, versions[name])
        # A file that was created at a free name since then is not removed: the rename below refuses it.
        if versions[name] is not None:
            _remove_regular(final)
    _remove_replaced(target, made, owned)
    for entry in reversed(entries):
        name = entry["path"]
        versions[name] = rename_exclusively(target.scratch / name, published[name], entry)
    files.sync_folder(target.folder)
    # Another artifact that shares a file, but not the scratch folder, may have replaced it since.
    for name, final in published.items():
        _refuse_changed(final, versions[name])
    rename_exclusively(target.unpublished, target.manifest, None)
    files.sync_folder(target.folder)
    found = manifest.read(target.manifest)
    scratch_folders.clear(target.scratch)
    return found


def _refuse_changed(path: Path, before: files.Version | None) -> None:
    """Raises OutputExistsError if a file is not the one that was looked at before."""
    if files.version(path) != before:
        raise OutputExistsError(f"was created while this was being made; force replaces it ({path})")


def _remove_regular(path: Path) -> None:
    """Removes a regular file, if there is one. Raises OutputExistsError for anything else."""
    _refuse_kind(path)
    path.unlink(missing_ok=True)


def rename_exclusively(
    made: Path, final: Path, entry: Entry | None, or_else: str = "force replaces it"
) -> files.Version | None:
    """Renames a finished file, without replacing a file created since the name was last checked.

    A rename would replace such a file; a hard link fails.

    Args:
        made: The finished file in the scratch folder.
        final: Its final path.
        entry: The file's entry in the manifest, which an existing equal file satisfies. None for the manifest
            itself, which no existing file satisfies.
        or_else: Advice for the message when another file exists.

    Returns:
        The version of the file at the final path: the one made, or an equal one that exists.

    Raises:
        OutputExistsError: Another file was created at the final path.
    """
    version = files.version(made)
    try:
        os.link(made, final, follow_symlinks=False)
        linked = files.version(final)
        # Many file systems of FUSE number names, not files.
        if linked is not None and version is not None and linked[1:] == version[1:]:
            version = linked
    except OSError as err:
        if err.errno not in {errno.EEXIST, *_NO_LINKS}:
            raise
        existing = files.version(final)
        if os.path.lexists(final) and (entry is None or not _is_own(final, entry)):
            raise OutputExistsError(f"was created while this was being made; {or_else} ({final})") from None
        if err.errno in _NO_LINKS:
            made.replace(final)
            return version
        version = existing
    made.unlink()
    return version


def _refuse(
    path: Path,
    owned: Mapping[str, Entry],
    new: Entry | None,
    *,
    force: bool,
    or_else: str = "force replaces it",
) -> None:
    """Raises OutputExistsError for a file that is neither the recorded one nor equal to `new`."""
    _refuse_kind(path)
    recorded = owned.get(path.name)
    if force or not os.path.lexists(path):
        return
    if not any(entry is not None and _is_own(path, entry) for entry in (recorded, new)):
        what = "is not from pile-tools" if recorded is None else "is not what pile-tools wrote"
        raise OutputExistsError(f"exists and {what}; {or_else} ({path})")


def _refuse_kind(path: Path) -> None:
    """Raises OutputExistsError for a folder, link, device, pipe or socket, which is never replaced."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise OutputExistsError(f"is {_kind(mode)}, which is not replaced; give another output ({path})")
    refuse_mounted_file(path)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a link",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def refuse_foreign(target: Target, names: Iterable[str]) -> None:
    """Raises OutputExistsError for a file of these names that is not the artifact's, as it was written."""
    owned = _owned(target)
    for name in names:
        _refuse(target.folder / name, owned, None, force=False)


def _owned(target: Target) -> dict[str, Entry]:
    """Entries, by name, of files beside the manifest that artifacts published with this name list."""
    owned: dict[str, Entry] = {}
    for path in (target.scratch / REPLACED, target.unpublished, target.manifest):
        if files.is_regular(path):
            with contextlib.suppress(FormatError):
                entries = (
                    _read_replaced(path, target) if path.name == REPLACED else manifest.read(path).outputs
                )
                # Only files that a killed publication has renamed are ours, not those of another command.
                is_listed = path != target.unpublished
                owned.update(
                    (entry["path"], entry)
                    for entry in entries
                    if _is_file_name(entry["path"])
                    and (is_listed or _is_own(target.folder / entry["path"], entry))
                )
    return owned


def _is_file_name(name: str) -> bool:
    """Whether a manifest's path names a file in the manifest's folder, not below it or elsewhere."""
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


def _read_replaced(path: Path, target: Target) -> list[Entry]:
    values = checked.read_json(path, what="a list of replaced files")
    if not _is_list_of(values, target):
        return []
    entries = values.objects("files")
    return [
        {
            "path": entry.path("path"),
            "bytes": entry.integer("bytes"),
            "sha256": entry.hexadecimal("sha256", SHA256_DIGITS),
        }
        for entry in entries
    ]


def _is_list_of(values: checked.Values, target: Target) -> bool:
    """Whether a list of replaced files is of this artifact, not of another one with its scratch folder."""
    return not values.has("manifest") or values.text("manifest") == target.manifest.name


def _write_replaced(target: Target, owned: Mapping[str, Entry]) -> None:
    """Records which files are ours, before the manifest that lists them is removed."""
    if not owned:
        return
    keys = ("path", "bytes", "sha256")
    entries = [{key: entry[key] for key in keys} for entry in owned.values()]
    values = {"manifest": target.manifest.name, "files": entries}
    files.write_atomically(target.scratch / REPLACED, json.dumps(values))


def _remove_replaced(target: Target, published: Manifest, owned: Mapping[str, Entry]) -> None:
    """Removes files of earlier artifacts that the published one does not list."""
    current = {entry["path"] for entry in published.outputs}
    for name, entry in owned.items():
        if name not in current:
            _remove_own(target.folder, entry)


def _remove_own(folder: Path, entry: Entry) -> None:
    """Removes a file that a manifest of ours lists, if its size and checksum match."""
    path = folder / entry["path"]
    if _is_file_name(entry["path"]) and _is_own(path, entry):
        path.unlink()


def _is_own(path: Path, entry: Entry) -> bool:
    """Whether a path is the file of an entry, not a link to one."""
    return files.is_regular(path) and manifest.matches(path, entry)


def first_bytes(path: Path) -> bytes:
    """As many bytes of a file as `is_ours` of `write_file` gets."""
    with path.open("rb") as file:
        return file.read(4096)


def _synced_entry(path: Path, name: str, sha256: str | None = None) -> Entry:
    """Syncs a finished file of the scratch folder and returns its manifest entry."""
    with path.open("rb") as file:
        files.sync(file.fileno(), path)
    return {"path": name, "bytes": path.stat().st_size, "sha256": sha256 or files.sha256(path)}
