"""Values of every kind in the files that readers read: each is read, or refused by an error of ours."""

from __future__ import annotations

import io
import json
import struct

import pytest
import yaml

pytest.importorskip("hypothesis", reason="property tests: hypothesis is not installed (extra [dev])")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from tests.fuzz import seeds
from tests.fuzz.mutations import KEYWORDS
from tests.fuzz.run import OUTCOMES, run_case
from tests.fuzz.strategies import dicom_values, json_values, numbers

in_a_few_seconds = settings(
    max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@in_a_few_seconds
@given(keyword=st.sampled_from(KEYWORDS), value=dicom_values(), seed=st.integers(0, 5))
def test_any_value_of_a_dicom_element(keyword, value, seed):
    dataset = dcmread(io.BytesIO(seeds.dicom()[seed]["x.dcm"]))
    tag, (representation, content) = Tag(keyword), value
    dataset._dict[tag] = RawDataElement(tag, representation, len(content), content, 0, False, True)
    buffer = io.BytesIO()
    try:
        dataset.save_as(buffer, enforce_file_format=False)
    except Exception:
        return  # pydicom does not write it
    assert run_case("dicom", {"x.dcm": buffer.getvalue()}) in OUTCOMES


@in_a_few_seconds
@given(offset=st.integers(4, 340), content=st.binary(min_size=8, max_size=8))
def test_any_bytes_in_a_nifti_header(offset, content):
    data = bytearray(seeds.nifti()[0]["x.nii"])
    data[offset : offset + 8] = content
    assert run_case("nifti", {"x.nii": bytes(data)}) in OUTCOMES


@in_a_few_seconds
@given(scale=st.tuples(st.floats(width=32), st.floats(width=32)))
def test_any_scaling_of_a_nifti(scale):
    data = bytearray(seeds.nifti()[0]["x.nii"])
    data[112:120] = struct.pack("<2f", *scale)
    assert run_case("nifti", {"x.nii": bytes(data)}) in OUTCOMES


@in_a_few_seconds
@given(data=st.data())
def test_any_value_in_a_calibration(data):
    content = json.loads(seeds.calibrations()[0]["calibration.json"])
    holder = data.draw(st.sampled_from([content, content["entries"][0]]))
    holder[data.draw(st.sampled_from(sorted(holder)))] = data.draw(json_values)
    assert run_case("calibration", {"calibration.json": json.dumps(content).encode()}) in OUTCOMES


@in_a_few_seconds
@given(data=st.data())
def test_any_value_in_readings(data):
    files = dict(seeds.boxes()[0])
    content = json.loads(files["x.json"])
    reading = content["readings"][0]
    holder = data.draw(st.sampled_from([content, reading, reading["image"], reading["boxes"][0]]))
    holder[data.draw(st.sampled_from(sorted(holder)))] = data.draw(json_values)
    files["x.json"] = json.dumps(content).encode()
    assert run_case("boxes", files) in OUTCOMES


@in_a_few_seconds
@given(data=st.data())
def test_any_value_in_the_texts_of_a_bundle(data):
    files = dict(data.draw(st.sampled_from(seeds.bundles())))
    facts = yaml.safe_load(files["b/model.yaml"])
    facts[data.draw(st.sampled_from(sorted(facts)))] = data.draw(json_values)
    files["b/model.yaml"] = yaml.safe_dump(facts, allow_unicode=True).encode("utf-8", "replace")
    assert run_case("bundle", files) in OUTCOMES


@in_a_few_seconds
@given(data=st.data())
def test_any_value_in_a_request_of_a_viewer(data):
    files = dict(data.draw(st.sampled_from(seeds.requests()[:2])))
    request = json.loads(files["request.json"])
    request[data.draw(st.sampled_from(sorted(request)))] = data.draw(json_values)
    files["request.json"] = json.dumps(request).encode()
    assert run_case("request", files) in OUTCOMES


@in_a_few_seconds
@given(line=st.one_of(st.binary(max_size=80), numbers.map(lambda number: str(number).encode())))
def test_any_bytes_as_a_small_file(line):
    assert run_case("picture", {"x.png": line}) in OUTCOMES
