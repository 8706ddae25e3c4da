from dataclasses import replace

import numpy as np
import pytest
import torch
from monai_sr_bundle.backends.torch_backend import build_network
from monai_sr_bundle.benchmark import methods as module
from monai_sr_bundle.benchmark.comparison import FIGURES, TRUST_FIGURES
from monai_sr_bundle.benchmark.measure import measure, require_measurable
from monai_sr_bundle.benchmark.multiply_adds import multiply_adds
from monai_sr_bundle.benchmark.protocol import Row
from monai_sr_bundle.benchmark.training_curve import TrainingTime, gained_until
from monai_sr_bundle.benchmark.workers import Workers
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.metrics.fidelity import PSNR
from monai_sr_bundle.networks.bicubic import Bicubic
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.transforms.augmentation import draw_artifacts
from monai_sr_bundle.transforms.pairs import LoadHighResd, pair_items

from tests.benchmark.drawn_protocol import drawn_protocol
from tests.changed_bundles import copied, damaged, signed, with_facts, with_metadata
from tests.drawn_data import write_radiographs, write_volumes

ROWS = (Row("nearest", "Nearest"), Row("bicubic", "Bicubic"), Row("chest_xray_edsr_x4", "EDSR"))
DRAWN = drawn_protocol(*ROWS, reduce=2)


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    data = write_radiographs(tmp_path_factory.mktemp("data"), size=192, counts=(("test", 5),))
    boxes = "image,finding,x_min,y_min,x_max,y_max\ndrawn/images/test3.png,Mass,40,60,100,140\n"
    (data / "drawn" / "boxes.csv").write_text(boxes)
    return data


@pytest.fixture(scope="module")
def comparison(radiographs):
    return measure(DRAWN, radiographs, samples=2)


def test_every_method_has_one_number_per_image_and_figure(comparison):
    assert comparison.images == [f"test{index}" for index in range(5)]
    assert comparison.patients == [f"patient-{index}" for index in range(5)]
    assert [result.method for result in comparison.results] == ["nearest", "bicubic", "chest_xray_edsr_x4"]
    for result in comparison.results:
        assert set(result.figures) | set(comparison.unavailable) == set(FIGURES) - {
            "artifact_energy_removed",
            *TRUST_FIGURES,
        }
        assert all(len(values) == 5 for values in result.figures.values())
        assert np.isfinite(result.figures["psnr"]).all()
        assert len(result.seconds) == 5
        assert min(result.seconds) > 0


def test_a_method_is_measured_on_the_pairs_of_the_workflows(radiographs, comparison):
    item = pair_items(str(radiographs), "CXR", "test")[2]
    target = LoadHighResd("label", window=(0, 255), reduce=2, multiple=4)(item)["label"][None]
    low = torch.from_numpy(Degradation("bicubic_antialias", 4)(target[0, 0].numpy()))[None, None]
    expected = {
        "bicubic": Bicubic(4)(low),
        "nearest": low.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3),
    }
    for method, enlarged in expected.items():
        assert comparison.result(method).figures["psnr"][2] == pytest.approx(PSNR()(enlarged, target).item(), abs=1e-4)


def test_figures_of_boxes_are_those_of_the_images_that_have_one(comparison):
    for figure in ("box_psnr", "box_ssim"):
        assert np.isfinite(comparison.result("bicubic").figures[figure]).tolist() == [False, False, False, True, False]


def test_what_no_image_has_says_why(comparison):
    assert comparison.unavailable["ms_ssim"] == "every image is smaller than 176 pixels on a side"
    assert comparison.unavailable["feature_distance"] == "no weights were given with --backbone"
    assert "alexnet" in comparison.unavailable["lpips"]
    assert all("ms_ssim" not in result.figures for result in comparison.results)


def test_samples_show_what_every_method_made_and_images_with_boxes_come_first(comparison):
    assert [sample.name for sample in comparison.samples] == ["test0", "test3"]
    assert comparison.samples[1].boxes_xyxy.tolist() == [[20, 30, 50, 70]]
    for result in comparison.results:
        assert [picture.shape for picture in result.pictures] == [(96, 96)] * 2
    assert comparison.samples[0].low_res.shape == (24, 24)


def test_a_network_is_described(comparison):
    edsr, bicubic = comparison.result("chest_xray_edsr_x4"), comparison.result("bicubic")
    assert (edsr.label, edsr.backend, edsr.parameters) == ("EDSR", "torch on cpu", 360736)
    assert (bicubic.parameters, bicubic.multiply_adds, bicubic.training) == (0, 0.0, None)
    # A convolution does as many multiply-adds per pixel as it has weights; all but the upsampling's are on 24x24.
    assert 24 * 24 * 300_000 < edsr.multiply_adds < 24 * 24 * 4 * 360_736
    assert comparison.low_res_size == "24x24"
    assert len(comparison.manifest_sha256) == 64
    assert {"torch", "numpy", "python", "monai_sr_bundle"} <= set(comparison.versions)


