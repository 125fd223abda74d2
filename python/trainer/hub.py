"""Finds checkpoints of a published suite that have equal weights, without downloading weights.

A suite on the Hub has a branch for each step, `step0` to `step143000`, and `main`. The Hub lists the SHA-256
of every large file, so that equal files of two branches are known from listings: it happened to published
suites that a branch had the weights of another step. Of safetensors, the header is read by range requests: it
names every tensor with its shape and type, which must be those of the other steps.

A step whose weights are stored in other files than another's, in other shards say, has other hashes: that it
is equal is not found.
"""

from __future__ import annotations

import hashlib
import json
import re
import urllib.parse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pile_tools import checked, http_client
from pile_tools.errors import ConfigError, FormatError
from pile_tools.http_client import MAX_FILE_BYTES, shown
from pile_tools.http_reads import ServerReader
from trainer.checkpoint.folders import step_of

#: Files of weights by format, whole or in shards: their number, and how many there are.
FORMATS = {
    "safetensors": re.compile(r"model(?:-([0-9]{5})-of-([0-9]{5}))?\.safetensors"),
    "torch": re.compile(r"pytorch_model(?:-([0-9]{5})-of-([0-9]{5}))?\.bin"),
}

#: Maximum bytes of the headers of a branch's safetensors. The format's limit for one is 100 MB, that of 12B
#: has 70 kB.
MAX_HEADER_BYTES = 16 << 20

#: Maximum branches of a suite, and files of weights in all of them. Pythia has 155 branches of a few files.
MAX_BRANCHES, MAX_FILES = 10_000, 100_000

#: Name, type and shape.
_Tensor: TypeAlias = tuple[str, str, list[int]]

_NAME = r"[A-Za-z0-9][\w.-]*"


@dataclass(frozen=True)
class Branch:
    """A branch and its files of weights.

    Attributes:
        name: Such as `step3000`.
        files: By format, names and hashes of its files, ordered; a format that it lacks is missing.
        tensors: SHA-256 of the names, types and shapes of all tensors in its safetensors; None without such
            files.
    """

    name: str
    files: dict[str, tuple[tuple[str, str], ...]]
    tensors: str | None

    @property
    def step(self) -> int | None:
        """The step in its name."""
        return step_of(self.name)

    @property
    def n_files(self) -> int:
        """Its files of weights."""
        return sum(map(len, self.files.values()))


@dataclass(frozen=True)
class Suite:
    """What was found of a suite.

    Attributes:
        address: Its address as given.
        branches: All branches that are read, ascending by step.
        equal: Groups of branches whose files of a format are equal: the format, and the names.
        main: The step that `main` equals, or None.
        different: Branches, `main` among them, whose tensors are not those of most steps.
        without: Branches of a step without weights.
        incomplete: Branches, and a format of which some of their shards are missing.
        bytes_moved: Bytes that the server sent.
    """

    address: str
    branches: list[Branch]
    equal: list[tuple[str, list[str]]]
    main: str | None
    different: list[str]
    without: list[str]
    incomplete: list[tuple[str, str]]
    bytes_moved: int

    @property
    def is_right(self) -> bool:
        """Whether every step has weights, no two have equal ones, and all branches have the same tensors."""
        return not (self.equal or self.different or self.without or self.incomplete)


def is_address(text: str) -> bool:
    """Whether a text is the address of a model: `hf://ORG/MODEL`, or a URL of a server."""
    return re.match(r"(https?|hf)://", text, re.IGNORECASE) is not None


