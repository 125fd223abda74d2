"""CLIP models that guide the image: one protocol, and backends for `transformers` and `open_clip`.

"Learning Transferable Visual Models From Natural Language Supervision" (Radford et al. 2021,
arXiv:2103.00020). The toy model of `vqgan_clip.toy` implements the same protocol.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from pile_tools import checked
from pile_tools.config import fingerprint
from pile_tools.errors import ConfigError, FormatError, PileError, first_line
from vqgan_clip.pickles import check_weights

#: What a name of an open_clip model starts with; other names are of transformers.
OPEN_CLIP_PREFIX = "open_clip:"

#: Mean and standard deviation of the colours in CLIP's training, for models that state none.
OPENAI_COLORS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

#: Files in a model's folder that are not of `torch.save`, and those of an open_clip folder that may be.
_NO_PICKLES, _PICKLES = (".json", ".safetensors", ".npz", ".npy"), (".bin", ".pth")

_OPEN_CLIP_CONFIG = "open_clip_config.json"

#: Options that the config of an open_clip folder may give its tokenizer. Others reach transformers, and one
#: of them runs code of the folder.
_TOKENIZER_OPTIONS = ("clean", "strip_sep_token", "language")

#: Layers of a CLIP's text and image models: the largest published ones have 80.
_MAX_LAYERS = 1000

_Module = TypeVar("_Module", bound=nn.Module)


class Clip(Protocol):
    """A model that maps texts and images to vectors of one space. Its parameters take no gradient."""

    @property
    def size(self) -> int:
        """Side of the square images that the model takes, pixels."""
        ...

    @property
    def context(self) -> int:
        """Most tokens of a text, start and end included."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """The vectors of texts, of any length: (n, d).

        Raises: ConfigError if a text is empty or has more than `context` tokens; the message names it.
        """
        ...

    def encode_images(self, images: Tensor) -> Tensor:
        """The vectors of images in [0, 1], of any length: (n, 3, size, size) -> (n, d).

        Differentiable with respect to `images`, which are normalized here.
        """
        ...


def load_clip(given: str) -> tuple[Clip, dict[str, str]]:
    """A pretrained CLIP in float32 on the CPU, and the SHA-256 of its parameters and settings.

    Args:
        given: A folder or Hub name for transformers' `CLIPModel.from_pretrained`, or
            `open_clip:MODEL:PRETRAINED` with a tag or a file of weights, or `open_clip:local-dir:FOLDER`.

    Raises:
        ConfigError: `open_clip:` without a model.
        FormatError: Not a CLIP, or weights are missing or damaged.
        PileError: The library is not installed.
    """
    if given.startswith(OPEN_CLIP_PREFIX):
        return _load_open_clip(given.removeprefix(OPEN_CLIP_PREFIX))
    return _load_transformers(given)


def parameters_sha256(module: nn.Module) -> str:
    """SHA-256 of the names, types, shapes and values of a module's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class Normalized(nn.Module):
    """Subtracts the mean colour and divides by the deviation: (n, 3, h, w) unchanged.

    Raises FormatError for other than three finite numbers each, the deviations above 0.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, colour, low in (("mean", mean, -math.inf), ("deviation", std, 0.0)):
            if not _is_colour(colour, low):
                raise FormatError(f"the {name} of the colours is {str(colour)[:60]}, expected 3 numbers")
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """The normalized images."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        return (images - mean) / std


def _is_colour(value: Any, low: float) -> bool:
    """Whether a value of a config is three finite numbers above `low`."""
    is_list = isinstance(value, (list, tuple)) and len(value) == 3
    numbers = [n for n in value if isinstance(n, (int, float)) and not isinstance(n, bool)] if is_list else []
    return len(numbers) == 3 and all(math.isfinite(n) and n > low for n in numbers)


class _Sized(nn.Module):
    """A model that knows the size of its images and the length of its texts."""

    def __init__(self, size: int, context: int) -> None:
        super().__init__()
        self._size, self._context = size, context

    @property
    def size(self) -> int:
        """Side of the square images that the model takes, pixels."""
        return self._size

    @property
    def context(self) -> int:
        """Most tokens of a text, start and end included."""
        return self._context


