"""`monai-sr benchmark speed`: what it measures and writes. No test depends on how long anything takes."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.backends.opening import open_backend
from monai_sr_bundle.benchmark import speed_process
from monai_sr_bundle.benchmark.measure import measure
from monai_sr_bundle.benchmark.protocol import read_protocol
from monai_sr_bundle.benchmark.speed import RESULTS, TABLE, measure_speed
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.datasets.phantom_set import write_phantom_set
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.families.family import Inference
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.shipped_bundles import configs_dir, find_bundle

EDSR = "chest_xray_edsr_x4"


@pytest.fixture(scope="module")
def protocol(tmp_path_factory):
    """The shipped protocol with three rows, one of which cannot run: its bundle has no ONNX file."""
    content = yaml.safe_load((configs_dir() / "protocols" / "chest_xray_speed.yaml").read_text(encoding="utf-8"))
    content["rows"] = [
        {"method": EDSR, "label": "EDSR", "backend": "onnx"},
        {"method": EDSR, "label": "EDSR", "backend": "openvino"},
        {"method": "chest_xray_srcnn_x4", "label": "SRCNN", "backend": "onnx"},
    ]
    content |= {"reference": f"{EDSR}@onnx", "limit": 2, "sets": [], "reduce": 1}
    path = tmp_path_factory.mktemp("protocol") / "quick.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def measured(protocol, tmp_path_factory):
    folder = tmp_path_factory.mktemp("speed")
    write_phantom_set(folder / "data" / "cxr_nih", "CXR", size=128)
    words = ["--protocol", protocol, "--sizes", 32, 48, "--threads", 1, "--rounds", 1, "--progress", "none"]
    assert (
        main(["benchmark", "speed", "--data", str(folder / "data"), "--out", str(folder / "out"), *map(str, words)])
        == 0
    )
    return folder


@pytest.mark.slow
def test_every_row_and_size_is_measured_and_one_that_cannot_run_is_left_out_with_the_reason(measured):
    content = json.loads((measured / "out" / "quick" / RESULTS).read_text())
    rows = {(row["backend"], row["size"]): row for row in content["rows"]}
    assert set(rows) == {("onnx", 32), ("openvino", 32), ("onnx", 48), ("openvino", 48)}
    assert list(content["refused"]) == ["chest_xray_srcnn_x4@onnx"]
    assert "has no model.onnx" in content["refused"]["chest_xray_srcnn_x4@onnx"]
    for row in rows.values():
        assert row["images_per_second"] * row["seconds"] == pytest.approx(1)
        assert 30 < row["peak_mb"] < 1000  # with its libraries, and without PyTorch's
    for size in (32, 48):
        onnx, openvino = rows["onnx", size], rows["openvino", size]
        assert openvino["times_onnx"] == pytest.approx(onnx["seconds"] / openvino["seconds"])
        assert openvino["times_reference"] == openvino["times_onnx"]
        assert onnx["times_onnx"] is None
    assert rows["onnx", 48]["multiply_adds"] == pytest.approx(rows["onnx", 32]["multiply_adds"] * 1.5**2)


@pytest.mark.slow
def test_the_psnr_is_that_of_the_comparison_of_quality(measured, protocol):
    content = json.loads((measured / "out" / "quick" / RESULTS).read_text())
    rows = {(row["backend"], row["size"]): row for row in content["rows"]}
    quality = measure(read_protocol(protocol).only([EDSR]), measured / "data", samples=0)
    for backend in ("onnx", "openvino"):
        expected = np.mean(quality.result(f"{EDSR}@{backend}").figures["psnr"])
        assert rows[backend, 32]["psnr"] == pytest.approx(expected, abs=1e-4)
    assert rows["onnx", 48]["psnr"] is None  # drawn, without an original


@pytest.mark.slow
def test_the_table_says_what_was_measured_and_what_was_not(measured):
    text = (measured / "out" / "quick" / TABLE).read_text()
    assert "| EDSR | openvino | 48 x 48 | 1 |" in text
    assert "Not measured: chest_xray_srcnn_x4@onnx: bundle chest_xray_srcnn_x4 has no model.onnx." in text
    assert "G multiply-adds a second on 1 thread." in text


@pytest.mark.slow
def test_an_older_result_is_not_replaced_unasked(measured, protocol, capsys):
    words = ["benchmark", "speed", "--out", str(measured / "out"), "--protocol", str(protocol), "--progress", "none"]
    assert main(words) != 0
    assert "exists already" in capsys.readouterr().err


def test_a_bundle_of_another_degradation_has_no_place_in_the_table(protocol):
    with pytest.raises(BundleError, match=f"bundle {EDSR} has operator bicubic_antialias_x4, the protocol area_x4"):
        measure_speed(replace(read_protocol(protocol), operator="area_x4"))


def test_a_row_enlarges_as_its_family_does(tmp_path):
    image = draw_phantom(40).astype(np.float32)
    np.save(tmp_path / "image.npy", image[None])
    facts = {"row": {"method": EDSR, "label": "EDSR", "backend": "onnx"}, "scale": 4}
    ended = subprocess.run(
        [sys.executable, "-m", "monai_sr_bundle.benchmark.speed_process", json.dumps(facts)],
        input=f"{tmp_path / 'image.npy'}\t{tmp_path / 'result.npy'}\n",
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    ready, answer = map(json.loads, ended.stdout.splitlines())
    assert ready == {"ready": True}
    assert set(answer) == {"seconds", "peak_bytes"}
    bundle = find_bundle(EDSR)
    options = bundle.family.resolve(SamplerOptions())
    inference = Inference(open_backend(bundle, "onnx"), options)
    expected = bundle.family.enlarge_slice(image, inference, limits=(0.0, 1.0))
    np.testing.assert_array_equal(np.load(tmp_path / "result.npy"), expected)


def test_an_interpolation_has_no_speed(capsys, monkeypatch):
    facts = {"row": {"method": "bicubic", "label": "Bicubic"}, "scale": 4}
    monkeypatch.setattr("sys.argv", ["speed_process", json.dumps(facts)])
    assert speed_process.main() == 0
    assert "bicubic: speed is measured of bundles that enlarge in the plane" in capsys.readouterr().out


def test_a_row_of_speed_imports_no_pytorch_unless_it_runs_it():
    code = (
        "import sys; from monai_sr_bundle.benchmark import speed_process as process;"
        f"process._enlarger({{'method': {EDSR!r}, 'label': '', 'backend': 'onnx'}}, 4);"
        "print([name for name in ('torch', 'monai') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert ended.stdout == "[]\n"


@pytest.mark.slow
def test_test_images_of_another_size_are_refused(measured, protocol, tmp_path, capsys):
    words = ["benchmark", "speed", "--out", str(tmp_path), "--protocol", str(protocol), "--progress", "none"]
    assert main([*words, "--data", str(measured / "data"), "--sizes", "64"]) != 0
    assert "32x32 pixels after the reduction, but the smallest of --sizes is 64" in capsys.readouterr().err
