import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.backends.opening import open_backend
from monai_sr_bundle.bundles import open_bundle
from monai_sr_bundle.calibrate.calibrate import calibrate
from monai_sr_bundle.calibrate.calibration_cases import enlarge_cases
from monai_sr_bundle.calibrate.training_inputs import fingerprint_image, read_training_fingerprints
from monai_sr_bundle.datasets.make_manifest import manifest_sha256, write_manifest
from monai_sr_bundle.datasets.manifest import Record, read_manifest
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.packing.release import release_learnt_from
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.uncertainty.calibration import bundle_sha256, read_calibration
from monai_sr_bundle.uncertainty.conformal import FACTORS
from monai_sr_bundle.uncertainty.error_bars import error_scale

from tests.tiny_flow import FLOW_BUNDLE, released_flow
from tests.with_error_bars import with_error_bars, without_error_bars, write_windows

IMAGES = 52
"""Two more than the least."""


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    return str(with_error_bars(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """`own`, the set of the bundle, and `other`, with noise that the bundle cannot foresee."""
    root = write_windows(tmp_path_factory.mktemp("data"), "own", {"train": 1, "val": IMAGES, "test": IMAGES})
    return write_windows(root, "other", {"train": IMAGES, "val": 2}, noise=16.0, seed=1)


@pytest.fixture(scope="module")
def calibration(name, data):
    counts = []
    calibration = calibrate(name, data, progress=lambda done, total: counts.append((done, total)))
    assert counts[0] == (1, IMAGES)
    assert counts[-1] == (IMAGES, IMAGES)
    return calibration


def test_a_calibration_tells_what_it_was_measured_on(name, data, calibration):
    bundle = find_bundle(name)
    assert (calibration.bundle, calibration.version, calibration.operator) == (
        bundle.name,
        bundle.version,
        "bicubic_antialias_x4",
    )
    assert calibration.weights_sha256 == bundle_sha256(bundle)
    assert (calibration.alpha, calibration.images, calibration.patients) == (0.1, IMAGES, IMAGES)
    assert (calibration.data, calibration.split) == ("own", "val")  # the folders of the bundle, where the data has them
    assert calibration.manifest_sha256 == manifest_sha256(data, sets=["own"], split="val")
    (entry,) = calibration.entries
    assert entry.sampling is None
    assert entry.factor in FACTORS
    assert 0.9 < entry.coverage < 0.95
    assert 0.001 < entry.half_width < 0.2


def test_the_promise_holds_on_other_images_of_the_same_kind(name, data, calibration):
    bundle = find_bundle(name)
    backend = open_backend(bundle)
    covered = [
        (
            np.abs(case.high_res - case.super_res)
            <= calibration.entries[0].factor * error_scale(case.super_res, case.low_res, bundle, backend)
        )
        for case in enlarge_cases(bundle, backend, data, "test", sets=["own"])
    ]
    assert len(covered) == IMAGES
    assert 0.87 < np.mean(covered) < 0.96


def test_larger_errors_make_wider_error_bars(name, data, calibration):
    # The split the bundle was trained on, but of another set: these patients it has never seen.
    noisy = calibrate(name, data, "train", sets=["other"])
    assert (noisy.data, noisy.split) == ("other", "train")
    assert noisy.entries[0].half_width > 2 * calibration.entries[0].half_width


def test_every_way_to_draw_has_a_factor_of_its_own(data, tmp_path):
    strong = {**find_bundle(FLOW_BUNDLE).family.defaults, "residual_std": 1.0}  # is seen beside made-up images
    flow = with_error_bars(tmp_path, released_flow(tmp_path, diffusion=strong)[0])
    samplers = (SamplerOptions(texture=0.0), SamplerOptions(texture=1.0, steps=2))
    counts = []
    calibration = calibrate(
        str(flow), data, samplers=samplers, limit=50, progress=lambda *done: counts.append(done), backend="onnx"
    )
    assert [entry.sampling for entry in calibration.entries] == [None, ("flow", 2, 1, 1.0)]
    assert calibration.entries[1].half_width > calibration.entries[0].half_width
    assert (calibration.images, counts[-1]) == (50, (100, 100))


def test_fewer_than_fifty_images_are_refused(name, data):
    with pytest.raises(
        InputError,
        match=r"the val split has 3 images of 3 patients \(CXR\), expected at least 50 .*--split all if the bundle was",
    ):
        calibrate(name, data, limit=3)
    with pytest.raises(
        InputError, match=r"the manifest has 3 images of 3 patients \(CXR\).* that hold. Add images, or"
    ):
        calibrate(name, data, "all", sets=["other"], limit=3)


def test_the_images_of_a_site_are_taken_from_every_split(name, tmp_path):
    """`monai-sr prepare` shares patients out; a site's own calibration has a use for all of them."""
    root = write_windows(tmp_path, "site", {"train": 40, "val": 6, "test": 6}, seed=4)
    calibration = calibrate(name, root, "all", backend="onnx")
    assert (calibration.images, calibration.split) == (52, "all")
    assert calibration.manifest_sha256 == manifest_sha256(root)
    with pytest.raises(InputError, match="the val split has 6 images"):
        calibrate(name, root, backend="onnx")


def test_a_share_that_needs_more_images_is_refused(name, data):
    with pytest.raises(InputError, match="no factor up to 50 .* within 0.01 on 52 patients.*at least 99 patients"):
        calibrate(name, data, alpha=0.01, backend="onnx")


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_that_is_none_is_refused(name, data, alpha):
    with pytest.raises(InputError, match=f"--alpha {alpha:g}: expected the share of pixels .* above 0 and below 1"):
        calibrate(name, data, alpha=alpha)


def test_the_patients_that_a_bundle_has_learnt_from_are_refused(name, data):
    with pytest.raises(InputError, match="chest_xray_edsr_x4 was trained on the train split of own. .*Name another"):
        calibrate(name, data, "train")
    with pytest.raises(InputError, match="was trained on the train split of own"):
        calibrate(name, data / "own", "train")
    with pytest.raises(InputError, match="was trained on the train split of own"):
        calibrate(name, data, "all", sets=["own"])


def test_training_images_are_recognised_in_a_renamed_folder_and_another_split(data, tmp_path):
    folder = with_error_bars(tmp_path / "bundle")
    release_learnt_from(str(folder), data)
    records = read_manifest(data, split="train", sets=["own"])
    write_windows(tmp_path, "site", {"val": IMAGES - 1}, seed=2)
    calibrate(str(folder), tmp_path / "site", limit=50, backend="onnx")
    ours = read_manifest(tmp_path / "site")
    shutil.copy(records[0].file, tmp_path / "site" / "another name.png")
    copy = replace(records[0], file=tmp_path / "site" / "another name.png", split="val", patient_id="a stranger")
    (tmp_path / "site" / "manifest.csv").unlink()
    write_manifest([*ours, copy], tmp_path / "site")
    with pytest.raises(
        InputError, match="was trained on 1 of the 52 images of the val split.* the first is another na"
    ):
        calibrate(str(folder), tmp_path / "site", limit=50)


def test_training_patients_are_recognised_by_their_set_and_name(tmp_path):
    folder = with_error_bars(tmp_path / "bundle")
    write_windows(tmp_path, "own", {"train": 2})
    record = replace(read_manifest(tmp_path, sets=["own"])[0], set="own")
    (tmp_path / "own" / "manifest.csv").unlink()
    write_manifest([record], tmp_path / "own")
    release_learnt_from(str(folder), tmp_path)
    fingerprints = read_training_fingerprints(open_bundle(folder))
    assert fingerprints == fingerprint_image(record)
    other = replace(record, sha256="ab" * 32)  # another image of the patient
    assert len(fingerprints & fingerprint_image(other)) == 2  # the pixels are the same, too
    assert len(fingerprints & fingerprint_image(replace(other, file=tmp_path / "none.png"))) == 1
    assert not fingerprints & fingerprint_image(replace(other, file=tmp_path / "none.png", set="a hospital"))


def test_training_images_are_recognised_when_they_are_written_again_and_public_patients_by_name_alone(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30)).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    PIL.Image.fromarray(pixels).save(tmp_path / "b.tif")
    PIL.Image.fromarray(pixels.reshape(30, 40)).save(tmp_path / "c.png")
    first, copy, transposed = (
        Record(tmp_path / name, "cxr", "val", "a", "CC0") for name in ("a.png", "b.tif", "c.png")
    )
    assert len(fingerprint_image(first) & fingerprint_image(copy)) == 1
    assert not fingerprint_image(first) & fingerprint_image(transposed)
    content = (tmp_path / "a.png").read_bytes()
    for name, damaged in (("d.png", content[:200]), ("e.png", b"no picture")):
        (tmp_path / name).write_bytes(damaged)
        assert len(fingerprint_image(replace(first, file=tmp_path / name))) == 1  # by its file alone
    nih, theirs, local = (
        replace(first, file=tmp_path / "none", patient_id=patient, set=name)
        for patient, name in (("nih-00000061", "cxr_nih"), ("nih-00000061", "nih"), ("61", "nih"))
    )
    assert len(fingerprint_image(nih) & fingerprint_image(theirs)) == 1
    assert not fingerprint_image(nih) & fingerprint_image(local)


def test_a_bundle_without_error_bars_is_refused(data, tmp_path):
    with pytest.raises(BundleError, match="chest_xray_edsr_x4 has no error bars. Train them with `monai-sr train"):
        calibrate(str(without_error_bars(tmp_path)), data)


def test_images_of_another_modality_are_refused(name, tmp_path):
    (tmp_path / "volume.nii.gz").touch()
    volume = Record(tmp_path / "volume.nii.gz", "ct", "val", "a patient", "Apache-2.0", shape_xyz=(8, 8, 8))
    write_manifest([volume], tmp_path)
    with pytest.raises(InputError, match="no cxr val image; there is ct val 1"):
        calibrate(name, tmp_path)


def test_slices_that_were_set_aside_of_the_training_patients_are_not_taken(name, tmp_path):
    folder = with_error_bars(tmp_path, modality="CT", window=[-1000, 400], levels=1400, validation_share=0.5)
    records = []
    for split in ("train", "val"):
        file = tmp_path / "ct" / f"{split}.nii.gz"
        file.parent.mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(np.zeros((32, 32, 4), np.int16), np.eye(4)), file)
        shape = {"shape_xyz": (32, 32, 4), "spacing_xyz": (1.0, 1.0, 1.0)}
        records.append(Record(file, "ct", split, f"{split} patient", "Apache-2.0", **shape))
    bundle = open_bundle(folder)
    backend = open_backend(bundle, "onnx")
    # Without a validation patient, half of the training patient was set aside.
    for patients, split, slices_in_split in ((2, "val", 4), (2, "train", 4), (1, "train", 2)):
        (tmp_path / "ct" / "manifest.csv").unlink(missing_ok=True)
        write_manifest(records[:patients], tmp_path / "ct")
        patients_taken = [case.patient for case in enlarge_cases(bundle, backend, tmp_path / "ct", split)]
        assert patients_taken == [f"{split} patient"] * slices_in_split


