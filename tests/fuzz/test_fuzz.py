"""Everything that ever failed is read again, then new cases: each is read, or refused by an error of ours.

`make fuzz` makes new ones for minutes. The smallest case of each error stays in `build/fuzz`; once it is mended, move
the zip to `corpus/READER`, where it is read again from then on.
"""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from monai_sr_bundle.errors import InputError

from tests.fuzz import readers, seeds
from tests.fuzz.readers import MEMORY_BYTES, READERS, Reader, run_case
from tests.fuzz.strategies import cases

CORPUS = Path(__file__).parent / "corpus"
STATES = (b"/infer/chest_xray_edsr_x4", b"/train/chest_xray_edsr_x4", b"/auth/token")
"""What the Label server of the cases refuses for its state: places that are taken, too few images, an unknown token."""

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _needs_its_reader(request: pytest.FixtureRequest) -> None:
    if "label" in request.node.name and find_spec("monailabel") is None:
        pytest.skip("damaged requests to the Label server: monailabel is not installed; `make test-label` runs it")


@pytest.mark.parametrize("case", sorted(CORPUS.glob("*/*.zip")), ids=lambda case: f"{case.parent.name}-{case.stem}")
def test_what_once_failed_is_read_or_refused(case):
    run_case(case.parent.name, seeds.unzip_files(case.read_bytes()))


@pytest.mark.parametrize("name", READERS)
def test_the_files_that_cases_begin_with_are_read(name):
    for seed in READERS[name].seeds() if name == "label" else READERS[name].seeds()[:3]:
        is_refused = name == "label" and any(path in seed["request.json"] for path in STATES)
        assert run_case(name, seed) == ("refused" if is_refused else "read")


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
def test_damaged_and_odd_files_are_read_or_refused(name, data):
    event(run_case(name, data.draw(cases(READERS[name].seeds()))))


def fail(folder: Path) -> None:
    raise ZeroDivisionError


def name_no_file(folder: Path) -> None:
    raise InputError("Something is wrong.")


def go_on(folder: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        pass


def take_memory(folder: Path) -> None:
    bytearray(2 * MEMORY_BYTES)


@pytest.mark.parametrize(
    ("read", "error"),
    [
        (fail, ZeroDivisionError), (name_no_file, AssertionError), (go_on, pytest.fail.Exception),
        (take_memory, MemoryError),
    ],
)  # fmt: skip
def test_a_case_that_fails_is_kept(tmp_path, monkeypatch, read, error):
    monkeypatch.setitem(READERS, "manifest", Reader(READERS["manifest"].seeds, read))
    monkeypatch.setattr(readers, "FAILURES", tmp_path)
    monkeypatch.setattr(readers, "HANG_SECONDS", 0.2)
    seed = READERS["manifest"].seeds()[0]
    with pytest.raises(error):
        run_case("manifest", seed)
    (case_file,) = (tmp_path / "manifest").iterdir()
    assert case_file.stem == error.__name__
    assert seeds.unzip_files(case_file.read_bytes()) == seed
