"""The steps of gpu_check.sh: train, kill, resume, compare, score, measure. Each has a process and a limit.

A step that fails does not stop those after it; the exit code is 1 then, and results.json says why.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Result = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How much is trained and measured."""

    model: str
    precision: str
    vocab_size: int
    seq_length: int
    batch_size: int
    micro_batch_size: int
    steps: int
    checkpoint_every: int
    killed_at: int
    study_rows: int
    measured_steps: int


#: Pythia-160M on 65,536 tokens a step.
GPU = Scale('preset = "pythia-160m"', "bf16", 50304, 2048, 32, 16, 200, 100, 130, 4096, 10)
CPU = Scale("hidden_size = 64\nn_layers = 2\nn_heads = 4", "fp32", 512, 64, 8, 4, 12, 5, 7, 16, 2)

#: Seconds that the steps may take: together under eight minutes.
LIMITS = {"data": 30, "train": 180, "logits": 40, "study": 70, "ours": 45, "compiled": 70, "peer": 60}

#: Largest difference of logits in fp32, and of losses that were trained again after the kill, relative:
#: gradients of embeddings are added in no fixed order on a GPU.
LOGITS_TOLERANCE, LOSS_TOLERANCE = 1e-4, 1e-2


def write_data(folder: Path, scale: Scale) -> Result:
    """Writes documents of random tokens, some tokens far more frequent than others, and their order."""
    generator = np.random.default_rng(0)
    n_tokens = scale.steps * scale.batch_size * scale.seq_length * 21 // 20
    ranks = (scale.vocab_size - 1) ** generator.random(n_tokens)
    ranks.astype("<u2").tofile(folder / "tokens.bin")
    lengths = np.full(-(-n_tokens // 600), 600, "<i4")
    lengths[-1] -= lengths.sum() - n_tokens
    n = len(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths[:-1], dtype=np.int64)]) * 2
    head = b"MMIDIDX\0\0" + np.uint64(1).tobytes() + b"\x08" + np.array([n, n + 1], "<u8").tobytes()
    parts = (lengths, starts.astype("<i8"), np.arange(n + 1, dtype="<i8"))
    (folder / "tokens.idx").write_bytes(head + b"".join(part.tobytes() for part in parts))
    options = {"--seq-length": scale.seq_length, "--steps": scale.steps, "--batch-size": scale.batch_size}
    arguments = [str(value) for pair in options.items() for value in pair]
    command("pile_tools.cli", "order", folder / "tokens", "-o", folder / "order", *arguments)
    return {"tokens": n_tokens}


def command(module: str, *arguments: object) -> None:
    """Runs a command of ours; its errors are those of this process."""
    subprocess.run(program(module, *arguments), check=True)


def program(module: str, *arguments: object) -> list[str]:
    """The command line of one of ours, which need not be installed."""
    script = f"import sys; from {module} import main; sys.argv[0] = {module!r}; main()"
    return [sys.executable, "-c", script, *map(str, arguments)]