def test_the_multiply_adds_of_texture_are_those_of_one_evaluation_a_step():
    bundle = find_bundle("chest_xray_residual_flow_x4")
    faithful, one, four = (
        multiply_adds(bundle, "16x16", Row(bundle.name, bundle.name, texture=texture, steps=steps))
        for texture, steps in ((0.0, None), (1.0, 1), (1.0, 4))
    )
    weights = sum(
        value.numel() for name, value in build_network(bundle).named_parameters() if "flow" in name and value.ndim == 4
    )
    assert one - faithful == pytest.approx(16 * 16 * weights, rel=0.1)
    assert four - faithful == 4 * (one - faithful)


def test_the_multiply_adds_of_bicubic_are_those_of_its_one_convolution():
    assert multiply_adds(find_bundle("bicubic"), "10x20") == 10 * 20 * 16 * 25


def test_any_factor_and_a_volume_can_be_interpolated(tmp_path):
    data = write_volumes(tmp_path, size=64, slices=2)
    rows = tuple(Row(name, name) for name in ("nearest", "bilinear", "bicubic"))
    protocol = replace(
        DRAWN, modality="CT", sets=("ct",), operator="bicubic_antialias_x5", window=(-1000, 400), levels=1400,
        rows=rows, reduce=1,
    )  # fmt: skip
    comparison = measure(protocol, data)
    assert comparison.low_res_size == "12x12"
    nearest, bilinear, bicubic = (np.mean(result.figures["psnr"]) for result in comparison.results)
    assert nearest < bilinear < bicubic


def test_boxes_turn_with_their_image(radiographs, comparison):
    for degrees in (90, 180, 270):
        rotated = measure(replace(DRAWN, rows=ROWS[:2]), radiographs, rotation_degrees=degrees, samples=1)
        # Bicubic knows no direction, so what it does inside the box stays the same if the box is at the same place.
        expected = comparison.result("bicubic").figures["box_psnr"][3]
        assert rotated.result("bicubic").figures["box_psnr"][3] == pytest.approx(expected, abs=0.02)


def test_a_dirty_input_is_measured_against_the_clean_target(radiographs, comparison):
    dirty = measure(replace(DRAWN, artifacts=True, rows=ROWS[1:2]), radiographs, samples=1)
    bicubic, clean = dirty.results[0].figures, comparison.result("bicubic").figures
    assert np.mean(bicubic["psnr"]) < np.mean(clean["psnr"]) - 0.5
    assert np.abs(dirty.samples[0].low_res - comparison.samples[1].low_res).max() > 0.2
    np.testing.assert_array_equal(dirty.samples[0].high_res, comparison.samples[1].high_res)


def test_bicubic_keeps_what_a_perfect_cleaner_removes(radiographs, monkeypatch):
    item = pair_items(str(radiographs), "CXR", "test")[0]
    target = LoadHighResd("label", window=(0, 255), reduce=2, multiple=4)(item)["label"][0].numpy()
    protocol = replace(DRAWN, artifacts=True, rows=(Row("nearest", "Cleaner"), Row("bicubic", "Bicubic")))
    real = module.interpolator

    def with_a_cleaner(name, scale):
        return (lambda low: target) if name == "nearest" else real(name, scale)

    monkeypatch.setattr(module, "interpolator", with_a_cleaner)
    cleaner, bicubic = measure(protocol, radiographs, limit=1).results
    assert cleaner.figures["artifact_energy_removed"] == [1.0]
    assert bicubic.figures["artifact_energy_removed"] == [0.0]


def test_artifacts_are_the_same_for_every_run_and_differ_between_images(radiographs):
    protocol = replace(DRAWN, artifacts=True, rows=ROWS[1:2])
    one, other = (measure(protocol, radiographs, limit=2).results[0].figures["psnr"] for _ in range(2))
    assert one == other
    image = np.full((64, 64), 0.2, dtype=np.float32)
    first, second = (draw_artifacts(image, np.random.default_rng([0, seed])) for seed in (1, 2))
    assert (first != second).any()


def test_a_training_is_told_by_its_bundle(radiographs, tmp_path):
    stages = [{"minutes": 10.0, "device": "cpu"}, {"minutes": 2.5, "device": "NVIDIA H200"}]
    folder = with_metadata(copied(tmp_path), training={"minutes": 12.5, "stages": stages})
    (folder / "training_curve.csv").write_text(
        "minutes,iteration,metric,value\n1.0,10,psnr,30.0\n1.0,10,ssim,0.9\n2.0,20,psnr,31.0\n3.0,30,psnr,31.02\n"
    )
    comparison = measure(replace(DRAWN, rows=(ROWS[1], Row(str(folder), "EDSR"))), radiographs, limit=1)
    edsr = comparison.results[1]
    assert (edsr.training, edsr.gained_until) == (TrainingTime(12.5, on_gpu=2.5), 2.0)
    assert str(edsr.training) == "10 + 2 on a GPU"
    assert edsr.curve == [(1.0, 30.0), (2.0, 31.0), (3.0, 31.02)]


