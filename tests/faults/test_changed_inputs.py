"""A finished artifact is made again, or refused, if one of its inputs has other bytes, as many as before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pile_tools import files

from .conftest import Server
from .test_system_calls import COMMANDS, prepare, tree

#: Commands whose artifacts have inputs and a manifest.
MADE_OF_INPUTS = [
    "dedup exact",
    "dedup near",
    "dedup signatures",
    "dedup passages --min-tokens",
    "train-tokenizer",
    "tokenize",
    "tokenize part",
    "merge",
    "label",
    "index",
    "count-ngrams",
    "count-ngrams words",
    "count-terms",
    "order",
    "stages",
    "shard",
    "unshard",
    "contamination",
    "contamination order",
    "pile-train import",
]

#: Roles of the inputs that a request names by their sizes: their artifact is made again.
MADE_AGAIN = {"shard", "model", "tokens"}

#: A command and the role of an input that it records from another manifest and does not read.
NOT_READ = {("merge", "tokenizer")}


def change(path: Path) -> None:
    """Changes a byte: in JSON a space, in a text a letter, so that it parses as before."""
    data = bytearray(path.read_bytes())
    if path.suffix == ".json":
        data[data.index(b"\n")] = ord(" ")
    else:
        data[data.find(b"fox")] ^= 1  # or the last byte
    path.write_bytes(data)


def inputs_of(folder: Path) -> dict[str, tuple[Path, str | None]]:
    """A file of each role among the inputs of the artifacts in a folder, with its recorded SHA-256."""
    found = {}
    for path in [*folder.rglob("*manifest.json"), *folder.rglob("order.json")]:
        for entry in json.loads(path.read_text())["inputs"]:
            file = path.parent / entry["path"]
            found[entry["role"]] = (
                file if "bytes" in entry else file.with_name(f"{file.name}.bin"),
                entry.get("sha256"),
            )
    return found


@pytest.mark.parametrize("name", MADE_OF_INPUTS)
def test_an_input_with_other_bytes_is_noticed(
    server: Server, inputs: Path, tmp_path: Path, name: str
) -> None:
    argv, copies = COMMANDS[name].split(), tmp_path / "in"
    shutil.copytree(inputs, copies)
    work = prepare(inputs, tmp_path, server, [])
    assert server.run(argv, work).code == 0
    made = tree(work)
    roles = inputs_of(work / "out")
    assert roles
    for role, (path, _) in roles.items():
        original = path.read_bytes()
        change(path)
        before = tree(work)
        ended = server.run(argv, work)
        if role in MADE_AGAIN:
            assert ended.code == 0, (role, ended)
            assert inputs_of(work / "out")[role][1] == files.sha256(path), (role, ended)
        else:
            # An order, or a changed tokenizer of its dataset, is refused before the request is compared.
            assert ended.code in ((0,) if (name, role) in NOT_READ else (1, 2)), (role, ended)
            assert tree(work) == before, role
        path.write_bytes(original)
        assert server.run(argv, work).code == 0, role
        assert tree(work) == made, role
