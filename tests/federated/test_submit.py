"""Refusals of `monai-sr federated submit` before it asks the server for anything."""

import json

import pytest

pytest.importorskip("nvflare", reason="federated training: nvflare is not installed (extra [federated])")

from monai_sr_bundle.errors import InputError
from monai_sr_bundle.federated.submit import MODEL, run_study
from tests.federated.conftest import study


def test_a_study_that_has_all_its_rounds_does_not_go_on(tmp_path):
    done = tmp_path / "done"
    done.mkdir()
    (done / MODEL).write_bytes(b"weights")
    rounds = [{"round": number, "sites": {}, "answered": 3, "missing": []} for number in range(2)]
    (done / "rounds.json").write_text(json.dumps([*rounds, {"round": 2, "sites": {}, "answered": 3}]))
    with pytest.raises(InputError, match="has all 2 rounds of the study already; its model is .*FL_global_model.pt"):
        run_study(None, study(rounds=2), tmp_path / "out", continued=done)
    assert not (tmp_path / "out").exists()
