"""How much memory a run needs at its peak, stated before it starts, and how many views at once fit.

    parameters + what autograd keeps of the decoder + what it keeps of one chunk of views
    + the vectors of the prompts

The second and third are measured on one small decoding and one view, and scaled: both grow linearly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pile_tools.errors import PileError
from pile_tools.terminal import counted
from vqgan_clip.clips import Clip
from vqgan_clip.vqgan import Vqgan

#: Side of the picture of the small decoding, latents.
_PROBE = 8
#: Buffers beside what autograd keeps, in largest kept tensors: a layer's input, output, their gradients, and
#: the unfolded input of convolutions.
_N_BUFFERS = 6
#: Tensors of the picture's size: the picture, its gradient, clamped and composited ones.
_N_PICTURES = 12
#: Tensors of an image prompt's size while its views are made: as it is read, divided and permuted.
_N_IMAGES = 4
#: Vectors for each pair of a view and a vector of a prompt: their difference, which autograd keeps, its
#: gradient, and one that is computed from it.
_N_DIFFERENCES = 3
#: Copies of the prompts' vectors: as views give them, and joined.
_N_VECTORS = 2
#: Tensors of a view's size: warped, recoloured, erased and noisy ones, and the coordinates.
_N_VIEW_TENSORS = 16
#: Code and pools of the libraries that are loaded during the first step.
_BASE_BYTES = 96 << 20

_FLOAT = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What autograd keeps of a computation: bytes in all, and of the largest tensor."""

    total: int
    largest: int

    def scaled(self, factor: float) -> Kept:
        """The same for a computation of another size."""
        return Kept(total=round(self.total * factor), largest=round(self.largest * factor))


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Bytes that a run allocates, by part.

    Attributes:
        parameters: Of all networks.
        picture: Tensors of the picture's size.
        decoder: What autograd keeps while views are computed.
        decoder_buffers: Buffers and recomputed tiles, needed while no view is in memory.
        view: Per view of a chunk.
        prompts: Vectors of the prompts.
        image_prompt: The largest image prompt, before the first step.
    """

    parameters: int
    picture: int
    decoder: int
    decoder_buffers: int
    view: int
    prompts: int = 0
    image_prompt: int = 0

    def peak(self, chunk: int) -> int:
        """Bytes at the peak with `chunk` views at once, the parameters included."""
        return self.parameters + self.beside_parameters(chunk)

    def beside_parameters(self, chunk: int) -> int:
        """Bytes at the peak in addition to the parameters, which are loaded before."""
        return self._always + max(self.decoder_buffers, self.image_prompt, self.view * chunk)

    def largest_chunk(self, free: int) -> int:
        """Most views at once with which a run fits into free memory; 0 if none does."""
        if self.beside_parameters(0) > free:
            return 0
        return max(0, (free - self._always) // max(1, self.view))

    @property
    def _always(self) -> int:
        return _BASE_BYTES + self.picture + self.decoder + self.prompts


def kept_by_autograd(compute: Callable[[], Tensor], parameters: Sequence[Tensor] = ()) -> Kept:
    """Bytes that autograd keeps after `compute`, storages counted once and `parameters` left out.

    Shared storages are counted once, and so are tensors that several operations keep.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in parameters}
    storages: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        # Kept until the sum is taken, so that no address is used twice.
        result = compute()
        kept = Kept(total=sum(storages.values()), largest=max(storages.values(), default=0))
        del result
    return kept


