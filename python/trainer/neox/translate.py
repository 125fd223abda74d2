"""Translates a configuration of GPT-NeoX into one of `pile-train`, or says what has no equal here.

Source: GPT-NeoX, `megatron/neox_arguments`, versions 1.0 and 2.0 and that of May 2026. What a file leaves out
has GPT-NeoX's default, not ours, so every value is written.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pile_tools import checked
from pile_tools.config import Settings, from_values
from pile_tools.errors import ConfigError, FormatError
from pile_tools.jobs.order import PACKINGS, Blend, OrderConfig
from pile_tools.terminal import shell_quote
from trainer.config import TrainConfig
from trainer.neox.keys import FIXED, IGNORED, TRANSLATED, UNKNOWN
from trainer.shape import ModelShape

#: GPT-NeoX's names of the two ways in which weights start here.
_INITS = {("small_init", "wang_init"): "small_wang", ("normal", "scaled_normal"): "normal_scaled"}

#: Keys of `FIXED` that change what a trained model computes, or which tensors it has. The others are of the
#: training, or the shapes of its tensors contradict them.
_FORWARD = (
    *("norm", "pos_emb", "no_weight_tying", "gpt_j_tied", "activation", "use_qk_layernorm"),
    *("use_bias_in_norms", "use_bias_in_attn_linear", "use_bias_in_mlp", "moe_num_experts"),
    *("sliding_window_width", "use_mup"),
)

#: GPT-NeoX's ways to make samples of documents: all of ours but Megatron-LM's.
_PACKINGS = tuple(name for name in PACKINGS if name != "megatron")

#: Attention of every kind that computes what ours does.
_ATTENTION = ("global", "flash")

#: Where a folder is not known, the one that the TOML names.
ORDER, OUTPUT = "order", "run"


@dataclass(frozen=True)
class Entry:
    """A key of the YAML and what became of it.

    Attributes:
        key: The key, `_` in its name.
        value: Its value.
        what: What it is translated to, or why it is ignored.
    """

    key: str
    value: Any
    what: str


@dataclass
class Translation:
    """A translated configuration.

    Attributes:
        toml: Tables and values of the TOML file, the top level under "".
        translated: Keys with an equal here.
        ignored: Keys without, each with the reason.
        unknown: Keys that no version of GPT-NeoX has.
        notes: What the files do not say.
        order_options: Options by which `pile-tools order` makes the order.
        datasets: Prefixes of the datasets that the order is made of.
    """

    toml: dict[str, Settings]
    translated: list[Entry] = field(default_factory=list)
    ignored: list[Entry] = field(default_factory=list)
    unknown: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    order_options: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)


def translate(
    values: dict[str, Any],
    *,
    schedule: str = "neox_v1",
    n_gpus: int | None = None,
    n_known: int | None = None,
) -> Translation:
    """The configuration of `pile-train` that computes what GPT-NeoX's would.

    Args:
        values: From `yaml_files.read_files`.
        schedule: Formula of `lr_decay_style: cosine`, `neox` or `neox_v1`.
        n_gpus: GPUs that it was made for, by which micro-batches give the batch.
        n_known: Ids of the tokenizer, which the vocabulary's padding needs where it is not our own.

    Raises:
        FormatError: A value of another type, or what our trainer cannot do, all of it.
        ConfigError: A value out of range.
    """
    source = _Values(values)
    _check_fixed(source)
    toml = {
        "": _top(source, n_gpus),
        "model": _model(source, n_known),
        "optimizer": _optimizer(source, schedule),
    }
    toml["deepspeed"] = _sharding(source, toml[""]["precision"])
    datasets = _datasets(source)
    order_options = _order_options(source, toml[""], len(datasets))
    source.refuse_all()
    made = Translation({name: _without_none(table) for name, table in toml.items()})
    _list_keys(values, made)
    made.notes += source.notes
    made.datasets, made.order_options = datasets, order_options
    # What is written must load, and sizes must fit each other.
    ModelShape(**{"vocab_size": 1, **made.toml["model"]}, max_positions=1)
    from_values(TrainConfig, nested(made.toml), "the translated configuration")
    return made


def nested(toml: dict[str, Settings]) -> Settings:
    """The tables of a translation as one mapping, as TOML gives it."""
    return {**toml[""], **{name: table for name, table in toml.items() if name}}


def model_shape(values: dict[str, Any], vocab_size: int) -> ModelShape:
    """The shape of the model that a configuration of GPT-NeoX describes, its vocabulary aside.

    Raises:
        FormatError, ConfigError: As `translate`.
    """
    source = _Values(values)
    for key in _FORWARD:
        source.check_fixed(key)
    model = _model(source, None, is_trained=True)
    max_positions = source.whole("max_position_embeddings") or source.whole("seq_length")
    source.refuse_all()
    model.pop("vocab_size", None)
    return ModelShape(**model, vocab_size=vocab_size, max_positions=max_positions or 2048)


class _Values:
    """The YAML's values with checks that collect what cannot be translated."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values
        self._problems: list[str] = []
        self.notes: list[str] = []

    def get(self, key: str, default: Any = None) -> Any:
        """A value; the default if it is missing or null."""
        value = self._values.get(key)
        return default if value is None else value

    def refuse(self, problem: str) -> None:
        """Notes what our trainer cannot do."""
        if problem not in self._problems:
            self._problems.append(problem)

    def refuse_all(self) -> None:
        """Raises FormatError for everything that was refused."""
        if self._problems:
            raise FormatError(f"cannot be translated: {'; '.join(self._problems)}")

    def check_fixed(self, key: str) -> None:
        """Refuses a key whose value means something that is not so here."""
        rule = FIXED[key]
        value = self._values.get(key, rule.default)
        if value is UNKNOWN:
            self.refuse(f"{key} is missing, and its default differs between versions of GPT-NeoX: add it")
        elif not any(type(value) is type(known) and value == known for known in rule.values):
            said = f"{key} is {shown(value)}" if key in self._values else f"{key} is missing: {shown(value)}"
            self.refuse(f"{said}, but here it is: {rule.why}")

    def whole(self, key: str, default: int | None = None) -> int | None:
        """A whole number, or the default."""
        value = self.get(key, default)
        if value is not None and type(value) is not int:
            self.refuse(f"{key} is {shown(value)}, expected a whole number")
            return default
        return value

    def number(self, key: str, default: float | None = None) -> float | None:
        """A number, or the default."""
        return self.as_number(key, self.get(key, default), default)

    def as_number(self, name: str, value: Any, default: float | None) -> float | None:
        """A value as a number; YAML 1.1 reads `1e-5`, without a point, as text."""
        number = value
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,20}(\.[0-9]*)?e[+-]?[0-9]{1,3}", value, re.I):
            number = float(value)
        if number is None:
            return None
        # The text `1e999` becomes an infinite number.
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            self.refuse(f"{name} is {shown(value)}, expected a number")
            return default
        return number

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            self.refuse(f"{key} is {shown(value)}, expected true or false")
            return default
        return value

    def text(self, key: str, default: str | None = None) -> str | None:
        """Text, or the default."""
        value = self.get(key, default)
        if value is not None and (not isinstance(value, str) or "\0" in value or not value):
            self.refuse(f"{key} is {shown(value)}, expected text")
            return default
        return value

    def table(self, key: str) -> dict[str, Any]:
        """A map, empty if it is missing."""
        value = self.get(key, {})
        if not isinstance(value, dict):
            self.refuse(f"{key} is {shown(value)}, expected a map")
            return {}
        return value


