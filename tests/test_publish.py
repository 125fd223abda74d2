"""Publishing: one process at a time, complete artifacts only, and no loss of foreign files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Bind, Run

from pile_tools import checked, files, manifest, publish, scratch_folders, unchanged
from pile_tools.config import fingerprint
from pile_tools.errors import ConfigError, FormatError, OutputExistsError, PileError, PileWarning
from pile_tools.manifest import Manifest, Request
from pile_tools.publish import Built, Target
from pile_tools.scratch_folders import MARKER

#: Repeatedly locks the folder, fills and clears it, as jobs that publish do.
LOCKER = """
import sys, time
from pathlib import Path
from pile_tools import scratch_folders
from pile_tools.errors import PileError

folder, owner, end = Path(sys.argv[1]), Path(sys.argv[2]), time.monotonic() + 1.5
n_locked = 0
while time.monotonic() < end:
    try:
        with scratch_folders.locked(folder, "has it"):
            owner.open("x").close()
            n_locked += 1
            (folder / "state.json").write_text("{}")
            (folder / "d.bin").write_text("tokens")
            scratch_folders.clear(folder)
            owner.unlink()
    except PileError as err:
        assert "another process has it" in str(err), err
print(n_locked)
"""


def test_a_folder_is_locked_by_one_process_at_a_time_and_removed_by_the_last(tmp_path: Path) -> None:
    folder, owner = tmp_path / "d.partial", tmp_path / "owner"
    lockers = [
        subprocess.Popen(
            [sys.executable, "-c", LOCKER, str(folder), str(owner)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    ended = [(*locker.communicate(timeout=60), locker.returncode) for locker in lockers]
    for output, errors, code in ended:
        assert code == 0, errors
        assert int(output) > 0
    assert not folder.exists()


def test_a_scratch_folder_with_files_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "d.partial"
    with scratch_folders.locked(folder, "has it"):
        (folder / "d.bin").write_text("tokens")
    with scratch_folders.locked(folder, "has it"):
        assert (folder / "d.bin").read_text() == "tokens"


def make(
    folder: Path,
    files: dict[str, str],
    *,
    request: str = "a",
    force: bool = False,
    is_stream: bool = False,
    inputs: list[manifest.Entry] | None = None,
    on_build: Callable[[Path], object] = lambda scratch: None,
) -> tuple[Manifest, bool]:
    """Publishes files at the target `folder/x.manifest.json`."""

    def build(scratch: Path) -> Built:
        for name, text in files.items():
            (scratch / name).write_text(text)
        on_build(scratch)
        return Built(list(files), {}, inputs or [])

    settings = {"request": request}
    requested = [{k: v for k, v in entry.items() if k != "sha256"} for entry in inputs or []]
    return publish.make(
        target(folder), Request("test", settings, requested), build, force=force, is_stream=is_stream
    )


def published(
    target: Target,
    *,
    kind: str = "test",
    request: str = "a",
    force: bool = False,
    inputs: list[manifest.Entry] | None = None,
) -> tuple[Manifest, bool]:
    """Publishes a folder with one file."""

    def build(scratch: Path) -> Built:
        (scratch / "a").write_text(request)
        return Built(["a"], {}, inputs or [])

    return publish.make(target, Request(kind, {"request": request}, inputs or []), build, force=force)


def target(folder: Path) -> Target:
    return Target.of(folder / "x.manifest.json")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_artifact_is_complete_and_made_once(tmp_path: Path) -> None:
    made, is_new = make(tmp_path, {"x.a": "1", "x.b": "2"})
    assert is_new
    assert sorted(tree(tmp_path)) == ["x.a", "x.b", "x.manifest.json"]
    assert [entry["path"] for entry in made.outputs] == ["x.a", "x.b"]
    assert make(tmp_path, {"x.a": "1", "x.b": "2"}) == (made, False)


@pytest.mark.parametrize("changed", [{"kind": "other"}, {"settings": {"request": "b"}}, {"settings": {}}])
@pytest.mark.parametrize("is_published", [True, False])
def test_the_digest_of_a_request_does_not_prove_its_kind_and_settings(
    tmp_path: Path, changed: dict[str, Any], is_published: bool
) -> None:
    """A manifest may come from anyone, and commands print what is in finished output."""
    made, _ = make(tmp_path, {"x.a": "1"})
    request = Request(changed.get("kind", "test"), changed.get("settings", {"request": "a"}))
    manifest.write(made.path, request, made.outputs, {})
    values = json.loads(made.path.read_text())
    del values["checksum"]
    values["request"] = made.request
    values["checksum"] = fingerprint(values)
    made.path.write_text(json.dumps(values, indent=1) + "\n")
    if not is_published:
        scratch = target(tmp_path).scratch
        scratch.mkdir()
        (scratch / MARKER).touch()
        made.path.rename(scratch / made.path.name)
    with pytest.raises(OutputExistsError, match=r"made before with|finished output of other settings"):
        make(tmp_path, {"x.a": "1"})


def test_force_replaces_the_artifact_and_removes_files_the_new_one_lacks(tmp_path: Path) -> None:
    make(tmp_path, {"x.a": "1", "x.b": "2"})
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(OutputExistsError, match="made before with request"):
        make(tmp_path, {"x.a": "3"}, request="b")
    make(tmp_path, {"x.a": "3"}, request="b", force=True)
    assert sorted(tree(tmp_path)) == ["notes", "x.a", "x.manifest.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user")
@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_finished_artifact_is_found_beside_the_scratch_folder_of_another_user(mode: int) -> None:
    # Not in the folder of the tests, which other users cannot enter.
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)
        make(folder, {"x.a": "1"})
        scratch = target(folder).scratch
        scratch.mkdir()
        scratch.chmod(mode)
        (scratch / MARKER).touch(mode=0o644)
        child = os.fork()
        if child == 0:
            os.setresuid(65534, 65534, 65534)
            with contextlib.suppress(BaseException):
                os._exit(3 if make(folder, {"x.a": "1"})[1] else 0)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert (scratch / MARKER).exists()


def test_a_reader_that_looks_at_a_lock_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "x.partial"
    folder.mkdir()
    (folder / MARKER).touch()
    reader = os.open(folder / MARKER, os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_SH)
    timer = threading.Timer(0.03, os.close, [reader])
    timer.start()
    with scratch_folders.locked(folder, "makes it"):
        timer.join()


@pytest.mark.parametrize("kind", ["checkpoint", "state"])
def test_a_part_of_a_run_is_replaced_by_no_other_artifact(tmp_path: Path, kind: str) -> None:
    of_run = Target.of(tmp_path / "step0" / "manifest.json")
    published(of_run, kind=kind)
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match=rf"is a {kind} of a run"):
        published(of_run, force=True)
    assert tree(tmp_path) == before


def test_the_mode_of_a_marker_is_that_of_the_umask(tmp_path: Path, usual_mode: int) -> None:
    with scratch_folders.locked(tmp_path / "x.partial", "makes it"):
        assert (tmp_path / "x.partial" / MARKER).stat().st_mode == usual_mode


def test_an_old_file_that_was_edited_is_not_removed(tmp_path: Path) -> None:
    make(tmp_path, {"x.a": "1", "x.b": "2"})
    (tmp_path / "x.b").write_text("edited")
    make(tmp_path, {"x.a": "3"}, request="b", force=True)
    assert (tmp_path / "x.b").read_text() == "edited"


def test_a_foreign_file_is_replaced_only_by_force_or_by_an_equal_one(tmp_path: Path) -> None:
    (tmp_path / "x.a").write_text("mine")
    with pytest.raises(OutputExistsError, match="is not from pile-tools"):
        make(tmp_path, {"x.a": "1"})
    assert (tmp_path / "x.a").read_text() == "mine"
    make(tmp_path, {"x.a": "mine"}, request="b", force=True)
    (tmp_path / "x.manifest.json").unlink()
    (tmp_path / "x.partial").rmdir() if (tmp_path / "x.partial").exists() else None
    make(tmp_path, {"x.a": "1"}, force=True)
    assert (tmp_path / "x.a").read_text() == "1"


KINDS: dict[str, Callable[[Path], object]] = {
    "a folder": lambda path: path.mkdir(),
    "a link": lambda path: path.symlink_to("victim"),
    "a pipe": lambda path: os.mkfifo(path),
}


@pytest.mark.parametrize("kind", [name for name in KINDS if name != "a link"])
def test_what_is_no_file_is_not_a_finished_output(tmp_path: Path, kind: str) -> None:
    """Whatever its size: a pipe has 0 bytes, a folder often as many as a block."""
    KINDS[kind](tmp_path / "like it")
    size = (tmp_path / "like it").stat().st_size
    make(tmp_path, {"x.a": "1" * size})
    (tmp_path / "x.a").unlink()
    KINDS[kind](tmp_path / "x.a")
    with pytest.raises(OutputExistsError, match=r"x\.a is no file of finished output"):
        make(tmp_path, {"x.a": "1" * size})


@pytest.mark.parametrize("name", ["manifest.json", "loop/manifest.json", "below/manifest.json"])
def test_a_finished_output_may_list_a_manifest_that_lists_it(tmp_path: Path, name: str) -> None:
    of = Target.of(tmp_path / "manifest.json")
    published(of)
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "below").mkdir()
    values = json.loads(of.manifest.read_text())
    values["outputs"].append({"path": name, "bytes": 0, "sha256": "0" * 64})
    # Until the manifest has the size that it lists.
    while len(data := json.dumps(values)) != values["outputs"][-1]["bytes"]:
        values["outputs"][-1]["bytes"] = len(data)
    of.manifest.write_text(data)
    (tmp_path / "below" / "manifest.json").hardlink_to(of.manifest)
    if name.startswith("below"):
        with pytest.raises(OutputExistsError, match="below/a is missing of finished output"):
            published(of)
        (tmp_path / "below" / "a").write_text("a")
        (tmp_path / "below" / "below").symlink_to(".")
    assert not published(of)[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["x.a", "x.manifest.json"])
def test_only_regular_files_are_replaced(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / "victim").write_text("mine")
    KINDS[kind](tmp_path / name)
    before = (tmp_path / name).lstat().st_mode
    with pytest.raises(PileError, match=kind):
        make(tmp_path, {"x.a": "1"}, force=True)
    assert (tmp_path / name).lstat().st_mode == before
    assert (tmp_path / "victim").read_text() == "mine"


@pytest.mark.parametrize("found", ["file", "link", "folder with a file", "linked marker"])
def test_a_scratch_folder_that_is_not_ours_is_left_alone(tmp_path: Path, found: str) -> None:
    scratch, victim = tmp_path / "x.partial", tmp_path / "victim"
    victim.mkdir()
    (victim / "notes").write_text("mine")
    match found:
        case "file":
            scratch.write_text("mine")
        case "link":
            scratch.symlink_to(victim)
        case "folder with a file":
            scratch.mkdir()
            (scratch / "notes").write_text("mine")
        case "linked marker":
            scratch.mkdir()
            (scratch / MARKER).symlink_to(victim / "notes")
    before = tree(tmp_path)
    for force in (False, True):
        with pytest.raises(PileError, match="scratch folder"):
            make(tmp_path, {"x.a": "1"}, force=force)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("kind", ["broken link", "circular link", "file", "pipe", "link to a file", "device"])
@pytest.mark.parametrize("below", ["x.partial", "a/b/x.partial"])
def test_a_file_with_the_name_of_a_parent_folder_is_an_error_and_does_not_block(
    tmp_path: Path, kind: str, below: str
) -> None:
    parent = tmp_path / "parent"
    if kind == "pipe":
        os.mkfifo(parent)
    elif kind == "file":
        parent.touch()
    else:
        targets = {"broken link": "none", "circular link": "parent", "device": "/dev/null"}
        (tmp_path / "file").touch()
        parent.symlink_to(targets.get(kind, "file"))
    with pytest.raises(OSError, match="parent"), scratch_folders.locked(parent / below, "has it"):
        pass


def test_links_in_a_scratch_folder_are_removed_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "notes").write_text("mine")
    scratch = tmp_path / "x.partial"
    scratch.mkdir()
    (scratch / MARKER).touch()
    (scratch / "folder").symlink_to(victim)
    (scratch / "file").symlink_to(victim / "notes")
    (scratch / "x.a").symlink_to(victim / "notes")
    make(tmp_path, {"x.a": "1"})
    assert tree(tmp_path) == {
        "victim/notes": b"mine",
        "x.a": b"1",
        "x.manifest.json": (tmp_path / "x.manifest.json").read_bytes(),
    }


@pytest.mark.parametrize("kind", ["page", "artifact"])
def test_the_file_from_which_standard_input_comes_is_not_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    path.write_text(f"{publish.PAGE_MARK}\n")
    programs = {
        "page": "publish.write_page(path, 'new')",
        "artifact": "publish.make(publish.Target.of(path.with_name('manifest.json')), "
        "Request('test', {}, []), lambda _: 1, force=True, names=['x'])",
    }
    program = (
        "import sys; from pathlib import Path; from pile_tools import publish\n"
        "from pile_tools.manifest import Request\n"
        f"path = Path(sys.argv[1])\n{programs[kind]}"
    )
    with path.open() as stream:
        done = subprocess.run(
            [sys.executable, "-c", program, path], stdin=stream, capture_output=True, text=True, check=False
        )
    assert "is one of the inputs; give another output" in done.stderr
    assert path.read_text() == f"{publish.PAGE_MARK}\n"


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_failure_to_sync_names_what_was_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "file").touch()
    with (tmp_path / "file").open("rb") as file, monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
            files.sync(file.fileno(), tmp_path / "file") if what == "file" else files.sync_folder(tmp_path)
    assert caught.value.filename == str(tmp_path / "file" if what == "file" else tmp_path)


def test_a_folder_on_which_a_file_system_is_mounted_is_refused_before_the_work() -> None:
    mounted = Path("/dev/shm")
    if not mounted.is_mount():
        pytest.skip("no file system is mounted on /dev/shm")
    with pytest.raises(ConfigError, match="a file system is mounted here"):
        publish.make(
            publish.Target.of(mounted / "manifest.json"),
            Request("test", {}, []),
            lambda _: pytest.fail("it is made"),
            force=False,
        )
    assert not Path("/dev/shm.partial").exists()


@pytest.mark.parametrize("mounted", ["folder", "scratch folder"])
def test_a_folder_that_is_mounted_from_the_same_file_system_is_refused_before_the_work(
    bind: Bind, tmp_path: Path, mounted: str
) -> None:
    output = Target.of(tmp_path / "out" / "manifest.json")
    published(output)
    before = tree(tmp_path / "out")
    (tmp_path / "other").mkdir()
    where = tmp_path / "copy" if mounted == "folder" else output.scratch
    where.mkdir()
    bind(tmp_path / "out" if mounted == "folder" else tmp_path / "other", where)
    target = Target.of(tmp_path / ("copy" if mounted == "folder" else "out") / "manifest.json")
    with pytest.raises(ConfigError, match="mounted"):
        published(target, force=True, request="b")
    assert tree(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"out", "other", where.name})


@pytest.mark.parametrize("below", ["mounted", "a/mounted", "a/b/mounted", "a/b/c/mounted"])
@pytest.mark.parametrize("force", [False, True])
def test_what_is_mounted_in_a_scratch_folder_stays(
    bind: Bind, tmp_path: Path, below: str, force: bool
) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "folder").mkdir(parents=True)
    (theirs / "folder" / "file").write_text("x")
    (theirs / "link").symlink_to("folder")
    scratch = tmp_path / "out.partial"
    (scratch / below).mkdir(parents=True)
    (scratch / MARKER).touch()
    bind(theirs, scratch / below)
    before = tree(theirs)
    with pytest.raises(PileError, match="is a mounted folder, in a scratch folder; unmount it"):
        published(Target.of(tmp_path / "out" / "manifest.json"), force=force)
    assert tree(theirs) == before
    assert (theirs / "link").is_symlink()


def test_a_finished_output_that_is_mounted_elsewhere_does_nothing(bind: Bind, tmp_path: Path) -> None:
    made, _ = published(Target.of(tmp_path / "out" / "manifest.json"))
    (tmp_path / "copy").mkdir()
    bind(tmp_path / "out", tmp_path / "copy")
    found, is_new = published(Target.of(tmp_path / "copy" / "manifest.json"))
    assert (found.sha256, is_new) == (made.sha256, False)


@pytest.mark.parametrize("name", ["x.a", "x.b", "x.manifest.json"])
def test_a_mounted_file_is_refused_before_the_work(bind: Bind, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "out"
    make(folder, {"x.a": "1", "x.b": "2"})
    shutil.copyfile(folder / name, tmp_path / "other")
    bind(tmp_path / "other", folder / name)
    before = tree(folder)
    with pytest.raises(OutputExistsError, match="is a mounted file"):
        make(folder, {"x.a": "3"}, request="b", force=True, on_build=lambda _: pytest.fail("it is made"))
    assert tree(folder) == before


def test_outputs_in_the_lower_layer_of_an_overlay_are_replaced(
    overlay: Callable[[Path], Path], tmp_path: Path
) -> None:
    """Its files have another device than their folder there, and are not mounted."""
    make(tmp_path / "lower", {"x.a": "1", "x.b": "2"})
    folder = overlay(tmp_path / "lower")
    assert (folder / "x.a").stat().st_dev != folder.stat().st_dev
    make(folder, {"x.a": "1", "x.b": "2"}, on_build=lambda _: pytest.fail("it is made"))
    make(folder, {"x.a": "3"}, request="b", force=True)
    assert sorted(tree(folder)) == ["x.a", "x.manifest.json"]
    assert (folder / "x.a").read_text() == "3"


def test_a_single_file_that_is_mounted_is_refused_before_the_work(bind: Bind, tmp_path: Path) -> None:
    for name in ("x", "other"):
        (tmp_path / name).touch()
    bind(tmp_path / "other", tmp_path / "x")
    with pytest.raises(OutputExistsError, match="is a mounted file"):
        publish.write_file(tmp_path / "x", lambda _: pytest.fail("it is made"), force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "x"]


@pytest.mark.parametrize("below", ["", "deep"])
def test_an_input_in_an_artifact_is_found_through_a_mount(bind: Bind, tmp_path: Path, below: str) -> None:
    """An artifact of another kind, such as a run whose checkpoints are read, is not replaced."""
    output = Target.of(tmp_path / "out" / "manifest.json")
    published(output)
    (tmp_path / "out" / "deep").mkdir()
    (tmp_path / "out" / below / "read").write_text("read")
    (tmp_path / "mounted").mkdir()
    bind(tmp_path / "out" / below, tmp_path / "mounted")
    inputs = [manifest.file_entry(tmp_path / "mounted" / "read", tmp_path / "out", role="shard")]
    with pytest.raises(ConfigError, match="an input is in the folder of this test"):
        published(output, force=True, kind="other", inputs=inputs)


@pytest.mark.parametrize("resumes", [False, True])
def test_deep_folders_in_a_scratch_folder_are_removed(tmp_path: Path, resumes: bool) -> None:
    """Deeper than Python's stack, and with a path that is longer than a system call takes."""
    scratch = target(tmp_path).scratch
    scratch.mkdir()
    (scratch / MARKER).touch()
    before = Path.cwd()
    os.chdir(scratch)
    try:
        for _ in range(1500):
            Path("deep").mkdir()
            os.chdir("deep")
        Path("file").touch()
    finally:
        os.chdir(before)

    def build(scratch: Path) -> Built:
        (scratch / "x.a").write_text("1")
        return Built(["x.a"], {}, [])

    publish.make(target(tmp_path), Request("test", {}, []), build, force=False, resumes=resumes)
    assert tree(tmp_path).keys() == {"x.a", "x.manifest.json"}


