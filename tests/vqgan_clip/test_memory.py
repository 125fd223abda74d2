"""The stated peak bounds the measured one, grows by the chunk alone, and a run that cannot fit is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.vqgan_clip.checkpoints import F16, SMALL, random_vqgan

from pile_tools import PileError
from vqgan_clip import memory
from vqgan_clip.memory import Estimate, estimate, free_bytes, kept_by_autograd, require_memory, shown
from vqgan_clip.toy.clip import ToyClip

ROOT = Path(__file__).parents[2]

#: Guides a picture for two steps in a new process; prints the stated bytes and those that it took.
PROGRAM = """
import json, sys
from pathlib import Path
import torch
from transformers import CLIPConfig, CLIPModel
from tests.vqgan_clip.checkpoints import F16, random_vqgan
from vqgan_clip.clips import TransformersClip, Normalized
from vqgan_clip.config import GuidanceConfig
from vqgan_clip.guidance import Guidance, Guide, Target
from vqgan_clip.memory import estimate
from vqgan_clip.tiles import TiledDecoder

side, tile, chunk, n_vectors = map(int, sys.argv[1:])
torch.set_num_threads(1)

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))

tower = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4, "num_hidden_layers": 4}
config = CLIPConfig(text_config={"num_hidden_layers": 1}, vision_config={"patch_size": 16, **tower})
clip = TransformersClip(CLIPModel(config), None, Normalized([0.5] * 3, [0.5] * 3)).requires_grad_(False)
vqgan = random_vqgan(F16)
found = estimate(vqgan, [clip], side, side, tile=tile or None, n_vectors=n_vectors)
stated = found.beside_parameters(chunk)
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
latents = torch.zeros(1, F16.embed_dim, side // 16, side // 16)
guide = Guide(clip, [Target(torch.randn(n_vectors // 2, 512)) for _ in range(2)])
decode = TiledDecoder(vqgan.decode, 16, tile) if tile else None
settings = GuidanceConfig(views=max(8, chunk), chunk=chunk)
guidance = Guidance(vqgan, [guide], latents, settings, torch.Generator().manual_seed(0), decode=decode)
guidance.step()
guidance.step()
print(json.dumps([stated, status("VmHWM") - before]))
"""


def stated_and_taken(side: int, tile: int, chunk: int, n_vectors: int) -> tuple[int, int]:
    command = [sys.executable, "-c", PROGRAM, *map(str, (side, tile, chunk, n_vectors))]
    # Without the allocator's arenas per thread, whose number depends on the machine.
    environment = os.environ | {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    stated, taken = json.loads(done.stdout.splitlines()[-1])
    return stated, taken


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "tile", "chunk", "n_vectors"),
    [(192, 0, 2, 2), (192, 0, 32, 2), (256, 8, 2, 2), (64, 0, 8, 8000)],
)
def test_the_stated_peak_bounds_the_measured_one(side: int, tile: int, chunk: int, n_vectors: int) -> None:
    pytest.importorskip("transformers")
    stated, taken = stated_and_taken(side, tile, chunk, n_vectors)
    assert taken <= stated
    # A bound that is far too high would refuse runs that fit.
    assert stated <= 2.5 * taken


def test_the_bytes_that_autograd_keeps() -> None:
    x = torch.ones(1000, requires_grad=True)
    weight = torch.ones(1000)
    # Of `exp`, its result; of the product, the same result and the weight, which is a parameter.
    kept = kept_by_autograd(lambda: (x.exp() * weight).sum(), [weight])
    assert kept.total == 4000
    assert kept.largest == 4000
    assert kept_by_autograd(lambda: (x.exp() * weight).sum()).total == 8000
    assert kept_by_autograd(lambda: x.sum()).total == 0


def test_the_decoders_part_is_that_of_a_larger_picture() -> None:
    model = random_vqgan(SMALL)
    found = estimate(model, [ToyClip()], 64, 48)
    latents = torch.zeros(1, 4, 32, 24, requires_grad=True)
    exact = kept_by_autograd(lambda: model.decode(latents), list(model.parameters())).total
    assert exact == pytest.approx(found.decoder, rel=0.05)


def test_tiles_bound_the_decoders_part() -> None:
    model, clips = random_vqgan(F16), [ToyClip()]
    small, large = (estimate(model, clips, side, side, tile=8) for side in (512, 4096))
    assert small.decoder == large.decoder == 0
    assert small.decoder_buffers == large.decoder_buffers
    assert small.decoder_buffers < estimate(model, clips, 512, 512).decoder
    # Latents of one tile are decoded whole.
    assert estimate(model, clips, 128, 128, tile=8) == estimate(model, clips, 128, 128)


def test_the_largest_of_several_clips_counts() -> None:
    model, clip = random_vqgan(SMALL), ToyClip()
    one, two = estimate(model, [clip], 16, 16), estimate(model, [clip, clip], 16, 16)
    assert one.view == two.view
    assert two.parameters - one.parameters == sum(4 * p.numel() for p in clip.parameters())


def test_the_vectors_and_the_pixels_of_image_prompts_count() -> None:
    model, clip = random_vqgan(SMALL), ToyClip()
    texts, images = (estimate(model, [clip, clip], 16, 16, n_vectors=n) for n in (1, 1001))
    vector = 4 * clip.encode_images(torch.zeros(1, 3, clip.size, clip.size)).shape[1]
    assert images.view - texts.view == 1000 * 3 * vector
    assert images.prompts - texts.prompts == 1000 * 2 * 2 * vector
    large = estimate(model, [clip], 16, 16, n_prompt_pixels=1 << 26)
    assert large.beside_parameters(1) > 3 << 30


ESTIMATE = Estimate(
    parameters=900 << 20, picture=4 << 20, decoder=400 << 20, decoder_buffers=200 << 20, view=50 << 20
)


def test_the_largest_chunk_fits_and_the_next_does_not() -> None:
    for free in range(600 << 20, 3 << 30, 37 << 20):
        n = ESTIMATE.largest_chunk(free)
        if n:
            assert ESTIMATE.beside_parameters(n) <= free
        assert ESTIMATE.beside_parameters(n + 1) > free
    assert ESTIMATE.peak(4) == ESTIMATE.parameters + ESTIMATE.beside_parameters(4)


def test_a_run_that_fits_is_not_refused() -> None:
    require_memory(ESTIMATE, 32, 4 << 30)
    require_memory(ESTIMATE, 32, None)


def test_a_run_that_does_not_fit_is_refused_with_the_chunk_that_does() -> None:
    with pytest.raises(PileError) as raised:
        require_memory(ESTIMATE, 32, 1 << 30)
    assert str(raised.value) == (
        "the run needs 2.1 GiB of memory with 32 views at once, but 1.0 GiB are free: a chunk of 10 fits"
    )
    require_memory(ESTIMATE, 10, 1 << 30)


def test_a_run_that_fits_with_no_chunk_is_refused() -> None:
    with pytest.raises(
        PileError, match=r"700 MiB .*500 MiB are free: no chunk fits; decode in smaller tiles"
    ):
        require_memory(ESTIMATE, 1, 500 << 20)


def test_the_free_memory_is_the_smaller_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = free_bytes(torch.device("cpu"))
    assert machine is not None
    assert 0 < machine <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert memory._group_free(tmp_path) == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._group_free(tmp_path) is None
    assert memory._group_free(tmp_path / "absent") is None
    monkeypatch.setattr(memory, "_group_free", lambda: 3000)
    assert free_bytes(torch.device("cpu")) == 3000


def test_other_devices_say_nothing() -> None:
    assert free_bytes(torch.device("meta")) is None


@pytest.mark.parametrize(
    ("n_bytes", "text"), [(1, "1 MiB"), (700 << 20, "700 MiB"), (1 << 30, "1.0 GiB"), (6 << 28, "1.5 GiB")]
)
def test_bytes_in_messages(n_bytes: int, text: str) -> None:
    assert shown(n_bytes) == text
