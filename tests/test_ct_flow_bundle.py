"""A residual flow that sees a slice with its neighbours, from its training to an image, through every interface."""

import csv
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_sr_bundle import enhance
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.backends.opening import open_backend
from monai_sr_bundle.backends.torch_backend import load_network
from monai_sr_bundle.benchmark.measure import measure
from monai_sr_bundle.benchmark.multiply_adds import multiply_adds
from monai_sr_bundle.benchmark.protocol import Protocol, Row
from monai_sr_bundle.bundles import configs_dir, find_bundle, open_bundle, sha256_of
from monai_sr_bundle.calibrate.cases import enlarge_cases
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.degradation import Degradation
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.images.files import read_one
from monai_sr_bundle.images.image import image_from_array
from monai_sr_bundle.networks.residual_flow import ResidualFlow
from monai_sr_bundle.packing.onnx_export import End, export_onnx
from monai_sr_bundle.packing.pack import pack
from monai_sr_bundle.packing.release import release
from monai_sr_bundle.packing.verify import verify
from monai_sr_bundle.training.training import train
from tests.changed_bundles import with_facts, with_metadata
from tests.drawn_data import write_volumes
from tests.tiny_flow import CT_FLOW_BUNDLE, TINY, released_flow, tiny_flow

QUICK = {"patch_size": 4, "batch_size": 2, "validations": 2, "save_interval": 1, "progress": False}
QUIET = ("--quiet", "--progress", "none")
HU = 1400
"""Between 0 and 1 of the window."""


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    return str(released_flow(tmp_path_factory.mktemp("flow"), CT_FLOW_BUNDLE, sets=["ct"])[0])