@pytest.mark.parametrize("resumes", [False, True])
def test_a_job_does_not_write_through_links_in_its_scratch_folder(tmp_path: Path, resumes: bool) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "victims"
    victim.write_text("!")
    folder.mkdir()
    scratch = target(tmp_path).scratch
    (scratch / "deep").mkdir(parents=True)
    (scratch / MARKER).touch()
    for name in ("x.a", "deep/x.b"):
        (scratch / name).symlink_to(victim)
    (scratch / "x.c").symlink_to(folder)

    def build(scratch: Path) -> Built:
        (scratch / "deep").mkdir(exist_ok=True)
        for name in ("x.a", "deep/x.b", "x.c"):
            (scratch / name).write_text("1")
        shutil.rmtree(scratch / "deep")
        return Built(["x.a", "x.c"], {}, [])

    publish.make(target(tmp_path), Request("test", {}, []), build, force=False, resumes=resumes)
    assert victim.read_text() == "!"
    assert not (tmp_path / "x.a").is_symlink()
    assert not list(folder.iterdir())


def test_a_list_of_replaced_files_names_none_outside_the_folder(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    out = tmp_path / "out"
    scratch = out / "x.partial"
    scratch.mkdir(parents=True)
    (scratch / MARKER).touch()
    entry = {"path": "../victim", "bytes": 4, "sha256": manifest.files.sha256(victim)}
    absolute = {**entry, "path": str(victim)}
    (scratch / publish.REPLACED).write_text(json.dumps({"files": [entry, absolute]}))
    make(out, {"x.a": "1"}, force=True)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("kind", ["file", "link", "manifest"])
def test_a_manifest_created_during_the_job_is_not_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.manifest.json"

    def create(scratch: Path) -> None:
        if kind == "link":
            path.symlink_to(tmp_path / "elsewhere")
        elif kind == "file":
            path.write_text("mine")
        else:
            make(tmp_path / "other", {"x.a": "2"}, request="b")[0].path.replace(path)

    with pytest.raises(OutputExistsError, match=r"was created while this was being made|is a link"):
        make(tmp_path, {"x.a": "1"}, on_build=create)
    assert os.path.lexists(path)
    assert not (tmp_path / "x.a").exists()
    if kind != "link":
        make(tmp_path, {"x.a": "1"}, force=True)
        assert (tmp_path / "x.a").read_text() == "1"


def test_a_manifest_that_is_rewritten_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    """In place: the inode is the same."""
    shard = tmp_path / "shard"
    shard.write_text("one")
    entry = manifest.file_entry(shard, tmp_path, role="shard")
    path = make(tmp_path, {"x.a": "1"}, inputs=[entry])[0].path
    shard.write_text("two")
    with pytest.raises(OutputExistsError, match="was created while this was being made"):
        make(
            tmp_path,
            {"x.a": "2"},
            inputs=[manifest.file_entry(shard, tmp_path, role="shard")],
            on_build=lambda scratch: path.write_text("mine"),
        )
    assert path.read_text() == "mine"


def remade(folder: Path, text: str, on_build: Callable[[Path], object] = lambda scratch: None) -> None:
    """Makes `x.a` and `x.b` from a shard with this text: another text makes them again without `force`."""
    shard = folder / "shard"
    shard.write_text(text)
    inputs = [manifest.file_entry(shard, folder, role="shard")]
    make(folder, {"x.a": f"a{text}", "x.b": f"b{text}"}, inputs=inputs, on_build=on_build)


@pytest.mark.parametrize("name", ["x.a", "x.b"])
def test_an_old_file_that_was_edited_is_not_replaced_by_a_remake(tmp_path: Path, name: str) -> None:
    remade(tmp_path, "one")
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputExistsError, match="is not what pile-tools wrote; force replaces it"):
        remade(tmp_path, "two")
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("kind", ["file", *KINDS])
@pytest.mark.parametrize("name", ["x.a", "x.b"])
def test_what_comes_to_the_name_of_an_old_file_is_not_replaced(tmp_path: Path, kind: str, name: str) -> None:
    """While the job works, or after it was killed, when only its scratch folder names the old files."""
    remade(tmp_path, "one")
    path = tmp_path / name

    def come(scratch: Path) -> None:
        path.unlink()
        KINDS[kind](path) if kind in KINDS else path.write_text("mine")

    with pytest.raises(OutputExistsError, match=r"is not what pile-tools wrote|which is not replaced"):
        remade(tmp_path, "two", come)
    mode = path.lstat().st_mode
    (tmp_path / "x.manifest.json").unlink()
    with pytest.raises(OutputExistsError, match=r"is not what pile-tools wrote|which is not replaced"):
        remade(tmp_path, "two")
    assert path.lstat().st_mode == mode
    assert kind != "file" or path.read_text() == "mine"


