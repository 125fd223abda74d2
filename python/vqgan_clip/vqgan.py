"""The VQGAN: a convolutional autoencoder whose latents are entries of a codebook.

Architecture and parameter names are those of taming-transformers, so its checkpoints load without conversion:
"Taming Transformers for High-Resolution Image Synthesis" (Esser et al. 2021, arXiv:2012.09841). There is no
dropout, as the published models use none, and no discriminator: it only serves training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pile_tools.errors import ConfigError

#: Channels of an image.
_RGB = 3
#: Groups of a GroupNorm. Published models have channels that 32 divides; see `_norm` for others.
_MAX_GROUPS = 32

#: Largest value of each field of a config. All published models are below; a config is an untrusted file.
_MAX_LEVELS = 8
_MAXIMA = {
    "ch": 1024,
    "num_res_blocks": 16,
    "resolution": 4096,
    "z_channels": 4096,
    "embed_dim": 4096,
    "n_embed": 1 << 20,
}
_MAX_MULTIPLIER = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class VqganConfig:
    """Shape of a VQGAN, in the names of taming-transformers' `ddconfig`.

    Attributes:
        ch: Channels of the first level; level i has `ch * ch_mult[i]`.
        ch_mult: One multiplier per level. Each level but the last halves width and height.
        num_res_blocks: Residual blocks per level of the encoder; the decoder has one more.
        attn_resolutions: Sides of the feature maps that have attention, for an image of side `resolution`.
        resolution: Image side of the training, pixels. Other sizes can be encoded and decoded.
        z_channels: Channels between the convolutions and the codebook's projections.
        embed_dim: Length of a codebook entry.
        n_embed: Number of codebook entries.
        is_gumbel: Whether the codes come from logits (taming's `GumbelVQ`), not from distances.

    Raises: ConfigError if a value is out of range.
    """

    ch: int
    ch_mult: tuple[int, ...]
    num_res_blocks: int
    attn_resolutions: tuple[int, ...]
    resolution: int
    z_channels: int
    embed_dim: int
    n_embed: int
    is_gumbel: bool = False

    def __post_init__(self) -> None:
        for name, maximum in _MAXIMA.items():
            if not 1 <= (value := getattr(self, name)) <= maximum:
                raise ConfigError(f"{name} must be from 1 to {maximum:,}, got {value}")
        if not 1 <= len(self.ch_mult) <= _MAX_LEVELS:
            raise ConfigError(f"ch_mult must have 1 to {_MAX_LEVELS} values, got {len(self.ch_mult)}")
        if not all(1 <= multiplier <= _MAX_MULTIPLIER for multiplier in self.ch_mult):
            raise ConfigError(f"ch_mult must be from 1 to {_MAX_MULTIPLIER} each, got {list(self.ch_mult)}")
        if self.resolution % self.factor:
            raise ConfigError(f"resolution must be a multiple of {self.factor}, got {self.resolution}")
        if self.is_gumbel and self.embed_dim != self.z_channels:
            raise ConfigError(
                f"a Gumbel VQGAN has embed_dim = z_channels, got {self.embed_dim} and {self.z_channels}"
            )

    @property
    def factor(self) -> int:
        """Pixels per latent, horizontally and vertically."""
        return int(2 ** (len(self.ch_mult) - 1))

    def channels(self, level: int) -> int:
        """Channels of a level's feature maps."""
        return self.ch * self.ch_mult[level]

    def has_attention(self, level: int) -> bool:
        """Whether the residual blocks of a level are each followed by attention."""
        return self.resolution // 2**level in self.attn_resolutions


def _norm(channels: int) -> nn.GroupNorm:
    """taming's GroupNorm. Fewer groups where 32 does not divide the channels, as in the toy model."""
    return nn.GroupNorm(math.gcd(_MAX_GROUPS, channels), channels, eps=1e-6)


def _conv3(n_in: int, n_out: int) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, padding=1)


