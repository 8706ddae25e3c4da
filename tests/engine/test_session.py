import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai_sr_bundle import enhance
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.backends.opening import open_backend
from monai_sr_bundle.cli.console import Terminal
from monai_sr_bundle.cli.jobs import Job
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.engine.session import EnhanceOptions, Session, SessionCache, choose_bundle
from monai_sr_bundle.errors import BundleError, InputError, OutOfMemoryError, OutputError
from monai_sr_bundle.images.from_array import image_from_array
from monai_sr_bundle.images.given_spacing import with_spacing
from monai_sr_bundle.images.one_image import read_one
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.uncertainty.calibration import CalibrationEntry
from PIL import Image as Picture

from tests.changed_bundles import copied, signed, with_facts, with_metadata
from tests.images.dicom_files import capture, ct_series, phantom, radiograph
from tests.monai_workflow import run_workflow
from tests.with_error_bars import calibration_of, with_error_bars, without_error_bars

CXR, CT, SEVERAL = "chest_xray_edsr_x4", "chest_ct_edsr_x4", "chest_xray_blind"


@pytest.fixture(scope="module")
def film():
    return draw_phantom(64)


def grey(film, dtype=np.uint8, highest=255):
    return np.rint(film * highest).astype(dtype)


def test_the_seconds_of_a_result_do_not_count_the_loading_of_the_weights(film, monkeypatch):
    now = [0.0]

    def load(*arguments):
        now[0] += 100.0
        return open_backend(*arguments)

    monkeypatch.setattr("monai_sr_bundle.engine.session.open_backend", load)
    monkeypatch.setattr("monai_sr_bundle.engine.session.time.perf_counter", lambda: now[0])
    assert enhance(grey(film), CXR).seconds == 0.0


def test_no_distance_between_frames_is_made_up(tmp_path):
    frames = phantom(slices=3).astype(np.uint16)
    path = capture(tmp_path / "frames.dcm", frames, PixelSpacing=[0.9, 0.6])
    with_depth = ct_series(tmp_path / "ct", phantom(slices=3))[0].parent
    for image, distance in ((path, None), (with_depth, 2.5)):
        result = enhance(image, "bicubic", scale=2)
        assert result.report()["output"]["spacing_mm"] == {
            "between_rows": 0.45, "between_columns": 0.3, "between_slices": distance,
        }  # fmt: skip


