"""The command `pile-tools`: one subcommand for each job or query, imported when it is called."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import traceback
import typing
import warnings

import click

from pile_tools import _core, terminal
from pile_tools.arguments import checked
from pile_tools.commands.groups import lazy_group
from pile_tools.errors import (
    CancelledError,
    ConfigError,
    PileError,
    PileWarning,
    UnknownBatchSizeError,
    UnknownEodError,
    UnknownTokenizerError,
)
from pile_tools.terminal import ReaderLeftError, echo, echo_text

#: The modules of the commands, by section of the help and name.
SECTIONS = {
    "Make data": {
        "sample": "pile_tools.commands.sample",
        "dedup": "pile_tools.commands.dedup",
        "train-tokenizer": "pile_tools.commands.train_tokenizer",
        "tokenize": "pile_tools.commands.tokenize",
        "merge": "pile_tools.commands.merge",
        "label": "pile_tools.commands.label",
        "shard": "pile_tools.commands.shard",
        "unshard": "pile_tools.commands.unshard",
    },
    "Look into data": {
        "show": "pile_tools.commands.show",
        "index": "pile_tools.commands.index",
        "search": "pile_tools.commands.search",
        "trace-text": "pile_tools.commands.trace_text",
        "count-ngrams": "pile_tools.commands.count_ngrams",
        "count-terms": "pile_tools.commands.count_terms",
        "count-numbers": "pile_tools.commands.count_numbers",
    },
    "Order it for a run": {
        "order": "pile_tools.commands.order",
        "stages": "pile_tools.commands.stages",
        "batch": "pile_tools.commands.batch",
        "export": "pile_tools.commands.export",
    },
    "Ask when a run saw it": {
        "when": "pile_tools.commands.when",
        "trace": "pile_tools.commands.trace",
        "repeats": "pile_tools.commands.repeats",
        "mixture": "pile_tools.commands.mixture",
        "contamination": "pile_tools.commands.contamination",
    },
    "Check": {
        "verify": "pile_tools.commands.verify",
    },
}

#: Packages that only some commands need, with the extras that install them.
EXTRA_PACKAGES = {
    **dict.fromkeys(("deepspeed", "jinja2"), "train,study"),
    **dict.fromkeys(("torch", "safetensors"), "train,study,image"),
    **dict.fromkeys(("PIL", "yaml"), "image"),
    "ray": "distributed",
    "pyarrow": "export",
    "lm_eval": "harness",
}

EXIT_DONE, EXIT_FAILURE, EXIT_USAGE, EXIT_BUG, EXIT_INTERRUPTED = 0, 1, 2, 70, 130


def run(group: click.Command, arguments: list[str] | None = None) -> int:
    """Runs a command line and returns its exit code.

    0 done, 1 the input or the machine failed, 2 usage or configuration, 70 a bug of ours, 130 Ctrl-C.
    A failure is one line on standard error; `--debug` before the command's name, or `PILE_TOOLS_DEBUG=1`,
    also prints the traceback. If the reader of standard output closes it early, as `head` does, the command
    ends quietly.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    is_debug = os.environ.get("PILE_TOOLS_DEBUG", "") not in ("", "0")
    if arguments[:1] == ["--debug"]:
        is_debug, arguments = True, arguments[1:]
    terminal.prepare_streams()
    _core.report_machine_failures()
    try:
        with _warnings_as_lines():
            code = int(checked(group).main(arguments, standalone_mode=False) or 0)
        # A memory-mapped file that was truncated meanwhile makes the printed data invalid.
        _core.check_mapped()
        terminal.flush_stdout()
        return code
    except BaseException as err:
        if is_debug and not isinstance(err, (SystemExit, click.exceptions.Exit, click.ClickException)):
            echo_text(traceback.format_exc().rstrip("\n"), err=True)
        return _report(_cause(err))