@pytest.mark.parametrize("kind", ["file", *KINDS])
@pytest.mark.parametrize("name", ["x.a", "x.b", "x.manifest.json"])
def test_what_comes_after_the_old_file_was_removed_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    make(tmp_path, {"x.a": "1", "x.b": "2"})
    rename, path = publish.rename_exclusively, tmp_path / name

    def come_first(made: Path, final: Path, *args: Any) -> files.Version | None:
        if final == path:
            KINDS[kind](path) if kind in KINDS else path.write_text("mine")
        return rename(made, final, *args)

    monkeypatch.setattr(publish, "rename_exclusively", come_first)
    with pytest.raises(OutputExistsError, match="was created while this was being made"):
        make(tmp_path, {"x.a": "3", "x.b": "4"}, request="b", force=True)
    assert kind != "file" or path.read_text() == "mine"
    assert kind == "file" or not path.is_file()


@pytest.mark.parametrize(
    "name",
    ["replaced.json", "state.json", "pile-tools.lock", "manifest.json", "order.json", "x.manifest.json"],
)
def test_an_output_with_a_name_of_our_own_is_refused(
    cli: Run, shards: Path, tmp_path: Path, name: str
) -> None:
    done = cli("train-tokenizer", shards, "-o", tmp_path / "new" / name, "--vocab-size", "300")
    assert done.returncode == 2
    assert "is a name that pile-tools itself uses" in done.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["x.a", "x.b", "x.manifest.json"])