def write_config(folder: Path, scale: Scale, name: str, *, compiled: bool = False) -> Path:
    """The TOML file of a run in `folder`/`name`."""
    path = folder / f"{name}.toml"
    lines = [
        f'order = "{folder / "order"}"',
        f'output = "{folder / name}"',
        f'precision = "{scale.precision}"',
        f"micro_batch_size = {scale.micro_batch_size}",
        f"checkpoint_every = {scale.checkpoint_every}",
        f"compile = {str(compiled).lower()}",
        "[model]",
        f"vocab_size = {scale.vocab_size}",
        scale.model,
        "[optimizer]",
        "lr = 6e-4",
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def train(folder: Path, scale: Scale) -> Result:
    """Trains, kills the process in the middle, resumes, and compares the steps that were trained twice."""
    config, log = write_config(folder, scale, "run"), folder / "run" / "train_log.jsonl"
    started = time.monotonic()
    process = subprocess.Popen(program("trainer.cli", config))
    while process.poll() is None and n_lines(log) < scale.killed_at:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise SystemExit(f"the run ended by itself, with exit code {process.returncode}")
    killed = losses(log)
    command("trainer.cli", config)
    ended = losses(log)
    if len(ended) != scale.steps:
        raise SystemExit(f"{len(ended)} steps in the log, expected {scale.steps}")
    difference = max(abs(a - b) / b for a, b in zip(killed, ended, strict=False))
    if difference > LOSS_TOLERANCE or not ended[-1] < ended[0]:
        raise SystemExit(f"losses {ended[0]} ... {ended[-1]}, after the kill {difference:.2e} off")
    return {
        "killed after": len(killed),
        "largest relative difference of a loss trained again": difference,
        "first loss": ended[0],
        "last loss": ended[-1],
        "seconds with both starts": round(time.monotonic() - started, 1),
    }


def n_lines(log: Path) -> int:
    """The steps that a log holds."""
    return log.read_bytes().count(b"\n") if log.exists() else 0


def losses(log: Path) -> list[float]:
    """The loss of each step; a kill may leave half a line."""
    return [json.loads(line)["loss"] for line in log.read_bytes().splitlines(keepends=True) if b"\n" in line]


def logits(folder: Path, scale: Scale) -> Result:
    """Compares the logits of the last checkpoint with those of transformers, in fp32."""
    import torch
    import transformers

    import trainer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    step = folder / "run" / "checkpoints" / f"step{scale.steps}"
    theirs = transformers.GPTNeoXForCausalLM.from_pretrained(step, dtype=torch.float32).to(device).eval()
    ours = trainer.load_model(step, device=device)
    tokens = torch.arange(2 * scale.seq_length, device=device).view(2, -1) % scale.vocab_size
    with torch.no_grad():
        difference = float((ours(tokens) - theirs(tokens).logits).abs().max())
    if not difference <= LOGITS_TOLERANCE:
        raise SystemExit(f"logits differ by {difference:.2e}, at most {LOGITS_TOLERANCE:g} is expected")
    return {"largest difference of a logit": difference, "transformers": transformers.__version__}


def study(folder: Path, scale: Scale) -> Result:
    """Scores what the last checkpoint memorized."""
    started = time.monotonic()
    options = ("--rows", scale.study_rows, "--checkpoints", f"0,{scale.steps}")
    command("studies.cli", "memorization", folder / "run", "-o", folder / "memorization", *options)
    seconds = time.monotonic() - started
    return {"rows": scale.study_rows, "checkpoints": 2, "seconds": round(seconds, 1)}


def ours(folder: Path, scale: Scale) -> Result:
    """Measures steps of our engine."""
    return measured_engine(folder, scale, compiled=False)


def compiled(folder: Path, scale: Scale) -> Result:
    """Measures steps of our engine with compiled blocks."""
    return measured_engine(folder, scale, compiled=True)


def measured_engine(folder: Path, scale: Scale, *, compiled: bool) -> Result:
    """Speed and memory of the steps after the first two, which compile and allocate."""
    import torch

    from pile_tools.config import from_toml
    from trainer.config import TrainConfig
    from trainer.cost import flops_per_token
    from trainer.engine import processes
    from trainer.loop import _engine, micro_batches
    from trainer.peak import measured_peak
    from trainer.run import plan

    path = write_config(folder, scale, "compiled" if compiled else "ours", compiled=compiled)
    run = plan(from_toml(TrainConfig, path))
    with processes(run.recipe.seed) as ranks:
        peak = measured_peak(ranks, scale.precision)
        engine = _engine(run, ranks, None, is_from_weights=False)
        for step in range(2 + scale.measured_steps):
            if step == 2:
                start = restart_clock(torch)
            loss = engine.step(micro_batches(run, ranks, step), 6e-4).loss
        result = speed(torch, scale, start)
    share = result["tokens/s"] * flops_per_token(run.recipe.shape) / peak
    found = {"share of the measured peak": f"{share:.1%}", "measured peak, TFLOP/s": round(peak / 1e12, 1)}
    return {**result, **found, "last loss": loss}


def restart_clock(torch: Any) -> float:
    """The time now, with the peak of the GPU's memory forgotten."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    return time.perf_counter()


def speed(torch: Any, scale: Scale, start: float) -> Result:
    """Tokens a second of the measured steps, and the peak of the GPU's memory."""
    memory: int | None = None
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        memory = torch.cuda.max_memory_allocated() >> 20
    seconds = time.perf_counter() - start
    n_tokens = scale.measured_steps * scale.batch_size * scale.seq_length
    return {"tokens/s": round(n_tokens / seconds), "peak memory, MiB": memory}


def peer(folder: Path, scale: Scale) -> Result:
    """Measures Hugging Face Trainer on the same rows, with the same micro-batch, precision and optimizer."""
    import torch
    import transformers

    from pile_tools.order.open import open_order

    step = folder / "run" / "checkpoints" / "step0"
    model = transformers.GPTNeoXForCausalLM.from_pretrained(step, dtype=torch.float32)
    model.config.max_position_embeddings = scale.seq_length + 1
    order = open_order(folder / "order")
    n_steps = 2 + scale.measured_steps
    batches = [torch.from_numpy(order.batch(step).astype("int64")) for step in range(n_steps)]
    rows = [{"input_ids": row, "labels": row} for batch in batches for row in batch]
    start, last = 0.0, float("nan")

    class Meter(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            nonlocal start
            if state.global_step == 2:
                start = restart_clock(torch)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            nonlocal last
            last = logs.get("loss", last)

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(rows)

    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "peer"),
        per_device_train_batch_size=scale.micro_batch_size,
        gradient_accumulation_steps=scale.batch_size // scale.micro_batch_size,
        max_steps=n_steps,
        learning_rate=6e-4,
        lr_scheduler_type="constant",
        weight_decay=0.1,
        adam_beta2=0.95,
        optim="adamw_torch_fused",
        bf16=scale.precision == "bf16",
        logging_steps=n_steps,
        save_strategy="no",
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
    )
    InOrder(model=model, args=arguments, train_dataset=rows, callbacks=[Meter()]).train()
    return {**speed(torch, scale, start), "mean loss": last}


