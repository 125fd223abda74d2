"""Training steps against Hugging Face Trainer; DeepSpeed against a bare loop; the time of reading rows."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benches import peers
from benches.markdown import seconds, spread, table
from benches.measure import ROOT, Measured, Stopwatch, best, failure, in_process, take_turns, values
from benches.setting import Result, Setting
from benches.verdict import Verdict, slow_down, speed_up

TITLE = "Training"
BARE, PEER = "a bare loop", "Hugging Face Trainer"
CPUS = 2
#: Speed that is wanted relative to the peer, by the presets' shapes.
TARGETS = {"pythia-14m": 1.15, "pythia-70m": 1.05}
#: DeepSpeed's time relative to the bare loop's, and the share of a step that reads its rows, at most.
DEEPSPEED_LIMIT, LOADING_LIMIT = 1.10, 0.01
#: 16,384 tokens a step: the rows of Pythia, one at a time.
SEQ_LENGTH, BATCH_SIZE = 2048, 8
#: Steps that are measured, after one that is not.
N_STEPS = 2
LR, BETAS, EPS, DECAY, CLIPPING = 1e-3, (0.9, 0.95), 1e-8, 0.1, 1.0
#: Largest difference of a step's loss from the bare loop's, relative.
TOLERANCE = 1e-3


def prepare(folder: Path, setting: Setting, seq_length: int) -> Path:
    """An order of the corpus."""
    order = folder / "order"
    n_steps = str(1 + N_STEPS)
    for command in (
        ["tokenize", *setting.shards, "--tokenizer", setting.tokenizer, "-o", folder / "tokens"],
        [
            *("order", folder / "tokens", "-o", order, "--seq-length", seq_length),
            *("--steps", n_steps, "--batch-size", BATCH_SIZE),
        ],
    ):
        program = [str(Path(sys.executable).with_name("pile-tools")), *map(str, command), "--quiet"]
        subprocess.run(program, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return order


def _run(order: str, preset: str, output: str) -> Any:
    """The run as `pile-train` plans it."""
    from trainer.config import ModelConfig, OptimizerConfig, TrainConfig
    from trainer.run import plan

    optimizer = OptimizerConfig(
        lr=LR,
        min_lr=LR,
        warmup=0.0,
        betas=BETAS,
        eps=EPS,
        weight_decay=DECAY,
        gradient_clipping=CLIPPING,
        schedule="constant",
    )
    config = TrainConfig(
        order=Path(order),
        output=Path(output),
        model=ModelConfig(preset=preset, vocab_size=50304),
        optimizer=optimizer,
        micro_batch_size=1,
    )
    return plan(config)


class _Meter:
    """The time of a step from the second on."""

    def __init__(self) -> None:
        self._clock, self._n_done, self.losses = Stopwatch(), 0, []

    def done(self, loss: float) -> None:
        """Counts a step; the clock starts after the first."""
        self.losses.append(loss)
        self._n_done += 1
        if self._n_done == 1:
            self._clock.__enter__()
        if self._n_done == 1 + N_STEPS:
            self._clock.__exit__()

    def measured(self, **more: Any) -> Measured:
        return self._clock.measured(losses=self.losses, **more)


def ours(order: str, preset: str) -> Measured:
    """Measures the engine of `pile-train`, with its reading of rows."""
    import torch

    from trainer.engine import processes
    from trainer.loop import _engine, micro_batches

    meter, loading = _Meter(), 0.0

    def timed(batches: Iterator[Any]) -> Iterator[Any]:
        nonlocal loading
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            loading += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    with tempfile.TemporaryDirectory() as output:
        run = _run(order, preset, output)
        with processes(run.recipe.seed) as ranks:
            torch.set_num_threads(CPUS)
            engine = _engine(run, ranks, None, is_from_weights=False)
            for step in range(1 + N_STEPS):
                loading = 0.0 if step == 1 else loading
                meter.done(engine.step(timed(micro_batches(run, ranks, step)), LR).loss)
    return meter.measured(loading=loading)


def bare(order: str, preset: str) -> Measured:
    """Measures our model and loss in a loop without DeepSpeed, on rows in memory."""
    import torch

    meter = _Meter()
    _, model, rows = _bare_parts(order, preset)
    optimizer = torch.optim.AdamW(_groups(model), lr=LR, betas=BETAS, eps=EPS, fused=True)
    for step in range(1 + N_STEPS):
        total = 0.0
        for row in rows[step]:
            losses = model(row[None, :-1], labels=row[None, 1:])
            (losses.mean / BATCH_SIZE).backward()
            total += losses.mean.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIPPING)
        optimizer.step()
        optimizer.zero_grad()
        meter.done(total / BATCH_SIZE)
    return meter.measured()


def _bare_parts(order: str, preset: str) -> tuple[Any, Any, list[Any]]:
    """The run, the model with its first weights, and the rows of each step as int64."""
    import torch

    from trainer.model.init import initialize
    from trainer.model.neox import GPTNeoX

    torch.set_num_threads(CPUS)
    with tempfile.TemporaryDirectory() as output:
        run = _run(order, preset, output)
    model = GPTNeoX(run.recipe.shape)
    initialize(model, run.recipe.seed)
    rows = [torch.from_numpy(run.order.batch(step).astype("int64")) for step in range(1 + N_STEPS)]
    return run, model, rows


def _groups(model: Any) -> list[dict[str, Any]]:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    return [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]


def theirs(order: str, preset: str) -> Measured:
    """Measures the peer with the same first weights, rows, accumulation and optimizer."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    warnings.simplefilter("ignore")
    import transformers

    from trainer.checkpoint import hf

    run, model, rows = _bare_parts(order, preset)
    config = transformers.GPTNeoXConfig(**hf.model_config(run.recipe.shape, "float32", None))
    # Rows have a token more than the model sees: the peer shifts labels by itself.
    config.max_position_embeddings = SEQ_LENGTH + 1
    peer = transformers.GPTNeoXForCausalLM._from_config(config, attn_implementation="sdpa")
    head = next(name for name in ("lm_head", "embed_out") if hasattr(peer, name))
    peer.load_state_dict({name.replace("embed_out", head): w for name, w in model.state_dict().items()})
    del model
    data = [{"input_ids": row, "labels": row} for step in rows for row in step]
    meter = _Meter()

    class Ended(transformers.TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in logs:
                meter.done(float(logs["loss"]))

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            import torch

            return torch.utils.data.SequentialSampler(data)

    with tempfile.TemporaryDirectory() as output:
        arguments = transformers.TrainingArguments(
            output_dir=output,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=BATCH_SIZE,
            max_steps=1 + N_STEPS,
            learning_rate=LR,
            lr_scheduler_type="constant",
            weight_decay=DECAY,
            adam_beta1=BETAS[0],
            adam_beta2=BETAS[1],
            adam_epsilon=EPS,
            max_grad_norm=CLIPPING,
            optim="adamw_torch_fused",
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = InOrder(
            model=peer,
            args=arguments,
            train_dataset=data,
            callbacks=[Ended()],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return meter.measured()


CONTENDERS: dict[str, Callable[..., Measured]] = {peers.OURS: ours, BARE: bare, PEER: theirs}


def measure(setting: Setting) -> Result:
    seq_length = 128 if setting.is_quick else SEQ_LENGTH
    rounds = {}
    with tempfile.TemporaryDirectory() as folder:
        order = prepare(Path(folder), setting, seq_length)
        for preset in TARGETS:
            contenders = {
                name: partial(in_process, function, CPUS, order=order, preset=preset)
                for name, function in CONTENDERS.items()
            }
            rounds[preset] = take_turns(contenders, setting.rounds)
            _compare(rounds[preset])
    return {"rounds": rounds, "tokens": N_STEPS * BATCH_SIZE * seq_length}


def _compare(contenders: dict[str, list[Measured]]) -> None:
    """Counts the steps whose losses are not those of the bare loop."""
    expected = contenders[BARE][0].get("losses", [])
    for measured in (one for rounds in contenders.values() for one in rounds if "failed" not in one):
        pairs = zip(measured["losses"], expected, strict=False)
        n_near = sum(abs(found - known) <= TOLERANCE * known for found, known in pairs)
        measured["n_differing"] = 1 + N_STEPS - n_near


def section(result: Result) -> str:
    rows = []
    for preset, contenders in result["rounds"].items():
        for name, rounds in contenders.items():
            if why := failure(rounds):
                rows.append([preset, name, why])
                continue
            walls, cpu = values(rounds, "wall"), best(rounds, "cpu")
            speed = f"{result['tokens'] / min(walls):,.0f}"
            loading = [f"{_share(rounds):.2%}"] if "loading" in rounds[0] else []
            peak = f"{best(rounds, 'peak_mib'):,.0f}"
            spent = [seconds(min(walls) / N_STEPS), spread([wall / N_STEPS for wall in walls])]
            rows.append([preset, name, speed, *spent, seconds(cpu / N_STEPS), peak, *loading])
    header = ["shape", "program", "tokens/s", "s per step", "spread, s", "CPU s", "peak MiB", "reading rows"]
    n_tokens = result["tokens"] // N_STEPS
    return f"""A step of {n_tokens:,} tokens in fp32 on {CPUS} threads: {BATCH_SIZE} rows, one at a time, the
same first weights, rows, AdamW (fused) and clipping for all. The bare loop has our model and loss and no
DeepSpeed. The losses of all steps are compared with its, to {TOLERANCE:g} of their value. The peak is that of
the process, libraries included.

{table(header, rows)}"""


def _share(rounds: list[Measured]) -> float:
    """The share of the steps that reading rows takes, at best."""
    return min(measured["loading"] / measured["wall"] for measured in rounds)


def verdicts(result: Result) -> list[Verdict]:
    found = []
    for preset, contenders in result["rounds"].items():
        own, without, peer = (contenders[name] for name in (peers.OURS, BARE, PEER))
        found += [
            speed_up(f"{TITLE}, {preset}, against {PEER}", TARGETS[preset], contenders, [PEER]),
            slow_down(f"{TITLE}, {preset}, peak memory against {PEER}", 1.0, own, peer, "peak_mib"),
            slow_down(f"{TITLE}, {preset}, DeepSpeed against {BARE}", DEEPSPEED_LIMIT, own, without),
            _loading(preset, own),
        ]
    return found


def _loading(preset: str, rounds: list[Measured]) -> Verdict:
    job, target = f"{TITLE}, {preset}, reading rows", f"under {LOADING_LIMIT:.0%} of the step"
    if failure(rounds):
        return Verdict(job=job, target=target, found="it fails", is_met=False)
    share = _share(rounds)
    return Verdict(job=job, target=target, found=f"{share:.2%}", is_met=share < LOADING_LIMIT)