def test_weights_that_do_not_fit_into_memory_are_told_from_a_result_that_does_not(film, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr("monai_sr_bundle.engine.session.open_backend", fail)
    with pytest.raises(OutOfMemoryError, match=f"bundle {CXR} does not fit into memory"):
        enhance(grey(film), CXR)


def test_a_flat_image_stays_flat():
    result = enhance(np.full((16, 16), 77, np.uint16), CXR)
    assert (result.image.pixels == 77).all()


def test_hounsfield_values_keep_their_meaning():
    flat = replace(image_from_array(np.full((1, 32, 32), -700, np.int16)), modality="CT")
    values = enhance(flat, CT).image.pixels
    assert abs(int(np.median(values)) + 700) <= 5
    bone = replace(image_from_array(np.full((1, 32, 32), 1500, np.int16)), modality="CT")
    # Above the window, where the network was hardly trained, the value survives all the same.
    assert abs(int(np.median(enhance(bone, CT).image.pixels)) - 1500) <= 60


def test_rescaled_storage_gives_the_same_hounsfield_values(film):
    hu = np.rint(film * 1000 - 900).astype(np.int16)
    plain = replace(image_from_array(hu), modality="CT")
    shifted = replace(plain, pixels=(hu[None] + 1024).astype(np.uint16), intercept=-1024.0, stored_range=(0, 4095))
    first, second = enhance(plain, CT).image.pixels, enhance(shifted, CT).image.pixels
    np.testing.assert_array_equal(first.astype(int), second.astype(int) - 1024)


def test_a_result_stays_within_the_bits_of_the_storage(film):
    image = replace(image_from_array(grey(film, np.uint16, 1023)), stored_range=(0, 1023), bits=10)
    pixels = enhance(image, CXR).image.pixels
    assert pixels.max() <= 1023


def test_floats_are_not_rounded(film):
    pixels = enhance(film.astype(np.float32), CXR).image.pixels
    assert pixels.dtype == np.float32
    assert len(np.unique(pixels)) > 10_000


def test_a_region_keeps_its_place_in_millimetres(film):
    whole = enhance(grey(film), CXR, spacing_mm=(0.5, 0.25))
    part = enhance(grey(film), CXR, spacing_mm=(0.5, 0.25), roi=(10, 20, 42, 36))
    offset = np.array([40, 80, 0, 1])
    np.testing.assert_allclose(part.image.grid.affine[:3, 3], (whole.image.grid.affine @ offset)[:3], atol=1e-9)
    assert part.image.grid.spacing_xyz[:2] == pytest.approx((0.0625, 0.125))


def test_the_number_of_threads_changes_no_pixel(film):
    session, image = Session(find_bundle(CXR), "torch"), image_from_array(grey(film))
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(session.enhance(image).image.pixels)
    torch.set_num_threads(before)
    np.testing.assert_array_equal(*results)


def test_the_input_is_not_changed(film):
    image = grey(film)
    before = image.copy()
    enhance(image, CXR)
    np.testing.assert_array_equal(image, before)


def test_an_unknown_spacing_is_no_reason_to_warn_and_the_user_may_state_it(film, tmp_path):
    Picture.fromarray(grey(film)).save(tmp_path / "film.png")
    unknown, stated_by_user = (enhance(tmp_path / "film.png", **more) for more in ({}, {"spacing_mm": (0.4, 0.4)}))
    assert unknown.warnings == stated_by_user.warnings == ()
    assert not unknown.image.grid.in_millimetres
    assert stated_by_user.image.grid.in_millimetres


def test_a_spacing_that_the_user_replaces_is_named(film):
    source = replace(image_from_array(grey(film)), path=Path("film.dcm"))
    grid = replace(source.grid, affine=np.diag([0.1, 0.2, 1, 1]), spacing_source="PixelSpacing")
    result = enhance(replace(source, grid=grid), CXR, spacing_mm=(0.4, 0.4))
    assert result.image.grid.spacing_source == "given by the user"
    assert "The file states 0.2 x 0.1 mm (PixelSpacing), which the user replaced." in result.warnings


@pytest.mark.parametrize(("dtype", "highest"), [(np.uint8, 255), (np.uint16, 1023), (np.uint16, 4095), (np.int16, 99)])
def test_monochrome1_is_mirrored_exactly_in_any_number_of_bits(film, dtype, highest):
    lowest = 0 if dtype != np.int16 else -highest - 1
    pixels = np.rint(film * 0.8 * (highest - lowest) + lowest).astype(dtype)
    upright = replace(image_from_array(pixels), stored_range=(lowest, highest), bits=highest.bit_length())
    mirrored = replace(upright, pixels=(highest + lowest - upright.pixels).astype(dtype), black_is_high=True)
    first, second = enhance(upright, CXR).image.pixels, enhance(mirrored, CXR).image.pixels
    np.testing.assert_array_equal(highest + lowest - second.astype(int), first)


def test_the_smallest_image_works():
    assert enhance(np.arange(64, dtype=np.uint8).reshape(8, 8), CXR).image.pixels.shape == (1, 32, 32)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        *(
            (np.zeros((n, m), np.uint8), f"{m}x{n} pixels, expected at least 8x8")
            for n, m in ((1, 1), (7, 20), (20, 7))
        ),
        (np.zeros((2, 2, 16, 16), np.uint8), "expected uint8, uint16, int16 or float32"),
        (np.zeros((16, 16), np.int64), "expected uint8, uint16, int16 or float32"),
    ],
)
def test_an_array_that_is_too_small_or_of_another_kind_is_refused(array, message):
    with pytest.raises(InputError, match=message):
        enhance(array, CXR)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(value):
    image = np.zeros((16, 16), np.float32)
    image[3, 4:6] = value
    with pytest.raises(InputError, match="2 of 256 values are NaN or infinite, expected numbers"):
        enhance(image, CXR)


@pytest.mark.parametrize("roi", [(0, 0, 65, 10), (-1, 0, 10, 10), (10, 0, 10, 10), (0, 20, 10, 10)])
def test_a_region_outside_the_image_is_refused(film, roi):
    with pytest.raises(InputError, match="does not lie in the image of 64x64 pixels"):
        enhance(grey(film), CXR, roi=roi)


