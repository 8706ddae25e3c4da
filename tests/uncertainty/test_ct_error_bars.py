"""Error bars of CT slices, which are enlarged with their neighbours, and whose noise is reduced by a strength."""

import nibabel
import numpy as np
import pytest
import torch
from monai_sr_bundle.bundles import open_bundle
from monai_sr_bundle.calibrate import calibrate as calibrate_module
from monai_sr_bundle.calibrate import calibration_cases, degraded_errors, loss_curve
from monai_sr_bundle.calibrate.calibrate import calibrate
from monai_sr_bundle.calibrate.whole_images import draw_image
from monai_sr_bundle.engine.session import EnhanceOptions, Session
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.from_array import image_from_array
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.images.one_image import read_one
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.networks.film_error_scale import FilmErrorScale
from monai_sr_bundle.packing.release import release_error_bars
from monai_sr_bundle.uncertainty.calibration import read_calibration
from monai_sr_bundle.uncertainty.conformal import measure_miscoverage
from monai_sr_bundle.uncertainty.error_bars import error_scale

from tests.changed_bundles import copied, with_facts
from tests.drawn_data import write_volumes
from tests.images.dicom_files import ct_slice
from tests.networks.measured import trained_like
from tests.with_error_bars import calibration_of, chest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    parent = tmp_path_factory.mktemp("bundle")
    folder = with_facts(copied(parent, "chest_ct_blind"), sets=["own"])
    torch.save(trained_like(FilmErrorScale()).state_dict(), parent / "error_bars.pt")
    release_error_bars(str(folder), parent / "error_bars.pt")
    calibration_of(folder).write(folder / "calibration.json")
    return folder


@pytest.fixture(scope="module")
def scan():
    """Four slices of a noisy chest in HU, with a corner of padding."""
    hu = 1400 * chest()[150:198, 100:156] - 1000 + np.random.default_rng(0).normal(0, 40, (4, 48, 56))
    hu[:, :12, :12] = -2000
    return hu.astype(np.int16)


def enlarged(scan, folder, region=None, scale=4, calibration=None, **options):
    session = Session(open_bundle(folder, scale), calibration=calibration)
    image = image_from_array(scan, modality="CT")
    return session.enhance(image, EnhanceOptions(force_model=True, **{"error_bars": True, **options}), region)


def bars(*arguments, **options):
    return enlarged(*arguments, **options).error_bars.half_width


@pytest.fixture(scope="module")
def few_losses():
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(calibration_cases.LOSSES, "CT", 2)
        yield


def test_a_part_of_a_volume_has_the_error_bars_of_the_whole(folder, scan):
    whole = bars(scan, folder)
    part = bars(scan, folder, Region(20, 44, 10, 50), slices=(1, 3))
    np.testing.assert_allclose(part, whole[1:3, 80:176, 40:200], rtol=1e-4)
    alone = bars(scan[1:2], folder)
    assert np.abs(alone / whole[1] - 1)[:, 80:, 80:].max() > 0.01  # the slices beside it say something of its noise


def test_padding_has_no_error_bar_and_does_not_count(folder, scan):
    result = enlarged(scan, folder)
    half_width = result.error_bars.half_width
    assert (half_width[:, :48, :48] == 0).all()
    assert (half_width[:, 48:] > 0).all()
    described = result.describe_error_bars()
    assert described["mean"] == pytest.approx(half_width[half_width > 0].mean(), rel=1e-5)
    assert described["largest_twentieth"] == pytest.approx(np.percentile(half_width[half_width > 0], 95), rel=1e-5)


def test_error_bars_are_made_at_the_strength_they_are_calibrated_for_alone(folder, scan):
    part, other = Region(20, 36, 20, 36), SamplerOptions(strength=0.3)
    assert enlarged(scan, folder, part, error_bars=None).error_bars.entry.strength == 0.7
    result = enlarged(scan, folder, part, error_bars=None, sampler=other)
    assert result.error_bars is None
    assert "No error bars: those of chest_ct_blind are not calibrated for these options." in result.warnings
    message = r"not calibrated for one pass at scale 4 with strength 0\.3, but for: .* strength 0\.7\. Leave --strength"
    with pytest.raises(InputError, match=message):
        enlarged(scan, folder, part, sampler=other)


