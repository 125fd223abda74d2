"""No command replaces its own inputs, or the artifact to which one of them belongs, whatever its options."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.commands.conftest import MODULES, World
from tests.conftest import Run

from pile_tools.publish import PAGE_MARK

#: Command lines whose last word is the output, and what they read.
SINGLE = {
    "pile-tools batch tokens --step 1 --force --npy": ["tokens/*"],
    "pile-tools batch rows --step 0 --batch-size 1 --force --npy": ["rows/*"],
    "pile-tools export tokens --steps 0:1 --force -o": ["tokens/*", "tokenizer.json"],
    "pile-tools mixture tokens --every 2 --plot": ["tokens/*"],
    "pile-tools when tokens --file text.txt --plot": ["tokens/*", "text.txt"],
    "pile-tools count-terms terms.txt tokens --plot": ["tokens/*", "terms.txt"],
    "pile-tools count-ngrams tokens/sample --plot": ["tokens/sample.*"],
    "pile-tools trace-text tokens/sample text.txt -o": ["tokens/sample.*", "text.txt"],
    "pile-train neox-config neox.yml --tokenizer tokenizer.json --force -o": ["neox.yml", "tokenizer.json"],
}
STUDY = "pile-study memorization run --rows 8 --prompt-tokens 8 --continuation-tokens 8 --force -o"
#: The same, for folders.
FOLDERS = [f"{STUDY} run", f"{STUDY} run/checkpoints/step0", "pile-tools dedup near shards --force -o shards"]


def files_of(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture
def copied(world: World, tmp_path: Path) -> World:
    """A copy of the artifacts, which a wrong command may damage."""
    folder = tmp_path / "world"
    shutil.copytree(world.folder, folder)
    return World(folder)


@pytest.mark.parametrize("line", SINGLE, ids=lambda line: " ".join(line.split()[1:3]))
def test_a_single_file_is_not_written_over_what_it_is_made_from(copied: World, line: str) -> None:
    before = files_of(copied.folder)
    read = [path for pattern in SINGLE[line] for path in copied.folder.glob(pattern) if path.is_file()]
    assert len(read) >= len(SINGLE[line])
    for path in read:
        done = copied.call(*line.split(), path)
        assert done.code in (1, 2), (path, done)
    assert files_of(copied.folder) == before


def test_an_order_given_by_its_array_is_not_replaced(copied: World) -> None:
    (shuffle,) = (copied.folder / "tokens").glob("*_shuffle_idx.npy")
    foreign = copied.folder / "foreign"
    foreign.mkdir()
    for path in (copied.folder / "tokens").glob("sample*"):
        if path.suffix in (".npy", ".bin", ".idx"):
            shutil.copyfile(path, foreign / path.name)
    before = files_of(foreign)
    for name in before:
        path = foreign / name
        done = copied.call(
            "pile-tools",
            "batch",
            foreign / shuffle.name,
            "--step",
            0,
            "--batch-size",
            2,
            "--force",
            "--npy",
            path,
        )
        assert done.code == 2, (name, done)
        assert "is one of the inputs" in done.err
    assert files_of(foreign) == before


@pytest.mark.parametrize(
    "line", ["trace-text tokens/sample FILE -o FILE", "when tokens --file FILE --plot FILE"]
)
def test_a_page_that_is_read_is_not_replaced(copied: World, line: str) -> None:
    page = copied.folder / "page.html"
    page.write_text(f"{PAGE_MARK}\nalpha beta\n")
    before = page.read_bytes()
    done = copied.call("pile-tools", *line.replace("FILE", page.name).split())
    assert done.code == 2, done
    assert "is one of the inputs" in done.err
    assert page.read_bytes() == before


@pytest.mark.parametrize(
    "line",
    [
        "when tokens alpha --tokenizer FILE --plot FILE",
        "trace-text tokens/sample text.txt --tokenizer FILE -o FILE",
        "count-terms terms.txt tokens --tokenizer FILE --plot FILE",
    ],
)
def test_a_tokenizer_that_holds_the_mark_of_pages_is_not_replaced(copied: World, line: str) -> None:
    tokenizer = copied.folder / "tokenizer.html"
    held = json.loads((copied.folder / "tokenizer.json").read_text())
    added = held.pop("added_tokens")
    marked = {**added[-1], "id": len(held["model"]["vocab"]), "content": PAGE_MARK}
    # The mark is looked for at the start of a file.
    tokenizer.write_text(json.dumps({"added_tokens": [marked, *added], **held}))
    before = tokenizer.read_bytes()
    done = copied.call("pile-tools", *line.replace("FILE", tokenizer.name).split())
    assert done.code == 1, done
    assert "is not from pile-tools" in done.err
    assert tokenizer.read_bytes() == before


def test_a_page_of_an_artifact_is_not_replaced(copied: World) -> None:
    before = files_of(copied.folder)
    done = copied.call("pile-tools", "mixture", "tokens", "--every", 2, "--plot", "report.html")
    assert done.code == 1, done
    assert "is not from pile-tools" in done.err
    done = copied.call("pile-tools", "batch", "tokens", "--step", "0", "--force", "--npy", "report.html")
    assert done.code == 2, done
    assert "is a file of another output" in done.err
    assert files_of(copied.folder) == before
    # Nor is another file put where it was.
    (copied.folder / "report.html").unlink()
    for line in ("mixture tokens --every 2 --plot", "batch tokens --step 0 --npy"):
        done = copied.call("pile-tools", *line.split(), "report.html")
        assert done.code == 2, done
        assert "is a file of another output" in done.err
    assert files_of(copied.folder).keys() == before.keys() - {"report.html"}


@pytest.mark.parametrize(
    "line",
    [
        "export tokens --steps 0:1 --tokenizer t.csv --force -o t.csv",
        "batch tokens --step 0 --tokenizer t.npy --force --npy t.npy",
        "merge P P --force -o P-00000-of-00000",
        "merge q --force -o q.bin",
    ],
)
def test_a_tokenizer_or_the_tokens_of_a_prefix_are_not_replaced(copied: World, line: str) -> None:
    folder = copied.folder
    for name in ("t.csv", "t.npy"):
        shutil.copyfile(folder / "tokenizer.json", folder / name)
    for name in ("P", "q"):
        shutil.copyfile(folder / "tokens" / "sample.idx", folder / f"{name}.idx")
    shutil.copyfile(folder / "tokens" / "sample.bin", folder / "P-00000-of-00000.bin")
    # Tokens that were joined have a manifest of their own.
    assert copied.call("pile-tools", "unshard", "sharded", "-o", "q.bin").code == 0
    before = files_of(folder)
    done = copied.call("pile-tools", *line.split())
    assert done.code == 2, done
    assert "is one of the inputs" in done.err
    assert files_of(folder) == before


def test_a_report_does_not_replace_the_tokenizer_of_its_run(copied: World) -> None:
    before = files_of(copied.folder)
    line = "pile-study report run --memorization study --force -o tokenizer.html"
    done = copied.call(*line.split())
    assert done.code == 2, done
    assert files_of(copied.folder) == before


@pytest.mark.parametrize("line", FOLDERS)
def test_an_artifact_with_an_input_is_not_replaced(copied: World, line: str) -> None:
    before = files_of(copied.folder)
    done = copied.call(*line.split())
    assert done.code == 2, done
    assert files_of(copied.folder) == before


def test_a_folder_whose_checkpoints_are_read_is_not_replaced(copied: World) -> None:
    (copied.folder / "trained" / "checkpoints" / "step2").mkdir(parents=True)
    (copied.folder / "trained" / "manifest.json").write_text("of a run")
    before = files_of(copied.folder)
    line = "contamination items.jsonl tokens --checkpoints trained --force -o"
    for output in ("trained", "trained/checkpoints"):
        done = copied.call("pile-tools", *line.split(), output)
        assert done.code == 2, done
        assert "the output is in the folder of the checkpoints" in done.err
    assert files_of(copied.folder) == before


@pytest.mark.parametrize(
    ("scratch", "line"),
    [
        ("new/run.json.partial", "pile-train new.toml --threads 1"),
        ("study2.partial", f"{STUDY.replace('run', 'new', 1)} study2"),
        ("b.npy.partial", "pile-tools batch order2 --step 0 --npy b.npy"),
        ("rows.csv.partial", "pile-tools export order2 --steps 0:1 --tokenizer tokenizer.json -o rows.csv"),
    ],
)
def test_tokens_in_a_scratch_folder_stay(copied: World, cli: Run, scratch: str, line: str) -> None:
    """Those of an order, which the request for what is made from it does not name."""
    folder = copied.folder / scratch
    folder.mkdir(parents=True)
    (folder / "pile-tools.lock").touch()
    for suffix in (".bin", ".idx"):
        shutil.copyfile(copied.folder / f"tokens/sample{suffix}", folder / f"sample{suffix}")
    order = f"pile-tools order {scratch}/sample -o order2 --seq-length 16 --steps 4 --batch-size 2"
    assert copied.call(*order.split()).code == 0
    config = ['order = "order2"', 'output = "new"', 'tokenizer = "tokenizer.json"', "checkpoint_every = 4"]
    config += ["[model]", "hidden_size = 16", "n_layers = 2", "n_heads = 2", "[optimizer]", "lr = 0.01"]
    (copied.folder / "new.toml").write_text("\n".join(config))

    # DeepSpeed changes the process it runs in.
    def call(program: str, *words: str) -> tuple[int, str]:
        done = cli(*words, module=MODULES[program], cwd=copied.folder)
        return done.returncode, done.stderr

    if line.startswith("pile-study"):
        assert call("pile-train", "new.toml", "--threads", "1")[0] == 0
    before = files_of(folder)
    code, error = call(*line.split())
    assert code == 2, error
    assert "is in the scratch folder of the output" in error
    assert files_of(folder) == before


def test_the_index_of_shards_is_not_replaced(copied: World) -> None:
    tokens = copied.folder / "tokens/sample.bin"
    assert copied.call("pile-tools", "shard", tokens, "-o", "tokens", "--bytes", 2000).code == 0
    tokens.unlink()
    before = files_of(copied.folder)
    done = copied.call("pile-tools", "unshard", "tokens", "-o", "tokens/sample.idx", "--force")
    assert (done.code, "the output is one of the inputs" in done.err) == (2, True), done
    assert files_of(copied.folder) == before