@pytest.mark.parametrize("spacing", [(0, 1), (1, -1), (np.nan, 1)])
def test_a_spacing_that_is_not_above_zero_is_refused(film, spacing):
    with pytest.raises(InputError, match="expected two numbers above 0, in millimetres"):
        enhance(grey(film), CXR, spacing_mm=spacing)


def test_an_unknown_word_for_the_modality_is_refused(film):
    with pytest.raises(InputError, match="modality is 'MR', expected 'CXR', 'CT' or 'unknown'"):
        image_from_array(film, modality="MR")


def test_the_bundle_follows_the_modality(film):
    assert choose_bundle(image_from_array(grey(film), modality="CT")).name == "chest_ct_blind"
    unknown = image_from_array(grey(film))
    bundle = choose_bundle(unknown)
    assert bundle.name == "chest_xray_blind"
    assert "taken as a chest X-ray" in Session(bundle).check(unknown).warnings[0]


@pytest.mark.parametrize(
    ("longer_side", "scale"),
    [(8, 4), (1024, 4), (1025, 3), (1365, 3), (1366, 2), (2048, 2), (5000, 2)],
)
def test_the_scale_is_the_largest_that_a_film_has_room_for_within_4096_pixels(longer_side, scale):
    for shape in ((8, longer_side), (longer_side, 8)):
        film = image_from_array(np.zeros(shape, np.uint8), modality="CXR")
        assert choose_bundle(film, SEVERAL, "auto").scale == scale
    assert choose_bundle(film, SEVERAL).scale == 4  # the bundle's own where nobody chooses
    assert choose_bundle(film, CXR, "auto").scale == 4


@pytest.mark.parametrize(("side", "scale"), [(256, 4), (341, 3), (342, 2), (512, 2), (768, 2)])
def test_a_ct_matrix_has_room_within_1024_pixels(tmp_path, side, scale):
    bundle_dir = with_facts(copied(tmp_path, CT), scales=[2, 3, 4])
    volume = image_from_array(np.zeros((1, side, 8), np.int16), modality="CT")
    for name in (str(bundle_dir), "bicubic"):  # interpolation is of the same size as what it is compared with
        assert choose_bundle(volume, name, "auto").scale == scale


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_every_scale_of_a_bundle_lies_exactly_on_its_source(scale):
    film = with_spacing(image_from_array(grey(draw_phantom(96)[:40, :56]), modality="CXR"), (0.4, 0.6))
    result = enhance(film, SEVERAL, scale=scale, backend="torch")
    assert result.image.pixels.shape == (1, 40 * scale, 56 * scale)
    np.testing.assert_allclose(result.image.grid.spacing_xyz[:2], (0.6 / scale, 0.4 / scale), rtol=1e-12)
    # The outer corner of the first pixel stays where it is.
    origin, finer = film.grid.affine[:2, 3], result.image.grid.affine[:2, 3]
    np.testing.assert_allclose(finer, origin + np.array([0.6, 0.4]) * (1 / scale - 1) / 2, atol=1e-12)
    assert result.provenance.scale_zyx == (1, scale, scale)
    assert result.provenance.operator == f"bicubic_antialias_x{scale}"
    assert f"--scale {scale}" in result.report()["run"]["command"]
    part = enhance(film, SEVERAL, scale=scale, backend="torch", roi=(7, 5, 30, 33))
    np.testing.assert_array_equal(
        part.image.pixels, result.image.pixels[:, 5 * scale : 33 * scale, 7 * scale : 30 * scale]
    )


def test_the_scale_of_a_region_is_that_of_the_whole():
    film = np.tile(grey(draw_phantom(64)), (1, 22))  # 1408 pixels wide
    part = enhance(film, SEVERAL, backend="torch", roi=(20, 10, 60, 50))
    assert part.image.pixels.shape == (1, 2 * 40, 2 * 40)


def test_error_bars_are_those_of_one_scale(film, tmp_path):
    of_one_scale = with_facts(without_error_bars(tmp_path, SEVERAL), error_bars_def=None, error_bars_halo=None)
    bundle_dir = with_error_bars(tmp_path, of_one_scale)
    assert find_bundle(str(bundle_dir)).has_file("error_bars.pt")
    with pytest.raises(BundleError, match="chest_xray_blind has no error bars at scale 2: they are made for --scale 4"):
        enhance(grey(film), str(bundle_dir), scale=2, backend="torch", error_bars=True)


