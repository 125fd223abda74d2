"""Runs commands with hostile values for each option that takes one, each run in a forked process with limits.

Started by `test_hostile_values.py` as a process of its own, without threads, so that forking is safe. Takes a
folder with inputs, one for outputs, a part, the number of parts, and programs; prints a line of JSON for each
run of that part.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import click

#: Of one run; the larger values are those of programs that load torch, whose libraries reserve much.
SECONDS, TORCH_SECONDS = 20, 60
ADDRESS_SPACE, TORCH_ADDRESS_SPACE = 3 << 30, 16 << 30

HOSTILE = (
    "-1",
    "0",
    "-9223372036854775809",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "18446744073709551616",
    "1" + "0" * 5000,
    "nan",
    "inf",
    "-inf",
    "1e309",
    "1e-320",
    "",
    "0x10",
    "\u0663",
    "1,1",
    "1:2",
    "1-1000000000",
    "9223372036854775808:",
    "1/99999999999999999999",
    "\x1b[2J",
    "\udcff",
    "[" * 100_000,
    "[" * 400 + "]" * 400,
    "1," * 2000 + "1",
)

#: What commands that load models import when they run.
NETWORKS = (
    *("trainer.import_model", "trainer.generate", "vqgan_clip.metadata", "vqgan_clip.synthesis"),
    *("vqgan_clip.toy.job", "torch._dynamo"),
)

#: Given where a command expects an input or output of some kind; `{cwd}` is the current folder.
PATHS = (
    ".",
    "..",
    "/",
    "",
    "./",
    "\udcff",
    "a\nb",
    "a:b",
    "s3:x.parquet",
    "file:/{in}/x.parquet",
    "{cwd}",
    "/dev/null",
    "{in}",
    "{in}/shards",
    "{in}/t.json",
    "{in}/d/s",
    "{in}/d/s.bin",
    "{in}/o",
    "{in}/o/order.json",
    "{in}/missing",
    "{in}/loop",
    "{in}/t.json/below-a-file",
    "{in}/closed.jsonl",
    "{in}/closed",
)

#: Arguments with which a command works; `{out}` is a path of the run's own.
BASES = {
    "sample": ["{out}", "--megabytes", "0.01", "--shards", "1", "--no-canaries"],
    "train-tokenizer": ["{in}/shards", "-o", "{out}", "--vocab-size", "300"],
    "tokenize": ["{in}/shards", "-o", "{out}", "--tokenizer", "{in}/t.json"],
    "merge": ["{in}/d/s", "-o", "{out}"],
    "label": ["{in}/d/s", "{in}/shards", "--tokenizer", "{in}/t.json"],
    "show": ["{in}/d/s", "0"],
    "index": ["{in}/d/s"],
    "search": ["{in}/d/s", "alpha"],
    "trace-text": ["{in}/d/s", "{in}/text.txt"],
    "count-ngrams": ["{in}/d/s"],
    "count-terms": ["{in}/terms.txt", "{in}/d/s"],
    "count-numbers": ["{in}/o", "--checkpoints", "1"],
    "order": ["{in}/d/s", "-o", "{out}", "--seq-length", "16", "--samples", "20"],
    "stages": ["{in}/o:1", "{in}/o:1", "-o", "{out}", "--batch-size", "2"],
    "batch": ["{in}/o", "--step", "0", "--row", "0"],
    "export": ["{in}/o", "--steps", "0:1", "-o", "{out}.parquet"],
    "dedup exact": ["{in}/shards", "-o", "{out}"],
    "dedup near": ["{in}/shards", "-o", "{out}"],
    "dedup passages": ["{in}/shards", "-o", "{out}"],
    "dedup signatures": ["{in}/shards", "-o", "{out}"],
    "dedup restore": ["{in}/deduped", "0.jsonl:1"],
    "shard": ["{in}/d/s.bin", "-o", "{out}"],
    "unshard": ["{in}/d", "-o", "{out}"],
    "when": ["{in}/o", "alpha"],
    "trace": ["{in}/o", "3"],
    "repeats": ["{in}/o"],
    "mixture": ["{in}/o"],
    "contamination": ["{in}/items.jsonl", "{in}/shards", "-o", "{out}"],
    "verify": ["{in}/d/s"],
    "memorization": ["{in}/o", "-o", "{out}"],
    "report": ["{in}/o", "--memorization", "{in}/o", "-o", "{out}"],
    "pile-train plan": ["pythia-70m", "--gpus", "8", "--memory", "80"],
    "pile-train neox-config": ["{in}/neox.yml", "-o", "{out}.toml"],
    "pile-train train": ["{in}/train.toml"],
    "pile-train branch": ["{in}/run", "--step", "2", "-o", "{out}"],
    "pile-train verify": ["{in}/run"],
    "pile-train losses": ["{in}/run", "--step", "1"],
    "pile-train loss-page": ["{in}/run", "-o", "{out}.html"],
    "pile-train generate": ["{in}/run", "alpha", "--max-tokens", "2"],
    "pile-train import": ["{in}/run/checkpoints/step2", "-o", "{out}"],
    "vqgan-clip generate": ["red", "-o", "{out}.png", "--steps", "1", "--views", "1"],
    "vqgan-clip edit": ["{in}/red.png", "red", "-o", "{out}.png", "--steps", "1", "--views", "1"],
    "vqgan-clip rerun": ["{in}/red.png"],
    "vqgan-clip show": ["{in}/red.png"],
    "vqgan-clip train-toy": [
        *("-o", "{out}", "--vqgan-steps", "1", "--clip-steps", "1", "--adversarial-steps", "1")
    ],
}
#: Beside the bases: options that only go together, and arguments in place of the base's.
MORE = {
    "search": [
        ["{in}/d/s", "--cnf", '[["alpha"], ["beta"]]', "--within"],
        ["{in}/d/s", "--cnf"],
        ["{in}/d/s", "--ids"],
    ],
    "count-terms": [
        ["{in}/terms.txt", "{in}/o", "--checkpoints"],
    ],
    "order": [
        ["{in}/d/s", "-o", "{out}", "--seq-length", "16", "--batch-size", "4", "--steps"],
        ["{in}/d/s", "-o", "{out}", "--seq-length", "16", "--steps", "4", "--batch-size"],
        ["{in}/d/s", "-o", "{out}", "--seq-length", "16", "--epochs"],
        ["{in}/d/s", "-o", "{out}", "--samples", "9", "--seq-length"],
        ["{in}/d/s", "{in}/d/s", "-o", "{out}", "--seq-length", "16", "--samples", "9", "--alpha"],
        ["{in}/d/s", "{in}/d/s", "-o", "{out}", "--seq-length", "16", "--samples", "9", "--weights"],
        ["{in}/d/s", "{in}/d/s", "-o", "{out}", "--seq-length", "16", "--weights", "1,2", "--samples"],
        ["{in}/d/s", "-o", "{out}", "--seq-length", "16", "--packing", "megatron", "--samples"],
        ["{in}/d/s", "-o", "{out}", "--seq-length", "16", "--packing", "unpacked", "--samples"],
    ],
    "when": [["{in}/o", "--ids"]],
    "trace": [["{in}/o"]],
    "show": [["{in}/d/s"]],
    "count-ngrams": [["{in}/shards", "--n"]],
    "pile-train losses": [["{in}/run", "--by", "subset", "--every"]],
}
#: Takes up to a minute wherever it may write.
NOT_SWEPT = ("vqgan-clip demo",)
#: Options by which a user may ask for hours of work.
LONG = (
    *("--samples", "--steps", "--epochs", "--megabytes"),
    *("--vqgan-steps", "--clip-steps", "--adversarial-steps"),
)


def hostile_runs(groups: dict[str, click.Group]) -> list[tuple[str, list[str]]]:
    """Every command with every value of every option that takes one, by the program's name."""
    runs = []
    for program, group in groups.items():
        for name, command in commands_of(group):
            of = name if program in ("pile-tools", "pile-study") else f"{program} {name}"
            if of in NOT_SWEPT:
                continue
            starts = [*MORE.get(of, [])]
            for option in command.params:
                if isinstance(option, click.Option) and not option.is_flag and not is_path_or_choice(option):
                    starts.append([*BASES[of], option.opts[-1]])
            for start in starts:
                # Much text and many samples are lawful wishes, which may take the machine minutes to grant.
                is_long = start[-1] in LONG
                values = [
                    v
                    for v in HOSTILE
                    if not (is_long and v.isdecimal() and len(v) < 20 and 0 < int(v) < 2**40)
                ]
                runs += [(program, [*name.split(), *start, value]) for value in values]
            runs += [(program, [*name.split(), *arguments]) for arguments in misused(BASES[of])]
    return runs


