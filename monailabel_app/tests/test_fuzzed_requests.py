"""Requests with damaged and odd bodies: each is answered, or refused by an error of the server's own."""

from __future__ import annotations

import pytest

from tests.fuzz.readers import READERS
from tests.fuzz.run import OUTCOMES, Fuzzer, run_case, unpack_case
from tests.fuzz.test_fuzzer import CORPUS

CASES = sorted((CORPUS / "label").glob("*.zip"))
STATES = ("/infer/chest_xray_edsr_x4", "/train/chest_xray_edsr_x4", "/auth/token")
"""What the server of the cases refuses for its state: places that are taken, too few images, an unknown token."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_what_once_failed_is_answered_or_refused(case):
    assert run_case("label", unpack_case(case)) in OUTCOMES


@pytest.mark.parametrize("seed", READERS["label"].seeds(), ids=lambda seed: seed["request.json"].decode()[:60])
def test_the_requests_that_cases_begin_with_are_answered(seed):
    is_refused = any(path.encode() in seed["request.json"] for path in STATES)
    assert run_case("label", seed) == ("refused" if is_refused else "read")


def test_new_cases(tmp_path):
    fuzzer = Fuzzer(tmp_path, ["label"])
    fuzzer.run(batches=3)
    assert fuzzer.failures == 0, fuzzer.table()
    assert fuzzer.tallies["label"].read > 0