def test_a_stack_of_unknown_modality_needs_a_bundle(film):
    with pytest.raises(InputError, match="a stack of 2 slices that does not say whether it is CT. Name a bundle"):
        choose_bundle(image_from_array(np.stack([film, film])))


def test_ct_is_refused_by_the_radiograph_bundle_unless_forced(film):
    ct = image_from_array(grey(film, np.int16, 300) - np.int16(900), modality="CT")
    session = Session(choose_bundle(ct, CXR))
    with pytest.raises(InputError, match="this is CT, but bundle chest_xray_edsr_x4 is made for CXR"):
        session.check(ct)
    assert any("forced" in sentence for sentence in session.check(ct, EnhanceOptions(force=True)).warnings)
    assert not any("made for" in sentence for sentence in Session(choose_bundle(ct, "bicubic")).check(ct).warnings)


def test_slices_of_a_volume_are_those_of_the_whole(film):
    volume = image_from_array(
        np.stack([grey(np.roll(film, 5 * each, 0), np.int16, 300) for each in range(5)]), modality="CT"
    )
    whole, part = (enhance(volume, "chest_ct_residual_flow_x4", slices=span) for span in (None, (1, 4)))
    np.testing.assert_array_equal(part.image.pixels, whole.image.pixels[1:4])
    assert part.source.pixels.shape == (3, 64, 64)
    np.testing.assert_allclose(part.image.grid.affine[:3, 3], whole.image.grid.affine[:3, 3] + [0, 0, 1])
    assert (whole.provenance.slices, part.provenance.slices) == (None, (1, 4))


def test_frames_of_one_dicom_file_are_not_written_in_part(tmp_path):
    file = capture(tmp_path / "frames.dcm", phantom(slices=3, dtype="uint16"))
    part = enhance(file, "bicubic", scale=2, slices=(0, 1))
    assert part.image.pixels.shape[0] == 1
    with pytest.raises(OutputError, match=r"frames.dcm: a part of its frames cannot be written as DICOM"):
        part.save(tmp_path / "out.dcm")
    assert not (tmp_path / "out.dcm").exists()


@pytest.mark.parametrize("slices", [(0, 3), (-1, 1), (1, 1)])
def test_slices_outside_the_volume_are_refused(film, slices):
    volume = image_from_array(np.stack([grey(film, np.int16, 300)] * 2), modality="CT")
    with pytest.raises(
        InputError, match=f"slices {slices[0]} to {slices[1]} do not lie in the image of 2; expected FIRST"
    ):
        enhance(volume, CT, slices=slices)


def test_a_session_is_opened_once_and_enhances_several_images(film, monkeypatch):
    calls = []

    def count(*arguments):
        calls.append(arguments)
        return open_backend(*arguments)

    monkeypatch.setattr("monai_sr_bundle.engine.session.open_backend", count)
    session = Session(find_bundle(CXR), "onnx")
    for image in (grey(film), grey(film[:, ::-1])):
        result = session.enhance(image_from_array(image))
        np.testing.assert_array_equal(result.image.pixels, enhance(image, CXR, backend="onnx").image.pixels)
    assert len(calls) == 3  # once by the session, and once by each `enhance`


def test_a_bundle_that_was_replaced_is_opened_again(film, tmp_path):
    folder, cache = copied(tmp_path), SessionCache("torch")
    first = cache.open(find_bundle(str(folder)))
    assert cache.open(find_bundle(str(folder))) is first
    before = first.enhance(image_from_array(grey(film)))
    state = torch.load(folder / "model.pt", weights_only=True)
    torch.save({key: 0 * value for key, value in state.items()}, folder / "model.pt")
    after = cache.open(find_bundle(str(signed(folder)))).enhance(image_from_array(grey(film)))
    assert after.provenance.weights_sha256 != before.provenance.weights_sha256
    assert not np.array_equal(after.image.pixels, before.image.pixels)


def test_numbers_of_a_network_that_are_not_finite_are_no_black_image(film, tmp_path):
    folder = copied(tmp_path)
    state = torch.load(folder / "model.pt", weights_only=True)
    state["head.bias"][0] = float("nan")
    torch.save(state, folder / "model.pt")
    with pytest.raises(BundleError, match="chest_xray_edsr_x4 gave values for .* that are not finite"):
        enhance(grey(film), str(signed(folder)), backend="torch")


