"""Exceptions, by what the user can do about them.

`PileError` and its subclasses, and `OSError`, are failures of the input or the machine: the command line
prints them as one line and exits with 1, with 2 for a `ConfigError`, or with 130 for a `CancelledError`. Any
other exception is a bug, except the few that `pile_tools.cli` explains in a line too, such as `MemoryError`.
"""


class PileError(Exception):
    """A failure that the user can fix: an input, a setting or the machine."""


class FormatError(PileError):
    """A file's bytes are not what its format promises; the message names file and position."""


class ConfigError(PileError, ValueError):
    """An argument, option or configuration key has a value outside its documented range."""


class UnknownTokenizerError(ConfigError):
    """No tokenizer is given, and the manifests of the dataset name none that exists unchanged."""


class UnknownEodError(ConfigError):
    """Documents are to end with a token, but none is given and the tokenizer names none."""


class UnknownBatchSizeError(ConfigError):
    """A batch size must be given: the order names none, or the run has fewer samples than one step."""


class OutputExistsError(PileError):
    """The output exists and was made from other inputs or settings; `force` replaces it."""


class VerifyError(PileError):
    """An artifact does not match its manifest."""


class CancelledError(PileError):
    """The job stopped because it was interrupted."""


class PileWarning(UserWarning):
    """A warning for users; commands print it as one line."""


def first_line(err: Exception) -> str:
    """The first line of an error's message, or the name of its type if the message is empty."""
    return next((line.strip() for line in str(err).splitlines() if line.strip()), type(err).__name__)
