"""Some kills of each command; `make kills` makes more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kills.run import Whole, find_losses, find_remains
from tests.kills.scenarios import SCENARIOS

WHOLE = Whole(older={"a": "old"}, newer={"a": "new", "b": "new"}, inputs={}, steps=1, seconds=1.0)


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A folder in which nothing was changed yet."""
    for name in ("in", "out", "tmp"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_a_lost_older_result_and_a_changed_input_are_found(case):
    scenario = SCENARIOS[0]
    assert find_losses(scenario, WHOLE, case) == ["a is lost"]
    (case / "in" / "film.png").touch()
    assert find_losses(scenario, WHOLE, case) == ["an input changed", "a is lost"]


def test_a_half_file_under_a_final_name_is_found(case):
    (case / "out" / "a").write_bytes(b"half")
    (loss,) = find_losses(SCENARIOS[0], WHOLE, case)
    assert loss.startswith("a is neither the older nor the newer one")


def test_what_is_missing_or_left_behind_is_found(case):
    (case / "out" / ".monai-sr-left").mkdir()
    (case / "tmp" / "left").touch()
    assert find_remains(SCENARIOS[0], WHOLE, case) == [
        "a: missing, expected new",
        "b: missing, expected new",
        "left behind: out/.monai-sr-left",
        "left behind: tmp/left",
    ]


@pytest.mark.slow
def test_a_kill_of_each_command_loses_nothing(tmp_path):
    words = ["--points", str(len(SCENARIOS)), "--kept", str(tmp_path)]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.kills.run", *words], capture_output=True, text=True, check=False, timeout=1100
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
