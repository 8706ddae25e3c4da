"""The bundle along the slices, from files to files: pixels, millimetres, DICOM, reports and refusals."""

import csv
import json
from functools import partial

import nibabel
import numpy as np
import pydicom
import pytest
from monai_sr_bundle import enhance
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.benchmark.quality import evaluate
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.engine.session import choose_bundle
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.images import files
from monai_sr_bundle.images.from_array import image_from_array
from monai_sr_bundle.images.one_image import read_one
from monai_sr_bundle.shipped_bundles import configs_dir, find_bundle, is_default
from monai_sr_bundle.training.training import train
from PIL import Image as Picture

from tests.drawn_data import write_volumes
from tests.images.dicom_files import TILTED, ct_series
from tests.monai_workflow import run_workflow

NAME = "chest_ct_throughplane"
AFFINE = np.array([[-0.7, 0, 0, 10], [0, -0.7, 0, -20], [0, 0, 5, 30], [0, 0, 0, 1.0]])


def hounsfield(slices=6, rows=24, columns=20):
    """A chest that changes from slice to slice, with air outside and bone beyond the window."""
    film = draw_phantom(40)[:rows, :columns]
    volume = np.stack([np.roll(film, index, axis=0) for index in range(slices)]) * 2400 - 1024
    return np.rint(volume).astype(np.int16)


@pytest.fixture
def nifti(tmp_path):
    image = nibabel.Nifti1Image(hounsfield().T, AFFINE)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "ct.nii.gz")
    return tmp_path / "ct.nii.gz"


@pytest.fixture
def series(tmp_path):
    ct_series(tmp_path / "ct", (hounsfield() + 1024).astype(np.uint16), TILTED, SliceThickness="2.5")
    return tmp_path / "ct"


def test_it_is_for_ct_along_the_slices_and_never_chosen_by_itself():
    bundle = find_bundle(NAME)
    assert bundle.scale_zyx == (4, 1, 1)
    assert not is_default(bundle)
    assert find_bundle("chest_ct_edsr_x4").scale_zyx == (1, 4, 4)


@pytest.mark.parametrize("backend", ["torch", "onnx"])
@pytest.mark.parametrize("scale", [2, 4])
def test_the_mean_of_the_thin_slices_is_the_thick_one_within_rounding(packed, backend, scale):
    thick = hounsfield()
    assert thick.max() > 400  # beyond the window
    result = enhance(image_from_array(thick, modality="CT"), str(packed(NAME)), backend=backend, scale=scale)
    thin = result.image.pixels
    assert thin.shape == (6 * scale, 24, 20)
    assert thin.dtype == np.int16
    means = thin.reshape(6, scale, 24, 20).astype(float).mean(axis=1)
    assert np.abs(means - thick).max() <= 0.5
    assert result.before_consistency is not None
    assert result.before_consistency[1] > 0.5
    assert np.ptp(thin.reshape(6, scale, -1), axis=1).max() > 50  # more than repetition


def test_first_and_last_centre_lie_where_they_should_in_millimetres(nifti):
    result = enhance(nifti, NAME, scale=4)
    grid = result.image.grid
    assert grid.spacing_xyz == pytest.approx((0.7, 0.7, 1.25))
    # The box of the first slice reaches from 27.5 to 32.5 mm: its first quarter has its centre at 28.125.
    first, last = (grid.affine @ [0, 0, index, 1] for index in (0, 23))
    assert first[:3] == pytest.approx([-10, 20, 28.125])
    assert last[2] == pytest.approx(55 + 2.5 - 0.625)
    assert result.provenance.scale_zyx == (4, 1, 1)
    assert "x4 along the slices" in result.provenance.sentence


def test_a_part_of_the_slices_sees_the_others_as_neighbours(nifti):
    whole = enhance(nifti, NAME, scale=4).image.pixels
    np.testing.assert_array_equal(enhance(nifti, NAME, scale=4, slices=(2, 5)).image.pixels, whole[8:20])


@pytest.mark.parametrize("scale", [2, 4])
def test_three_slices_are_enough(scale):
    result = enhance(image_from_array(hounsfield(slices=3), modality="CT"), NAME, scale=scale)
    assert result.image.pixels.shape == (3 * scale, 24, 20)


@pytest.mark.parametrize(("distance", "scale"), [(1.25, 2), (3.0, 2), (3.1999, 4), (5.0, 4)])
def test_the_scale_is_the_largest_that_keeps_new_slices_as_far_apart_as_known_ones(tmp_path, distance, scale):
    affine = AFFINE.copy()
    affine[2, 2] = distance
    image = nibabel.Nifti1Image(hounsfield().T, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "ct.nii.gz")
    assert choose_bundle(read_one(tmp_path / "ct.nii.gz"), NAME, "auto").scale == scale


def messages_of(error):
    """Yield the messages of an error and of its causes, which MONAI wraps."""
    while error is not None:
        yield str(error)
        error = error.__cause__