def test_the_command_measures_prints_and_writes(name, data, calibration, tmp_path, capsys):
    out = tmp_path / "site" / "calibration.json"
    words = ["calibrate", name, "--data", str(data), "--out", str(out), "--progress", "none", "--backend", "torch"]
    assert main(words) == 0
    assert read_calibration(out, find_bundle(name)).entries == calibration.entries
    printed = capsys.readouterr().out
    assert f"val split of own: {IMAGES} images of {IMAGES} patients | bicubic_antialias_x4" in printed
    assert (
        f"factor {calibration.entries[0].factor:.3g} covers {100 * calibration.entries[0].coverage:.1f} % of the"
        in printed
    )
    assert "(made to hold: 90 %)" in printed
    assert f"written: {out}" in printed
    before = out.read_bytes()
    assert main(words) == 5
    assert "calibration.json exists already. Choose another name, or pass --overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--limit", "3"]) == 3  # what fails replaces nothing
    assert out.read_bytes() == before


def test_the_command_takes_every_texture_in_every_number_of_steps(data, tmp_path):
    flow = with_error_bars(tmp_path, released_flow(tmp_path)[0])
    out, options = tmp_path / "site.json", ["--texture", "0", "1", "--steps", "1", "2"]
    words = ["calibrate", str(flow), "--data", str(data), "--out", str(out), "--progress", "none", "--backend", "onnx"]
    assert main([*words, *options, "--limit", "50"]) == 0
    entries = read_calibration(out, find_bundle(str(flow))).entries
    assert [entry.sampling for entry in entries] == [None, ("flow", 1, 1, 1.0), ("flow", 2, 1, 1.0)]


def test_a_folder_named_by_a_dot_has_a_name_too(name, data, monkeypatch):
    monkeypatch.chdir(data / "other")
    assert calibrate(name, Path("."), "train", limit=50, backend="onnx").data == "other"