class ResnetBlock(nn.Module):
    """Two normalized convolutions added to their input: (n, n_in, h, w) -> (n, n_out, h, w)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(n_in), _conv3(n_in, n_out)
        self.norm2, self.conv2 = _norm(n_out), _conv3(n_out, n_out)
        # Without a name of its own in the checkpoint when the channels stay the same.
        self.nin_shortcut = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The block's output for feature maps `x`."""
        hidden: Tensor = self.conv1(functional.silu(self.norm1(x)))
        hidden = self.conv2(functional.silu(self.norm2(hidden)))
        shortcut: Tensor = self.nin_shortcut(x)
        return shortcut + hidden


class AttnBlock(nn.Module):
    """Attention of one head over all positions of a feature map, added to it: (n, c, h, w) unchanged."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q, self.k, self.v = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output for feature maps `x`."""
        normed = self.norm(x)
        # One head, contiguous: only so does torch choose a kernel whose memory is not quadratic.
        query, key, value = (
            layer(normed).flatten(2).mT.unsqueeze(1).contiguous() for layer in (self.q, self.k, self.v)
        )
        attended = functional.scaled_dot_product_attention(query, key, value).squeeze(1).mT
        projected: Tensor = self.proj_out(attended.reshape(x.shape))
        return x + projected


class Downsample(nn.Module):
    """Halves width and height by a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c, h/2, w/2)."""
        # taming pads right and bottom only.
        halved: Tensor = self.conv(functional.pad(x, (0, 1, 0, 1)))
        return halved


class Upsample(nn.Module):
    """Doubles width and height by repeating pixels, then convolves."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _conv3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c, 2h, 2w)."""
        doubled: Tensor = self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return doubled


class Level(nn.Module):
    """Residual blocks at one resolution, each with its attention if the level has any."""

    def __init__(self, config: VqganConfig, i: int, n_in: int, n_blocks: int) -> None:
        super().__init__()
        n_out, n_attention = config.channels(i), n_blocks if config.has_attention(i) else 0
        self.block = nn.ModuleList(ResnetBlock(n_out if j else n_in, n_out) for j in range(n_blocks))
        self.attn = nn.ModuleList(AttnBlock(n_out) for _ in range(n_attention))

    def forward(self, x: Tensor) -> Tensor:
        """The level's output for feature maps `x`, before the change of resolution."""
        for j, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[j](x)
        return x


class DownLevel(Level):
    """A level of the encoder; all but the last halve width and height."""

    def __init__(self, config: VqganConfig, i: int, n_in: int) -> None:
        super().__init__(config, i, n_in, config.num_res_blocks)
        is_last = i == len(config.ch_mult) - 1
        self.downsample = nn.Identity() if is_last else Downsample(config.channels(i))

    def forward(self, x: Tensor) -> Tensor:
        """The level's output for feature maps `x`."""
        halved: Tensor = self.downsample(super().forward(x))
        return halved


class UpLevel(Level):
    """A level of the decoder; all but the first double width and height."""

    def __init__(self, config: VqganConfig, i: int, n_in: int) -> None:
        super().__init__(config, i, n_in, config.num_res_blocks + 1)
        self.upsample = Upsample(config.channels(i)) if i else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The level's output for feature maps `x`."""
        doubled: Tensor = self.upsample(super().forward(x))
        return doubled


class Middle(nn.Module):
    """The blocks at the lowest resolution: residual, attention, residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1, self.block_2 = ResnetBlock(channels, channels), ResnetBlock(channels, channels)
        self.attn_1 = AttnBlock(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The blocks' output for feature maps `x`."""
        mixed: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return mixed


class Encoder(nn.Module):
    """Images (n, 3, H, W) -> feature maps (n, z_channels, H/f, W/f)."""

    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        n_levels = len(config.ch_mult)
        self.conv_in = _conv3(_RGB, config.ch)
        n_ins = [config.ch, *(config.channels(i) for i in range(n_levels - 1))]
        self.down = nn.ModuleList(DownLevel(config, i, n_ins[i]) for i in range(n_levels))
        n_in = config.channels(n_levels - 1)
        self.mid = Middle(n_in)
        self.norm_out, self.conv_out = _norm(n_in), _conv3(n_in, config.z_channels)

    def forward(self, images: Tensor) -> Tensor:
        """The feature maps of images in [-1, 1]."""
        x: Tensor = self.conv_in(images)
        for level in self.down:
            x = level(x)
        encoded: Tensor = self.conv_out(functional.silu(self.norm_out(self.mid(x))))
        return encoded


