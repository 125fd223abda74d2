"""The command vqgan-clip: pictures with settings, reruns, states, frames; one clear line for bad input."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pile_tools import publish
from pile_tools.cli import run
from vqgan_clip import frames, memory, saved_state
from vqgan_clip.cli import group
from vqgan_clip.toy import stored

QUICK = ["--steps", "4", "--views", "2", "--threads", "1"]


class Done:
    """A finished command."""

    def __init__(self, *words: str) -> None:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            self.code = run(group, list(words))
        self.out, self.err = out.getvalue(), err.getvalue()

    @property
    def error(self) -> str:
        """The one line of an error."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        return lines[0]


def pixels(path: str) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_picture_is_made_once(here: Path) -> None:
    words = ["generate", "a red star", "-o", "a.png", *QUICK]
    done = Done(*words)
    assert done.code == 0, done.err
    assert done.out.startswith("a.png: 32 x 32 pixels, 4 steps, loss ")
    assert "MiB of memory at the peak" in done.err
    before = (here / "a.png").read_bytes()
    again = Done(*words)
    assert (again.code, again.out) == (0, "a.png is finished already, nothing to do\n")
    other = Done(*words, "--seed", "1")
    assert (other.code, "--force replaces it" in other.error) == (1, True)
    assert (here / "a.png").read_bytes() == before
    forced = Done(*words, "--seed", "1", "--force")
    assert forced.code == 0
    assert (here / "a.png").read_bytes() != before


def test_a_rerun_compares_pixels(here: Path) -> None:
    assert Done("generate", "a red star", "-o", "a.png", *QUICK).code == 0
    (here / "deep").mkdir()
    edit = ["edit", "a.png", "a blue star", "-o", "deep/b.png", "--mask-text", "a red star", *QUICK]
    assert Done(*edit).code == 0
    done = Done("rerun", "deep/b.png", "-o", "c.png")
    assert (done.code, done.out) == (0, "deep/b.png: made again with equal pixels\n")
    assert pixels("c.png") == pixels("deep/b.png")
    assert json.loads(Done("rerun", "deep/b.png", "--json").out)["is_equal"] is True
    before = pixels("deep/b.png")
    for output, message in (("deep/b.png", "is one of the inputs"), ("c.yaml", "writes a picture")):
        done = Done("rerun", "deep/b.png", "-o", output, "--force")
        assert (done.code, message in done.error) == (2, True), done.err
    assert pixels("deep/b.png") == before


def test_a_rerun_says_that_pixels_or_inputs_changed(here: Path) -> None:
    assert Done("generate", "a red star", "-o", "a.png", *QUICK).code == 0
    assert Done("edit", "a.png", "a blue star", "-o", "b.png", *QUICK).code == 0
    assert Done("generate", "a star", "-o", "a.png", *QUICK, "--force").code == 0
    done = Done("rerun", "b.png")
    assert (done.code, "other files than those that the picture was made from: images" in done.error) == (
        1,
        True,
    )
    from vqgan_clip import metadata

    image, record = metadata.read(Path("a.png"))
    image.putpixel((3, 3), (1, 2, 3))
    metadata.write(Path("c.png"), lambda: (image, record), inputs=[], force=False)
    done = Done("rerun", "c.png")
    assert (done.code, "made again with other pixels" in done.error) == (1, True)
    assert "the pixels were changed after the picture was made" in Done("show", "c.png").out


@pytest.mark.parametrize(("own", "changed"), [({"vqgan": {}}, "vqgan"), ({"audio": None}, "audio")])
def test_a_rerun_names_what_it_has_no_equal_file_of(here: Path, own: dict[str, object], changed: str) -> None:
    from dataclasses import replace

    from vqgan_clip import metadata

    assert Done("generate", "a red star", "-o", "a.png", *QUICK).code == 0
    image, record = metadata.read(here / "a.png")
    other = replace(record, hashes={**record.hashes, **own})
    (here / "b.png").write_bytes(metadata.png_bytes(image, other))
    done = Done("rerun", "b.png")
    assert done.code == 1
    assert f"other files than those that the picture was made from: {changed} " in done.error


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"weights": "/"}, "need a CLIP"),
        ({"device": "abacus"}, "no device 'abacus'"),
        ({"device": "hpu"}, "no device 'hpu'"),
    ],
)
def test_a_recipe_that_cannot_be_carried_out_is_the_fault_of_the_picture(
    here: Path, own: dict[str, str], message: str
) -> None:
    from dataclasses import replace

    from vqgan_clip import metadata

    assert Done("generate", "a red star", "-o", "a.png", *QUICK).code == 0
    image, record = metadata.read(here / "a.png")
    other = replace(record, recipe=replace(record.recipe, **own))
    (here / "b.png").write_bytes(metadata.png_bytes(image, other))
    done = Done("rerun", "b.png")
    assert (done.code, message in done.error, "(b.png)" in done.error) == (1, True, True)
    # The user's own settings are those of a command line.
    assert Done("rerun", "a.png", "--weights", "/").code == 2