@pytest.mark.parametrize("is_killed", [False, True])
def test_a_file_created_between_the_check_and_the_rename_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_killed: bool
) -> None:
    """For example by another command, which has its own lock."""
    refuse, path = publish._refuse, tmp_path / name

    def create(checked_path: Path, *args: Any, **options: Any) -> None:
        refuse(checked_path, *args, **options)
        if checked_path.name == "x.b":
            path.write_text("mine")

    with monkeypatch.context() as patch:
        patch.setattr(publish, "_refuse", create)
        with pytest.raises(
            OutputExistsError, match="was created while this was being made; force replaces it"
        ):
            make(tmp_path, {"x.a": "1", "x.b": "2"})
    assert path.read_text() == "mine"
    # The next run, which finds finished work in the scratch folder, does not replace it either.
    with pytest.raises((OutputExistsError, FormatError)):
        make(tmp_path, {"x.a": "1", "x.b": "2"})
    assert path.read_text() == "mine"
    if is_killed:
        path.unlink()
    make(tmp_path, {"x.a": "1", "x.b": "2"}, force=not is_killed)
    assert {name: data for name, data in tree(tmp_path).items() if name != "x.manifest.json"} == {
        "x.a": b"1",
        "x.b": b"2",
    }


@pytest.mark.parametrize("name", ["x.a", "x.b"])
@pytest.mark.parametrize("force", [False, True])
def test_no_manifest_is_published_of_a_file_that_was_replaced_after_its_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, force: bool
) -> None:
    """By `--force` of another artifact that shares the file, and has its own lock."""
    rename, path = publish.rename_exclusively, tmp_path / name

    def replace_after(made: Path, final: Path, entry: manifest.Entry | None) -> files.Version | None:
        version = rename(made, final, entry)
        if final == path:
            (tmp_path / "other").write_text("!")
            (tmp_path / "other").replace(path)
        return version

    with monkeypatch.context() as patch:
        patch.setattr(publish, "rename_exclusively", replace_after)
        with pytest.raises(OutputExistsError, match="was created while this was being made"):
            make(tmp_path, {"x.a": "1", "x.b": "2"}, force=force)
    assert not (tmp_path / "x.manifest.json").exists()
    with pytest.raises((OutputExistsError, FormatError)):
        make(tmp_path, {"x.a": "1", "x.b": "2"})
    assert path.read_text() == "!"
    make(tmp_path, {"x.a": "1", "x.b": "2"}, force=True)
    assert path.read_text() in ("1", "2")


def test_a_file_of_the_old_artifact_is_no_input_of_the_new_one(tmp_path: Path) -> None:
    """It is removed before the new files have their names: a job killed between could not be run again."""
    make(tmp_path, {"x.a": "1", "x.b": "2"})
    entry = manifest.file_entry(tmp_path / "x.b", tmp_path, role="shard")
    before = tree(tmp_path)
    for made in ({"x.a": "3"}, {"x.c": "3"}):
        with pytest.raises(ConfigError, match=r"is one of the inputs; give another output \(.*x\.b\)"):
            make(tmp_path, made, request="b", force=True, inputs=[entry])
    assert tree(tmp_path) == before


def test_an_input_that_the_job_finds_is_not_replaced(tmp_path: Path) -> None:
    """Readers of the input do not wait for an output that is never published."""
    make(tmp_path, {"x.a": "1"})
    entry = manifest.file_entry(tmp_path / "x.a", tmp_path, role="tokenizer")
    before = tree(tmp_path)

    def build(scratch: Path) -> Built:
        (scratch / "x.a").write_text("2")
        return Built(["x.a"], {}, [entry])

    with pytest.raises(ConfigError, match="is one of the inputs"):
        publish.make(target(tmp_path), Request("test", {"request": "b"}, []), build, force=True)
    assert tree(tmp_path) == before
    publish.refuse_while_replaced(target(tmp_path))