@pytest.mark.parametrize(
    ("kernel", "named"),
    [("BONE", "BONE"), ("B60f", "B60f"), (["Br64d", "3"], "Br64d"), ("L", "L"), ("B31f", ""), ("LUNG", ""), ("", "")],
)
def test_a_sharp_kernel_in_the_header_is_told_beside_the_error_bars(folder, scan, tmp_path, kernel, named):
    source = ct_slice(tmp_path / "in.dcm", scan[1], ConvolutionKernel=kernel, RescaleIntercept="0")
    options = EnhanceOptions(error_bars=True, force_model=True)
    result = Session(open_bundle(folder)).enhance(read_one(source), options, Region(20, 36, 20, 36))
    sentence = f"Its error bars are too narrow: on sharp kernels as {named} they held 57 to 91 % of pixels in tests."
    assert (sentence in result.warnings) == bool(named)
    assert result.described_provenance.findings.endswith(sentence) == bool(named)
    assert result.describe_error_bars()["undercoverage"] == (sentence if named else None)


def test_few_patients_are_calibrated_on_and_what_they_guarantee_is_said(folder, scan, tmp_path, few_losses):
    data = write_volumes(tmp_path, size=144, slices=3, splits=("val",) * 5)
    calibration = calibrate(str(folder), data)
    assert (calibration.operator, calibration.images, calibration.patients) == ("random_degradation", 15, 5)
    assert [(entry.scale, entry.strength) for entry in calibration.entries] == [(2, 0.7), (3, 0.7), (4, 0.7)]
    calibration.write(tmp_path / "site.json")
    assert read_calibration(tmp_path / "site.json", open_bundle(folder)) == calibration
    for entry in calibration.entries:
        assert 0.9 <= entry.coverage < 0.92  # without a correction for the number of patients
        # Five patients with 10 % outside, and a sixth whose pixels are all outside.
        assert entry.guaranteed == pytest.approx(0.75)
        result = enlarged(scan, folder, scale=entry.scale, calibration=tmp_path / "site.json")
        assert result.describe_error_bars()["calibrated_on"]["guaranteed_percent"] == 75
        assert "So few guarantee only 75 %, on average over further patients." in result.described_provenance.findings


def test_enough_patients_are_corrected_for(folder, tmp_path, few_losses, monkeypatch):
    data = write_volumes(tmp_path, size=144, slices=3, splits=("val",) * 5)
    monkeypatch.setattr(loss_curve, "LEAST_PATIENTS", 5)
    calibration = calibrate(str(folder), data, alpha=0.3)
    for entry in calibration.entries:
        assert calibration.guaranteed_percent(entry) is None


def test_too_few_patients_are_refused(folder, tmp_path, few_losses):
    data = write_volumes(tmp_path, size=144, slices=4, splits=("val",) * 4)
    with pytest.raises(InputError, match=r"16 images of 4 patients \(CT\), expected at least 15 of 5 patients"):
        calibrate(str(folder), data)


def test_padding_is_not_calibrated_on(folder, tmp_path, few_losses):
    data = write_volumes(tmp_path, size=144, slices=1, splits=("val",))
    path = data / "ct" / "val.nii.gz"
    volume = nibabel.load(path)
    padded = np.asarray(volume.dataobj).copy()
    padded[:48, :48] = -2000
    nibabel.save(nibabel.Nifti1Image(padded, volume.affine), path)
    bundle = open_bundle(folder)
    session = Session(bundle)
    case = next(calibration_cases.enlarge_degraded(bundle, session.backend, data, "val", sources=[(None, 1)]))
    assert case.padding.sum() == 48 * 48
    error = np.abs(case.high_res - case.super_res)
    scale = error_scale(case.super_res, case.low_res, bundle, session.backend)
    curve = calibrate_module._measure([case], session, calibrate_module.calibration_runs(bundle)[0])
    np.testing.assert_allclose(curve.loss_sum, measure_miscoverage(error[~case.padding], scale[~case.padding]))
    assert np.abs(curve.loss_sum - measure_miscoverage(error, scale)).max() > 0.01
    assert curve.scale_sum == pytest.approx(scale[~case.padding].mean(), rel=1e-5)


def test_slices_are_drawn_with_their_neighbours_and_errors_at_every_scale(folder, tmp_path, monkeypatch):
    data = write_volumes(tmp_path, size=192, slices=4, splits=("train",) * 2)
    with_facts(folder, error_bars_scans=[["ct", 1, 1.0]])
    monkeypatch.setattr(degraded_errors, "BATCH", 2)
    errors_of = degraded_errors.DegradedErrors(open_bundle(folder), data)
    assert errors_of.count == 8
    assert draw_image(errors_of.images)[1].shape[0] == 3
    scales, batches = set(), iter(errors_of)
    for _ in range(40):
        (cells, scale), errors = next(batches)
        assert cells.shape[:2] == (2, scale**2 + 5)
        assert errors.shape == (2, 1, scale * cells.shape[2], scale * cells.shape[3])
        assert 0 < errors.mean() < 0.2
        scales.add(scale)
    assert scales == {2, 3, 4}