def test_show_prints_the_settings(here: Path) -> None:
    assert Done("generate", "a red star | blue:-0.5", "-o", "a.png", "--seed", "7", *QUICK).code == 0
    shown = Done("show", "a.png").out.splitlines()
    for line in ("prompts: a red star | blue:-0.5", "seed: 7", "steps: 4", "weights: toy", "threads: 1"):
        assert line in shown
    assert [line for line in shown if line.startswith("sha256 ")]
    found = json.loads(Done("show", "a.png", "--json").out)
    assert (found["recipe"]["seed"], found["n_steps"], found["is_unchanged"]) == (7, 4, True)


def test_a_state_continues_bit_identically(here: Path) -> None:
    words = ["generate", "a red star", "--views", "2", "--threads", "1", "--state", "s", "--every", "2"]
    assert Done(*words, "-o", "half.png", "--steps", "3").code == 0
    assert Done(*words, "-o", "rest.png", "--steps", "6").code == 0
    assert Done(*words[:-4], "-o", "whole.png", "--steps", "6").code == 0
    assert pixels("rest.png") == pixels("whole.png")
    other = Done(*words, "-o", "b.png", "--seed", "1")
    assert (other.code, "the state of a run with other settings" in other.error) == (1, True)
    Path("s").write_bytes(b"text")
    damaged = Done(*words, "-o", "c.png")
    assert (damaged.code, "not a state of vqgan-clip" in damaged.error) == (1, True)


@pytest.mark.parametrize("extra", ["--state", "--preview", "--contact-sheet", "--frames"])
def test_two_runs_do_not_write_one_file(here: Path, extra: str) -> None:
    name = "x" if extra in ("--state", "--frames") else "x.png"
    words = ["generate", "a star", "-o", "a.png", *QUICK, "--every", "2", extra, name]
    with publish.holding(Path(f"{name}/frames" if extra == "--frames" else name)):
        done = Done(*words)
        assert (done.code, "another process is writing this file" in done.error) == (1, True)
        assert not Path("a.png").exists()
    assert Done(*words).code == 0
    assert not list(here.rglob("*.partial"))


@pytest.mark.parametrize("extra", ["--state", "--preview", "--contact-sheet", "--frames"])
def test_an_input_in_a_scratch_folder_stays(here: Path, extra: str) -> None:
    name = "x" if extra in ("--state", "--frames") else "x.png"
    scratch = Path(f"{name}/step-000002.png.partial" if extra == "--frames" else f"{name}.partial")
    scratch.mkdir(parents=True)
    (scratch / "pile-tools.lock").touch()
    image = scratch / ("step-000002.png" if extra == "--frames" else name)
    Image.new("RGB", (32, 32), "red").save(image, "png")
    done = Done("edit", str(image), "a star", "-o", "a.png", *QUICK, extra, name)
    assert (done.code, "is in the scratch folder of the output" in done.error) == (2, True)
    assert image.exists()


@pytest.mark.parametrize(
    "words",
    [
        ["edit", "in.png", "a star"],
        ["edit", "other.png", "a star", "--mask", "in.png"],
        ["generate", "a star", "--start", "in.png"],
        ["generate", "a star", "--image-prompt", "in.png"],
        ["generate", "a star", "--weights", "w/vqgan.safetensors", "--clip", "toy"],
        ["generate", "a star", "--clip", "w/clip.safetensors"],
    ],
)
@pytest.mark.parametrize("extra", ["--state", "--frames"])
def test_no_run_continues_that_of_another_file_of_the_name(here: Path, words: list[str], extra: str) -> None:
    shutil.copytree(stored.FOLDER, "w")
    Image.new("RGB", (32, 32), "white").save("in.png")
    Image.new("RGB", (32, 32), "red").save("other.png")
    words = [*words, "-o", "a.png", "--views", "1", "--threads", "1", "--every", "1", extra, "x"]
    assert Done(*words, "--steps", "1").code == 0
    Path("a.png").unlink()
    changed = next(word for word in words if word == "in.png" or word.startswith("w/"))
    if changed == "in.png":
        image = Image.new("RGB", (32, 32), "white")
        image.putpixel((0, 0), (254, 255, 255))
        image.save("in.png")
    else:
        tensors = load_file(changed)
        name = min(name for name, tensor in tensors.items() if tensor.is_floating_point())
        save_file({**tensors, name: tensors[name] * 1.01}, changed)
    done = Done(*words, "--steps", "2")
    expected = "of a run with other settings or files" if extra == "--state" else "has frames of another run"
    assert (done.code, expected in done.error) == (1, True)