class Decoder(nn.Module):
    """Feature maps (n, z_channels, h, w) -> images (n, 3, h*f, w*f)."""

    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        n_in = config.channels(len(config.ch_mult) - 1)
        self.conv_in = _conv3(config.z_channels, n_in)
        self.mid = Middle(n_in)
        # taming numbers the levels by resolution, as in the encoder, and runs them from the last.
        n_ins = [*(config.channels(i) for i in range(1, len(config.ch_mult))), n_in]
        self.up = nn.ModuleList(UpLevel(config, i, n_ins[i]) for i in range(len(config.ch_mult)))
        n_out = config.channels(0)
        self.norm_out, self.conv_out = _norm(n_out), _conv3(n_out, _RGB)

    def forward(self, x: Tensor) -> Tensor:
        """The images of feature maps."""
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        decoded: Tensor = self.conv_out(functional.silu(self.norm_out(x)))
        return decoded


def embedding(n: int, width: int) -> nn.Embedding:
    """`nn.Embedding(n, width)`; on the device `meta` without values, which torch takes a second to draw."""
    values = torch.empty(n, width)
    return nn.Embedding(n, width, _weight=values if values.is_meta else values.normal_())


class Codebook(nn.Module):
    """The codebook of taming's `VectorQuantizer2`: the code of a latent is its nearest entry."""

    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        self.embedding = embedding(config.n_embed, config.embed_dim)


class GumbelCodebook(nn.Module):
    """The codebook of taming's `GumbelQuantize`: the code of a feature is the largest of its logits."""

    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(config.z_channels, config.n_embed, 1)
        self.embed = embedding(config.n_embed, config.embed_dim)


class Vqgan(nn.Module):
    """A VQGAN without its losses.

    `quantize.quantize` maps latents to entries of `codebook` between `encode` and `decode`.
    """

    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quantize = GumbelCodebook(config) if config.is_gumbel else Codebook(config)
        self.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)

    @property
    def factor(self) -> int:
        """Pixels per latent, horizontally and vertically."""
        return self.config.factor

    @property
    def codebook(self) -> Tensor:
        """The codebook's entries: (n_embed, embed_dim)."""
        table = self.quantize.embed if isinstance(self.quantize, GumbelCodebook) else self.quantize.embedding
        return table.weight

    def encode(self, images: Tensor) -> Tensor:
        """The latents of images, before quantization.

        A Gumbel model has no such latents in the codebook's space: the entries of its codes are returned.

        Args:
            images: Values in [-1, 1]; height and width are multiples of `factor`.

        Shapes: (n, 3, H, W) -> (n, embed_dim, H/f, W/f).
        Raises: ConfigError if a side is not a multiple of `factor`.
        """
        height, width = images.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ConfigError(f"an image of {width} x {height}: sides must be multiples of {self.factor}")
        latents: Tensor = self.quant_conv(self.encoder(images))
        if isinstance(self.quantize, GumbelCodebook):
            codes = self.quantize.proj(latents).argmax(dim=1)
            return self.entries(codes)
        return latents

    def entries(self, codes: Tensor) -> Tensor:
        """The codebook's entries of codes, as latents: (n, h, w) integers -> (n, embed_dim, h, w)."""
        return functional.embedding(codes, self.codebook).permute(0, 3, 1, 2).contiguous()

    def decode(self, latents: Tensor) -> Tensor:
        """The images of quantized latents, about in [-1, 1]: (n, embed_dim, h, w) -> (n, 3, h*f, w*f)."""
        images: Tensor = self.decoder(self.post_quant_conv(latents))
        return images


def empty_vqgan(config: VqganConfig) -> Vqgan:
    """A VQGAN with neither memory nor values for its parameters, to compare a checkpoint's shapes with."""
    with torch.device("meta"):
        return Vqgan(config)