def test_a_training_stopped_gaining_when_it_came_within_a_twentieth_of_a_decibel():
    assert gained_until([(1, 30.0), (2, 30.96), (3, 30.9), (4, 31.0)]) == 2
    assert gained_until([(1, 30.0), (2, 31.0), (3, 29.0)]) == 2
    assert gained_until([]) is None


def test_a_training_curve_of_another_kind_is_refused(radiographs, tmp_path):
    folder = copied(tmp_path)
    (folder / "training_curve.csv").write_text("step,loss\n1,0.5\n")
    with pytest.raises(BundleError, match="training_curve.csv cannot be read .*expected the columns minutes,"):
        measure(replace(DRAWN, rows=(ROWS[1], Row(str(folder), "EDSR"))), radiographs, limit=1)


def test_everything_is_checked_before_anything_is_measured(radiographs, tmp_path):
    require_measurable(DRAWN, radiographs)
    with pytest.raises(BundleError, match="Degradation operators are never mixed in one table"):
        require_measurable(replace(DRAWN, operator="area_x4"), radiographs)
    broken = damaged(copied(tmp_path / "damaged"), "model.pt")
    with pytest.raises(BundleError, match="has SHA-256"):
        require_measurable(replace(DRAWN, rows=(Row(str(broken), "EDSR"),)), radiographs)
    deeper = {**find_bundle("chest_xray_edsr_x4").facts["network_def"], "blocks": 9}
    other = signed(with_facts(copied(tmp_path / "other"), network_def=deeper))
    with pytest.raises(BundleError, match="model.pt does not belong to its network_def"):
        require_measurable(replace(DRAWN, rows=(Row(str(other), "EDSR"),)), radiographs)
    with pytest.raises(InputError, match="no set named magic"):
        require_measurable(replace(DRAWN, sets=("magic",)), radiographs)
    with pytest.raises(InputError, match="none.npz"):
        require_measurable(DRAWN, radiographs, backbone=tmp_path / "none.npz")


def test_processes_that_share_the_images_find_the_same(radiographs, comparison):
    with Workers(2, threads=1) as workers:
        shared = measure(DRAWN, radiographs, samples=2, workers=workers)
    assert (shared.processes, shared.threads, shared.processors) == (2, 1, "2 processes of 1 CPU thread each")
    assert (shared.images, shared.patients, shared.unavailable) == (
        comparison.images,
        comparison.patients,
        comparison.unavailable,
    )
    for one, other in zip(shared.results, comparison.results, strict=True):
        assert one.figures.keys() == other.figures.keys()
        for figure, values in one.figures.items():
            np.testing.assert_allclose(values, other.figures[figure], atol=1e-4)
        for picture, expected in zip(one.pictures, other.pictures, strict=True):
            np.testing.assert_allclose(picture, expected, atol=1e-5)
    assert [sample.name for sample in shared.samples] == [sample.name for sample in comparison.samples]


def test_what_an_earlier_protocol_measured_on_the_same_images_is_taken_from_it(radiographs, comparison):
    rows = (Row("bilinear", "Bilinear"), Row("chest_xray_edsr_x4", "EDSR again"), Row("bicubic", "Bicubic"))
    heard = []
    protocol, listener = replace(DRAWN, name="second", rows=rows), lambda *counts: heard.append(counts)
    second = measure(protocol, radiographs, samples=2, earlier=[comparison], progress=listener)
    assert heard == [(done, 5) for done in range(1, 6)]
    assert [result.label for result in second.results] == ["Bilinear", "EDSR again", "Bicubic"]
    edsr, before = second.result("chest_xray_edsr_x4"), comparison.result("chest_xray_edsr_x4")
    assert (edsr.seconds, edsr.figures, before.label) == (before.seconds, before.figures, "EDSR")
    assert len(second.result("bilinear").figures["psnr"]) == 5


@pytest.mark.parametrize(
    ("changes", "limit"),
    [({"rows": (Row("bicubic", "By ONNX", "onnx"),)}, None), ({"artifacts": True}, None), ({}, 2)],
)
def test_another_backend_and_other_images_are_measured(radiographs, comparison, changes, limit):
    heard = []
    protocol = replace(DRAWN, **{"rows": ROWS[1:2], **changes})
    second = measure(
        protocol, radiographs, limit=limit, earlier=[comparison], progress=lambda *counts: heard.append(counts)
    )
    count = limit or 5
    assert heard == [(done, count) for done in range(1, count + 1)]
    assert len(second.results[0].seconds) == count


def test_all_may_be_known_already(radiographs, comparison):
    second = measure(replace(DRAWN, rows=ROWS[1:]), radiographs, samples=2, earlier=[comparison])
    assert [result.seconds for result in second.results] == [result.seconds for result in comparison.results[1:]]
    assert (second.images, second.low_res_size, len(second.samples)) == (comparison.images, "24x24", 2)