def test_long_pictures_are_not_enlarged_beyond_memory() -> None:
    assert [frames._scale(size, 128) for size in ((1, 65_536), (1, 2000), (32, 32), (500, 3))] == [1, 2, 4, 8]


def test_an_edit_states_the_memory_of_the_padded_image(here: Path) -> None:
    stated = []
    for width in (1, 2, 3, 4):
        Image.new("RGB", (width, 4000), "red").save("in.png")
        done = Done("edit", "in.png", "a star", "-o", f"{width}.png", "--steps", "0", "--threads", "1")
        assert done.code == 0
        stated.append(next(line for line in done.err.splitlines() if "of memory at the peak" in line))
    assert len(set(stated)) == 1


@pytest.mark.parametrize("n_steps", [3, 5])
def test_a_stopped_run_makes_the_sheet_of_one_that_was_not(
    here: Path, monkeypatch: pytest.MonkeyPatch, n_steps: int
) -> None:
    # Half of the frames are forgotten before, and after, the stop.
    monkeypatch.setattr(frames, "_MOST_KEPT", 2)
    words = ["generate", "a red star", "--views", "2", "--threads", "1", "--every", "1"]
    assert Done(*words, "-o", "a.png", "--contact-sheet", "whole.png", "--steps", "7").code == 0
    words += ["-o", "b.png", "--contact-sheet", "sheet.png", "--state", "s"]
    assert Done(*words, "--steps", str(n_steps)).code == 0
    Path("b.png").unlink()
    assert Done(*words, "--steps", "7").code == 0
    assert pixels("sheet.png") == pixels("whole.png")


def test_a_picture_is_written_to_a_pipe(here: Path) -> None:
    os.mkfifo("pipe.png")
    with subprocess.Popen(["cat", "pipe.png"], stdout=subprocess.PIPE) as reader:
        done = Done("generate", "red", "-o", "pipe.png", *QUICK)
        assert done.code == 0, done.error
        got = reader.communicate(timeout=60)[0]
    assert Done("generate", "red", "-o", "a.png", *QUICK).code == 0
    Path("got.png").write_bytes(got)
    assert pixels("got.png") == pixels("a.png")
    refused = Done("generate", "red", "-o", "b.png", *QUICK, "--preview", "pipe.png")
    assert (refused.code, "--preview replaces a file" in refused.error) == (2, True)
    assert Path("pipe.png").is_fifo()


def test_a_state_has_the_mode_that_the_umask_gives(here: Path, usual_mode: int) -> None:
    saved_state.save(Path("s"), {"a": torch.zeros(1)}, "job")
    assert oct(Path("s").stat().st_mode) == oct(usual_mode)