@pytest.mark.parametrize("name", ["../mine", "../../mine", "{}/mine", "a/mine", "link/mine"])
@pytest.mark.parametrize("is_moved", [True, False])
def test_an_unpublished_manifest_moves_no_file_out_of_or_into_other_folders(
    tmp_path: Path, name: str, is_moved: bool
) -> None:
    """A tree of someone else may have scratch folders, in which finished work is continued from."""
    folder = tmp_path / "deep" / "folder"
    folder.mkdir(parents=True)
    made, _ = make(folder, {"x.a": "1"})
    scratch = target(folder).scratch
    for path in (scratch / "a", scratch / "link", folder / "a", tmp_path / "deep" / "link"):
        path.mkdir(parents=True)
    (folder / "link").symlink_to("../link")
    name = name.replace("{}", str(tmp_path))
    source = scratch / name if is_moved else folder / name
    source.write_text("precious")
    entry = {"path": name, "bytes": 8, "sha256": files.sha256(source)}
    manifest.write(made.path, Request("test", {"request": "a"}), [*made.outputs, entry], {})
    (scratch / MARKER).touch()
    made.path.rename(scratch / made.path.name)
    (folder / "x.a").rename(scratch / "x.a")
    before = {path for path in tmp_path.rglob("mine") if scratch not in path.parents}
    assert make(folder, {"x.a": "1"}) == (made, True)
    assert set(tmp_path.rglob("mine")) == before
    assert tree(folder)["x.a"] == b"1"


@pytest.mark.parametrize("damaged", ["x.a", "x.manifest.json"])
def test_what_was_damaged_in_the_scratch_folder_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise OSError("killed")

    make(tmp_path / "whole", {"x.a": "1", "x.b": "2"})
    with monkeypatch.context() as patch:
        patch.setattr(publish, "_refuse", fail)
        with pytest.raises(OSError, match="killed"):
            make(tmp_path / "out", {"x.a": "1", "x.b": "2"})
    path = tmp_path / "out" / "x.partial" / damaged
    before = path.read_bytes()
    path.write_bytes(
        before.replace(b"1", b"7") if damaged == "x.a" else before.replace(b'": {}', b'": {"n": 7}')
    )
    assert path.read_bytes() != before
    make(tmp_path / "out", {"x.a": "1", "x.b": "2"})
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["!", None])
def test_a_damaged_copy_of_a_file_that_was_linked_does_not_replace_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str | None
) -> None:
    """A run killed between link and removal leaves one file with two names, which a copy makes two files."""
    unlink = Path.unlink

    def kill(path: Path, missing_ok: bool = False) -> None:
        if path.name == "x.a" and path.parent != tmp_path:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", kill)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, {"x.a": "1", "x.b": "2"})
    linked = target(tmp_path).scratch / "x.a"
    assert linked.samefile(tmp_path / "x.a")
    linked.unlink()
    linked.write_text(damage) if damage else linked.mkdir()
    make(tmp_path, {"x.a": "1", "x.b": "2"}, on_build=lambda _: pytest.fail("it is finished"))
    assert tree(tmp_path).keys() == {"x.a", "x.b", "x.manifest.json"}
    assert (tmp_path / "x.a").read_text() == "1"


def test_a_manifest_whose_spaces_changed_in_the_scratch_folder_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = tmp_path / "undisturbed"
    make(undisturbed, {"x.a": "1"})
    with monkeypatch.context() as patch:
        patch.setattr(publish, "rename_exclusively", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            make(tmp_path, {"x.a": "1"})
    finished = target(tmp_path).unpublished
    finished.write_text(finished.read_text().replace("\n", " ", 1))
    make(tmp_path, {"x.a": "1"})
    assert (tmp_path / "x.manifest.json").read_bytes() == (undisturbed / "x.manifest.json").read_bytes()


@pytest.mark.parametrize("data", [b"", b'{"kind": "test"'])
def test_a_damaged_manifest_of_a_run_killed_among_the_renames_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    rename = publish.rename_exclusively

    def fail(made: Path, final: Path, *args: Any) -> None:
        if made.name == "x.a":
            raise OSError("killed")
        rename(made, final, *args)

    with monkeypatch.context() as patch:
        patch.setattr(publish, "rename_exclusively", fail)
        with pytest.raises(OSError, match="killed"):
            make(tmp_path, {"x.a": "1", "x.b": "2"})
    unpublished = tmp_path / "x.partial" / "x.manifest.json"
    assert (tmp_path / "x.b").exists()
    unpublished.write_bytes(data)
    with pytest.raises(OutputExistsError, match=r"killed run, whose manifest is damaged \(.*x\.manifest"):
        make(tmp_path, {"x.a": "1", "x.b": "3"})
    make(tmp_path, {"x.a": "1", "x.b": "3"}, force=True)
    assert tree(tmp_path)["x.b"] == b"3"


def test_a_file_created_before_the_rename_of_a_single_file_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse, path = publish._refuse, tmp_path / "x.npy"

    def create(checked_path: Path, *args: Any, **options: Any) -> None:
        refuse(checked_path, *args, **options)
        path.write_text("mine")

    monkeypatch.setattr(publish, "_refuse", create)
    with pytest.raises(OutputExistsError, match="was created while this was being made"):
        publish.write_file(path, lambda temporary: temporary.write_text("x"))
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_without_hard_links_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*args: object, **options: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", link)
    make(tmp_path, {"x.a": "1"})
    publish.write_file(tmp_path / "x.npy", lambda temporary: temporary.write_text("x"))
    assert sorted(tree(tmp_path)) == ["x.a", "x.manifest.json", "x.npy"]


def test_folders_may_be_nested_deeper_than_the_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path(*["a"] * (sys.getrecursionlimit() + 100))
    make(folder, {"x.a": "1"})
    assert (folder / "x.a").read_text() == "1"
    with scratch_folders.locked(Path("b"), "has it"):
        Path("a").rename("b/a")
        scratch_folders.clear(Path("b"))
    assert not Path("b").exists()


def test_a_scratch_folder_that_an_overlay_does_not_rename_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, target: Path) -> Path:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(path))

    monkeypatch.setattr(Path, "rename", refuse)
    (tmp_path / "mine").write_text("mine")
    with scratch_folders.locked(tmp_path / "x.partial", "has it"):
        (tmp_path / "x.partial" / "a" / "b" / "c" / "d").mkdir(parents=True)
        (tmp_path / "x.partial" / "a" / "b" / "c" / "link").symlink_to(tmp_path)
        scratch_folders.clear(tmp_path / "x.partial")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_open_file_that_stays_in_its_folder_when_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS and many file systems of FUSE give it another name until it is closed."""
    rmdir = Path.rmdir

    def refuse_open(folder: Path) -> None:
        opened = [Path(os.path.realpath(number)) for number in Path("/proc/self/fd").iterdir()]
        if any(path.parent == folder for path in opened):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(folder))
        rmdir(folder)

    monkeypatch.setattr(Path, "rmdir", refuse_open)
    make(tmp_path, {"x.a": "1"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.a", "x.manifest.json"]


def test_a_file_system_that_numbers_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sshfs, say: the two names of a linked file have two inodes."""
    version = files.version

    def of_name(path: Path) -> files.Version | None:
        found = version(path)
        return found and (zlib.crc32(os.fsencode(path)), *found[1:])

    monkeypatch.setattr(files, "version", of_name)
    make(tmp_path, {"x.a": "1", "x.b": "2"})
    make(tmp_path, {"x.a": "3"}, request="b", force=True)
    assert sorted(tree(tmp_path)) == ["x.a", "x.manifest.json"]


