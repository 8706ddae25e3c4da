from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from monai_sr_bundle.backends.torch_backend import build_network
from monai_sr_bundle.benchmark.film_protocol import FilmProtocol
from monai_sr_bundle.benchmark.methods import open_method
from monai_sr_bundle.benchmark.protocol import (
    PARTS,
    Row,
    check_bundles,
    protocol_names,
    read_protocol,
)
from monai_sr_bundle.benchmark.protocol_choice import choose_protocols, read_any_protocol
from monai_sr_bundle.errors import BundleError, InputError

TEXT = {
    "title": "Two methods", "about": "For tests.", "modality": "CXR", "sets": ["drawn"],
    "operator": "bicubic_antialias_x4", "window": [0, 255], "levels": 255, "reduce": 2,
    "rows": [{"method": "bicubic", "label": "Bicubic"}, {"method": "chest_xray_edsr_x4", "label": "EDSR"}],
}  # fmt: skip

BICUBIC, EDSR = TEXT["rows"]
FLOW = {"method": "chest_xray_residual_flow_x4", "label": "Flow"}
SR3 = {"method": "chest_xray_sr3_x4", "label": "SR3", "steps": 20, "sampler": "ddim", "samples": 2, "seeds": 3}
CEILING = {"method": "chest_xray_sr3_x4", "label": "SR3", "samples": 2, "ceiling": True}


@pytest.fixture
def written(tmp_path):
    def write(**changes):
        content = {key: value for key, value in {**TEXT, **changes}.items() if value is not None}
        path = tmp_path / "two.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def test_a_protocol_says_what_its_text_says(written):
    protocol = read_protocol(written())
    assert (protocol.name, protocol.scale, protocol.split, protocol.reference) == ("two", 4, "test", "bicubic")
    assert protocol.rows == (Row("bicubic", "Bicubic"), Row("chest_xray_edsr_x4", "EDSR"))
    assert not protocol.artifacts
    check_bundles(protocol)


def test_a_row_says_how_to_draw(written):
    protocol = read_protocol(written(limit=5, only_boxes=True, rows=[BICUBIC, SR3]))
    assert (protocol.limit, protocol.only_boxes) == (5, True)
    row = protocol.rows[1]
    assert (row.steps, row.sampler, row.samples, row.seeds) == (20, "ddim", 2, 3)


def test_every_shipped_protocol_reads_and_has_its_reference():
    protocols = [read_any_protocol(name) for name in protocol_names()]
    assert [protocol.name for protocol in protocols] == protocol_names()
    assert {"chest_xray", "chest_xray_external", "chest_xray_artifacts", "chest_ct"} <= set(protocol_names())
    for protocol in protocols:
        expected = {protocol.reference} if getattr(protocol, "speed", False) else {"bicubic", protocol.reference}
        assert expected <= {key for row in protocol.rows for key in (row.method, row.key)}
        assert protocol.split == "test"
        if not isinstance(protocol, FilmProtocol):
            assert protocol.artifacts == (protocol.name in ("chest_xray_artifacts", "chest_xray_anomaly"))


def test_the_same_bundle_by_two_backends_is_two_methods():
    keys = [row.key for row in read_protocol("chest_xray_accelerated").rows]
    assert keys[:3] == ["bicubic", "chest_xray_edsr_x4@torch", "chest_xray_edsr_x4@onnx"]


def test_some_methods_keep_the_reference():
    protocol = read_protocol("chest_xray_accelerated")
    one = protocol.only(["chest_xray_edsr_x4@onnx"])
    assert [row.key for row in one.rows] == ["bicubic", "chest_xray_edsr_x4@onnx"]
    assert len(protocol.only(["chest_xray_edsr_x4"]).rows) == 3
    with pytest.raises(InputError, match="protocol chest_xray_accelerated has no magic; it has bicubic, chest_xray"):
        protocol.only(["magic"])


def test_methods_choose_the_protocols_that_have_them():
    ct = choose_protocols(None, ["chest_ct_edsr_x4"])
    assert [protocol.name for protocol in ct] == ["chest_ct", "chest_ct_scans"]
    quality, trust = choose_protocols(), choose_protocols(trust=True)
    assert [protocol.name for protocol in trust] == ["chest_xray_trust", "chest_xray_trust_external"]
    assert sorted([*(protocol.name for protocol in (*quality, *trust)), "chest_xray_speed"]) == protocol_names()
    with pytest.raises(InputError, match="no protocol asked for has magic; there is bicubic, chest_ct_edsr_x4"):
        choose_protocols(["chest_ct"], ["magic"])


