"""Everything that ever failed is read again, and new cases for a minute; what the fuzzer counts."""

from __future__ import annotations

import faulthandler
import os
from pathlib import Path

import pytest

from tests.fuzz import readers
from tests.fuzz.readers import READERS, Reader
from tests.fuzz.run import OUTCOMES, Fuzzer, case_files, main, run_case, unpack_case

CORPUS = Path(__file__).parent / "corpus"
CASES = sorted(CORPUS.glob("*/*.zip"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}-{case.stem}")
def test_what_once_failed_is_read_or_refused(case):
    assert run_case(case.parent.name, unpack_case(case)) in OUTCOMES


@pytest.mark.parametrize("name", READERS)
def test_the_files_that_cases_begin_with_are_read(name):
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


@pytest.mark.parametrize(("read", "reason"), [(fail, "ZeroDivisionError"), (end, "the process ends (SIGABRT)")])
def test_an_uncaught_error_and_an_end_of_the_process_are_counted_and_a_run_goes_on(tmp_path, monkeypatch, read, reason):
    monkeypatch.setitem(readers.READERS, "manifest", Reader(READERS["manifest"].seeds, read))
    monkeypatch.setattr("tests.fuzz.run.BATCH", 3)
    monkeypatch.setattr(Fuzzer, "_warm_up", lambda *_: None)
    for cases in (3, 6):
        fuzzer = Fuzzer(tmp_path, ["manifest"])
        fuzzer.run(batches=1)
        assert fuzzer.failures == cases
        assert any(reason in outcome for outcome in fuzzer.counts["manifest"])
    assert {path.stem for path in (tmp_path / "failures" / "manifest").iterdir()} <= {
        str(number) for number in range(6)
    }


@pytest.mark.slow
def test_a_minute_of_new_cases(tmp_path, capsys):
    assert main(["--minutes", "1", "--state", str(tmp_path)]) == 0, capsys.readouterr().out