def _check_fixed(source: _Values) -> None:
    for key in FIXED:
        source.check_fixed(key)


def _top(source: _Values, n_gpus: int | None) -> Settings:
    steps = source.whole("train_iters")
    decays = source.whole("lr_decay_iters", steps)
    if steps is None:
        source.refuse("train_iters is missing")
    elif decays != steps:
        source.refuse(f"lr_decay_iters {decays} is not train_iters {steps}: here the rate falls in all steps")
    return {
        "order": ORDER,
        "output": source.text("save", OUTPUT),
        "tokenizer": source.text("vocab_file"),
        "steps": steps,
        "batch_size": _batch_size(source, n_gpus),
        "micro_batch_size": source.whole("train_micro_batch_size_per_gpu"),
        "seed": source.whole("seed", 1234),
        "checkpoint_every": source.whole("checkpoint_factor") or source.whole("save_interval"),
        "precision": _precision(source),
        "activation_checkpointing": source.flag("checkpoint_activations", False) or None,
    }


def _batch_size(source: _Values, n_gpus: int | None) -> int | None:
    """The sequences of a step, if they can be known."""
    if (given := source.whole("train_batch_size")) is not None:
        return given
    micro = source.whole("train_micro_batch_size_per_gpu")
    n_micro = source.whole("gradient_accumulation_steps") or source.whole("gas") or 1
    ranks = max(1, source.whole("model_parallel_size", 1) or 1)
    ranks *= max(1, source.whole("pipe_parallel_size", 1) or 1)
    if n_gpus is None or micro is None:
        source.notes.append(
            "the batch is not known without the number of GPUs: the order's counts, or give --gpus"
        )
        return None
    if n_gpus % ranks:
        source.refuse(f"{n_gpus} GPUs are not a multiple of {ranks}, its model-parallel ranks and stages")
        return None
    return micro * n_micro * (n_gpus // ranks)


def _precision(source: _Values) -> str:
    named = {"bfloat16": "bf16", "fp16": "fp16", "fp32": "fp32"}
    given = source.text("precision")
    found = "bf16" if source.table("bf16").get("enabled") else None
    table = source.table("fp16")
    if found is None and table.get("enabled"):
        found = "bf16" if table.get("type") == "bfloat16" else "fp16"
    if given is not None and given not in named:
        source.refuse(f"precision is {shown(given)}, expected one of {', '.join(named)}")
        return "fp32"
    return named[given] if given else found or "fp32"


def _sharding(source: _Values, precision: str) -> Settings:
    """Table `[deepspeed]`; stage 0 in 16 bits, in which DeepSpeed adds gradients in 16 bits, becomes 1."""
    table = source.table("zero_optimization")
    stage = table.get("stage", source.get("zero_stage", 0))
    if type(stage) is not int or not 0 <= stage <= 3:
        source.refuse(f"zero_optimization.stage is {shown(stage)}, expected 0 to 3")
        return {}
    if stage == 0 and precision != "fp32":
        source.notes.append(
            f"zero_stage: 1 instead of 0, as gradients are added in fp32 here, not in {precision}"
        )
        stage = 1
    return {"zero_stage": stage, "offload_optimizer": True if table.get("cpu_offload") is True else None}


def _model(source: _Values, n_known: int | None, *, is_trained: bool = False) -> Settings:
    """Table `[model]`; of a trained model how its weights started does not matter."""
    for name in ("hidden_size", "num_layers", "num_attention_heads"):
        if source.get(name) is None:
            source.refuse(f"{name} is missing")
    hidden, heads = source.whole("hidden_size") or 0, source.whole("num_attention_heads") or 0
    for key, expected in (("intermediate_size", 4 * hidden), ("num_kv_heads", heads)):
        if source.whole(key, expected) != expected:
            source.refuse(f"{key} is {shown(source.get(key))}, but here it is {expected}")
    _check_attention(source)
    fused = source.flag("bias_gelu_fusion", False)
    return {
        "hidden_size": hidden,
        "n_layers": source.whole("num_layers"),
        "n_heads": heads,
        "vocab_size": None if is_trained else _vocab_size(source, n_known),
        "rotary_pct": source.number("rotary_pct", 1.0),
        "rotary_base": source.number("rotary_emb_base", 10000),
        "layer_norm_eps": source.number("layernorm_epsilon", 1e-5),
        "parallel_residual": source.flag("gpt_j_residual", False),
        "hidden_act": "gelu_pytorch_tanh" if fused else "gelu",
        "init": "small_wang" if is_trained else _init(source),
    }


def _check_attention(source: _Values) -> None:
    """Refuses attention that does not see all earlier tokens, in a list such as [[["flash"], 6]]."""
    config = source.get("attention_config", [])
    kinds: list[Any] = []
    for group in config if isinstance(config, list) else [config]:
        names = group[0] if isinstance(group, list) and group else group
        kinds += names if isinstance(names, list) else [names]
    for kind in kinds:
        if kind not in _ATTENTION:
            source.refuse(f"attention of kind {shown(kind)}, expected {' or '.join(_ATTENTION)}")


def _init(source: _Values) -> str | None:
    pair = source.text("init_method", "normal"), source.text("output_layer_init_method", "scaled_normal")
    if pair not in _INITS:
        known = " or ".join("/".join(names) for names in _INITS)
        source.refuse(f"init_method and output_layer_init_method are {pair[0]}/{pair[1]}, expected {known}")
        return None
    if source.number("init_method_std", 0.02) != 0.02 and pair[0] == "normal":
        source.refuse(f"init_method_std is {shown(source.get('init_method_std'))}, but here it is 0.02")
    return _INITS[pair]


def _vocab_size(source: _Values, n_known: int | None) -> int | None:
    """Rows of the embedding; None where our own padding, to a multiple of 128, is the same."""
    if (padded := source.whole("padded_vocab_size")) is not None:
        return padded
    multiple = source.whole("make_vocab_size_divisible_by", 128) or 128
    multiple *= source.whole("model_parallel_size", 1) or 1
    if multiple == 128:
        return None
    if n_known is None:
        source.refuse(f"the vocabulary is padded to a multiple of {multiple}: give --tokenizer, which has it")
        return None
    return -(-n_known // multiple) * multiple


def _optimizer(source: _Values, schedule: str) -> Settings:
    optimizer = source.table("optimizer")
    kind, params = optimizer.get("type", "Adam"), optimizer.get("params", {})
    if not isinstance(kind, str) or kind.lower() not in ("adam", "adamw", "cpu_adam", "cpu_torch_adam"):
        source.refuse(f"optimizer.type is {shown(kind)}, expected Adam: the optimizer is AdamW here")
    if not isinstance(params, dict):
        source.refuse(f"optimizer.params is {shown(params)}, expected a map")
        params = {}
    for name in params:
        if name not in ("lr", "betas", "eps", "weight_decay"):
            source.refuse(f"optimizer.params.{name} has no equal in AdamW")
    lr = source.as_number("optimizer.params.lr", params.get("lr", source.get("lr")), None)
    clip = source.number("gradient_clipping", source.number("clip_grad"))
    decay = source.as_number("weight_decay", source.get("weight_decay", params.get("weight_decay")), None)
    for name, value in (("lr", lr), ("gradient_clipping", clip), ("weight_decay", decay)):
        if value is None:
            source.refuse(f"{name} is missing: add it, as it differs between versions of GPT-NeoX")
    return {
        "lr": lr,
        "min_lr": source.number("min_lr", 0.0),
        "warmup": source.number("warmup", 0.01),
        "betas": _betas(source, params.get("betas", [0.9, 0.999])),
        "eps": source.as_number("optimizer.params.eps", params.get("eps", 1e-8), 1e-8),
        "weight_decay": decay,
        "gradient_clipping": clip,
        "schedule": _schedule(source, schedule),
    }


def _betas(source: _Values, betas: Any) -> list[float]:
    if not isinstance(betas, list) or len(betas) != 2:
        source.refuse(f"optimizer.params.betas is {shown(betas)}, expected two numbers")
        return [0.9, 0.999]
    return [source.as_number("optimizer.params.betas", beta, 0.9) or 0.0 for beta in betas]


def _schedule(source: _Values, cosine: str) -> str | None:
    """The schedule here; GPT-NeoX's `exponential` has no equal."""
    style = source.text("lr_decay_style", "linear")
    if style == "cosine":
        return cosine
    if style == "linear" and source.number("min_lr", 0.0):
        source.refuse(
            "lr_decay_style: linear falls to 0 there and is cut off at min_lr; here it falls to min_lr"
        )
    if style in ("linear", "constant"):
        return style
    source.refuse(f"lr_decay_style is {shown(style)}, expected cosine, linear or constant")
    return None


def _datasets(source: _Values) -> list[str]:
    """Prefixes of the datasets that are trained on."""
    paths = source.get("train_data_paths") or source.get("data_path") or []
    if not isinstance(paths, (str, list)):
        source.refuse(f"the data paths are {shown(paths)}, expected text or a list")
        return []
    return [paths] if isinstance(paths, str) else [path for path in paths if isinstance(path, str)]


def _order_options(source: _Values, top: Settings, n_datasets: int) -> list[str]:
    """The options of `pile-tools order` that give GPT-NeoX's order of the datasets."""
    settings = {"seq_length": source.whole("seq_length", 2048), "steps": top["steps"], "seed": top["seed"]}
    batch_size = top["batch_size"]
    options = ["--seq-length", str(settings["seq_length"]), "--steps", str(settings["steps"])]
    options += ["--batch-size", str(batch_size or "N"), "--seed", str(settings["seed"])]
    if settings["steps"] is not None:
        _check_order(source, lambda: OrderConfig(**settings, batch_size=batch_size or 1))
    packing = source.text("pack_impl", "packed")
    if packing not in _PACKINGS:
        source.refuse(f"pack_impl is {shown(packing)}, expected one of {', '.join(_PACKINGS)}")
    elif packing != "packed":
        options += ["--packing", packing]
        options += [] if source.flag("allow_chopped", True) else ["--no-chop"]
    if n_datasets > 1:
        return options + _weights(source, n_datasets)
    if n_datasets and not source.get("train_data_paths"):
        # GPT-NeoX divides the documents of `data_path` into those of training, validation and test.
        split = re.sub(r"\s", "", str(source.get("split", "969, 30, 1")))
        if not re.fullmatch(r"[0-9.]+([,/][0-9.]+)*", split):
            source.refuse(f"split is {shown(source.get('split'))}, expected shares such as 969, 30, 1")
        options += ["--split", split]
    return options


def _weights(source: _Values, n_datasets: int) -> list[str]:
    """The options for the weights of several datasets; without any, GPT-NeoX takes equal ones."""
    if source.flag("weight_by_num_documents", False):
        alpha = source.number("weighted_sampler_alpha")
        if alpha is None:
            source.refuse(
                "weighted_sampler_alpha is missing: add it, as it differs between versions of GPT-NeoX"
            )
        return ["--alpha", str(alpha)]
    weights = source.get("train_data_weights", [1.0] * n_datasets)
    if not isinstance(weights, list) or len(weights) != n_datasets:
        source.refuse(f"train_data_weights is {shown(weights)}, expected {n_datasets} numbers")
        return []
    numbers = [source.as_number("train_data_weights", weight, 1.0) or 0.0 for weight in weights]
    _check_order(source, lambda: Blend((), tuple(numbers)).normalized([], 1))
    return ["--weights", ",".join(map(str, numbers))]


def _check_order(source: _Values, check: Callable[[], object]) -> None:
    """Refuses what `pile-tools order` would refuse: the command that is written must run."""
    try:
        check()
    except ConfigError as err:
        source.refuse(f"the order: {err}")


def _list_keys(values: dict[str, Any], made: Translation) -> None:
    """Sorts the keys of the YAML into translated, ignored and unknown ones."""
    for key, value in values.items():
        if key in TRANSLATED:
            made.translated.append(Entry(key, value, TRANSLATED[key]))
        elif key in FIXED:
            made.translated.append(Entry(key, value, f"always so: {FIXED[key].why}"))
        elif key in IGNORED:
            made.ignored.append(Entry(key, value, IGNORED[key]))
        else:
            made.unknown.append(Entry(key, value, "no key of GPT-NeoX"))


def _without_none(table: Settings) -> Settings:
    return {name: value for name, value in table.items() if value is not None}


def shown(value: object) -> str:
    """The beginning of a value as JSON."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


def to_toml(made: Translation, sources: list[Path]) -> str:
    """The TOML file of a translation, which starts with its sources and the command that makes its order.

    Raises: ConfigError for a name that is not UTF-8, or a number beyond 64 bits.
    """
    datasets = " ".join(map(shell_quote, made.datasets)) or "DATASET"
    lines = [
        f"# Translated from {' '.join(_comment(str(path)) for path in sources)}.",
        f"# The order: pile-tools order {_comment(datasets)} -o {ORDER} {' '.join(made.order_options)}",
    ]
    for name, table in made.toml.items():
        lines += [f"\n[{name}]"] if name else []
        lines += [f"{key} = {_toml(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    """Text in a comment, which no control character may be in."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _toml(value: Any) -> str:
    if isinstance(value, str):
        if not checked.is_utf8(value):
            raise ConfigError(f"a TOML file is UTF-8, and this name is not: {value!r}")
        # JSON escapes all that TOML's basic strings must escape, but DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise ConfigError(f"a number beyond 64 bits: {str(value)[:40]}")
    return repr(value)