def test_an_unknown_protocol_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="protocol 'magic' is unknown. Available: chest_ct, .*chest_xray"):
        read_protocol("magic")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"operator": None}, "two.yaml: lacks operator; a protocol states title"),
        ({"colour": "red"}, "two.yaml: has the unknown colour; a protocol states title"),
        ({"levels": "many"}, "two.yaml: levels is 'many', expected int. Correct the text."),
        ({"levels": 0}, "two.yaml: levels is 0, expected at least 1"),
        ({"operator": "magic_x4"}, "two.yaml: degradation is 'magic_x4', expected KERNEL_xSCALE"),
        ({"operator": "area_x1"}, "two.yaml: scale is 1, expected at least 2"),
        ({"modality": "MR"}, "two.yaml: modality is 'MR', expected one of CXR, CT"),
        ({"split": "sample"}, "two.yaml: split is 'sample', expected one of train, val, test"),
        ({"window": [255, 0]}, r"two.yaml: window is \[255, 0\], expected two rising numbers"),
        ({"reference": "nearest"}, "two.yaml: the reference nearest is not among the rows bicubic, chest_xray_edsr_x4"),
        ({"limit": 0}, "limit is 0, expected at least 1"),
        ({"processes": ["sr3"]}, "processes names sr3, which is no row. There is bicubic, chest"),
        (
            {"operator": "slab_area_x4"},
            "two.yaml: slab_area_x4 averages slices. Write a protocol with losses and",
        ),
        (
            {"rows": [{**BICUBIC, "method": "bicubic_means"}]},
            "bicubic_means sets the means of thin slices",
        ),
        ({"rows": [{**SR3, "steps": 0}]}, "two.yaml, row 1: steps is 0, expected at least 1"),
        ({"rows": [{**SR3, "steps": "many"}]}, "steps is 'many', expected int"),
        ({"rows": [{**SR3, "sampler": "euler"}]}, "sampler is 'euler', expected one of ddpm, ddim"),
        ({"rows": [CEILING]}, "has samples, but a ceiling draws nothing"),
        ({"rows": [{**EDSR, "ceiling": 3}]}, "ceiling is 3, expected bool"),
        ({"rows": [{**BICUBIC, "seeds": 2}]}, "bicubic has seeds, but an interpolation draws nothing"),
        ({"rows": [{**EDSR, "seed": 3}]}, "has the unknown seed; a row states method, label, backend, sampler, steps"),
        ({"rows": [{**EDSR, "texture": 1.5}]}, "texture is 1.5, expected at least 0 and at most 1"),
        ({"rows": [{"method": "bicubic"}]}, "row 1: lacks label; a row states method, label"),
        ({"rows": ["bicubic"]}, "row 1: is 'bicubic', expected keys with values"),
        ({"rows": TEXT["rows"] * 2}, "two.yaml: bicubic, chest_xray_edsr_x4 stands in more than one row"),
        (
            {"rows": [{**BICUBIC, "without": ["mirror"]}]},
            "bicubic has without, but an interpolation has no parts. L",
        ),
        ({"rows": [{**FLOW, "without": ["texture"]}]}, r"without is \['texture'\], expected a list of consistency and"),
        ({"rows": [{**FLOW, "without": ["consistency"] * 2}]}, "expected a list of consistency and mirror"),
        (
            {"rows": [{**FLOW, "without": ["mirror"]}]},
            "x4 is to be measured without mirror on the backend auto, but an ONNX graph holds the mirror image. Write",
        ),
        (
            {"rows": [{**BICUBIC, "backend": "magic"}]},
            "backend is 'magic', expected one of auto, torch, onnx, op",
        ),
    ],
)
def test_a_wrong_text_is_refused(written, changes, message):
    with pytest.raises(InputError, match=message):
        read_protocol(written(**changes))


def test_a_bundle_is_measured_without_parts_that_it_has(written):
    row = {**FLOW, "without": ["consistency"]}
    protocol = read_protocol(written(rows=[BICUBIC, FLOW, row]))
    check_bundles(protocol)
    _, whole, bare = protocol.rows
    assert bare.key == f"{FLOW['method']}+without=consistency"
    assert (whole.bundle().family.consistency, bare.bundle().family.consistency) == (True, False)


def test_a_bundle_is_measured_without_its_mirror_image():
    row = Row("chest_ct_residual_flow_x4", "", backend="torch")
    assert build_network(row.bundle()).mirror
    assert not build_network(replace(row, without=("mirror",)).bundle()).mirror


def test_a_bundle_of_several_scales_is_measured_at_that_of_the_protocol(written):
    several = {"method": "chest_xray_blind", "label": "MDSR"}
    protocol = read_protocol(written(operator="bicubic_antialias_x2", rows=[BICUBIC, several]))
    check_bundles(protocol)
    method = open_method(protocol.rows[1], protocol, "cpu")
    assert method.enlarge(np.zeros((1, 16, 24), np.float32), torch.zeros(1, 1, 32, 48), 0).shape == (32, 48)
    with pytest.raises(
        BundleError, match="chest_xray_edsr_x4 has operator bicubic_antialias_x4, the protocol bicubic_"
    ):
        check_bundles(read_protocol(written(operator="bicubic_antialias_x2", rows=[BICUBIC, EDSR])))


@pytest.mark.parametrize("part", PARTS)
def test_a_bundle_is_not_measured_without_what_it_does_not_have(written, part):
    row = {**EDSR, "backend": "torch", "without": [part]}
    with pytest.raises(BundleError, match=f"bundle chest_xray_edsr_x4 has no {part}. Take it out of `without`."):
        check_bundles(read_protocol(written(rows=[BICUBIC, row])))


def test_a_text_that_is_no_yaml_is_refused(tmp_path):
    (tmp_path / "bad.yaml").write_text("rows: [")
    with pytest.raises(InputError, match="bad.yaml: is no YAML"):
        read_any_protocol(tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_text("hello")
    with pytest.raises(InputError, match="bad.yaml: is 'hello', expected keys with values"):
        read_any_protocol(tmp_path / "bad.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"operator": "area_x4"}, "has operator bicubic_antialias_x4, the protocol area_x4"),
        ({"operator": "bicubic_antialias_x2"}, "has operator bicubic_antialias_x4, the protocol bicubic_antialias_x2"),
        ({"modality": "CT"}, "has modality CXR, the protocol CT"),
        ({"window": [0, 200]}, r"has window \(0.0, 255.0\), the protocol \(0.0, 200.0\)"),
        ({"levels": 1400}, "has levels 255, the protocol 1400"),
    ],
)
def test_a_bundle_made_for_something_else_is_refused(written, changes, message):
    with pytest.raises(BundleError, match=f"protocol two: bundle chest_xray_edsr_x4 {message}. Degradation operators"):
        check_bundles(read_protocol(written(**changes)))
