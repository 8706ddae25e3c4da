"""Everything that ever failed is read again, and new cases for a minute; what the fuzzer counts."""

from __future__ import annotations

import faulthandler
import os
from pathlib import Path

import pytest

from tests.fuzz import readers
from tests.fuzz.readers import READERS, Reader
from tests.fuzz.run import MEMORY_BYTES, OUTCOMES, Fuzzer, case_files, main, run_case, unpack_case

CORPUS = Path(__file__).parent / "corpus"
CASES = sorted(CORPUS.glob("*/*.zip"))


def require(name: str) -> None:
    if not READERS[name].is_installed():
        missing = READERS[name].needs
        pytest.skip(f"damaged files for the reader {name!r}: {missing} is not installed; `make test-label` runs it")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}-{case.stem}")
def test_what_once_failed_is_read_or_refused(case):
    require(case.parent.name)
    assert run_case(case.parent.name, unpack_case(case)) in OUTCOMES


@pytest.mark.parametrize("name", READERS)
def test_the_files_that_cases_begin_with_are_read(name):
    require(name)
    for seed in READERS[name].seeds()[:3]:
        assert run_case(name, seed) == "read"


def test_a_case_is_repeated_by_its_number():
    assert case_files("nifti", 7) == case_files("nifti", 7)
    assert case_files("nifti", 7) != case_files("nifti", 8)


def fail(folder: Path) -> None:
    raise ZeroDivisionError


def end(folder: Path) -> None:
    faulthandler.disable()
    os.abort()


def go_on(folder: Path) -> None:
    while True:
        pass


def take_memory(folder: Path) -> None:
    bytearray(2 * MEMORY_BYTES)


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (fail, "ZeroDivisionError"), (end, "the process ends (SIGABRT)"), (go_on, "takes more than"),
        (take_memory, "MemoryError"),
    ],
)  # fmt: skip
def test_each_case_that_fails_is_counted_once_and_a_run_goes_on(tmp_path, monkeypatch, capsys, read, reason):
    monkeypatch.setitem(readers.READERS, "manifest", Reader(READERS["manifest"].seeds, read))
    monkeypatch.setattr("tests.fuzz.run.BATCH", 3)
    monkeypatch.setattr("tests.fuzz.run.HANG_SECONDS", 0.2)
    monkeypatch.setattr(Fuzzer, "_warm_up", lambda *_: None)
    for cases in (3, 6):
        fuzzer = Fuzzer(tmp_path, ["manifest"])
        fuzzer.run(batches=1)
        failures = fuzzer.tallies["manifest"].failures
        assert list(failures) == [str(number) for number in range(cases)]
        assert all(reason in outcome for outcome in failures.values())
    assert {path.stem for path in (tmp_path / "failures" / "manifest").iterdir()} <= failures.keys()
    capsys.readouterr()
    assert main(["--minutes", "0", "--state", str(tmp_path)]) == 1
    assert f"manifest 5: FAILURE {reason}" in capsys.readouterr().out


def test_a_case_that_failed_is_read_again_and_counts_by_how_it_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.fuzz.run.BATCH", 3)
    monkeypatch.setattr(Fuzzer, "_warm_up", lambda *_: None)
    for read, failures in ((fail, 3), (lambda folder: None, 0)):
        monkeypatch.setitem(readers.READERS, "manifest", Reader(READERS["manifest"].seeds, read))
        fuzzer = Fuzzer(tmp_path, ["manifest"])
        fuzzer.run(batches=1)
        assert fuzzer.failures == failures
    assert fuzzer.tallies["manifest"].read == 6


@pytest.mark.slow
def test_a_minute_of_new_cases(tmp_path, capsys):
    assert main(["--minutes", "1", "--state", str(tmp_path)]) == 0, capsys.readouterr().out