def estimate(
    vqgan: Vqgan,
    clips: Sequence[Clip],
    height: int,
    width: int,
    *,
    tile: int | None = None,
    n_vectors: int = 0,
    n_prompt_pixels: int = 0,
) -> Estimate:
    """The memory of a run. Takes the time of a small decoding and of one view per CLIP.

    Args:
        vqgan: The decoder.
        clips: The guides, which see the views one after the other.
        height: Of the picture, pixels.
        width: Likewise.
        tile: Side of the tiles in which it is decoded, latents; None for the whole picture.
        n_vectors: Vectors of all prompts, with which each view is compared.
        n_prompt_pixels: Pixels of the largest image prompt.
    """
    networks = [vqgan, *(clip for clip in clips if isinstance(clip, nn.Module))]
    tensors = [*(tensor for net in networks for tensor in [*net.parameters(), *net.buffers()])]
    device = vqgan.codebook.device
    latents = torch.zeros(1, vqgan.config.embed_dim, _PROBE, _PROBE, device=device, requires_grad=True)
    probe = kept_by_autograd(lambda: vqgan.decode(latents), tensors)
    n_latents = (height // vqgan.factor) * (width // vqgan.factor)
    n_at_once = n_latents if tile is None else min(n_latents, tile * tile)
    whole = probe.scaled(n_at_once / _PROBE**2)
    is_tiled = n_at_once < n_latents
    buffers = _N_BUFFERS * whole.largest
    views = [_view_bytes(clip, tensors, device) for clip in clips]
    return Estimate(
        parameters=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        picture=_N_PICTURES * 3 * _FLOAT * height * width,
        decoder=0 if is_tiled else whole.total,
        decoder_buffers=buffers + (whole.total if is_tiled else 0),
        view=max(n_bytes + _N_DIFFERENCES * n_vectors * vector for n_bytes, vector in views),
        prompts=_N_VECTORS * n_vectors * sum(vector for _, vector in views),
        image_prompt=_N_IMAGES * 3 * _FLOAT * n_prompt_pixels,
    )


def _view_bytes(clip: Clip, parameters: Sequence[Tensor], device: torch.device) -> tuple[int, int]:
    """Bytes of a view, and of its vector."""
    view = torch.full((1, 3, clip.size, clip.size), 0.5, device=device, requires_grad=True)
    vectors: list[Tensor] = []

    def encode() -> Tensor:
        vectors.append(clip.encode_images(view))
        return vectors[0]

    kept = kept_by_autograd(encode, parameters)
    n_bytes = kept.total + _N_BUFFERS * kept.largest + _N_VIEW_TENSORS * 3 * _FLOAT * clip.size**2
    return n_bytes, _FLOAT * vectors[0].numel()


def free_bytes(device: torch.device) -> int | None:
    """Memory that a run can take on a device; None if the system does not say.

    On the CPU, the smaller one of what the machine and what the control group of the process have free.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    if device.type != "cpu":
        return None
    found = [bytes_ for bytes_ in (_machine_free(), _group_free()) if bytes_ is not None]
    return min(found, default=None)


def _machine_free() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), None)


def _group_free(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What the limit of a control group (version 2) leaves."""
    try:
        limit, used = (folder / "memory.max").read_text(), (folder / "memory.current").read_text()
        return max(0, int(limit) - int(used))
    except (OSError, ValueError):
        # No such group, or `max`: no limit.
        return None


def require_memory(estimated: Estimate, chunk: int, free: int | None) -> None:
    """Raises PileError if a run does not fit into free memory; the message says what would.

    Args:
        estimated: Of the run.
        chunk: Views at once.
        free: Bytes that are free after the networks are loaded; None if unknown.
    """
    if free is None or estimated.beside_parameters(chunk) <= free:
        return
    needed = (
        f"needs {shown(estimated.beside_parameters(chunk))} of memory with {counted(chunk, 'view')} at once"
    )
    if fitting := min(chunk, estimated.largest_chunk(free)):
        advice = f"a chunk of {fitting:,} fits"
    else:
        advice = "no chunk fits; decode in smaller tiles, or a smaller picture"
    raise PileError(f"the run {needed}, but {shown(free)} are free: {advice}")


def shown(n_bytes: int) -> str:
    """A number of bytes for a message: `1.5 GiB`."""
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{max(1, n_bytes >> 20):,} MiB"