def commands_of(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    """The commands of a group and of the groups in it, by the words of their names."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", found) for inner, found in commands_of(command))
        else:
            yield name, command


def misused(base: list[str]) -> Iterator[list[str]]:
    """A command's arguments less each one, and with each path replaced by what is of another kind."""
    for i, argument in enumerate(base):
        yield base[:i] + base[i + 1 :]
        if argument.startswith("-"):
            # Without a small number, the command takes its default and minutes.
            if argument not in LONG:
                yield base[:i] + base[i + 2 :]
        elif "{" in argument:
            yield from ([*base[:i], path, *base[i + 1 :]] for path in PATHS)


def is_path_or_choice(option: click.Option) -> bool:
    return isinstance(option.type, (click.Path, click.Choice))


def run(group: click.Group, arguments: list[str], limits: tuple[int, int]) -> tuple[int | None, str]:
    """The exit code, None after too long, and the standard error; the limits are bytes and seconds."""
    with tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            _be_child(group, arguments, limits, errors.fileno())
        _, status = os.waitpid(child, 0)
        errors.seek(0)
        text = errors.read().decode(errors="replace")
    code = os.waitstatus_to_exitcode(status)
    return None if code == -signal.SIGALRM else code, text


def _be_child(group: click.Group, arguments: list[str], limits: tuple[int, int], errors: int) -> NoReturn:
    from pile_tools import cli

    code = 99
    try:
        address_space, seconds = limits
        signal.alarm(seconds)
        resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
        os.dup2(errors, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = cli.run(group, arguments)
    finally:
        os._exit(code)


def main() -> None:
    """Prints what each run came to."""
    from pile_tools.cli import group as tools
    from studies.cli import group as studies
    from trainer.cli import group as trainer
    from vqgan_clip.cli import group as pictures

    inputs, out = Path(sys.argv[1]), Path(sys.argv[2])
    part, n_parts = int(sys.argv[3]), int(sys.argv[4])
    groups: dict[str, click.Group] = {
        "pile-tools": tools,
        "pile-study": studies,
        "pile-train": trainer,
        "vqgan-clip": pictures,
    }
    groups = {program: groups[program] for program in sys.argv[5:]}
    has_networks = bool({"pile-train", "vqgan-clip"} & set(groups))
    if has_networks:
        # With torch, which every fork would import for seconds.
        for module in NETWORKS:
            importlib.import_module(module)
    in_root = set(Path("/").iterdir())
    limits = (TORCH_ADDRESS_SPACE, TORCH_SECONDS) if has_networks else (ADDRESS_SPACE, SECONDS)
    for number, (program, arguments) in enumerate(hostile_runs(groups)):
        if number % n_parts != part:
            continue
        own = out / str(number)
        folder = own / "of" / "work"
        folder.mkdir(parents=True)
        os.chdir(folder)
        names = {"{in}": inputs, "{out}": own / "out", "{cwd}": folder}
        filled = [re.sub(r"{\w+}", lambda found, names=names: str(names[found[0]]), a) for a in arguments]
        code, text = run(groups[program], filled, limits)
        if "/" in arguments:
            # Outputs that the superuser may write there.
            for path in Path("/").iterdir():
                if path not in in_root and path.is_file():
                    path.unlink()
        print(json.dumps({"arguments": [program, *arguments], "code": code, "stderr": text}), flush=True)


if __name__ == "__main__":
    main()