class TransformersClip(_Sized):
    """A `CLIPModel` of transformers; see `Clip`."""

    def __init__(self, model: Any, tokenizer: Any, normalized: nn.Module) -> None:
        config = model.config
        super().__init__(
            int(config.vision_config.image_size), int(config.text_config.max_position_embeddings)
        )
        self.model, self.normalized = model, normalized
        self._tokenizer = tokenizer

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """The vectors of texts: (n, d). Raises ConfigError, see `Clip`."""
        for text in texts:
            check_text(text, len(self._tokenizer(text)["input_ids"]), self.context)
        batch = self._tokenizer(list(texts), padding=True, return_tensors="pt")
        device = self.normalized.get_buffer("mean").device
        return _features(self.model.get_text_features(**batch.to(device)))

    def encode_images(self, images: Tensor) -> Tensor:
        """The vectors of images in [0, 1]: (n, 3, size, size) -> (n, d)."""
        normalized = self.normalized(images)
        return _features(self.model.get_image_features(pixel_values=normalized))


def _features(found: Any) -> Tensor:
    """The projected vectors: transformers returns them before version 5, and an object with them since."""
    vectors: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return vectors


class OpenClip(_Sized):
    """A CLIP of open_clip; see `Clip`."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        size, visual = model.visual.image_size, model.visual
        super().__init__(int(size[0] if isinstance(size, (tuple, list)) else size), int(model.context_length))
        mean, std = OPENAI_COLORS
        self.normalized = Normalized(
            getattr(visual, "image_mean", None) or mean, getattr(visual, "image_std", None) or std
        )
        self.model = model
        self._tokenizer = tokenizer

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """The vectors of texts: (n, d). Raises ConfigError, see `Clip`."""
        for text in texts:
            check_text(text, self._n_tokens(text), self.context)
        device = self.normalized.get_buffer("mean").device
        vectors: Tensor = self.model.encode_text(self._tokenizer(list(texts), self.context).to(device))
        return vectors

    def _n_tokens(self, text: str) -> int:
        # Its own tokenizer has `encode` without start and end; it wraps one of transformers for other models.
        if hasattr(self._tokenizer, "encode"):
            return len(self._tokenizer.encode(text)) + 2
        return len(self._tokenizer.tokenizer(text)["input_ids"])

    def encode_images(self, images: Tensor) -> Tensor:
        """The vectors of images in [0, 1]: (n, 3, size, size) -> (n, d)."""
        vectors: Tensor = self.model.encode_image(self.normalized(images))
        return vectors


def check_text(text: str, n_tokens: int, context: int) -> None:
    """Raises ConfigError for an empty text, or one of more tokens than a model takes."""
    if not text.strip():
        raise ConfigError("a prompt is empty")
    if n_tokens > context:
        shown = text if len(text) <= 40 else text[:37] + "..."
        raise ConfigError(
            f"a prompt of {n_tokens:,} tokens, but this CLIP takes {context} with start and end: {shown!r}"
        )


def _library(name: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError as err:
        raise PileError(f"{name} is not installed: pip install 'pile-tools[{extra}]'") from err


def _load_transformers(given: str) -> tuple[Clip, dict[str, str]]:
    transformers = _library("transformers", "hf")
    use_safetensors = _use_safetensors(Path(given))
    try:
        with _quiet(transformers), _without_logs():
            if Path(given).is_dir():
                _check_size(transformers, Path(given))
            model, report = transformers.CLIPModel.from_pretrained(
                given, output_loading_info=True, use_safetensors=use_safetensors
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(given, trust_remote_code=False)
            config = transformers.PretrainedConfig.get_config_dict(given)[0]
            kind = config.get("model_type")
            colours = _colours(transformers, given)
            normalized = Normalized(*colours)
    except FormatError:
        raise
    except Exception as err:
        # The library raises what it pleases on foreign and damaged files.
        advice = "" if Path(given).exists() else "; there is no folder of this name here"
        raise FormatError(
            f"not a CLIP that transformers can load: {first_line(err).rstrip('.')}{advice} ({given})"
        ) from err
    # The library would draw missing tensors at random.
    if absent := sorted(report["missing_keys"]):
        raise FormatError(f"not a CLIP: no tensor {absent[0]} ({given})")
    # The library takes the config of another kind of model, and ids of another model's tokenizer.
    if kind not in (None, "clip"):
        raise FormatError(f"not a CLIP: its config is of kind {str(kind)[:40]!r} ({given})")
    largest, n_ids = max(tokenizer.get_vocab().values()), model.config.text_config.vocab_size
    if largest >= n_ids:
        raise FormatError(f"its tokenizer has the id {largest}, and the model {n_ids:,} ids ({given})")
    clip = _tried(lambda: TransformersClip(model, tokenizer, normalized), "transformers", given)
    # Without what the library adds to the file's keys.
    own = {key: value for key, value in config.items() if not key.startswith("_")}
    settings = {"config": own, "colours": colours, "ids": sorted(tokenizer.get_vocab().items())}
    return clip, _hashes(model, settings)


def _check_size(transformers: Any, folder: Path) -> None:
    """Raises FormatError if a folder's config names more values than its files have bytes.

    The library takes memory for all, and draws those that are missing at random, before it reports them.
    """
    config = transformers.CLIPConfig.from_pretrained(folder)
    n_layers = sum(of.num_hidden_layers for of in (config.text_config, config.vision_config))
    if n_layers > _MAX_LAYERS:
        raise FormatError(f"a CLIP of {n_layers:,} layers, expected at most {_MAX_LAYERS:,} ({folder})")
    with torch.device("meta"):
        n_values = sum(tensor.numel() for tensor in transformers.CLIPModel(config).parameters())
    n_bytes = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    if n_values > n_bytes:
        what = f"its config names {n_values:,} values, and its files have {n_bytes:,} bytes"
        raise FormatError(f"not a CLIP, or files of it are missing or cut short: {what} ({folder})")


def _use_safetensors(folder: Path) -> bool:
    """Whether the library must read weights of safetensors: they are in the folder, or there is no folder.

    A folder's files of `torch.save` are checked: the library runs what they import within torch's own limits,
    which are wider. Those of the Hub cannot be checked before the library loads them. Raises FormatError,
    OSError.
    """
    if not folder.is_dir():
        return True
    if any((folder / f"model.safetensors{suffix}").exists() for suffix in ("", ".index.json")):
        # An adapter beside them is read too, where the library for it is installed.
        _check_pickles(folder.glob("adapter_model*"))
        return True
    index = folder / "pytorch_model.bin.index.json"
    if index.exists():
        shards = checked.read_json(index).object("weight_map")
        _check_pickles(sorted({folder / shards.file_name(name) for name in shards.values}))
    _check_pickles([*folder.glob("pytorch_model*"), *folder.glob("adapter_model*")])
    return False


def _check_pickles(paths: Iterable[Path]) -> None:
    """Checks those files that torch would unpickle. Raises FormatError, OSError."""
    for path in paths:
        if path.suffix not in _NO_PICKLES:
            check_weights(path)


def _tried(make: Callable[[], TransformersClip | OpenClip], library: str, given: str) -> Clip:
    """A frozen CLIP that gives vectors of texts and of a picture. Raises FormatError.

    The libraries load files that do not fit each other, and raise what they please when the model is used.
    """
    try:
        with _without_logs(), torch.no_grad():
            clip = _frozen(make())
            # Of two lengths, as the shorter one is padded.
            texts = clip.encode_texts(["a", "a b"])
            pictures = clip.encode_images(torch.zeros(1, 3, clip.size, clip.size))
    except Exception as err:
        raise FormatError(
            f"not a CLIP that {library} can use: {first_line(err).rstrip('.')} ({given})"
        ) from err
    have_one_space = pictures.dim() == 2 and texts.shape == (2, pictures.shape[1])
    if not have_one_space or not bool(torch.isfinite(torch.cat([texts, pictures])).all()):
        raise FormatError(f"not a CLIP: its texts and pictures have no vectors of one space ({given})")
    return clip


def _frozen(clip: _Module) -> _Module:
    return clip.to(torch.float32).requires_grad_(False).eval()


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without the library's bars and warnings, which would break the lines of a command.

    The client of the Hub has its own logger, which tells of each attempt to connect.
    """
    messages, client = transformers.utils.logging, logging.getLogger("huggingface_hub")
    verbosity, has_bars, level = messages.get_verbosity(), messages.is_progress_bar_enabled(), client.level
    messages.set_verbosity_error()
    messages.disable_progress_bar()
    client.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        messages.set_verbosity(verbosity)
        client.setLevel(level)
        if has_bars:
            messages.enable_progress_bar()


