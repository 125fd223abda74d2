"""Files that appear whole, and folders that one process has for itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pile_tools import files

#: Takes the folder again and again, fills it and leaves nothing behind, as a job does that was published.
TAKER = """
import sys, time
from pathlib import Path
from pile_tools import files
from pile_tools.errors import PileError

folder, seen, end = Path(sys.argv[1]), Path(sys.argv[2]), time.monotonic() + 1.5
n_taken = 0
while time.monotonic() < end:
    try:
        with files.locked(folder, "has it"):
            seen.open("x").close()
            n_taken += 1
            (folder / "state.json").write_text("{}")
            (folder / "d.bin").write_text("tokens")
            files.clear(folder)
            seen.unlink()
    except PileError as err:
        assert "another process has it" in str(err), err
print(n_taken)
"""


def test_a_folder_is_held_by_one_process_at_a_time_and_gone_after_the_last(tmp_path: Path) -> None:
    folder, seen = tmp_path / "d.partial", tmp_path / "seen"
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", TAKER, str(folder), str(seen)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    ended = [(*taker.communicate(timeout=60), taker.returncode) for taker in takers]
    for output, errors, code in ended:
        assert code == 0, errors
        assert int(output) > 0
    assert not folder.exists()


def test_a_folder_with_something_in_it_stays(tmp_path: Path) -> None:
    folder = tmp_path / "d.partial"
    with files.locked(folder, "has it"):
        (folder / "d.bin").write_text("tokens")
    with files.locked(folder, "has it"):
        assert (folder / "d.bin").read_text() == "tokens"