def test_a_series_has_four_instances_for_each_with_positions_of_their_own(series, tmp_path, dciodvfy):
    out = tmp_path / "thin"
    assert (
        main(["enhance", str(series), str(out), "--bundle", NAME, "--scale", "4", "--quiet", "--progress", "none"]) == 0
    )
    files = sorted(out.glob("*.dcm"))
    headers = [pydicom.dcmread(file) for file in files]
    assert len(headers) == 24
    assert [int(header.InstanceNumber) for header in headers] == list(range(24, 0, -1))  # as the source's
    assert len({header.SOPInstanceUID for header in headers}) == 24
    assert len({header.SeriesInstanceUID for header in headers}) == 1
    for header in headers:
        assert float(header.SliceThickness) == pytest.approx(2.5 / 4)
        assert float(header.SpacingBetweenSlices) == pytest.approx(2.5 / 4)
        assert [float(value) for value in header.PixelSpacing] == [0.9, 0.6]
        assert (header.Rows, header.Columns) == (24, 20)
    positions = np.array([header.ImagePositionPatient for header in headers], dtype=float)
    first = np.array([-100.0, 50.0, -30.0]) + TILTED[:, 2] * 2.5 * (0.125 - 0.5)
    np.testing.assert_allclose(positions[0], first, atol=1e-6)
    np.testing.assert_allclose(positions[-1], first + TILTED[:, 2] * 23 * 0.625, atol=1e-6)
    assert [error for file in (files[0], files[-1]) for error in dciodvfy(file)] == []


def test_the_result_of_slices_with_a_frame_of_reference_each_is_one_volume_and_can_be_read(series, tmp_path):
    for index, file in enumerate(sorted(series.iterdir())):
        dataset = pydicom.dcmread(file)
        dataset.FrameOfReferenceUID = f"2.25.77.{index}"
        dataset.save_as(file)
    enhance(series, NAME, scale=2).save(tmp_path / "thin")
    headers = [pydicom.dcmread(file) for file in sorted((tmp_path / "thin").iterdir())]
    assert len({header.FrameOfReferenceUID for header in headers}) == 1
    assert read_one(tmp_path / "thin").pixels.shape == (12, 24, 20)


def test_no_distance_between_pages_is_made_up(tmp_path):
    pages = np.linspace(-1000, 400, 5 * 24 * 20, dtype=np.float32).reshape(5, 24, 20)
    first, *others = map(Picture.fromarray, pages)
    first.save(tmp_path / "in.tif", save_all=True, append_images=others)
    line = ["enhance", str(tmp_path / "in.tif"), str(tmp_path / "out.tif"), "--bundle", NAME, "--preview", "--report"]
    assert main([*line, "--spacing-mm", "0.8", "0.8", "--quiet", "--progress", "none"]) == 0
    report = json.loads((tmp_path / "out.report.json").read_text())
    for image in (report["source"], report["output"]):
        assert image["spacing_mm"] == {"between_rows": 0.8, "between_columns": 0.8, "between_slices": None}
    assert report["input_range"]["slice_spacing_mm"]["value"] is None
    assert "distance between the slices is unknown" in (tmp_path / "out.report.html").read_text()


def test_preview_and_report_compare_with_the_cubic_interpolation_along_the_slices(nifti, tmp_path):
    line = ["enhance", str(nifti), str(tmp_path / "out.nii.gz"), "--bundle", NAME, "--preview", "--report", "--quiet"]
    assert main([*line, "--progress", "none"]) == 0
    report = json.loads((tmp_path / "out.report.json").read_text())
    assert report["output"]["shape_zyx"] == [24, 24, 20]
    assert report["output"]["spacing_mm"]["between_slices"] == pytest.approx(1.25)
    consistency = report["consistency"]
    assert consistency["result"]["maximum"] <= 0.5
    assert consistency["bicubic"]["rms"] > 1
    assert consistency["network"]["rms"] > 0
    assert (tmp_path / "out.preview.png").is_file()
    page = (tmp_path / "out.report.html").read_text()
    assert "Before: cubic along the slices" in page
    assert "distance between slices went from 5 mm to 1.25 mm" in page
    assert "bicubic" not in page.lower()


def test_a_radiograph_and_a_single_slice_are_refused(tmp_path):
    film = image_from_array(hounsfield()[0], modality="CT")
    message = f"a single slice or a radiograph, but bundle {NAME} makes thin slices"
    with pytest.raises(InputError, match=message):
        enhance(film, NAME)
    nibabel.save(nibabel.Nifti1Image(hounsfield()[:1].T, AFFINE), tmp_path / "one.nii.gz")
    with pytest.raises(RuntimeError) as raised:
        run_workflow(
            configs_dir() / NAME, "inference", dataset_dir=tmp_path / "one.nii.gz", output_dir=tmp_path / "out"
        )
    assert any("a single slice or a radiograph" in cause for cause in messages_of(raised.value))


