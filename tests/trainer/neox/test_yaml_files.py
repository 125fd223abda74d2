from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pile_tools.errors import ConfigError, FormatError
from trainer.neox import yaml_files


def written(folder: Path, *texts: str) -> list[Path]:
    paths = [folder / f"{i}.yml" for i in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def test_files_are_merged_and_hyphens_are_underscores(tmp_path: Path) -> None:
    paths = written(
        tmp_path,
        '{"num-layers": 6, "optimizer": {"type": "Adam", "params": {"lr": 1.0e-3,}}, # comment\n}',
        "seed: 3\nsave_interval: null\nsome: [True, 0.97e-4, text]\n",
    )
    assert yaml_files.read_files(paths) == {
        "num_layers": 6,
        "optimizer": {"type": "Adam", "params": {"lr": 0.001}},
        "seed": 3,
        "save_interval": None,
        "some": [True, 0.97e-4, "text"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "key 'a' occurs twice"),
        ("num-layers: 1\nnum_layers: 2\n", "key 'num_layers' occurs twice"),
        ("x: {b: 1, b: 1}\n", "key 'b' occurs twice"),
        ("a: &x [1]\nb: *x\n", "line 2 has an alias"),
        ('a: !!python/object/apply:os.system ["touch ran"]\n', "could not determine a constructor"),
        ("a: !!python/name:os.system\n", "could not determine a constructor"),
        ("a: " + "[" * 20 + "]" * 20, "nested more than 16 deep"),
        ("a: " + "[" * 100_000, "nested more than 16 deep"),
        ("a: .nan\n", "line 1 has a number that is not finite"),
        ("a: -.inf\n", "line 1 has a number that is not finite"),
        ("train_iters: 0x" + "f" * 10_000 + "\n", "line 1 has a number beyond 64 bits"),
        ("a: 1\nb: [0b" + "1" * 20_000 + "]\n", "line 2 has a number beyond 64 bits"),
        ("a: " + ":".join(["59"] * 5000) + "\n", "line 1 has a number beyond 64 bits"),
        ("a: -9223372036854775809\n", "line 1 has a number beyond 64 bits"),
        ("a: 2020-01-01\n", "line 1 has a value of type date"),
        ("a: !!binary aGk=\n", "line 1 has a value of type bytes"),
        ('a: !!int ""\n', "line 1 has a value that is no int"),
        ("a: 1\nb: !!bool x\n", "line 2 has a value that is no bool"),
        ("a: !!float x\n", "line 1 has a value that is no float"),
        ("a: !!timestamp x\n", "line 1 has a value that is no timestamp"),
        ("a: !!timestamp 2020-99-99\n", "line 1 has a value that is no timestamp"),
        ("a: !!set {x}\n", "line 1 has a value of type set"),
        ('a: 1\nb: ["\\ud800x"]\n', "line 2 has text with half of a surrogate pair"),
        ('"\\udfff": 1\n', "line 1 has text with half of a surrogate pair"),
        ("- 1\n", "expected keys and values"),
        ("", "expected keys and values"),
        ("{a: 1\n b: 2}\n", "line 2, column"),
        ("a: 1\n---\nb: 2\n", "but found another document"),
        ("a: \x07", "not a YAML file of GPT-NeoX"),
        (f"# {'x' * (1 << 20)}\na: 1\n", "more than 1,048,576 bytes"),
    ],
)
def test_a_bad_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (path,) = written(tmp_path, text)
    with pytest.raises(FormatError, match=message) as caught:
        yaml_files.read_files([path])
    assert str(path) in str(caught.value)
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_key_of_two_files_names_both(tmp_path: Path) -> None:
    paths = written(tmp_path, "seq-length: 1\n", "seq_length: 1\n")
    with pytest.raises(FormatError, match=rf"'seq_length' is in {paths[0]} too \({paths[1]}\)"):
        yaml_files.read_files(paths)


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yml").write_bytes(b"a: \xff\n")
    with pytest.raises(FormatError, match="not UTF-8"):
        yaml_files.read_files([tmp_path / "x.yml"])


def test_a_missing_parser_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigError, match="needs PyYAML"):
        yaml_files.read_files(written(tmp_path, "a: 1"))