STEPS: dict[str, Callable[[Path, Scale], Result]] = {
    "data": write_data,
    "train": train,
    "logits": logits,
    "study": study,
    "ours": ours,
    "compiled": compiled,
    "peer": peer,
}


def run_step(name: str, folder: Path, is_cpu: bool) -> Result:
    """A step in a process of its own, whose result is the JSON file that it writes."""
    out = folder / f"{name}.json"
    arguments = [sys.executable, __file__, "--step", name, *(["--cpu"] if is_cpu else []), str(folder)]
    # On a CPU this is a trial: other work may slow it down.
    limit = LIMITS[name] * (10 if is_cpu else 1)
    started = time.monotonic()
    process = subprocess.Popen(arguments, start_new_session=True)
    try:
        code = process.wait(limit)
        found = json.loads(out.read_text()) if code == 0 else {"failed": f"exit code {code}"}
    except subprocess.TimeoutExpired:
        # With the processes that it started.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        found = {"failed": f"took longer than {limit} s"}
    return {**found, "wall": round(time.monotonic() - started, 1)}


def machine() -> Result:
    """The machine and the packages that the results depend on."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    names = ("torch", "deepspeed", "transformers", "accelerate")
    versions = {name: importlib.metadata.version(name) for name in names}
    return {"device": device, "python": sys.version.split()[0], **versions}


def main() -> None:
    """Runs all steps, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--step", choices=list(STEPS))
    parser.add_argument("folder", type=Path, nargs="?")
    given = parser.parse_args()
    if given.cpu:
        os.environ |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    if given.step:
        result = STEPS[given.step](given.folder, CPU if given.cpu else GPU)
        (given.folder / f"{given.step}.json").write_text(json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        results: Result = {"machine": machine()}
        if not given.cpu and results["machine"]["device"] == "CPU":
            raise SystemExit("error: torch finds no GPU; --cpu tries the script at a tiny size")
        for name in STEPS:
            print(f"--- {name}", flush=True)
            results[name] = run_step(name, folder, given.cpu)
            print(json.dumps({name: results[name]}), flush=True)
        (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))
    if failed := [name for name, result in results.items() if "failed" in result]:
        raise SystemExit(f"error: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