def test_a_damaged_state_is_not_continued_from(here: Path) -> None:
    words = ["generate", "red", "-o", "a.png", *QUICK, "--state", "s"]
    assert Done(*words).code == 0
    Path("a.png").unlink()
    whole = Path("s").read_bytes()
    for at in (len(whole) - 1, len(whole) // 2, len(whole) - 20_000):
        Path("s").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        damaged = Done(*words)
        assert (damaged.code, "a damaged state of vqgan-clip; remove it" in damaged.error) == (1, True)
    Path("s").write_bytes(whole)
    assert Done(*words).code == 0


@pytest.mark.parametrize(
    "hostile", ["generator", "latents", "numbers", "optimizer.exp_avg_sq", "frame.2", "frame.x"]
)
def test_a_hostile_state_is_an_error_that_names_it(here: Path, hostile: str) -> None:
    """Its checksum is right: whoever made it wrote it so."""
    words = ["generate", "red", "-o", "a.png", *QUICK, "--state", "s", "--contact-sheet", "sheet.png"]
    words += ["--every", "2"]
    assert Done(*words).code == 0
    Path("a.png").unlink()
    with safe_open("s", framework="pt") as file:
        job, _ = file.metadata()["vqgan-clip state of"].split()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    value = state.get(hostile, torch.zeros(1))
    state[hostile] = torch.full_like(value.float(), torch.nan)
    if hostile == "generator":
        state[hostile] = torch.full_like(value, 255)
    saved_state.save(Path("s"), state, job)
    refused = Done(*words)
    assert refused.code == 1
    assert hostile in refused.error
    assert "(s)" in refused.error


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("numbers", ()),
        ("numbers", (2, 2)),
        ("numbers", (0,)),
        ("latents", ()),
        ("frame.2", (70_000, 1, 3)),
        ("frame.2", (32, 32)),
        ("frame.2", (0, 0, 3)),
    ],
)
def test_a_hostile_state_with_tensors_of_other_shapes_is_an_error_that_names_them(
    here: Path, name: str, shape: tuple[int, ...]
) -> None:
    words = ["generate", "red", "-o", "a.png", *QUICK, "--state", "s", "--contact-sheet", "sheet.png"]
    words += ["--every", "2"]
    assert Done(*words).code == 0
    Path("a.png").unlink()
    with safe_open("s", framework="pt") as file:
        job, _ = file.metadata()["vqgan-clip state of"].split()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    state[name] = torch.zeros(shape, dtype=state[name].dtype)
    saved_state.save(Path("s"), state, job)
    refused = Done(*words)
    assert refused.code == 1
    # Whether a frame has the size of the picture is seen by the latents.
    assert ("frame." if name == "latents" else name) in refused.error
    assert "(s)" in refused.error


def test_a_rerun_states_its_memory_and_is_refused_where_it_has_too_little(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Done("generate", "red", "-o", "a.png", *QUICK).code == 0
    assert "MiB of memory at the peak" in Done("rerun", "a.png").err
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1 << 20)
    refused = Done("rerun", "a.png")
    assert (refused.code, "of memory" in refused.error) == (1, True)


def test_frames_and_sheets(here: Path) -> None:
    words = ["generate", "a red star", "-o", "a.png", *QUICK, "--every", "2"]
    done = Done(*words, "--frames", "f", "--contact-sheet", "sheet.png", "--preview", "now.png")
    assert done.code == 0, done.err
    assert sorted(path.name for path in Path("f").iterdir()) == ["step-000002.png", "step-000004.png"]
    last = pixels("f/step-000004.png")
    assert last == pixels("a.png") == pixels("now.png")
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 2 * 128
    again = Done("generate", "a star", "-o", "b.png", *QUICK, "--frames", "f")
    assert (again.code, "has frames of another run" in again.error) == (1, True)


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_a_video(here: Path) -> None:
    words = ["generate", "a red star", "-o", "a.png", "--size", "36x32", *QUICK, "--every", "1"]
    done = Done(*words, "--frames", "f", "--video", "a.mp4")
    assert done.code == 0, done.err
    assert b"ftyp" in Path("a.mp4").read_bytes()[:32]


def test_without_ffmpeg_nothing_is_begun(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.fspath(here))
    done = Done("generate", "a star", "-o", "a.png", *QUICK, "--frames", "f", "--video", "a.mp4")
    assert (done.code, "needs ffmpeg, which is not installed" in done.error) == (1, True)
    assert list(here.iterdir()) == []