def compare(address: str, on_branch: Callable[[int, int], None] = lambda done, total: None) -> Suite:
    """Compares the branches of a suite.

    Args:
        address: `hf://ORG/MODEL`, for which `HF_ENDPOINT` and `HF_TOKEN` mean what they mean in
            `huggingface_hub`, or the URL of the model on a server with the Hub's interface.
        on_branch: Called with the number of branches read and of all.

    Raises:
        ConfigError: The address is none of these.
        FormatError: The server's responses are not those of the Hub, or a file is damaged.
        OSError: The server cannot be reached, or has no such model.
    """
    hub, name = _parsed(address)
    server = ServerReader()
    names = _branch_names(server, f"{hub}/api/models/{name}/refs")
    branches: list[Branch] = []
    n_files = 0
    for number, branch in enumerate(names, 1):
        branches.append(_branch(server, hub, name, branch))
        n_files += branches[-1].n_files
        if n_files > MAX_FILES:
            raise FormatError(f"more than {MAX_FILES:,} files of weights ({address})")
        on_branch(number, len(names))
    return _compared(address, branches, server.bytes_moved)


def _parsed(address: str) -> tuple[str, str]:
    """The server and the model's name."""
    is_short = address.lower().startswith("hf://")
    if is_short:
        # `checked_address` names a bad HF_ENDPOINT, which is not in the given address.
        name, hub = address[len("hf://") :].rstrip("/"), http_client.hub()
    else:
        hub, _, name = address.rstrip("/").rpartition("/")
        hub, _, organization = hub.rpartition("/")
        name = f"{organization}/{name}"
    is_server = is_short or re.match("https?://.", hub, re.IGNORECASE)
    if not is_server or not re.fullmatch(f"{_NAME}/{_NAME}", name, re.ASCII):
        raise ConfigError(f"expected hf://ORG/MODEL or a URL that ends with ORG/MODEL, got {shown(address)}")
    return http_client.checked_address(hub).rstrip("/"), name


def _branch_names(server: ServerReader, url: str) -> list[str]:
    """The branches of steps, ascending, and then `main`."""
    refs = _object(server.listing(url), url)
    names = [branch.text("name") for branch in refs.objects("branches")]
    if len(names) > MAX_BRANCHES:
        raise FormatError(f"{len(names):,} branches, more than {MAX_BRANCHES:,} ({url})")
    steps = sorted({step for name in names if (step := step_of(name)) is not None})
    if not steps:
        raise FormatError(f"no branches named step0, step1, ...: not a suite of checkpoints ({url})")
    return [*(f"step{step}" for step in steps), *(["main"] if "main" in names else [])]


def _object(data: bytes, url: str) -> checked.Values:
    return checked.parse_json(data, url, "a response of the Hub")


def _branch(server: ServerReader, hub: str, name: str, branch: str) -> Branch:
    url = f"{hub}/api/models/{name}/tree/{urllib.parse.quote(branch, safe='')}"
    # The listing is an array; as a value of an object it is checked like any other JSON of ours.
    listed = _object(b'{"files": ' + server.listing(url) + b"}", url).objects("files")
    files: dict[str, list[tuple[str, str]]] = {}
    tensors: list[_Tensor] = []
    n_left = MAX_HEADER_BYTES
    for entry in listed:
        path = entry.text("path")
        kind = next((kind for kind, pattern in FORMATS.items() if pattern.fullmatch(path)), None)
        if kind is None or entry.text("type") != "file":
            continue
        size = entry.integer("size", at_most=MAX_FILE_BYTES)
        files.setdefault(kind, []).append((path, _hash(entry, size)))
        if kind == "safetensors":
            found, n_bytes = _header(server, f"{hub}/{name}/resolve/{branch}/{path}", size, n_left)
            tensors += found
            n_left -= n_bytes
    digest = hashlib.sha256(json.dumps(sorted(tensors)).encode()).hexdigest()
    return Branch(
        branch,
        {kind: tuple(sorted(found)) for kind, found in files.items()},
        digest if "safetensors" in files else None,
    )