@pytest.fixture(scope="module")
def packed_flow(flow, tmp_path_factory):
    return pack(flow, tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def film():
    return (draw_phantom(64) * HU - 1000).astype(np.float32)


@pytest.fixture(scope="module")
def volume(film):
    """Five slices that differ, in HU as floats, which nothing rounds or clips."""
    return np.stack(
        [film[10:50, 5:52], film[12:52, 5:52], film[14:54, 8:55], film[10:50, 5:52][::-1], film[4:44, 9:56]]
    )


@pytest.fixture(scope="module")
def wide(volume):
    """So wide that a window does not see it all."""
    return np.tile(volume, (1, 1, 14))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_volumes(tmp_path_factory.mktemp("data"), slices=6)


def made(array, bundle, **options):
    image = image_from_array(array, modality="CT") if isinstance(array, np.ndarray) else array
    return enhance(image, bundle, **options).image.pixels


def test_the_shipped_bundle_sees_three_slices_and_has_the_size_it_states():
    bundle = find_bundle(CT_FLOW_BUNDLE)
    like = find_bundle("chest_ct_edsr_x4")
    family = bundle.family
    assert (family.name, family.slices, family.consistency, bundle.is_default) == ("flow", 3, True, True)
    for key in ("modality", "scale", "operator", "window", "levels", "sets", "reduce", "validation_share"):
        assert bundle.facts[key] == like.facts[key], key
    assert load_network(bundle)[0].slices == 3


@pytest.mark.parametrize("texture", [0.0, 1.0])
@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_slice_is_changed_by_its_neighbours_and_by_no_others(flow, volume, backend, texture):
    options = {"backend": backend, "texture": texture, "steps": 2, "seed": 3}
    before = made(volume, flow, **options)
    changed = volume.copy()
    changed[1] += 50
    after = made(changed, flow, **options)
    differ = [not np.array_equal(one, other) for one, other in zip(before, after, strict=True)]
    assert differ == [True, True, True, False, False]


def test_a_result_is_consistent_with_its_slice_and_not_with_its_neighbours(flow, volume):
    degradation = find_bundle(flow).degradation
    for found, slice_ in zip(made(volume, flow), volume, strict=True):
        np.testing.assert_allclose(degradation.reduce(found), slice_, rtol=0, atol=1e-3 * HU)


@torch.inference_mode()
def test_the_network_is_given_each_slice_between_its_neighbours(flow, volume, tmp_path):
    folder = with_facts(released_flow(tmp_path, CT_FLOW_BUNDLE)[0], consistency=False)
    unit = torch.from_numpy((volume + 1000) / HU)
    stacks = torch.stack([unit[near] for near in ([0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 4])])
    expected = load_network(open_bundle(folder))[0](stacks)[:, 0].numpy() * HU - 1000
    np.testing.assert_allclose(made(volume, str(folder), backend="torch"), expected, rtol=0, atol=1e-5 * HU)


@pytest.mark.parametrize("texture", [0.0, 1.0])
def test_a_single_image_is_its_own_neighbour(flow, volume, texture):
    options = {"texture": texture, "steps": 2}
    alone = made(volume[2], flow, **options)
    np.testing.assert_array_equal(alone, made(np.stack([volume[2]] * 3), flow, **options)[:1])


def test_a_single_image_without_neighbours_is_told(flow, volume):
    told = f"A single slice: {CT_FLOW_BUNDLE} sees 3, and took it for its own neighbours."
    for array, bundle, expected in ((volume[2], flow, 1), (volume[:2], flow, 0), (volume[2], "chest_ct_edsr_x4", 0)):
        assert enhance(image_from_array(array, modality="CT"), bundle).warnings.count(told) == expected


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_tiles_are_the_whole_to_the_bit(flow, wide, backend):
    whole = made(wide[:3], flow, backend=backend)
    np.testing.assert_array_equal(made(wide[:3], flow, backend=backend, tile=64), whole)


def test_the_neighbours_of_a_region_are_those_of_the_volume_also_beyond_the_region(flow, wide):
    changed = wide[:3].copy()
    changed[0, :, 345:] += 200  # within reach of the region, in the neighbour alone
    options = {"roi": (301, 13, 342, 21), "backend": "torch"}
    before, after = (made(each, flow, **options) for each in (wide[:3], changed))
    assert not np.array_equal(before[1], after[1])
    np.testing.assert_array_equal(before[2], after[2])


def through_monai(config, root, source, out, **options):
    """What `python -m monai.bundle run` does, in this process."""
    workflow = ConfigWorkflow(
        config, logging_file=False, bundle_root=str(root), dataset_dir=str(source), output_dir=str(out), **options
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return out


@pytest.mark.parametrize("texture", [0.0, 0.5])
def test_every_interface_gives_the_same_units_of_a_single_slice(flow, packed_flow, volume, tmp_path, texture):
    hounsfield = np.rint(volume[:1]).astype(np.int16).transpose(2, 1, 0)
    source = tmp_path / "chest.nii.gz"
    nibabel.save(nibabel.Nifti1Image(hounsfield, np.diag([-0.8, -0.8, 5.0, 1.0])), source)
    expected = enhance(source, flow, backend="torch", texture=texture, seed=2).image.pixels
    words = ["--bundle", flow, "--backend", "torch", "--texture", str(texture), "--seed", "2", *QUIET]
    assert main(["enhance", str(source), f"{tmp_path / 'cli'}/", *words]) == 0
    options = {"seed": 2, "diffusion#texture": texture}
    checkout = [f"{flow}/model.yaml", str(configs_dir() / "workflows" / "inference.yaml")]
    config = str(packed_flow / "configs" / "inference.yaml")
    for folder in (
        tmp_path / "cli",
        through_monai(checkout, flow, source, tmp_path / "monai", **options),
        through_monai(config, packed_flow, source, tmp_path / "packed", **options),
    ):
        found = read_one(next(folder.iterdir())).pixels
        assert found.dtype == np.int16
        np.testing.assert_array_equal(found, expected, err_msg=folder.name)


def test_the_packed_bundle_passes_the_checks_of_its_networks(packed_flow):
    names = ["shapes in and out", "TorchScript", "ONNX equals PyTorch", "modules complete", "properties for training"]
    assert [check for check in verify(packed_flow, only=names) if not check.passed] == []


def test_known_cases_are_made_from_the_degraded_volume(flow, data):
    bundle = find_bundle(flow)
    seen = list(enlarge_cases(bundle, open_backend(bundle), data, "test"))
    original = read_one(data / "ct" / "test.nii.gz").pixels
    low = np.stack([Degradation("bicubic_antialias", 4)((each + 1000.0) / HU, levels=HU) for each in original])
    expected = made((low * HU - 1000).astype(np.float32), flow)
    for index, case in enumerate(seen):
        np.testing.assert_allclose(case.low_res, low[index], rtol=0, atol=1e-6)
        np.testing.assert_allclose(case.high_res, (original[index] + 1000.0) / HU, rtol=0, atol=1e-6)
        np.testing.assert_allclose(case.super_res * HU - 1000, expected[index], rtol=0, atol=0.51)  # whole HU


def test_a_workflow_of_monai_measures_what_the_benchmark_does(flow, data, tmp_path, capsys):
    config = [f"{flow}/model.yaml", str(configs_dir() / "workflows" / "evaluate.yaml")]
    through_monai(config, flow, data, tmp_path)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("psnr ")]
    compared = Protocol(
        name="drawn", title="", about="", modality="CT", sets=("ct",), operator="bicubic_antialias_x4",
        window=(-1000, 400), levels=HU,
        rows=(Row("bicubic", "Bicubic"), Row(flow, "2.5D"), Row("chest_ct_edsr_x4", "EDSR")),
    )  # fmt: skip
    together = measure(compared, data, samples=1)
    assert together.low_res_size == "16x16"
    assert together.samples[0].low_res.shape == (16, 16)
    found = [np.mean(result.figures["psnr"]) for result in together.results]
    assert found[1] == pytest.approx(float(line.split("psnr ")[1].split()[0]), abs=1e-3)
    # Others of the comparison see what they see without it.
    rows = tuple(row for row in compared.rows if row.method != flow)
    without = measure(Protocol(**{**vars(compared), "rows": rows}), data, samples=0)
    assert [found[0], found[2]] == [np.mean(result.figures["psnr"]) for result in without.results]


def test_the_trust_figures_change_the_middle_slice_alone(flow, data):
    compared = Protocol(
        name="drawn", title="", about="", modality="CT", sets=("ct",), operator="bicubic_antialias_x4",
        window=(-1000, 400), levels=HU, trust=True, rows=(Row("bicubic", "Bicubic"), Row(flow, "2.5D")),
    )  # fmt: skip
    bicubic, of_three = (result.figures for result in measure(compared, data, limit=2, samples=0).results)
    assert bicubic.keys() == of_three.keys()
    assert np.isfinite([values for name, values in of_three.items() if name.startswith("psnr")]).all()


def test_the_cost_counts_all_slices(flow, tmp_path):
    single = open_bundle(tiny_flow(tmp_path))
    more = multiply_adds(open_bundle(Path(flow)), "20x10") - multiply_adds(single, "20x10")
    assert more == 200 * 2 * 9 * TINY["channels"]


def test_a_model_of_other_slices_than_stated_is_refused(flow, tmp_path, volume):
    folder = shutil.copytree(flow, tmp_path / CT_FLOW_BUNDLE)
    export_onnx(ResidualFlow(4, **TINY), folder / "model.onnx", [End("image", 1)])
    hashes = open_bundle(folder).metadata["weights_sha256"]
    with_metadata(folder, weights_sha256=hashes | {"model.onnx": sha256_of(folder / "model.onnx")})
    with pytest.raises(BundleError, match="model.onnx sees 1 slices, but model.yaml states 3. Make it again with"):
        made(volume, str(folder), backend="onnx")


def test_both_stages_begin_with_single_slices_and_make_weights_that_are_released(data, tmp_path):
    folder = tiny_flow(tmp_path, CT_FLOW_BUNDLE)
    torch.manual_seed(1)
    torch.save(ResidualFlow(4, **TINY).state_dict(), tmp_path / "single.pt")
    first = train(str(folder), data, tmp_path / "first", iterations=20, start=tmp_path / "single.pt", **QUICK)
    learnt = torch.load(first, weights_only=True)["head.weight"]
    assert learnt.shape == (TINY["channels"], 3, 3, 3)
    assert learnt[:, [0, 2]].abs().max() > 0
    best = train(str(folder), data, tmp_path / "second", iterations=40, stage="flow", start=first, val_steps=2, **QUICK)
    losses = [
        float(row["value"])
        for row in csv.DictReader((tmp_path / "second" / "validation.csv").open())
        if row["metric"] == "loss"
    ]
    assert 0 < losses[-1] < losses[0]
    release(str(folder), best)
    assert list(open_bundle(folder).metadata["weights_sha256"]) == ["model.pt", "model.onnx", "velocity.onnx"]
    told = json.loads((folder / "metadata.json").read_text())["training"]
    assert [stage["stage"] for stage in told["stages"]] == ["regression", "flow"]
