"""Finds tokenizers: a tokenizer.json, a folder that holds one, or a model's id on the Hugging Face Hub.

The Hub is asked through `huggingface_hub` (extra `[hub]`), which keeps what it fetched in its cache and
follows its own settings: `HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pile_tools import checked, manifest
from pile_tools._core import Tokenizer
from pile_tools.errors import ConfigError, PileError, first_line
from pile_tools.manifest import Entry
from pile_tools.types import AnyPath

TOKENIZER_FILE = "tokenizer.json"

#: `gpt2`, `EleutherAI/pythia-70m` or either with `@REVISION`.
_HUB_NAME = re.compile(r"(?P<id>\w[\w.-]*(/\w[\w.-]*)?)(@(?P<revision>[\w./-]+))?", re.ASCII)

_INSTEAD = f"give the path of a {TOKENIZER_FILE}, or of a folder that holds one, instead"


@dataclass(frozen=True)
class TokenizerFile:
    """A tokenizer.json on this machine, and where it came from.

    Attributes:
        path: The file.
        hub_id: The model's id, if it is from the Hub.
        revision: The branch, tag or commit that was asked for; None for the default.
        commit: The commit that the file is of, if it is from the Hub.
    """

    path: Path
    hub_id: str | None = None
    revision: str | None = None
    commit: str | None = None

    def load(self) -> Tokenizer:
        """The tokenizer. Raises FormatError for what is not supported, OSError if it cannot be read."""
        return Tokenizer.from_file(self.path)

    def entry(self, folder: Path) -> Entry:
        """What a manifest in `folder` says of it: the file that is read, its checksum and its origin."""
        origin = {"hub_id": self.hub_id, "revision": self.revision, "commit": self.commit}
        known = {key: value for key, value in origin.items() if value is not None}
        return manifest.file_entry(self.path, folder, role="tokenizer", **known)


def load_tokenizer(name: AnyPath) -> Tokenizer:
    """The tokenizer of a file, a folder or a Hugging Face model.

    Args:
        name: A tokenizer.json, a folder that holds one, or an id such as `EleutherAI/pythia-70m`, followed by
            `@REVISION` if not the default one is meant. What exists on disk comes first.

    Raises:
        FormatError: A component of the tokenizer is not supported, named with its place.
        PileError: It is not found, or the Hub does not give it.
        OSError: The file cannot be read.
    """
    return find_tokenizer(name).load()


def find_tokenizer(name: AnyPath) -> TokenizerFile:
    """The file that `name` stands for, fetched if need be; as `load_tokenizer`."""
    path = Path(name)
    if path.is_dir():
        file = path / TOKENIZER_FILE
        if not file.exists():
            raise PileError(f"the folder holds no {TOKENIZER_FILE} ({path})")
        # A folder may come from anyone, and a pipe in it would be waited for.
        checked.open_regular(file).close()
        return TokenizerFile(file)
    asked = _HUB_NAME.fullmatch(os.fspath(name))
    if path.exists() or asked is None or path.suffix == ".json":
        return TokenizerFile(path)  # A file that is missing is named when it is read.
    return _fetch(asked["id"], asked["revision"])


def eod_of(tokenizer: Tokenizer, name: str | None, source: AnyPath) -> tuple[str, int] | None:
    """The end-of-document token and its id: the one of a name, or else the tokenizer's own if it has one.

    `source` is what the tokenizer was loaded from, for the message. Raises ConfigError for an unknown name.
    """
    if name is None:
        return tokenizer.eod
    id = tokenizer.token_to_id(name)
    if id is None:
        raise ConfigError(f"--eod {name!r} is not in the vocabulary of {source}")
    return name, id


def _fetch(hub_id: str, revision: str | None) -> TokenizerFile:
    """The file of a model on the Hub, from the cache if it is there."""
    try:
        from huggingface_hub import errors, hf_hub_download
    except ModuleNotFoundError as err:
        raise PileError(
            f"{hub_id} is no file or folder here, and to ask the Hugging Face Hub for it needs "
            f"pip install 'pile-tools[hub]'; or {_INSTEAD}"
        ) from err
    except ValueError as err:
        raise PileError(
            f"huggingface_hub does not accept its settings: {first_line(err)}; {_INSTEAD}"
        ) from err
    where = hub_id if revision is None else f"{hub_id}@{revision}"
    try:
        with _quiet():
            path = Path(hf_hub_download(hub_id, TOKENIZER_FILE, revision=revision))
    except errors.LocalEntryNotFoundError as err:
        raise PileError(
            f"{where} is no file or folder here, nor in the cache, and the Hugging Face Hub cannot be "
            f"reached; {_INSTEAD}"
        ) from err
    except errors.GatedRepoError as err:
        raise PileError(
            f"{where} is gated: accept its terms on the Hugging Face Hub and set HF_TOKEN, or {_INSTEAD}"
        ) from err
    except errors.RepositoryNotFoundError as err:
        raise PileError(
            f"{where} is no file or folder here and no model on the Hugging Face Hub, or a private one: "
            f"set HF_TOKEN if it is, or {_INSTEAD}"
        ) from err
    except errors.RevisionNotFoundError as err:
        raise PileError(f"{hub_id} on the Hugging Face Hub has no revision {revision}") from err
    except errors.EntryNotFoundError as err:
        raise PileError(f"{where} on the Hugging Face Hub has no {TOKENIZER_FILE}; {_INSTEAD}") from err
    except OSError as err:
        # Of this machine, such as a full disk; the Hub's errors are OSErrors without a number.
        if err.errno is not None:
            raise
        raise _not_given(where, err) from err
    except Exception as err:
        # What a server can answer raises errors of several libraries, and bare ones.
        raise _not_given(where, err) from err
    return TokenizerFile(path, hub_id, revision, path.parent.name)


def _not_given(where: str, err: Exception) -> PileError:
    return PileError(f"the Hugging Face Hub does not give {where}: {first_line(err)}; {_INSTEAD}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the Hub's log of each try back: what fails in the end is said once."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