def _hash(entry: checked.Values, size: int) -> str:
    """The SHA-256 of a large file, or the hash by which git names a small one."""
    if entry.has("lfs"):
        large = entry.object("lfs")
        if large.has("size") and large.integer("size", at_most=MAX_FILE_BYTES) != size:
            raise large.refuse("size", f"{size}, the size of the file")
        return f"sha256:{large.hexadecimal('oid', 64)}"
    return f"git:{entry.hexadecimal('oid', 40)}"


def _header(server: ServerReader, url: str, size: int, at_most: int) -> tuple[list[_Tensor], int]:
    """The tensors in a safetensors file, and the bytes of its header, by two range requests.

    Source: the format of safetensors: 8 bytes with the length of the header, and the header in JSON.
    """
    if size < 8:
        raise FormatError(f"not a safetensors file: {size} bytes ({url})")
    n = int.from_bytes(server.range(url, 0, 8, size), "little")
    if not 2 <= n <= size - 8:
        raise FormatError(f"not a safetensors file: a header of {n:,} of {size:,} bytes ({url})")
    if n > at_most:
        raise FormatError(
            f"headers of more than {MAX_HEADER_BYTES:,} bytes in a branch's safetensors ({url})"
        )
    values = checked.parse_json(server.range(url, 8, n, size), url, "a header of safetensors")
    found: list[_Tensor] = []
    ranges = []
    for name in values.values:
        if name != "__metadata__":
            tensor = values.object(name)
            found.append((name, tensor.text("dtype"), tensor.integers("shape")))
            ranges.append(tensor.integers("data_offsets"))
    _check_tiled(ranges, size - 8 - n, url)
    return found, n


def _check_tiled(ranges: list[list[int]], n_bytes: int, url: str) -> None:
    """Raises FormatError unless the tensors' bytes lie one after another and fill the file."""
    end = 0
    for offsets in sorted(ranges):
        if len(offsets) != 2 or offsets[0] != end or offsets[1] < end:
            found = f"a tensor at bytes {offsets}, expected one at {end:,}"
            raise FormatError(f"not a safetensors file: {found} ({url})")
        end = offsets[1]
    if end != n_bytes:
        found = f"{n_bytes:,} bytes after the header, expected {end:,}"
        raise FormatError(f"not a safetensors file: {found} ({url})")


def _compared(address: str, branches: Sequence[Branch], bytes_moved: int) -> Suite:
    steps = [branch for branch in branches if branch.step is not None]
    main = next((branch for branch in branches if branch.step is None), None)
    equal: list[tuple[str, list[str]]] = []
    for kind in FORMATS:
        groups: dict[Any, list[str]] = {}
        for branch in steps:
            if kind in branch.files:
                groups.setdefault(branch.files[kind], []).append(branch.name)
        equal += [(kind, names) for names in groups.values() if len(names) > 1]
    described = Counter(branch.tensors for branch in steps if branch.tensors is not None)
    usual = described.most_common(1)[0][0] if described else None
    return Suite(
        address,
        list(branches),
        equal,
        _step_of(main, steps),
        [branch.name for branch in branches if branch.tensors not in (None, usual)],
        [branch.name for branch in steps if not branch.files],
        [
            (branch.name, kind)
            for branch in branches
            for kind, names in branch.files.items()
            if not _is_complete(kind, [name for name, _ in names])
        ],
        bytes_moved,
    )


def _is_complete(kind: str, names: Sequence[str]) -> bool:
    """Whether the files of a format are one that is whole, or all shards of one set."""
    numbers = [match.groups() for name in names if (match := FORMATS[kind].fullmatch(name))]
    if (None, None) in numbers:
        return True
    counts = {int(total) for _, total in numbers}
    return len(counts) == 1 and {int(number) for number, _ in numbers} == set(range(1, counts.pop() + 1))


def _step_of(main: Branch | None, steps: Sequence[Branch]) -> str | None:
    """The last step with the same files as `main` in a format."""
    for branch in reversed(steps if main is not None else []):
        assert main is not None
        if any(branch.files.get(kind) == files for kind, files in main.files.items()):
            return branch.name
    return None
