"""A bundle of a residual flow that sees a slice with its neighbours, from its training to a volume."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from monai_sr_bundle import enhance
from monai_sr_bundle.backends.opening import open_backend
from monai_sr_bundle.backends.torch_backend import load_network
from monai_sr_bundle.benchmark.measure import measure
from monai_sr_bundle.benchmark.protocol import Row
from monai_sr_bundle.bundles import open_bundle, sha256_of
from monai_sr_bundle.calibrate.calibration_cases import enlarge_cases
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.images.from_array import image_from_array
from monai_sr_bundle.images.one_image import read_one
from monai_sr_bundle.networks.residual_flow import ResidualFlow
from monai_sr_bundle.packing.onnx_export import End, export_onnx
from monai_sr_bundle.packing.release import release
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.training.training import train

from tests.benchmark.drawn_protocol import drawn_protocol
from tests.changed_bundles import with_facts, with_metadata
from tests.drawn_data import write_volumes
from tests.tiny_flow import CT_FLOW_BUNDLE, TINY, released_flow, tiny_flow

QUICK = {"patch_size": 4, "batch_size": 2, "validations": 2, "save_interval": 1, "progress": False}
HU = 1400
"""Width of the window."""


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    return str(released_flow(tmp_path_factory.mktemp("flow"), CT_FLOW_BUNDLE, sets=["ct"])[0])


@pytest.fixture(scope="module")
def volume():
    """Five slices that differ, in HU as floats, which nothing rounds or clips."""
    film = (draw_phantom(64) * HU - 1000).astype(np.float32)
    return np.stack(
        [film[10:50, 5:52], film[12:52, 5:52], film[14:54, 8:55], film[10:50, 5:52][::-1], film[4:44, 9:56]]
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_volumes(tmp_path_factory.mktemp("data"), slices=6)


def enlarge(array, bundle, **options):
    return enhance(image_from_array(array, modality="CT"), bundle, **options).image.pixels


def test_the_shipped_bundle_sees_three_slices_and_is_trained_as_edsr_is():
    bundle, edsr = find_bundle(CT_FLOW_BUNDLE), find_bundle("chest_ct_edsr_x4")
    family = bundle.family
    assert (family.name, family.slices, family.consistency) == ("flow", 3, True)
    for key in ("modality", "scale", "operator", "window", "levels", "sets", "reduce", "validation_share"):
        assert bundle.facts[key] == edsr.facts[key], key
    assert load_network(bundle)[0].slices == 3


@pytest.mark.parametrize("texture", [0.0, 1.0])
@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_slice_is_changed_by_its_neighbours_and_by_no_others(flow, volume, backend, texture):
    options = {"backend": backend, "texture": texture, "steps": 2, "seed": 3}
    changed = volume.copy()
    changed[1] += 50
    before, after = (enlarge(pixels, flow, **options) for pixels in (volume, changed))
    differ = [not np.array_equal(one, other) for one, other in zip(before, after, strict=True)]
    assert differ == [True, True, True, False, False]


def test_a_result_is_consistent_with_its_slice_and_not_with_its_neighbours(flow, volume):
    degradation = find_bundle(flow).degradation
    for result, slice_ in zip(enlarge(volume, flow), volume, strict=True):
        np.testing.assert_allclose(degradation.reduce(result), slice_, rtol=0, atol=1e-3 * HU)


@torch.inference_mode()
def test_the_network_is_given_each_slice_between_its_neighbours(flow, volume, tmp_path):
    folder = with_facts(shutil.copytree(flow, tmp_path / CT_FLOW_BUNDLE), consistency=False)
    unit = torch.from_numpy((volume + 1000) / HU)
    stacks = torch.stack([unit[indices] for indices in ([0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 4])])
    expected = load_network(open_bundle(folder))[0](stacks)[:, 0].numpy() * HU - 1000
    np.testing.assert_allclose(enlarge(volume, str(folder), backend="torch"), expected, rtol=0, atol=1e-5 * HU)


def test_a_single_image_is_its_own_neighbour_and_the_user_is_warned(flow, volume):
    for texture in (0.0, 1.0):
        alone = enlarge(volume[2], flow, texture=texture, steps=2)
        of_three = enlarge(np.stack([volume[2]] * 3), flow, texture=texture, steps=2)
        np.testing.assert_array_equal(alone, of_three[:1])
    warning = f"A single slice: {CT_FLOW_BUNDLE} sees 3, and took it for its own neighbours."
    for array, bundle, expected in ((volume[2], flow, 1), (volume[:2], flow, 0), (volume[2], "chest_ct_edsr_x4", 0)):
        assert enhance(image_from_array(array, modality="CT"), bundle).warnings.count(warning) == expected


def test_cases_for_calibration_are_enlarged_from_the_degraded_volume(flow, data):
    bundle = find_bundle(flow)
    original = read_one(data / "ct" / "test.nii.gz").pixels
    low = np.stack([Degradation("bicubic_antialias", 4)((each + 1000.0) / HU, levels=HU) for each in original])
    expected = enlarge((low * HU - 1000).astype(np.float32), flow)
    for index, case in enumerate(enlarge_cases(bundle, open_backend(bundle), data, "test")):
        np.testing.assert_allclose(case.low_res, low[index], rtol=0, atol=1e-6)
        np.testing.assert_allclose(case.high_res, (original[index] + 1000.0) / HU, rtol=0, atol=1e-6)
        np.testing.assert_allclose(case.super_res * HU - 1000, expected[index], rtol=0, atol=0.51)  # whole HU


def test_other_methods_of_a_comparison_see_what_they_see_without_it(flow, data):
    facts = {"modality": "CT", "sets": ("ct",), "window": (-1000, 400), "levels": HU, "trust": True}
    rows = Row("bicubic", "Bicubic"), Row("chest_ct_edsr_x4", "EDSR"), Row(flow, "2.5D")
    comparison, without = (
        measure(drawn_protocol(*rows[:count], **facts), data, limit=2, samples=1) for count in (3, 2)
    )
    assert comparison.low_res_size == "16x16"
    assert comparison.samples[0].low_res.shape == (16, 16)
    bicubic, edsr, of_three = (result.figures for result in comparison.results)
    assert [bicubic["psnr"], edsr["psnr"]] == [result.figures["psnr"] for result in without.results]
    # The figures of trust change the middle slice alone.
    assert bicubic.keys() == of_three.keys()
    assert np.isfinite([values for name, values in of_three.items() if name.startswith("psnr")]).all()


def test_a_model_of_other_slices_than_stated_is_refused(flow, tmp_path, volume):
    folder = shutil.copytree(flow, tmp_path / CT_FLOW_BUNDLE)
    export_onnx(ResidualFlow(4, **TINY), folder / "model.onnx", [End("image", 1)])
    hashes = open_bundle(folder).metadata["weights_sha256"]
    with_metadata(folder, weights_sha256=hashes | {"model.onnx": sha256_of(folder / "model.onnx")})
    with pytest.raises(BundleError, match="model.onnx sees 1 slices, but model.yaml states 3. Make it again with"):
        enlarge(volume, str(folder), backend="onnx")


def test_both_stages_begin_with_single_slices_and_make_weights_that_are_released(data, tmp_path):
    folder = tiny_flow(tmp_path, CT_FLOW_BUNDLE)
    torch.manual_seed(1)
    torch.save(ResidualFlow(4, **TINY).state_dict(), tmp_path / "single.pt")
    first = train(str(folder), data, tmp_path / "first", iterations=20, start=tmp_path / "single.pt", **QUICK)
    weight = torch.load(first, weights_only=True)["head.weight"]
    assert weight.shape == (TINY["channels"], 3, 3, 3)
    assert weight[:, [0, 2]].abs().max() > 0
    best = train(str(folder), data, tmp_path / "second", iterations=40, stage="flow", start=first, val_steps=2, **QUICK)
    rows = list(csv.DictReader((tmp_path / "second" / "validation.csv").open()))
    losses = [float(row["value"]) for row in rows if row["metric"] == "loss"]
    assert 0 < losses[-1] < losses[0]
    release(str(folder), best)
    assert list(open_bundle(folder).metadata["weights_sha256"]) == ["model.pt", "model.onnx", "velocity.onnx"]
    record = json.loads((folder / "metadata.json").read_text())["training"]
    assert [stage["stage"] for stage in record["stages"]] == ["regression", "flow"]