@contextlib.contextmanager
def _without_logs() -> Iterator[None]:
    """Without what libraries log of errors and of tries over a network, besides raising an error."""
    disabled = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(disabled)


def _colours(transformers: Any, given: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation of the model's `preprocessor_config.json`; those of CLIP's training without one."""
    try:
        values, _ = transformers.ImageProcessingMixin.get_image_processor_dict(given)
    except OSError:
        return OPENAI_COLORS
    mean, std = OPENAI_COLORS
    return values.get("image_mean", mean), values.get("image_std", std)


def _load_open_clip(given: str) -> tuple[Clip, dict[str, str]]:
    is_folder = given.startswith("local-dir:")
    name, _, pretrained = (given, "", "") if is_folder else given.partition(":")
    if not name or not (pretrained or is_folder):
        raise ConfigError(
            f"expected {OPEN_CLIP_PREFIX}MODEL:PRETRAINED or {OPEN_CLIP_PREFIX}local-dir:FOLDER, "
            f"got {OPEN_CLIP_PREFIX}{given}"
        )
    open_clip = _library("open_clip", "openclip")
    path = Path(given.removeprefix("local-dir:") if is_folder else pretrained)
    if path.is_dir():
        _check_pickles(found for found in sorted(path.iterdir()) if found.suffix in _PICKLES)
        _check_tokenizer_options(path / _OPEN_CLIP_CONFIG)
    elif path.exists():
        _check_pickles([path])
    try:
        with _without_logs(), _without_questions():
            model = open_clip.create_model(
                name, pretrained=pretrained or None, require_pretrained=True, weights_only=True
            )
            tokenizer = open_clip.get_tokenizer(name)
    except Exception as err:
        # As above. The message of an unknown name lists all known ones.
        reason, _, _ = first_line(err).partition(" Available: ")
        raise FormatError(f"not a CLIP that open_clip can load: {reason} ({given})") from err
    clip = _tried(lambda: OpenClip(model, tokenizer), "open_clip", given)
    own = checked.read_json(path / _OPEN_CLIP_CONFIG).values if is_folder else {"name": name}
    ids = sorted(tokenizer.tokenizer.get_vocab().items()) if hasattr(tokenizer, "tokenizer") else []
    return clip, _hashes(model, {"config": own, "ids": ids})


def _hashes(model: nn.Module, settings: object) -> dict[str, str]:
    """Digests of a model's parameters, and of what else of its files decides what it makes of a picture."""
    return {"parameters": parameters_sha256(model), "settings": fingerprint(settings)}


def _check_tokenizer_options(config: Path) -> None:
    """Raises FormatError if the config of an open_clip folder gives its tokenizer an unknown option."""
    if not config.exists():
        return
    found = checked.read_json(config).object("model_cfg").object("text_cfg")
    if found.has("tokenizer_kwargs"):
        found.object("tokenizer_kwargs").require_keys((), _TOKENIZER_OPTIONS)


@contextlib.contextmanager
def _without_questions() -> Iterator[None]:
    """A model that needs code of its folder is an error; transformers would ask whether to run it."""
    try:
        from transformers import dynamic_module_utils as code
    except ImportError:
        # Then open_clip has no models of that library either.
        yield
        return
    seconds, code.TIME_OUT_REMOTE_CODE = code.TIME_OUT_REMOTE_CODE, 0
    try:
        yield
    finally:
        code.TIME_OUT_REMOTE_CODE = seconds
