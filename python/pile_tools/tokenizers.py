"""Finds tokenizers: a tokenizer.json, a folder that holds one, or a model's id on the Hugging Face Hub.

Files are fetched from the Hub by `huggingface_hub` (extra `[hub]`), which caches them and reads its own
environment variables: `HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pile_tools import checked, files, manifest
from pile_tools._core import TokenDataset, Tokenizer
from pile_tools.errors import ConfigError, PileError, first_line
from pile_tools.manifest import Entry
from pile_tools.types import AnyPath

TOKENIZER_FILE = "tokenizer.json"

#: `gpt2`, `EleutherAI/pythia-70m` or either with `@REVISION`.
_HUB_NAME = re.compile(r"(?P<id>\w[\w.-]*(/\w[\w.-]*)?)(@(?P<revision>[\w./-]+))?", re.ASCII)

_INSTEAD = f"give the path of a {TOKENIZER_FILE}, or of a folder that holds one, instead"


@dataclass(frozen=True)
class TokenizerFile:
    """A tokenizer.json on this machine, and its origin.

    Attributes:
        path: The file.
        hub_id: The model's id, if it is from the Hub.
        revision: The requested branch, tag or commit; None for the default.
        commit: The commit that contains the file, if it is from the Hub.
        named_by: The open dataset whose manifest names the file.
    """

    path: Path
    hub_id: str | None = None
    revision: str | None = None
    commit: str | None = None
    named_by: TokenDataset | None = field(default=None, compare=False, repr=False)

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of the file when it was read first."""
        return files.sha256(self.path)

    def load(self) -> Tokenizer:
        """Loads the tokenizer.

        Raises:
            PileError: The file is not the one whose checksum `sha256` is.
            FormatError: A component is not supported, or the dataset that names the file was replaced
                since, so that its tokens may be of another tokenizer.
            OSError: The file is unreadable.
        """
        # The core reads the file by its path, as does the checksum: both times it must be the same one.
        loaded, entry = manifest.read_input(Tokenizer.from_file, self.path, self.path.parent)
        self._refuse_other(entry)
        if self.named_by is not None:
            self.named_by.check_unchanged()
        return loaded

    def entry(self, folder: Path) -> Entry:
        """The entry of the file in a manifest in `folder`: path, size, checksum and origin."""
        origin = {"hub_id": self.hub_id, "revision": self.revision, "commit": self.commit}
        known = {key: value for key, value in origin.items() if value is not None}
        entry = manifest.file_entry(self.path, folder, role="tokenizer", **known)
        self._refuse_other(entry)
        return entry

    def _refuse_other(self, entry: Entry) -> None:
        if entry["sha256"] != self.sha256:
            raise PileError(f"changed while it was read; run the command again ({self.path})")


def load_tokenizer(name: AnyPath) -> Tokenizer:
    """The tokenizer of a file, a folder or a Hugging Face model.

    Args:
        name: A tokenizer.json, a folder that holds one, or an id such as `EleutherAI/pythia-70m`, followed by
            `@REVISION` for another revision than the default. An existing path takes precedence over an id.

    Raises:
        FormatError: A component of the tokenizer is not supported; the message names its JSON path.
        PileError: The tokenizer is not found, or the Hub refuses it or cannot be reached.
        OSError: The file cannot be read.
    """
    return find_tokenizer(name).load()


def find_tokenizer(name: AnyPath) -> TokenizerFile:
    """The file of a tokenizer, fetched from the Hub if necessary. Takes and raises as `load_tokenizer`."""
    path = Path(name)
    if path.is_dir():
        found = tokenizer_in(path)
        if found is None:
            raise PileError(f"the folder holds no {TOKENIZER_FILE} ({path})")
        return found
    hub_name = _HUB_NAME.fullmatch(os.fspath(name))
    if os.path.lexists(path) or hub_name is None or path.suffix == ".json":
        return TokenizerFile(
            path
        )  # Reading a missing file, or by a broken link, raises an error that names it.
    return _fetch(hub_name["id"], hub_name["revision"])


def tokenizer_in(folder: Path) -> TokenizerFile | None:
    """The file of the tokenizer in a folder, or None if nothing has its name.

    Raises:
        FormatError: Not a regular file: a pipe would block the reader, and the folder may be untrusted.
        OSError: The file cannot be opened, as by a broken link.
    """
    path = folder / TOKENIZER_FILE
    if not os.path.lexists(path):
        return None
    checked.open_regular(path).close()
    return TokenizerFile(path)


def eod_of(tokenizer: Tokenizer, name: str | None, source: AnyPath) -> tuple[str, int] | None:
    """The end-of-document token and its id: the token `name`, or by default the tokenizer's own, if any.

    `source` is the file or id of the tokenizer, for the message. Raises ConfigError for an unknown name.
    """
    if name is None:
        return tokenizer.eod
    id = tokenizer.token_to_id(name)
    if id is None:
        raise ConfigError(f"end-of-document token {name!r} is not in the vocabulary of {source}")
    return name, id


def _fetch(hub_id: str, revision: str | None) -> TokenizerFile:
    """The file of a model on the Hub, from the cache if possible."""
    try:
        from huggingface_hub import errors, hf_hub_download
    except ModuleNotFoundError as err:
        raise PileError(
            f"{hub_id} is not a file or folder, and fetching it from the Hugging Face Hub needs "
            f"pip install 'pile-tools[hub]'; or {_INSTEAD}"
        ) from err
    except ValueError as err:
        raise PileError(
            f"huggingface_hub does not accept its settings: {first_line(err)}; {_INSTEAD}"
        ) from err
    name = hub_id if revision is None else f"{hub_id}@{revision}"
    try:
        with _quiet():
            path = Path(hf_hub_download(hub_id, TOKENIZER_FILE, revision=revision))
    except errors.LocalEntryNotFoundError as err:
        raise PileError(
            f"{name} is not a file or folder, nor in the cache, and the Hugging Face Hub cannot be "
            f"reached; {_INSTEAD}"
        ) from err
    except errors.GatedRepoError as err:
        raise PileError(
            f"{name} is gated: accept its terms on the Hugging Face Hub and set HF_TOKEN, or {_INSTEAD}"
        ) from err
    except errors.RepositoryNotFoundError as err:
        raise PileError(
            f"{name} is not a file or folder, and not a public model on the Hugging Face Hub: "
            f"set HF_TOKEN for a private one, or {_INSTEAD}"
        ) from err
    except errors.RevisionNotFoundError as err:
        raise PileError(f"{hub_id} on the Hugging Face Hub has no revision {revision}") from err
    except errors.EntryNotFoundError as err:
        raise PileError(f"{name} on the Hugging Face Hub has no {TOKENIZER_FILE}; {_INSTEAD}") from err
    except OSError as err:
        # The Hub's errors are OSErrors without a number: one with a number is of this machine, as a full
        # disk.
        if err.errno is not None:
            raise
        raise _fetch_error(name, err) from err
    except Exception as err:
        # A server's answer can raise exceptions of several libraries, without a common type.
        raise _fetch_error(name, err) from err
    # The cache has a folder for each commit: `snapshots/COMMIT/tokenizer.json`.
    return TokenizerFile(path, hub_id, revision, commit=path.parent.name)


def _fetch_error(name: str, err: Exception) -> PileError:
    return PileError(f"fetching {name} from the Hugging Face Hub failed: {first_line(err)}; {_INSTEAD}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the Hub's log of each attempt: the final failure is reported once."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