@pytest.mark.parametrize("window", [[0, float("inf")], [0, 1e-320], [255, 0], [0, "255"]])
def test_a_window_that_is_no_range_of_numbers_is_refused(tmp_path, window):
    with pytest.raises(BundleError, match="window is .*, expected two rising numbers"):
        find_bundle(str(with_facts(copied(tmp_path), window=window)))


def test_another_calibration_changes_the_error_bars_and_loads_nothing_again(film, tmp_path):
    folder = with_error_bars(tmp_path)
    calibration_of(folder).write(folder / "calibration.json")
    site = calibration_of(folder, data="our hospital", entries=(CalibrationEntry(None, 6.0, 0.9, 0.01),))
    site.write(tmp_path / "ours.json")
    session = Session(find_bundle(str(folder)), "onnx")
    calibrated = session.with_calibration(tmp_path / "ours.json")
    image, options = image_from_array(grey(film)), EnhanceOptions(error_bars=True)
    shipped, ours = session.enhance(image, options), calibrated.enhance(image, options)
    assert calibrated.backend is session.backend
    assert (shipped.site_calibration, ours.site_calibration) == (False, True)
    assert (session.calibration, ours.error_bars.calibration.data) == (None, "our hospital")
    np.testing.assert_allclose(ours.error_bars.half_width, 3 * shipped.error_bars.half_width, rtol=1e-5)
    np.testing.assert_array_equal(ours.image.pixels, shipped.image.pixels)


def dicom_file(folder, film):
    return radiograph(folder / "film.dcm", grey(film, np.uint16, 4095))


def dicom_series(folder, film):
    ct_series(folder / "ct", np.stack([grey(film, np.int16, 300)] * 2), axes=np.eye(3))
    return folder / "ct"


def dicom_zip(folder, film):
    shutil.make_archive(str(folder / "ct"), "zip", dicom_series(folder, film))
    return folder / "ct.zip"


def nifti(folder, film):
    volume = np.stack([grey(film, np.int16, 1400) - np.int16(1000)] * 2, axis=2)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / "ct.nii.gz")
    return folder / "ct.nii.gz"


def png(folder, film):
    Picture.fromarray(grey(film)).save(folder / "film.png")
    return folder / "film.png"


KINDS = {dicom_file: ".dcm", dicom_series: "", dicom_zip: ".zip", nifti: ".nii.gz", png: ".png"}


@pytest.mark.parametrize(("write", "suffix"), KINDS.items())
def test_a_result_is_saved_and_explained_from_python_as_by_the_command_line(film, tmp_path, write, suffix):
    path = write(tmp_path, film)
    job = Job([path], tmp_path / f"cli{suffix}", bundle="bicubic", backend="onnx", preview=True, report=True)
    assert job.run(Terminal(quiet=True)) == []
    result = enhance(path, "bicubic", backend="onnx")
    saved = result.save(tmp_path / f"python{suffix}")
    ours, theirs = read_one(saved), read_one(tmp_path / f"cli{suffix}")
    np.testing.assert_array_equal(ours.pixels, result.image.pixels)
    np.testing.assert_array_equal(ours.pixels, theirs.pixels)
    np.testing.assert_allclose(ours.grid.affine, theirs.grid.affine)
    assert (ours.format, ours.modality) == (theirs.format, theirs.modality)
    with pytest.raises(OutputError, match="exists already"):
        result.save(saved)
    pictures = [Picture.open(result.preview(tmp_path / "a.png")), Picture.open(tmp_path / "cli.preview.png")]
    np.testing.assert_array_equal(*map(np.asarray, pictures))
    report = json.loads((tmp_path / "cli.report.json").read_text(encoding="utf-8"))
    assert comparable(result.report(output=saved)) == comparable(report)


def test_what_is_printed_of_a_result_and_its_image_has_no_header(film, tmp_path):
    result = enhance(dicom_file(tmp_path, film), "bicubic", backend="onnx")
    name = str(result.image.header[0].PatientName)
    assert name
    for text in (repr(result), repr(result.image)):
        assert name not in text
        assert str(result.image.header[0].PatientID) not in text
    assert "warnings=" in repr(result)


def comparable(report):
    """A report without what differs between two runs: times, the command line, name and hashes of the result."""
    run = {key: value for key, value in report["run"].items() if key not in ("seconds", "command")}
    output = {key: value for key, value in report["output"].items() if key not in ("name", "files", "combined_sha256")}
    return {**report, "created": "", "run": run, "output": output}


