"""What can go wrong, by what the user can do about it.

`PileError` and its subclasses, and `OSError`, are failures of the input or the machine: the command line
prints them as one line and exits with 1, or with 2 for a `ConfigError`. Anything else is a bug of ours.
"""


class PileError(Exception):
    """A failure that the user can do something about."""


class FormatError(PileError):
    """A file's bytes are not what its format promises; the message names file and position."""


class ConfigError(PileError, ValueError):
    """An argument, option or configuration key has a value outside its documented range."""


class UnknownTokenizerError(ConfigError):
    """No tokenizer is given, and the manifests of the dataset name none that is here."""


class UnknownBatchSizeError(ConfigError):
    """No batch size is given, and the order names none that makes at least one step."""


class OutputExistsError(PileError):
    """The output is there and was made from other inputs or settings; `--force` replaces it."""


class VerifyError(PileError):
    """An artifact is not what its manifest says."""


class CancelledError(PileError):
    """The job was asked to stop and did."""


class PileWarning(UserWarning):
    """What a user should know while a job runs; commands print it as one line."""


def first_line(err: Exception) -> str:
    """What a library's error says in its first line, or the error's kind where it says nothing."""
    return next((line.strip() for line in str(err).splitlines() if line.strip()), type(err).__name__)
