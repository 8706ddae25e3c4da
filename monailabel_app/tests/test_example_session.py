"""The session of docs/labelling.md, with a tiny network: from the PACS to a promoted model and back."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
from labelled import tiny_bundle, with_error_bars
from labelling.box_store import check_file
from labelling.formats.exchange import EXPORTS
from processes import has_orthanc


@pytest.mark.skipif(
    not has_orthanc(), reason="PACS: Orthanc (Debian packages orthanc and orthanc-dicomweb) is not here"
)
def test_the_documented_session_runs(tmp_path):
    from example_session import COLOURS, PATIENTS, run_session

    out = tmp_path / "session"
    bundle = with_error_bars(tiny_bundle(tmp_path / "bundles"))
    result = run_session(out, bundles=str(bundle), size=128, iterations=30)
    assert len(result["images"]) == sum(PATIENTS.values())  # the result in the PACS is not offered
    first, second = (version["readings"][0]["boxes"] for version in result["history"])
    assert [box["xyxy"] for box in first] == [box["xyxy"] for box in second]
    assert {box["certainty"] for box in first} != {box["certainty"] for box in second} == {1.0}
    pairs = [pair for each in result["agreement"].values() for pair in each["pairs"]]
    to_consensus = [pair for each in result["agreement"].values() for pair in each["with_consensus"]]
    assert np.mean([pair["overlap"] for pair in to_consensus]) > np.mean([pair["overlap"] for pair in pairs])
    training = result["training"]
    assert training["state"] == "done", training
    assert training["report"]["images"] == PATIENTS
    assert training["promoted"], training["report"]["reason"]
    assert "3 images of 3 patients (CXR), expected at least 50" in training["report"]["error_bars"]
    assert training["report"]["error_bars"] in result["warnings"]
    assert result["stored"] == 1 + 2 * sum(PATIENTS.values())
    assert {name.split("-")[0] for name in result["exports"]} == set(EXPORTS)
    assert result["audit"]["problems"] == []
    assert check_file(result["backup"]) in {row["hash"] for row in result["audit"]["rows"]}
    colours = {tuple(pixel) for pixel in np.asarray(PIL.Image.open(out / "readings.png")).reshape(-1, 3)}
    assert colours >= set(COLOURS.values())