@pytest.mark.parametrize("force", [False, True])
def test_an_artifact_of_another_kind_with_other_files_stays(tmp_path: Path, force: bool) -> None:
    """A tokenizer `x.json` and a dataset `x.bin` have one name of their manifest."""
    make(tmp_path, {"x.a": "1", "x.b": "2"})
    before = tree(tmp_path)

    def build(scratch: Path) -> Built:
        (scratch / "x.json").write_text("1")
        return Built(["x.json"], {}, [])

    with pytest.raises((ConfigError, OutputExistsError), match=r"x\.manifest\.json"):
        publish.make(target(tmp_path), Request("another", {}), build, force=force, names=["x.json"])
    assert tree(tmp_path) == before
    assert not (tmp_path / "x.partial").exists()
    # Nor does another file of the same kind, a tokenizer `x` say, count as this one.
    one, request = tmp_path / "one", Request("test", {"request": "a"})
    make(one, {"x": "1"})
    with pytest.raises(ConfigError, match="manifest of other files, such as x;"):
        publish.make(target(one), request, build, force=force, names=["x.json"])
    assert sorted(tree(one)) == ["x", "x.manifest.json"]
    shutil.rmtree(one)
    # The files are those of the new one: the user has named them.
    publish.make(target(tmp_path), Request("another", {}), build, force=True, names=["x.json", "x.a", "x.b"])
    assert sorted(tree(tmp_path)) == ["x.json", "x.manifest.json"]


def test_another_users_scratch_folder_beside_finished_output_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = make(tmp_path, {"x.a": "1"})
    scratch = tmp_path / "x.partial"
    scratch.mkdir()
    (scratch / "pile-tools.lock").touch()
    # The tests' user may change everything.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != scratch)
    assert make(tmp_path, {"x.a": "1"}) == (made, False)
    assert scratch.exists()
    with pytest.raises(OutputExistsError):
        make(tmp_path, {"x.a": "2"}, request="b")
    monkeypatch.undo()
    assert make(tmp_path, {"x.a": "1"}) == (made, False)
    assert not scratch.exists()
    plot = tmp_path / "plot"
    plot.with_name("plot.partial").mkdir()

    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refused)
    publish.tidy(plot)
    assert plot.with_name("plot.partial").exists()


def test_a_manifest_that_no_reader_takes_is_not_published(tmp_path: Path) -> None:
    """Settings may come from manifests of inputs, and options may have values that no shape allows."""

    def build(scratch: Path) -> Built:
        (scratch / "x.json").write_text("1")
        return Built(["x.json"], {"n": 1}, [])

    settings = {"megabytes": 1, "shards": 1, "seed": -1, "canaries": True, "python": ""}
    for _ in range(2):
        with pytest.raises(FormatError, match=r"seed is -1.*x\.manifest\.json"):
            publish.make(target(tmp_path), Request("shards", settings), build, force=False)
        assert tree(tmp_path) == {}


def test_a_manifest_that_is_too_large_or_has_paths_too_long_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry: manifest.Entry = {"role": "shard", "path": "../" * 1400 + "b", "bytes": 1, "sha256": "0" * 64}
    with pytest.raises(FormatError, match=r"expected a path .*x\.manifest\.json, inputs"):
        manifest.write(tmp_path / "x.manifest.json", Request("test", {}), [], {}, [entry])
    monkeypatch.setattr(checked, "MAX_BYTES", 200)
    with pytest.raises(FormatError, match="at most 200 are read"):
        make(tmp_path, {"x.a": "1"})
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("folder", ["x.partial", "a.html.partial", "deep/x.partial/below"])
def test_no_output_is_in_a_scratch_folder_there_or_not(tmp_path: Path, folder: str) -> None:
    """Its job would refuse the folder as one of someone else, or remove the output with it."""
    path = tmp_path / folder / "a.html"
    for refuse in (
        lambda: publish.refuse_page(path),
        lambda: publish.write_page(path, "text"),
        lambda: publish.write_file(path, lambda temporary: temporary.touch(), force=True),
        lambda: make(path.parent, {"x.a": "1"}),
    ):
        with pytest.raises(ConfigError, match="has the name of a scratch folder"):
            refuse()
    assert tree(tmp_path) == {}
    # A folder of someone else with such a name is none.
    path.parent.mkdir(parents=True)
    (path.parent / "theirs").touch()
    (next(one for one in path.parents if one.name.endswith(".partial")) / "theirs").touch()
    publish.write_page(path, publish.PAGE_MARK)
    assert path.exists()


def test_only_a_page_holds_our_mark(tmp_path: Path) -> None:
    path, mark = tmp_path / "page.html", publish.PAGE_MARK
    for start in ("", "<!doctype html>\n", "\ufeff", "\n ", "\ufeff\n"):
        path.write_text(f"{start}{mark} edited", encoding="utf-8")
        publish.write_page(path, f"{mark} new")
        assert path.read_text() == f"{mark} new"
    for start in ('{"', "text ", "\0"):
        path.write_text(f"{start}{mark}")
        with pytest.raises(OutputExistsError, match="is not from pile-tools"):
            publish.write_page(path, f"{mark} new")
        assert path.read_text() == f"{start}{mark}"


def test_a_folder_named_by_a_link_has_one_scratch_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    scratch = {Target.of(tmp_path / name / "manifest.json").scratch for name in ("real", "link")}
    assert scratch == {tmp_path / "real.partial"}


def test_finished_work_of_another_command_is_not_discarded(tmp_path: Path) -> None:
    """Commands whose outputs have other suffixes share a scratch folder."""
    scratch = tmp_path / "x.partial"
    scratch.mkdir()
    (scratch / MARKER).touch()
    (scratch / publish.STATE).write_text("{}")
    (scratch / "work").write_text("hours")
    with pytest.raises(OutputExistsError, match="holds finished work of another command"):
        make(tmp_path, {"x.a": "1"})
    assert (scratch / "work").read_text() == "hours"
    make(tmp_path, {"x.a": "1"}, force=True)
    assert not scratch.exists()