def test_the_result_of_an_array_has_no_file_format(film, tmp_path):
    with pytest.raises(InputError, match="made from an array, which has no file format"):
        enhance(grey(film), CXR).save(tmp_path / "out.png")


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    """EDSR with limits that the film is within."""
    folder = copied(tmp_path_factory.mktemp("limited"), "chest_xray_edsr_x4")
    limits = {"contrast_percent": [5, 200], "noise_percent": [0, 3], "sharpness_db": [-60, 0]}
    return with_metadata(folder, input_limits=limits)


def test_an_image_far_from_all_that_the_model_knows_is_interpolated_and_says_so(film, limited, tmp_path):
    noisy = np.clip(grey(film) + np.random.default_rng(0).normal(0, 30, film.shape), 0, 255).astype(np.uint8)
    result = enhance(noisy, str(limited), roi=(8, 8, 40, 40))
    bicubic = enhance(noisy, "bicubic", scale=4, roi=(8, 8, 40, 40))
    np.testing.assert_array_equal(result.image.pixels, bicubic.image.pixels)
    assert result.warnings[0].startswith("Interpolated, not enlarged by chest_xray_edsr_x4: it is far noisier than any")
    sentence = "Interpolation x4 by bicubic 0.2.0, seed 0. The image is outside the limits of chest_xray_edsr_x4."
    assert result.provenance.sentence.startswith(sentence)
    assert result.warnings[0] in result.report()["warnings"]
    forced = enhance(noisy, str(limited), force_model=True, roi=(8, 8, 40, 40))
    assert forced.provenance.bundle == "chest_xray_edsr_x4"
    assert not np.array_equal(forced.image.pixels, bicubic.image.pixels)
    assert enhance(grey(film), str(limited)).provenance.instead_of == ""


@pytest.mark.parametrize("force_model", [True, False])
def test_the_command_of_an_image_outside_the_limits_makes_the_same_result_again(limited, film, tmp_path, force_model):
    noisy = np.clip(grey(film) + np.random.default_rng(0).normal(0, 30, film.shape), 0, 255).astype(np.uint8)
    Picture.fromarray(noisy).save(tmp_path / "noisy.png")
    expected = enhance(tmp_path / "noisy.png", str(limited), force_model=force_model, spacing_mm=(0.7, 0.3))
    command = expected.report()["run"]["command"]
    # The command names the bundle, as it is shipped, and no folder.
    paths = {"noisy.png": str(tmp_path / "noisy.png"), "OUT": str(tmp_path / "out.png"), limited.name: str(limited)}
    assert main([paths.get(word, word) for word in command.split()[1:]]) == 0
    np.testing.assert_array_equal(read_one(tmp_path / "out.png").pixels, expected.image.pixels)
    assert "--spacing-mm 0.7 0.3" in command
    assert ("bicubic" in command, "--force-model" in command) == (False, force_model)


def test_padding_of_an_interpolated_ct_stays_padding_where_the_image_does_not_say_what_it_is(film):
    pixels = np.rint(film * 1400 - 1000).astype(np.int16)[None].repeat(3, axis=0)
    pixels += np.random.default_rng(0).normal(0, 400, pixels.shape).astype(np.int16)
    pixels[:, :12], pixels[:, 12:] = -2000, pixels[:, 12:].clip(-1024, None)
    result = Session(find_bundle("chest_ct_blind")).enhance(image_from_array(pixels))
    assert result.provenance.instead_of == "chest_ct_blind"
    scale = result.bundle.scale
    assert set(np.unique(result.image.pixels[:, : 12 * scale])) == {-2000}
    assert result.image.pixels[:, 12 * scale :].min() >= -1500


def test_monai_refuses_what_the_engine_interpolates(film, limited, tmp_path):
    noisy = np.clip(grey(film) + np.random.default_rng(0).normal(0, 30, film.shape), 0, 255).astype(np.uint8)
    Picture.fromarray(noisy).save(tmp_path / "noisy.png")
    arguments = {"dataset_dir": tmp_path / "noisy.png", "output_dir": tmp_path / "out"}
    with pytest.raises(RuntimeError) as caught:
        run_workflow(limited, "inference", **arguments)
    causes = [caught.value]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    assert "noisy.png: it is far noisier than anything that the model was trained on" in str(causes[-1])
    run_workflow(limited, "inference", **arguments, force_model=True)
    assert len(list((tmp_path / "out").iterdir())) == 1