def test_a_series_without_pixel_spacing_is_refused_before_it_is_enlarged(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("monai_sr_bundle.engine.session.enlarge_image", lambda *_, **__: pytest.fail("enlarged"))
    ct_series(tmp_path / "ct", (hounsfield() + 1024).astype(np.uint16), TILTED, PixelSpacing=None)
    line = ["enhance", str(tmp_path / "ct"), str(tmp_path / "thin"), "--bundle", NAME, "--progress", "none"]
    assert main(line) != 0
    assert "new slices need positions in millimetres" in capsys.readouterr().err


def test_uneven_slices_are_refused(tmp_path):
    files = ct_series(tmp_path / "ct", (hounsfield() + 1024).astype(np.uint16), TILTED)
    next(file for file in files if file.name.endswith("_3.dcm")).unlink()
    with pytest.raises(InputError, match=r"1 missing slice\(s\) between"):
        enhance(tmp_path / "ct", NAME)


def test_gaps_between_the_slices_are_named_in_a_warning(tmp_path):
    ct_series(tmp_path / "ct", (hounsfield() + 1024).astype(np.uint16), TILTED, SliceThickness="1")
    warnings = enhance(tmp_path / "ct", NAME).warnings
    assert any(sentence.startswith("The slices are 1 mm thick and lie 2.5 mm apart") for sentence in warnings)


def test_the_means_of_slices_that_overlap_are_not_set_and_agreement_is_not_judged(tmp_path):
    results = {}
    for thickness in ("2.5", "5"):
        volume = (hounsfield() + 1024).astype(np.uint16)
        ct_series(tmp_path / thickness, volume, TILTED, SliceThickness=thickness)
        results[thickness] = enhance(tmp_path / thickness, NAME, scale=2)
    touching, overlapping = results.values()
    assert touching.before_consistency is not None
    assert overlapping.before_consistency is None
    assert touching.consistency.maximum <= 0.5
    assert np.isnan(overlapping.consistency.rms)
    assert any("they overlap" in sentence for sentence in overlapping.warnings)
    assert not any("overlap" in sentence for sentence in touching.warnings)
    run_workflow(configs_dir() / NAME, "inference", dataset_dir=tmp_path / "5", output_dir=tmp_path / "out", scale=2)
    with files.discover([tmp_path / "out"]) as [source]:
        np.testing.assert_array_equal(files.read(source).pixels, overlapping.image.pixels)


def test_error_bars_are_refused(tmp_path):
    from monai_sr_bundle.calibrate.calibrate import calibrate
    from monai_sr_bundle.calibrate.error_bar_training import train_error_scale

    for command in (calibrate, partial(train_error_scale, iterations=1)):
        with pytest.raises(
            BundleError, match=f"{NAME} enlarges along the slices of a volume, for which there is no err"
        ):
            command(NAME, tmp_path, tmp_path)


@pytest.mark.parametrize("scale", [2, 4])
def test_the_workflow_finds_the_figures_of_the_command_line(tmp_path, capsys, scale):
    """Two volumes, one with slices that make no whole thick one; every thin slice counts once."""
    write_volumes(tmp_path / "data", size=48, slices=10, splits=("test", "test"))
    options = {"sets": ["ct"], "dataset_dir": tmp_path / "data", "output_dir": tmp_path / "out", "scale": scale}
    run_workflow(configs_dir() / NAME, "evaluate", **options)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("psnr ")]
    printed = dict(zip(line.split()[::2], map(float, line.split()[1::2]), strict=True))
    measured = evaluate(NAME, tmp_path / "data", sets=["ct"], scale=scale, backend="torch").method
    assert len(measured["psnr"]) == 2 * (10 // scale) * scale
    assert printed["psnr"] == pytest.approx(np.mean(measured["psnr"]), abs=2e-3)
    assert printed["ssim"] == pytest.approx(np.mean(measured["ssim"]), abs=2e-4)
    rows = list(csv.DictReader((tmp_path / "out" / "psnr_raw.csv").open()))
    assert [row["filename"] for row in rows][:2] == ["test_000", "test_001"]
    assert [float(row["mean"]) for row in rows] == pytest.approx(measured["psnr"], abs=2e-3)


def test_training_lowers_the_error_on_slabs_of_another_patient(tmp_path):
    write_volumes(tmp_path, size=48, slices=12, splits=("train", "val"))
    options = {"patch_size": 16, "batch_size": 2, "validations": 2, "save_interval": 1, "progress": False}
    train(NAME, tmp_path, tmp_path / "run", iterations=60, sets=["ct"], **options)
    values = [float(row["value"]) for row in csv.DictReader((tmp_path / "run" / "validation.csv").open())]
    assert values[-1] > values[0]


def test_a_packed_bundle_has_the_workflows_of_all_others(packed):
    names = {path.stem for path in (packed(NAME) / "configs").glob("*.yaml")}
    assert {"inference", "evaluate", "train", "train_slabs", "inference_trt"} <= names
    assert {f"multi_gpu_{name}" for name in ("inference", "evaluate", "train")} <= names