def test_too_little_memory_is_said_before_the_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vqgan_clip import memory

    monkeypatch.setattr(memory, "free_bytes", lambda device: 128 << 20)
    words = ["generate", "a star", "-o", "a.png", "--steps", "1", "--views", "512", "--chunk", "512"]
    done = Done(*words)
    assert (done.code, "with 512 views at once" in done.error, " fits" in done.error) == (1, True, True)
    fitting = re.search(r"a chunk of ([0-9]+) fits", done.error)
    assert fitting
    assert Done(*words[:-1], fitting[1]).code == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["generate", "", "-o", "x.png"], 2, "no prompt; give PROMPTS as one argument"),
        (["generate", "-o", "x.png"], 2, "no prompt; give PROMPTS as one argument"),
        (["edit", "a red circle", "-o", "x.png"], 2, "no prompt; give PROMPTS as one argument"),
        (["generate", "star", "-o", "x.jpg"], 2, "--output writes a picture, FILE.png (x.jpg)"),
        (["edit", "red.png", "star", "-o", "x"], 2, "--output writes a picture, FILE.png (x)"),
        (["generate", "star", "-o", "x.png", "--contact-sheet", "s.gif"], 2, "--contact-sheet writes a pi"),
        (["generate", "star", "-o", "x.png", "--preview", "now"], 2, "--preview writes a picture"),
        (["generate", "a | ", "-o", "x.png"], 2, "an empty prompt"),
        (["generate", "red " * 17, "-o", "x.png"], 2, "17 words, the toy CLIP takes 16"),
        (["generate", "star", "-o", "x.png", "--size", "big"], 2, "--size must be a number"),
        (["generate", "star", "-o", "x.png", "--size", "33"], 2, "width must be a multiple of 4"),
        (["generate", "star", "-o", "x.png", "--start", "none.png"], 1, "No such file"),
        (["generate", "star", "-o", "x.png", "--start", "text"], 1, "not an image"),
        (["generate", "star", "-o", "x.png", "--weights", "none", "--clip", "toy"], 1, "No such file"),
        (["generate", "star", "-o", "x.png", "--weights", "none"], 2, "the weights none need a CLIP"),
        (["generate", "star", "-o", "x.png", "--video", "x.mp4"], 2, "--video needs --frames"),
        (["generate", "star", "-o", "x.png", "--image-prompt", "none.png"], 1, "No such file"),
        (["generate", "star", "-o", "x.png", "--augment", "blur"], 2, "no augmentation 'blur'"),
        (["generate", "star", "-o", "x.png", "--sha256", "0" * 64], 1, "SHA-256 is "),
        (["generate", "star", "-o", "x.png", "--device", "none"], 2, "no device 'none' here"),
        (["generate", "star", "-o", "x.png", "--device", "cuda:99"], 2, "no device 'cuda:99' here"),
        (["generate", "star", "-o", "x.png", "--tile", "1"], 2, "tile must be at least 4 latents, got 1"),
        (["edit", "red.png", "star", "-o", "x.png", "--tile", "1"], 2, "tile must be at least 4 latents"),
        (["edit", "none.png", "star", "-o", "x.png"], 1, "No such file"),
        (["edit", "text", "star", "-o", "x.png"], 1, "not an image"),
        (["edit", "red.png", "star", "-o", "x.png", "--mask", "small.png"], 2, "the mask is 8 x 8"),
        (["edit", "red.png", "star", "-o", "x.png", "--mask", "text"], 1, "not an image"),
        (["edit", "red.png", "star", "-o", "red.png"], 2, "is one of the inputs"),
        (["show", "red.png"], 1, "no settings of vqgan-clip"),
        (["edit", "\udcff.png", "star", "-o", "a.png"], 2, "the name is not UTF-8"),
        (["rerun", "text"], 1, "not a PNG"),
        (["generate", "star", "-o", "text.png"], 1, "not of vqgan-clip"),
        (["generate", "star", "-o", "text/x.png"], 2, "is no folder, and the output needs one"),
        (["demo", "-o", "text.png"], 2, "is no folder, and the output needs one"),
        (["train-toy", "-o", "text.png/toy"], 2, "is no folder, and the output needs one"),
    ],
)
def test_bad_input_is_one_line(here: Path, words: list[str], code: int, message: str) -> None:
    (here / "text").write_text("text")
    (here / "text.png").write_text("text")
    Image.new("RGB", (32, 32), "red").save("red.png")
    Image.new("L", (8, 8), 255).save("small.png")
    done = Done(*words, *(["--steps", "1"] if words[0] in ("generate", "edit") else []))
    assert (done.code, message in done.error) == (code, True), done.err
    assert not list(here.glob("x*"))


def test_json_is_one_document(here: Path) -> None:
    done = Done("generate", "a star", "-o", "a.png", *QUICK, "--json")
    found = json.loads(done.out)
    assert (found["path"], found["is_new"], found["width"], found["n_steps"]) == ("a.png", True, 32, 4)
    assert json.loads(Done("generate", "a star", "-o", "a.png", *QUICK, "--json").out)["is_new"] is False


def test_quiet_prints_nothing(here: Path) -> None:
    done = Done("generate", "a star", "-o", "a.png", *QUICK, "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_without_pillow_the_help_works(cli: object) -> None:
    program = (
        "import sys; sys.modules['PIL'] = sys.modules['torch'] = None\n"
        "from vqgan_clip.cli import main\nsys.argv = ['vqgan-clip', 'generate', '--help']\nmain()"
    )
    import subprocess

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, "Make a picture" in done.stdout) == (0, True), done.stderr