def test_an_old_manifest_that_may_not_be_removed_stays_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a folder in which only their owner may remove files."""
    make(tmp_path, {"x.a": "1"})
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == tmp_path / "x.manifest.json":
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        with pytest.raises(PermissionError):
            make(tmp_path, {"x.a": "2"}, request="b", force=True)
    publish.refuse_while_replaced(target(tmp_path))
    assert (tmp_path / "x.a").read_text() == "1"
    make(tmp_path, {"x.a": "2"}, request="b", force=True)
    assert tree(tmp_path)["x.a"] == b"2"
    assert sorted(tree(tmp_path)) == ["x.a", "x.manifest.json"]


def test_a_finished_output_that_is_not_published_yet_is_not_discarded(tmp_path: Path) -> None:
    (tmp_path / "x.a").write_text("mine")
    with pytest.raises(OutputExistsError, match="is not from pile-tools"):
        make(tmp_path, {"x.a": "1"})
    with pytest.raises(OutputExistsError, match="holds a finished output of other settings or inputs"):
        make(tmp_path, {"x.a": "2"}, request="b")
    (tmp_path / "x.a").unlink()
    # The command that made it only publishes it.
    assert make(tmp_path, {"x.a": "never built"})[1]
    assert (tmp_path / "x.a").read_text() == "1"


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
@pytest.mark.parametrize("name", ["x.manifest.json", publish.REPLACED, publish.STATE])
def test_other_kinds_of_files_with_names_of_ours_in_a_scratch_folder_are_removed(
    tmp_path: Path, name: str, kind: str
) -> None:
    path = tmp_path / "x.partial" / name
    path.parent.mkdir()
    (path.parent / MARKER).touch()
    if kind == "folder":
        (path / "inner").mkdir(parents=True)
    elif kind == "link":
        path.symlink_to("nowhere")
    else:
        os.mkfifo(path)
    make(tmp_path, {"x.a": "1"})
    assert sorted(tree(tmp_path)) == ["x.a", "x.manifest.json"]


def test_a_folder_may_be_named_by_dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "out" / "inner"
    inner.mkdir(parents=True)
    for working_folder, name in ((tmp_path / "out", "."), (inner, "..")):
        monkeypatch.chdir(working_folder)
        target = Target.of(Path(name) / "manifest.json")
        assert target.scratch == tmp_path / "out.partial"
        assert target.folder.samefile(tmp_path / "out")
    with pytest.raises(ConfigError, match="root folder"):
        Target.of(Path("/manifest.json"))


@pytest.mark.parametrize("name", ["new/..", "new/../in", "a/b/../../../in", "new/../new/x", "in/new/.."])
def test_no_output_is_behind_dots_after_a_missing_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The path is that of an input as soon as the missing folder is made."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "in", {"x.a": "1"})
    before = tree(tmp_path)
    with pytest.raises(FileNotFoundError):
        make(Path(name), {"x.a": "2"}, request="b", force=True)
    with pytest.raises(FileNotFoundError):
        files.make_folders(Path(name))
    with pytest.raises(FileNotFoundError):
        publish.write_file(Path(name) / "x.a", lambda path: path.write_text("2"), force=True)
    assert tree(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("n_bytes", [0, 2, 4])
def test_an_input_that_changes_size_during_the_job_is_refused(tmp_path: Path, n_bytes: int) -> None:
    shard = tmp_path / "shard"
    shard.write_text("100")
    inputs = [manifest.file_entry(shard, tmp_path, role="shard")]
    with pytest.raises(PileError, match=r"changed while it was read: 3 bytes before, . after.*shard\)"):
        make(tmp_path, {"x.a": "1"}, inputs=inputs, on_build=lambda scratch: shard.write_text("1" * n_bytes))
    assert sorted(tree(tmp_path)) == ["shard"]


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(scratch: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        make(tmp_path, {"x.a": "1"}, on_build=fail)
    assert list(tmp_path.iterdir()) == []


def _replaced_folder(folder: Path) -> None:
    (folder / "in").rename(folder / "old")
    (folder / "other").rename(folder / "in")


def _replaced_link(folder: Path) -> None:
    (folder / "in" / "shard").unlink()
    (folder / "in" / "shard").symlink_to(folder / "other" / "shard")


def _written(folder: Path) -> None:
    (folder / "in" / "shard").write_text("200")


def _replaced_with_old_times(folder: Path) -> None:
    os.utime(folder / "other" / "shard", (0, 0))
    (folder / "other" / "shard").replace(folder / "in" / "shard")


#: Ways to put another shard of the same size at a path.
CHANGES = [_written, _replaced_with_old_times, _replaced_folder, _replaced_link]

#: What happens to the manifest in between; the last removes its extended attributes, as a plain copy does.
TO_MANIFEST: list[Callable[[Path], object]] = [
    lambda path: None,
    lambda path: path.chmod(0o600),
    lambda path: os.utime(path),
    lambda path: path.rename(path.with_name("x")).rename(path),
    lambda path: (shutil.copy2(path, path.with_name("y")), path.with_name("y").replace(path)),
    lambda path: (path.with_name("y").write_bytes(path.read_bytes()), path.with_name("y").replace(path)),
]


@pytest.mark.parametrize("to_manifest", TO_MANIFEST)
@pytest.mark.parametrize("is_settled", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_input_makes_the_output_again_and_a_touched_one_does_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
    is_settled: bool,
    to_manifest: Callable[[Path], object],
) -> None:
    if is_settled:
        # As if the files had not been changed for a long time.
        monkeypatch.setattr(unchanged, "_UNSETTLED_NS", -(10**12))
    shard = tmp_path / "in" / "shard"
    for name, text in (("in", "100"), ("other", "200")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "shard").write_text(text)

    def inputs() -> list[manifest.Entry]:
        return [manifest.file_entry(shard, tmp_path, role="shard")]

    made, _ = make(tmp_path, {"x.a": "100"}, inputs=inputs())
    os.utime(shard)
    assert make(tmp_path, {"x.a": "other"}, inputs=inputs())[1] is False
    change(tmp_path)
    to_manifest(made.path)
    assert make(tmp_path, {"x.a": "200"}, inputs=inputs())[1] is True
    assert (tmp_path / "x.a").read_text() == "200"


def test_unchanged_inputs_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = [tmp_path / f"{i}" for i in range(600)]
    for shard in shards:
        shard.write_text("100")
    if not hasattr(os, "setxattr"):
        pytest.skip("the system has no extended attributes")
    try:
        os.setxattr(shards[0], "user.x", b"x")
    except OSError:
        pytest.skip("the file system has no extended attributes")
    monkeypatch.setattr(unchanged, "_UNSETTLED_NS", -(10**12))
    inputs = [manifest.file_entry(shard, tmp_path, role="shard") for shard in shards]
    make(tmp_path, {"x.a": "100"}, inputs=inputs)
    read: list[Path] = []
    sha256 = checked.sha256
    monkeypatch.setattr(checked, "sha256", lambda path: (read.append(path), sha256(path))[1])
    assert make(tmp_path, {"x.a": "100"}, inputs=inputs)[1] is False
    assert read == []
    os.utime(shards[5])
    for _ in range(2):
        assert make(tmp_path, {"x.a": "100"}, inputs=inputs)[1] is False
        assert read == [shards[5], shards[5 + 256], shards[5 + 512]], "the inputs in its group"


def test_long_comparisons_of_touched_inputs_are_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = tmp_path / "shard"
    shard.write_text("100")
    inputs = [manifest.file_entry(shard, tmp_path, role="shard")]
    make(tmp_path, {"x.a": "100"}, inputs=inputs)
    monkeypatch.setattr(manifest, "_LONG_BYTES", 2)
    os.utime(shard)
    with pytest.warns(PileWarning, match="1 inputs, 0.0 GB, may have changed"):
        assert make(tmp_path, {"x.a": "100"}, inputs=inputs)[1] is False


def test_output_of_a_stream_never_counts_as_that_of_another(tmp_path: Path) -> None:
    make(tmp_path, {"x.a": "1"}, is_stream=True)
    with pytest.raises(OutputExistsError, match="already exists"):
        make(tmp_path, {"x.a": "2"}, is_stream=True)
    make(tmp_path, {"x.a": "2"}, is_stream=True, force=True)
    assert (tmp_path / "x.a").read_text() == "2"


def test_readers_fail_while_an_artifact_is_replaced(tmp_path: Path) -> None:
    make(tmp_path, {"x.a": "1"})
    with publish.reading(target(tmp_path)):
        pass
    with pytest.raises(PileError, match="was replaced while"), publish.reading(target(tmp_path)):
        make(tmp_path, {"x.a": "2"}, request="b", force=True)
    scratch = tmp_path / "x.partial"
    scratch.mkdir()
    (scratch / MARKER).touch()
    (tmp_path / "x.manifest.json").rename(scratch / "x.manifest.json")
    with pytest.raises(PileError, match="is being replaced"):
        publish.stamp(target(tmp_path))


@pytest.mark.parametrize("letter", ["a", "é", "語", "😀"])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path, letter: str) -> None:
    path = tmp_path / (letter * (255 // len(letter.encode())))
    files.write_atomically(path, "x")
    assert path.read_text() == "x"


def test_readers_are_not_disturbed_by_a_rerun_of_the_same_command(tmp_path: Path) -> None:
    shard = tmp_path / "shard"
    shard.write_text("100")
    inputs = [manifest.file_entry(shard, tmp_path, role="shard")]
    make(tmp_path, {"x.a": "1"}, inputs=inputs)
    with publish.reading(target(tmp_path)):
        # The rerun finds the touched input unchanged, and stores its new identity with the manifest.
        os.utime(shard)
        assert make(tmp_path, {"x.a": "1"}, inputs=inputs)[1] is False


@pytest.mark.parametrize("is_pipe", [False, True])
def test_devices_and_pipes_are_written_to(tmp_path: Path, is_pipe: bool) -> None:
    if is_pipe:
        path = tmp_path / "pipe"
        os.mkfifo(path)
        reader = subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE)
        publish.write_file(path, lambda temporary: temporary.write_text("x"))
        assert reader.communicate(timeout=10)[0] == b"x"
        assert stat.S_ISFIFO(path.lstat().st_mode)
    else:
        link = tmp_path / "null"
        link.symlink_to(os.devnull)
        publish.write_file(link, lambda temporary: temporary.write_text("x"))
        assert link.is_symlink()
        assert stat.S_ISCHR(link.stat().st_mode)


def test_a_page_replaces_only_pages_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "chart.svg"
    publish.write_page(path, f"<svg>{publish.PAGE_MARK}1</svg>")
    publish.write_page(path, f"<svg>{publish.PAGE_MARK}2</svg>")
    assert "2" in path.read_text()
    path.write_text("mine")
    with pytest.raises(OutputExistsError, match="is not from pile-tools"):
        publish.write_page(path, f"<svg>{publish.PAGE_MARK}3</svg>")
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_without_locks_gives_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.warns(scratch_folders.NoLocksWarning, match="has no locks"):
        make(tmp_path, {"x.a": "1"})
    assert (tmp_path / "x.a").read_text() == "1"


def test_removing_an_artifact_keeps_edited_files(tmp_path: Path) -> None:
    made, _ = make(tmp_path, {"x.a": "1", "x.b": "2"})
    (tmp_path / "x.b").write_text("edited")
    publish.remove(made)
    assert sorted(tree(tmp_path)) == ["x.b"]


def test_a_marker_with_contents_is_not_ours(tmp_path: Path) -> None:
    scratch = tmp_path / "x.partial"
    scratch.mkdir()
    (scratch / "mine").write_text("mine")
    (scratch / MARKER).write_text("precious")
    before = tree(tmp_path)
    with pytest.raises(PileError, match="not a scratch folder of pile-tools"):
        make(tmp_path, {"x.a": "1"}, force=True)
    assert tree(tmp_path) == before
    (scratch / MARKER).unlink()
    os.mkfifo(scratch / MARKER)
    with pytest.raises(PileError, match="not a scratch folder of pile-tools"):
        make(tmp_path, {"x.a": "1"}, force=True)
    assert (scratch / "mine").exists()


def test_a_failure_while_an_artifact_is_replaced_is_reported_as_that(tmp_path: Path) -> None:
    make(tmp_path, {"x.a": "1"})
    with pytest.raises(FileNotFoundError), publish.reading(target(tmp_path)):
        (tmp_path / "missing").read_text()

    def read_too_late() -> None:
        make(tmp_path, {"x.b": "2"}, request="b", force=True)
        (tmp_path / "x.a").read_text()

    with pytest.raises(PileError, match="was replaced while"), publish.reading(target(tmp_path)):
        read_too_late()


@pytest.mark.parametrize("is_device", [False, True])
def test_a_full_disk_is_named_with_the_output(tmp_path: Path, is_device: bool) -> None:
    full = Path("/dev/full")
    if not full.is_char_device():
        pytest.skip("the system has no full device")

    def fill(path: Path) -> None:
        if is_device:
            path.write_bytes(b"made")
        else:
            full.write_bytes(b"made")

    path = full if is_device else tmp_path / "out"
    with pytest.raises(OSError, match="No space left") as caught:
        publish.write_file(path, fill)
    assert caught.value.filename == str(path)


def test_a_path_in_a_full_disk_error_is_not_repeated(tmp_path: Path) -> None:
    def fill(path: Path) -> None:
        raise OSError(errno.ENOSPC, f"No space left on device ({path})")

    with pytest.raises(OSError, match="No space left") as caught:
        publish.write_file(tmp_path / "out", fill)
    assert caught.value.filename is None


def test_paths_in_one_folder_do_not_lead_through_a_link_to_it(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Path, shards: Path
) -> None:
    (tmp_path / "disk" / "real").mkdir(parents=True)
    (tmp_path / "data").symlink_to("disk/real")
    shutil.copy(tokenizer, tmp_path / "data" / "tok.json")
    shutil.copytree(shards, tmp_path / "data" / "shards")
    monkeypatch.chdir(tmp_path)
    for data in ("data", str(tmp_path / "data"), "disk/real"):
        for command in (
            f"tokenize {data}/shards -o {data}/s --tokenizer {data}/tok.json",
            f"order {data}/s --seq-length 8 --steps 4 --batch-size 2 -o {data}/o",
        ):
            done = cli(*command.split())
            assert done.returncode == 0, done.stderr
    (tmp_path / "moved").mkdir()
    (tmp_path / "disk" / "real").rename(tmp_path / "moved" / "real")
    (tmp_path / "data").unlink()
    assert cli("batch", "moved/real/o", "--step", "0").returncode == 0
    verified = cli("verify", "--chain", "moved/real/o")
    assert verified.returncode == 0, verified.stderr
    assert "nothing absent" in verified.stdout


def test_a_link_to_data_elsewhere_stays_in_a_path(tmp_path: Path) -> None:
    for name in ("disk/pile", "work/out"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "work" / "pile").symlink_to(tmp_path / "disk" / "pile")
    found = manifest.relative(tmp_path / "work" / "pile" / "00.jsonl", tmp_path / "work" / "out")
    assert found == "../pile/00.jsonl"
    # From a folder in the same one as the data, they are nearer without it.
    found = manifest.relative(tmp_path / "work" / "pile" / "00.jsonl", tmp_path / "disk" / "out")
    assert found == "../pile/00.jsonl"
    assert manifest.relative(Path("/proc/self/cwd/a/b"), Path.cwd() / "out") == "../a/b"


@pytest.mark.parametrize("state", ["finished", "replacing"])
def test_the_work_of_another_artifact_with_the_same_scratch_folder_stays(tmp_path: Path, state: str) -> None:
    """A tokenizer `x.json` and a folder `x` share `x.partial`."""
    folder = Target.of(tmp_path / "x/manifest.json")
    assert folder.scratch == target(tmp_path).scratch
    make(tmp_path, {"x.a": "1"})
    if state == "replacing":
        (tmp_path / "x").mkdir()
        (tmp_path / "x/x.a").write_text("1")

    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(publish, "_publish", kill)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, {"x.a": "2"}, request="b", force=True)
    if state == "replacing":
        (target(tmp_path).scratch / "x.manifest.json").unlink()
    before = tree(tmp_path)
    with pytest.raises(OutputExistsError, match=r"is of another output, whose command finishes it"):
        published(folder)
    assert tree(tmp_path) == before
    # The command of the other output finishes it.
    assert make(tmp_path, {"x.a": "2"}, request="b", force=True)[1]
    assert (tmp_path / "x.a").read_text() == "2"
    assert published(folder)[1]
    assert tree(tmp_path).get("x/x.a") == (b"1" if state == "replacing" else None)
