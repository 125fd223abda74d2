"""`pile-train`: trains GPT-NeoX models on training orders, plans runs, and uses models."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import click

from pile_tools import cli
from pile_tools.commands.groups import LazyGroup

#: The command of a command line that names none.
_DEFAULT = "train"


SECTIONS = {
    "Before a run": {
        "plan": "trainer.commands.plan",
        "neox-config": "trainer.commands.neox_config",
    },
    "Train": {
        "train": "trainer.commands.train",
        "branch": "trainer.commands.branch",
    },
    "Look into runs": {
        "verify": "trainer.commands.verify",
        "losses": "trainer.commands.losses",
        "loss-page": "trainer.commands.loss_page",
    },
    "Models": {
        "generate": "trainer.commands.generate",
        "import": "trainer.commands.import_model",
    },
}


class TrainGroup(LazyGroup):
    """The commands; arguments that name none of them are those of `train`."""

    sections = SECTIONS

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts `train` before arguments that start with a config or with an option of `train`."""
        own = {*self.list_commands(ctx), *(name for param in self.get_params(ctx) for name in param.opts)}
        if args and args[0] not in own and _starts_training(args[0]):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


def _starts_training(argument: str) -> bool:
    """Whether this is an option or looks like a file; anything else is a mistyped command."""
    return argument.startswith("-") or not argument.isidentifier() or Path(argument).exists()


@click.group(cls=TrainGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pile-tools")
def group() -> None:
    """Train GPT-NeoX models: Pythia, GPT-NeoX-20B, or any size, on exactly the order of a training order.

    \b
    Examples:
      pile-train CONFIG.toml           # short for pile-train train CONFIG.toml
      pile-train train --help          # the keys of a config
      pile-train plan pythia-70m --gpus 8 --memory 80
      pile-train losses RUN --step 120 # which document made the spike?
      torchrun --nproc_per_node 2 -m trainer.cli CONFIG.toml

    Exit codes: 0 done, 1 the input or the machine failed, 2 usage, 70 a bug of ours, 130 interrupted; 143 and
    138 stopped by SIGTERM or SIGUSR1.
    """


def main() -> None:
    """The console script."""
    code = cli.run(group)
    for stream in (sys.stdout, sys.stderr):
        # The reader may be gone, and a closed stream is None.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    # Threads of torch.distributed outlive `destroy_process_group`, since DeepSpeed keeps its groups. One that
    # asks for the interpreter while Python shuts down aborts the process, after a run that succeeded.
    os._exit(code)


if __name__ == "__main__":
    main()
