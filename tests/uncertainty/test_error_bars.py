"""Error bars from a bundle's files to the engine's result."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai_sr_bundle import enhance
from monai_sr_bundle.bundles import open_bundle
from monai_sr_bundle.engine.session import EnhanceOptions, Session
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.images.from_array import image_from_array
from monai_sr_bundle.images.provenance import Sampling
from monai_sr_bundle.inferers.sampler_options import AS_STATED, SamplerOptions
from monai_sr_bundle.networks.error_scale import ErrorScale
from monai_sr_bundle.packing.pack import pack
from monai_sr_bundle.packing.release import release, release_error_bars
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.uncertainty.error_bars import find_bundle_calibration, find_calibration
from torch.nn.functional import pixel_unshuffle

from tests.changed_bundles import damaged, with_facts
from tests.tiny_flow import released_flow
from tests.with_error_bars import calibration_of, chest, made_up_scale, with_error_bars, without_error_bars


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = with_error_bars(tmp_path_factory.mktemp("bundle"))
    calibration_of(folder).write(folder / "calibration.json")
    return folder


@pytest.fixture
def changed(folder, tmp_path):
    """The same, to be changed."""
    return shutil.copytree(folder, tmp_path / folder.name)


@pytest.fixture(scope="module")
def film():
    """Floats from 0 to 1, which nothing rounds; wide enough for a region in the middle."""
    part = chest()[150:198, 100:156]
    return ((part - part.min()) / (part.max() - part.min())).astype(np.float32)


def bars(image, folder, **options):
    return enhance(image, str(folder), error_bars=True, **options).error_bars


@torch.inference_mode()
def test_an_error_bar_is_the_factor_times_what_the_network_says_of_input_and_result(folder, film):
    result = enhance(film, str(folder), error_bars=True, backend="torch")
    pixels = torch.from_numpy(result.image.pixels[:1])
    cells = torch.cat((pixel_unshuffle(pixels, 4), torch.from_numpy(film)[None]))
    expected = 2.0 * made_up_scale()(cells[None])[0].numpy()
    assert result.error_bars.half_width.shape == result.image.pixels.shape
    assert result.error_bars.half_width.dtype == np.float32
    assert expected.std() > 0.002
    np.testing.assert_allclose(result.error_bars.half_width, expected, rtol=1e-4)
    assert result.error_bars.calibration == calibration_of(folder)
    assert result.error_bars.entry == calibration_of(folder).entries[0]


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_the_error_bars_of_a_region_are_those_of_the_whole(folder, film, backend):
    whole = bars(film, folder, backend=backend).half_width
    for x0, y0, x1, y1 in ((10, 12, 30, 25), (0, 0, 9, 48), (55, 40, 56, 48)):
        part = bars(film, folder, backend=backend, roi=(x0, y0, x1, y1)).half_width
        np.testing.assert_allclose(part, whole[:, 4 * y0 : 4 * y1, 4 * x0 : 4 * x1], rtol=1e-4)


@pytest.mark.parametrize("roi", [None, (10, 12, 30, 25)])
def test_the_result_is_the_same_with_and_without_error_bars(folder, film, roi):
    pixels = [enhance(film, str(folder), error_bars=error_bars, roi=roi).image.pixels for error_bars in (False, True)]
    np.testing.assert_array_equal(*pixels)


def test_error_bars_are_in_grey_levels_of_the_storage(folder, film):
    twelve = replace(image_from_array(np.rint(4095 * film).astype(np.uint16)), stored_range=(0, 4095), bits=12)
    inverted = replace(twelve, pixels=4095 - twelve.pixels, black_is_high=True)
    expected = 4095 * bars(film.clip(0, 1), folder).half_width
    assert expected.mean() > 10
    half_width = bars(twelve, folder).half_width
    np.testing.assert_allclose(half_width, expected, rtol=0.02)  # clipped and rounded in the storage
    np.testing.assert_allclose(bars(inverted, folder).half_width, half_width, rtol=1e-4)


def test_error_bars_of_ct_are_in_hounsfield_units_slice_by_slice(changed, film):
    with_facts(changed, modality="CT", window=[-1000, 400])
    volume = image_from_array(np.stack([film, film[::-1]]) * 1400 - 1000, modality="CT")
    half_widths = bars(volume, changed).half_width
    with_facts(changed, modality="CXR")
    for half_width, part in zip(half_widths, (film, film[::-1]), strict=True):
        np.testing.assert_allclose(half_width, 1400 * bars(part, changed).half_width[0], rtol=1e-3)


def test_without_being_asked_there_are_none(folder, film):
    assert enhance(film, str(folder)).error_bars is None


def test_a_bundle_without_a_calibration_promises_nothing(changed, film):
    (changed / "calibration.json").unlink()
    assert find_bundle_calibration(open_bundle(changed), AS_STATED) is None
    with pytest.raises(BundleError, match="has no calibration.json, without which its error bars mean nothing"):
        bars(film, changed)


def test_a_calibration_without_error_bars_promises_nothing_either(film, tmp_path):
    folder = without_error_bars(tmp_path)
    calibration_of(folder).write(folder / "calibration.json")
    assert find_bundle_calibration(open_bundle(folder), AS_STATED) is None
    with pytest.raises(BundleError, match="chest_xray_edsr_x4 has no error bars. Train them with .*leave the option"):
        bars(film, folder)


@pytest.mark.parametrize(("name", "scale"), [("bicubic", 2), ("bicubic", 4), ("chest_ct_throughplane", 2)])
def test_what_can_have_no_error_bars_is_not_told_to_train_them(film, name, scale):
    with pytest.raises(BundleError, match=f"^bundle {name} has no error bars. Leave the option out.$"):
        Session(find_bundle(name).at_scale(scale)).check(
            image_from_array(np.stack([film] * 3), modality="CT"), EnhanceOptions(error_bars=True, force=True)
        )


@pytest.mark.parametrize(("backend", "name"), [("torch", "error_bars.pt"), ("onnx", "error_bars.onnx")])
def test_damaged_error_bars_are_not_loaded(changed, film, backend, name):
    with pytest.raises(BundleError, match=f"{name} has SHA-256 .*The file is damaged or was replaced"):
        bars(film, damaged(changed, name), backend=backend)


def test_a_flow_has_error_bars_for_the_draws_it_was_calibrated_for(film, tmp_path):
    folder = with_error_bars(tmp_path, released_flow(tmp_path)[0])
    plain = calibration_of(folder).entries[0]
    textured = replace(plain, sampling=Sampling("flow", 2, 1, 0.5), factor=3.0)
    calibration_of(folder, entries=(plain, textured)).write(folder / "calibration.json")
    bundle = open_bundle(folder)
    is_calibrated = {
        draw: find_bundle_calibration(bundle, bundle.family.resolve(SamplerOptions(texture=draw[0], steps=draw[1])))
        is not None
        for draw in ((None, None), (0.0, 8), (0.3, 2), (0.5, 4), (1.0, 2))
    }
    assert is_calibrated == {(None, None): True, (0.0, 8): True, (0.3, 2): True, (0.5, 4): False, (1.0, 2): False}
    assert bars(film, folder).entry == plain
    assert bars(film, folder, texture=0.3, steps=2).entry == textured
    with pytest.raises(InputError, match="are not calibrated for texture 1 by flow in 2 steps"):
        bars(film, folder, texture=1.0, steps=2)


def test_released_error_bars_are_those_of_the_run_and_take_the_old_calibration_away(changed, tmp_path):
    torch.manual_seed(1)
    network = ErrorScale(4)
    torch.save(network.state_dict(), tmp_path / "error_bars.pt")
    (tmp_path / "error_bars.json").write_text('{"minutes": 2.0, "input_range": {}}')
    lines = release_error_bars(str(changed), tmp_path / "error_bars.pt")
    bundle = open_bundle(changed)
    state = torch.load(bundle.weights("error_bars.pt")[0], weights_only=True)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(state[name], value)
    assert bundle.weights("error_bars.onnx")[1] in lines[1]
    assert lines[-1].startswith("largest difference between PyTorch and ONNX Runtime:")
    assert bundle.metadata["error_bars_training"] == {"minutes": 2.0}
    assert "removed: calibration.json (of the former weights)" in lines
    assert not (changed / "calibration.json").exists()
    assert [path.name for path in changed.iterdir() if path.name.startswith((".", "tmp"))] == []


def test_the_same_weights_exported_again_keep_their_error_bars(changed, film):
    before = bars(film, changed).half_width
    release(str(changed))
    np.testing.assert_array_equal(bars(film, changed).half_width, before)


def test_error_bars_of_another_bundle_or_network_are_refused(changed, tmp_path):
    torch.save(ErrorScale(4).state_dict(), tmp_path / "error_bars.pt")
    (tmp_path / "error_bars.json").write_text('{"bundle": "chest_xray_srcnn_x4"}')
    torch.save(ErrorScale(2).state_dict(), tmp_path / "x2.pt")
    for name, message in (
        ("error_bars.pt", "trained on the errors of chest_xray_srcnn_x4, not of chest_xray_edsr_x4"),
        ("x2.pt", "x2.pt: does not belong to the error bars of chest_xray_edsr_x4"),
    ):
        with pytest.raises(BundleError, match=message):
            release_error_bars(str(changed), tmp_path / name)
    assert (changed / "calibration.json").exists()


def test_packed_bundles_and_variants_get_no_error_bars(changed, packed, tmp_path):
    with pytest.raises(BundleError, match="bicubic is packed; error bars belong into a bundle's source folder"):
        release_error_bars(str(packed("bicubic")), tmp_path / "any.pt")
    variant = changed / "variants" / "mine"
    variant.mkdir(parents=True)
    (variant / "model.yaml").write_text("{}\n")
    (variant / "metadata.json").write_text('{"parameters": 1, "weights_sha256": {}}')
    with pytest.raises(BundleError, match="chest_xray_edsr_x4:mine is a variant; error bars belong into"):
        release_error_bars(str(variant), tmp_path / "any.pt")
    assert find_bundle_calibration(open_bundle(variant), AS_STATED) is None
    with pytest.raises(BundleError, match="chest_xray_edsr_x4:mine has no error bars. Train them"):
        find_calibration(open_bundle(variant), AS_STATED)


def test_a_packed_bundle_keeps_its_error_bars(changed, film, tmp_path):
    error_bars = bars(film, pack(str(changed), tmp_path / "packed"))
    np.testing.assert_array_equal(error_bars.half_width, bars(film, changed).half_width)
    assert error_bars.calibration == bars(film, changed).calibration
