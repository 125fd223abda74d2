"""What a run may replace or remove: its own pictures, and nothing that it reads or that someone else made."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tests.conftest import ROOT, Bind
from tests.vqgan_clip.test_cli import QUICK, Done, here, pixels

from pile_tools import scratch_folders
from pile_tools.errors import ConfigError, OutputExistsError
from vqgan_clip import metadata, saved_state
from vqgan_clip.extras import Extras
from vqgan_clip.frames import Frames, write_video
from vqgan_clip.recipe import Recipe

__all__ = ["here"]

RED = ["generate", "a red star", "-o", "a.png", *QUICK, "--every", "2"]


def never(path: Path) -> bool:
    return False


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("kind", ["text", "picture", "link", "folder"])
def test_what_is_no_frame_stays(here: Path, kind: str) -> None:
    Path("f").mkdir()
    Path("f/step-1.png").write_text("other")
    Path("f/hello.png").write_text("other")
    Path("target.png").write_text("other")
    path = Path("f/step-000999.png")
    if kind == "text":
        path.write_text("other")
    elif kind == "picture":
        assert Done(*RED).code == 0
        Path("a.png").rename(path)
    elif kind == "link":
        path.symlink_to("../target.png")
    else:
        path.mkdir()
    before = contents(here)
    done = Done(*RED, "--frames", "f", "--force")
    assert (done.code, "is in the way of the frames and is none" in done.error) == (1, True)
    assert contents(here) == before


def test_a_state_that_another_run_wrote_meanwhile_stays(tmp_path: Path) -> None:
    path, state = tmp_path / "s", {"latents": torch.zeros(2)}
    for _ in range(2):
        saved_state.save(path, state, "a" * 64)
    with pytest.raises(OutputExistsError, match="give the state another name"):
        saved_state.save(path, {"latents": torch.ones(2)}, "b" * 64)
    assert saved_state.load(path, "a" * 64) is not None


def test_a_video_shows_the_frames_of_its_run(tmp_path: Path) -> None:
    for step in (7, 10, 14, 21, 28, 1_000_006):
        (tmp_path / f"step-{step:06}.png").touch()
    (tmp_path / "other.png").touch()
    found = Frames("job", 7, tmp_path)
    assert [path.name for path in found.paths(21)] == [
        "step-000007.png",
        "step-000014.png",
        "step-000021.png",
    ]
    # 1,000,006 comes after 28, though not by name.
    assert [path.name for path in found.paths(2_000_000)][-2:] == ["step-000028.png", "step-1000006.png"]


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_a_video_is_written_to_a_pipe(tmp_path: Path) -> None:
    frame, pipe = tmp_path / "a.png", tmp_path / "v.mp4"
    Image.new("RGB", (32, 32)).save(frame)
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        write_video(pipe, [frame], rate=5, force=False)
        assert b"ftyp" in reader.communicate()[0][:32]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"clip": ("toy",) * 17}, "17 CLIP models; at most 16"),
        ({"image_prompts": ("a.png",) * 101}, "101 image prompts; at most 100"),
        ({"prompts": "a \udcff"}, "a prompt is not UTF-8"),
        ({"mask_text": "a \udcff"}, "a prompt is not UTF-8"),
        ({"prompts": "a|" * 100 + "a"}, "101 prompts; at most 100"),
    ],
)
def test_what_a_recipe_names_has_a_limit(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe(**{"prompts": "a", **given})


def test_frames_of_another_run_are_removed_by_force_alone(here: Path) -> None:
    assert Done(*RED, "--frames", "f", "--steps", "8").code == 0
    Path("f/hello.png").write_text("other")
    other = ["generate", "a star", "-o", "b.png", *QUICK, "--every", "4", "--frames", "f"]
    assert "has frames of another run" in Done(*other).error
    assert Done(*other, "--force").code == 0
    assert sorted(path.name for path in Path("f").iterdir()) == ["hello.png", "step-000004.png"]


def test_a_stopped_run_finishes_by_the_same_command(here: Path) -> None:
    """Its frames, preview and sheet may be there already; the picture is what says that it is finished."""
    words = [*RED, "--frames", "f", "--preview", "now.png", "--contact-sheet", "sheet.png"]
    assert Done(*words).code == 0
    before = contents(here)
    Path("a.png").unlink()
    Path("f/step-000004.png").unlink()
    assert Done(*words).code == 0
    assert contents(here) == before
    for name in ("sheet.png", "now.png", "f/step-000002.png"):
        Path(name).unlink()
    Path("f/step-000004.png").unlink()
    Path("f").rmdir()
    assert Done(*words).code == 0
    assert contents(here) == before
    assert "is finished already" in Done(*words).out


@pytest.mark.parametrize(
    "words",
    [
        ["--contact-sheet", "other.png"],
        ["--preview", "other.png"],
        ["--state", "other.png"],
        ["--frames", "other.png"],
        ["--contact-sheet", "folder"],
    ],
)
def test_a_finished_picture_takes_no_other_file_for_an_extra(here: Path, words: list[str]) -> None:
    other = ["generate", "a star", "-o", "other.png", *QUICK]
    assert Done(*other).code == 0
    assert Done(*RED).code == 0
    Path("folder.png").mkdir()
    before = contents(here)
    done = Done(*RED, *(f"{word}.png" if word == "folder" else word for word in words))
    assert (done.code, done.error.count("error: ")) == (1, 1)
    assert contents(here) == before


@pytest.mark.parametrize("missing", ["f/step-000002.png", "f", "every", "another run"])
def test_a_finished_picture_lacks_no_frame(here: Path, missing: str) -> None:
    words = [*RED, "--frames", "f"]
    assert Done(*words).code == 0
    before = contents(here)
    if missing == "every":
        words[words.index("--every") + 1] = "1"
    elif missing == "another run":
        Path("f/step-000002.png").write_bytes(Path("a.png").read_bytes())
    else:
        path = Path(missing)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = Done(*words)
    assert (done.code, "nothing to do" in done.out) == (int(missing == "another run"), False)
    found = contents(here)
    assert missing == "another run" or all(found[name] == data for name, data in before.items())
    assert ("f/step-000001.png" in {str(path) for path in Path("f").iterdir()}) == (missing == "every")


@pytest.mark.parametrize("option", ["--preview", "--contact-sheet", "--state", "-o"])
@pytest.mark.parametrize("given", ["--start", "--image-prompt", "--weights"])
def test_no_input_is_replaced(here: Path, option: str, given: str) -> None:
    assert Done("generate", "a star", "-o", "in.png", *QUICK).code == 0
    before = contents(here)
    output = [] if option == "-o" else ["-o", "x.png"]
    done = Done("generate", "red", *output, *QUICK, given, "in.png", option, "./in.png", "--force")
    assert (done.code, f"is one of the inputs; give {option} another file" in done.error) == (2, True)
    assert contents(here) == before


def test_no_input_is_replaced_through_a_mount(here: Path, bind: Bind) -> None:
    for folder in ("sub", "mounted"):
        Path(folder).mkdir()
    Path("sub/in.png").write_bytes(b"in")
    bind(here / "sub", here / "mounted")
    extras = Extras(frames=Path("sub"))
    with pytest.raises(ConfigError, match="is one of the inputs"):
        extras.refuse_clashes(Path("sub/in.png"), [Path("mounted/in.png")], never)
    with pytest.raises(ConfigError, match="has the name of a frame"):
        extras.refuse_clashes(Path("x.png"), [Path("mounted/step-000001.png")], never)


@pytest.mark.parametrize("option", ["-o", "--state", "--preview", "--contact-sheet", "--frames"])
@pytest.mark.parametrize("given", ["folder", "file"])
def test_no_output_is_among_the_files_of_the_networks(here: Path, option: str, given: str) -> None:
    """It would be one of them for the next run, which would be another then."""
    for name in ("weights", "clip"):
        Path(name).mkdir()
        Path(name, "n.safetensors").touch()
        of = name if given == "folder" else f"{name}/n.safetensors"
        path = name if option == "--frames" else f"{name}/n.png"
        if option == "--frames" and given == "file":
            continue
        output = [] if option == "-o" else ["-o", "x.png"]
        done = Done("generate", "red", *output, *QUICK, f"--{name}", of, option, path)
        assert (done.code, f"give {option} another folder ({name})" in done.error) == (2, True), done.err
    assert not any(path.is_file() for path in here.rglob("*.png"))


@pytest.mark.parametrize("name", ["two.yaml", "two.yml"])
def test_no_output_makes_the_config_of_weights_ambiguous(here: Path, name: str) -> None:
    """A checkpoint is read with the only config in its folder, whatever its name."""
    Path("w").mkdir()
    weights = ROOT / "python/vqgan_clip/toy/weights"
    shutil.copy(weights / "vqgan.safetensors", "w/m.safetensors")
    shutil.copy(weights / "vqgan.yaml", "w/only.yaml")
    words = ["generate", "red", "-o", "a.png", *QUICK, "--weights", "w/m.safetensors", "--clip", "toy"]
    done = Done(*words, "--state", f"w/{name}")
    assert (done.code, "give --state another folder (w)" in done.error) == (2, True), done.err
    done = Done(*words, "--state", "w/only.yaml", "--force")
    assert (done.code, "is one of the inputs; give --state another file" in done.error) == (2, True)


def test_no_rerun_is_among_the_files_of_the_networks(here: Path) -> None:
    Path("w").mkdir()
    for name in ("vqgan.safetensors", "vqgan.yaml"):
        shutil.copy(ROOT / "python/vqgan_clip/toy/weights" / name, Path("w") / name)
    words = ["generate", "red", "-o", "a.png", *QUICK, "--weights", "w/vqgan.safetensors", "--clip", "toy"]
    assert Done(*words).code == 0
    done = Done("rerun", "a.png", "-o", "w/vqgan.png")
    assert (done.code, "give -o another folder (w)" in done.error) == (2, True), done.err
    assert not Path("w/vqgan.png").exists()


def test_a_folder_named_as_our_own_weights_is_none_of_theirs(here: Path) -> None:
    Path("toy").mkdir()
    words = ["generate", "red", *QUICK, "-o", "toy/a.png", "--state", "toy/state", "--frames", "toy"]
    assert Done(*words).code == 0
    done = Done(*words)
    assert (done.code, "finished already" in done.out) == (0, True), done.err


def test_no_output_is_in_the_scratch_folder_of_another(here: Path) -> None:
    done = Done(*RED, "--state", "s", "--preview", "s.partial/p.png")
    assert (done.code, "has the name of a scratch folder" in done.error) == (2, True), done.err
    assert list(here.iterdir()) == []


def test_no_input_is_a_frame(here: Path) -> None:
    assert Done(*RED, "--frames", "f").code == 0
    before = contents(here)
    done = Done(
        "generate", "red", "-o", "b.png", *QUICK, "--start", "f/step-000002.png", "--frames", "f", "--force"
    )
    assert (done.code, "has the name of a frame in --frames" in done.error) == (2, True)
    Path("photo.png").symlink_to("f/step-000002.png")
    before = contents(here)
    done = Done("edit", "photo.png", "red", "-o", "b.png", *QUICK, "--frames", "f", "--force")
    assert (done.code, "has the name of a frame in --frames" in done.error) == (2, True), done.err
    done = Done("generate", "red", "-o", "f/step-000004.png", *QUICK, "--frames", "f", "--force")
    assert (done.code, "has the name of a frame in --frames" in done.error) == (2, True)
    assert contents(here) == before


def test_no_two_outputs_are_one_file(here: Path) -> None:
    names = ["-o", "--preview", "--contact-sheet", "--state"]
    for one, two in itertools.combinations(names, 2):
        output = [] if one == "-o" else ["-o", "x.png"]
        done = Done("generate", "red", *output, *QUICK, one, "a.png", two, "./a.png")
        found = [name for name in names if name in done.error]
        assert (done.code, "name one file" in done.error, set(found)) == (2, True, {one, two}), done.error
    assert list(here.iterdir()) == []


def test_a_rerun_does_not_replace_what_it_repeats(here: Path) -> None:
    assert Done(*RED).code == 0
    before = pixels("a.png"), Path("a.png").read_bytes()
    done = Done("rerun", "a.png", "-o", "a.png", "--force")
    assert (done.code, "is one of the inputs" in done.error) == (2, True)
    assert (pixels("a.png"), Path("a.png").read_bytes()) == before


def test_two_runs_do_not_write_one_picture(here: Path) -> None:
    command = [sys.executable, "-c", "from vqgan_clip.cli import main; main()", *RED, "--steps", "100000"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as first:
        try:
            while not Path("a.png.partial/pile-tools.lock").exists():
                assert first.poll() is None
                time.sleep(0.02)
            second = Done(*RED)
            assert (second.code, "is writing this file" in second.error) == (1, True)
        finally:
            first.kill()
    assert Done(*RED).code == 0
    assert [path.name for path in here.iterdir()] == ["a.png"]


def test_what_a_killed_process_left_is_removed(here: Path) -> None:
    names = {"--state": "state", "--preview": "preview.png", "--contact-sheet": "sheet.png"}
    words = [*RED, "--frames", "f", *itertools.chain(*names.items()), "--steps", "2"]
    outputs = ["a.png", *names.values(), "f/step-000002.png"]

    def leave(contents: str | None) -> list[Path]:
        folders = [Path(output + ".partial") for output in outputs]
        for folder in folders:
            folder.mkdir()
            if contents is not None:
                (folder / scratch_folders.MARKER).touch()
                (folder / folder.stem).write_text(contents)
        return folders

    assert Done(*words).code == 0
    for contents in ("half", None):
        left = leave(contents)
        assert "finished already" in Done(*words).out
        assert [path for path in left if path.exists()] == []
    left = leave("half")
    # The run continues from its last step, and makes neither the preview nor the frame of that step again.
    Path("a.png").unlink()
    assert Done(*words).code == 0
    assert [path for path in left if path.exists()] == []
    Path("a.png").unlink()
    assert Done(*words, "--steps", "4").code == 0
    assert sorted(path.name for path in Path("f").iterdir()) == ["step-000002.png", "step-000004.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["red", "--rate", "1e39"], "rate must be greater than 0 and at most 1,000,000"),
        (["red", "--pull", "1e7"], "pull must be from 0 to 1,000,000"),
        (["a:1:1e308"], "the threshold of a prompt must be from -1e+06 to 1e+06"),
        (["a:1e39"], "the weight of a prompt must be from -1e+06 to 1e+06 and not 0"),
        (["red", "--seed", str(1 << 63)], "9223372036854775808"),
        (["red", "--device", "meta"], "no device 'meta' here"),
    ],
)
def test_a_value_that_torch_cannot_take_is_one_line(here: Path, words: list[str], message: str) -> None:
    done = Done("generate", *words, "-o", "a.png", *QUICK)
    assert (done.code, message in done.error) == (2, True), done.err


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("start", "\0"),
        ("image", "\0"),
        ("mask", "a\0"),
        ("weights", "\0"),
        ("clip", ["\0"]),
        ("seed", 1 << 64),
    ],
)
def test_a_picture_of_someone_else_causes_no_bug(here: Path, field: str, value: object) -> None:
    """A recipe in a PNG file is untrusted input."""
    assert Done(*RED).code == 0
    with Image.open("a.png") as image:
        image.load()
        record = json.loads(image.text[metadata.KEY])
    record["recipe"][field] = value
    info = PngInfo()
    info.add_itxt(metadata.KEY, json.dumps(record))
    image.save("b.png", pnginfo=info)
    for command in ("rerun", "show"):
        done = Done(command, "b.png")
        assert (done.code, "b.png" in done.error) == (1, True), done.err