@contextlib.contextmanager
def _warnings_as_lines() -> typing.Iterator[None]:
    """Prints our own warnings as one line on standard error, without their location in the code."""

    def show(message: Warning | str, category: type[Warning], *more: object, **named: object) -> None:
        echo(f"warning: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("default", PileWarning)
        warnings.showwarning = show
        yield


def _cause(err: BaseException) -> BaseException:
    """The error to report: that a mapped file became shorter, if it did, as other errors may come of it."""
    if isinstance(err, (PileError, OSError)):
        try:
            _core.check_mapped()
        except PileError as shorter:
            return shorter
    return err


def _report(err: BaseException) -> int:
    """Prints one line for `err` on standard error; returns its exit code."""
    match err:
        case click.exceptions.Exit():
            return err.exit_code
        case SystemExit():
            return err.code if isinstance(err.code, int) else EXIT_FAILURE
        case click.exceptions.NoArgsIsHelpError():
            err.show()
            return EXIT_USAGE
        case click.ClickException():
            return _say(_usage_error(err), EXIT_USAGE if isinstance(err, click.UsageError) else EXIT_FAILURE)
        case KeyboardInterrupt() | click.Abort() | CancelledError():
            return _say("interrupted; run the same command again to resume", EXIT_INTERRUPTED)
        case UnknownTokenizerError():
            return _say(f"{err}; give --tokenizer FILE", EXIT_USAGE)
        case UnknownEodError():
            return _say(f"{err}; give --eod TOKEN or --no-eod", EXIT_USAGE)
        case UnknownBatchSizeError():
            return _say(f"{err}; give --batch-size", EXIT_USAGE)
        case ConfigError():
            return _say(terminal.with_options(str(err)), EXIT_USAGE)
        case ReaderLeftError():
            terminal.silence_stdout()
            return EXIT_DONE
        case PileError():
            return _say(terminal.with_options(str(err)), EXIT_FAILURE)
        case OSError():
            if err.filename == terminal.STANDARD_OUTPUT:
                terminal.silence_stdout()
            return _say(_os_error(err), EXIT_FAILURE)
        case MemoryError():
            return _say(_memory_error(err), EXIT_FAILURE)
        case _ if type(err).__name__ == "PanicException" and "PyObject pointer is null" in str(err):
            # The bindings panic with this message if Python cannot allocate an object.
            return _say(_memory_error(MemoryError()), EXIT_FAILURE)
        case OverflowError():
            return _say(f"a number is too large for this command: {err}", EXIT_USAGE)
        case UnicodeEncodeError() if err.reason == "surrogates not allowed":
            # So Python represents the bytes of an argument or of a file's name that are not UTF-8.
            return _say(f"not UTF-8: {err.object[:80]!r}", EXIT_USAGE)
        case RuntimeError() if "can't start new thread" in str(err):
            return _say(
                "the system starts no more threads; raise its limit (ulimit -u), or use fewer --threads",
                EXIT_FAILURE,
            )
        case ImportError() if _NO_MEMORY.search(str(err)):
            # A library that is loaded at its first use, such as that of Parquet.
            return _say(_memory_error(MemoryError()), EXIT_FAILURE)
        case ModuleNotFoundError() if err.name in EXTRA_PACKAGES:
            advice = f"install it with pip install 'pile-tools[{EXTRA_PACKAGES[err.name]}]'"
            return _say(f"this command needs {err.name}, which is not installed; {advice}", EXIT_FAILURE)
        case _:
            summary = f"{type(err).__name__}: {err}".split("\n")[0]
            advice = "please report it with the traceback that PILE_TOOLS_DEBUG=1 shows"
            return _say(f"a bug in pile-tools: {summary}; {advice}", EXIT_BUG)


def _usage_error(err: click.ClickException) -> str:
    """The error in the command line, and the command that prints its help."""
    context = getattr(err, "ctx", None)
    message = err.format_message().rstrip(".")
    if isinstance(err, click.NoSuchOption):
        close = " or ".join(sorted(err.possibilities or ()))
        message = f"No such option {err.option_name!r}" + (f" (did you mean {close}?)" if close else "")
    elif message.startswith("Got unexpected extra argument"):
        message += "; one with spaces needs quotes"
    return f"{message}; see {context.command_path} --help" if context is not None else message


def _os_error(err: OSError) -> str:
    """The message and file of an OSError, without the error number, with advice on limits of the machine."""
    text = err.strerror or str(err)
    if isinstance(err.filename, (str, bytes)):
        text = f"{text} ({os.fsdecode(err.filename)})"
    advice = _ADVICE.get(err.errno or 0)
    return f"{text}; {advice}" if advice else text


_FULL = "free some space and run the same command again"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "raise the limit of the size of files (ulimit -f) and run the same command again",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files (ulimit -n)",
    errno.ENOMEM: "there is not enough memory; use fewer --threads, or a machine with more",
    errno.EAGAIN: "the system starts no more threads or processes; raise its limit (ulimit -u), "
    "or use fewer --threads",
}


#: Messages of the loader of shared libraries, if it cannot map one.
_NO_MEMORY = re.compile("failed to map segment|cannot allocate memory", re.IGNORECASE)


def _memory_error(err: MemoryError) -> str:
    found = f": {err}" if str(err) else ""
    return f"there is not enough memory{found}; use fewer --threads, or a machine with more"


def _say(message: str, code: int) -> int:
    echo(f"error: {message}", err=True)
    return code


@click.group(cls=lazy_group(SECTIONS), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pile-tools")
def group() -> None:
    """Tools for text at the size of the Pile, from compressed shards to the exact order that a model sees.

    \b
    Examples:
      pile-tools sample demo/shards --megabytes 20
      pile-tools dedup near demo/shards -o demo/deduped
      pile-tools train-tokenizer demo/deduped -o demo/tokenizer.json \\
        --vocab-size 4096
      pile-tools tokenize demo/deduped -o demo/tokens/sample \\
        --tokenizer demo/tokenizer.json
      pile-tools order demo/tokens/sample --seq-length 256 --steps 500 \\
        --batch-size 16 --seed 1234
      pile-tools batch demo/tokens --step 100
      pile-tools when demo/tokens "every token"
      pile-tools verify demo/tokens/sample

    Exit codes: 0 done, 1 the input or the machine failed, 2 usage, 70 a bug of ours, 130 interrupted.
    """


def main() -> None:
    """The entry point of the console script."""
    sys.exit(run(group))
