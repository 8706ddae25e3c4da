"""Any folder: the images that are taken, and their patients."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai_sr_bundle.datasets.manifest import read_manifest
from monai_sr_bundle.datasets.prepare import prepare

from tests.datasets.layouts import chest, picture, skipped, thorax
from tests.images.dicom_files import ct_series, radiograph


def test_pictures_dicom_and_nifti_are_told_apart_by_content(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    picture(folder / "a_1.jpg")
    radiograph(folder / "no_suffix", chest(dtype="uint16", top=4095), PatientSex="F", PatientAge="061Y")
    ct_series(folder / "ct", thorax(), SeriesInstanceUID="2.25.31")
    nibabel.save(
        nibabel.Nifti1Image(thorax().transpose(2, 1, 0) - 1024, np.diag([-0.7, -0.7, 2, 1])), folder / "v_1.nii.gz"
    )
    radiograph(folder / "mammo.dcm", chest(dtype="uint16"), Modality="MG")
    (folder / "notes.txt").write_text("text")
    (folder / ".hidden").write_text("text")
    prepare("folder", folder, tmp_path / "out")
    records = {record.source_path: record for record in read_manifest(tmp_path / "out")}
    kinds = {name: record.kind for name, record in records.items()}
    assert kinds == {"a_1.jpg": "cxr", "no_suffix": "cxr", "v_1.nii.gz": "ct", "ct/00_0.dcm and 5 more": "ct"}
    film = records["no_suffix"]
    assert (film.view, film.others["sex"], film.others["age"]) == ("PA", "F", "61")
    assert records["v_1.nii.gz"].spacing_xyz == (0.7, 0.7, 2.0)
    stored = nibabel.load(records["v_1.nii.gz"].file)
    np.testing.assert_allclose(stored.affine, np.diag([-0.7, -0.7, 2, 1]), atol=1e-6)
    np.testing.assert_array_equal(np.asarray(stored.dataobj), thorax().transpose(2, 1, 0) - 1024)
    assert skipped(tmp_path / "out") == {
        "mammo.dcm": "the modality is MG, expected CT or CR, DX, RG, RF, DR, XR",
        "notes.txt": "not a picture, DICOM or NIfTI",
    }


def test_the_patient_is_found_by_a_pattern(tmp_path: Path) -> None:
    for name in ("p1/x.png", "p1/y.png", "p2/x.png", "legend.png"):
        picture(tmp_path / "in" / name)
    prepare("folder", tmp_path / "in", tmp_path / "out", patient_from=r"^([^/]+)/")
    assert [record.patient_id for record in read_manifest(tmp_path / "out")] == ["p1", "p1", "p2"]
    reason = "its path does not match the patient pattern '^([^/]+)/'"
    assert skipped(tmp_path / "out") == {"legend.png": reason}


@pytest.mark.parametrize("pattern", [r"\d{3}", r"s(\d{3})", r"(?P<site>s)(?P<patient>\d{3})"])
def test_a_pattern_may_have_a_name_a_group_or_neither(tmp_path: Path, pattern: str) -> None:
    picture(tmp_path / "in" / "s123b.png")
    prepare("folder", tmp_path / "in", tmp_path / "out", patient_from=pattern)
    assert read_manifest(tmp_path / "out")[0].patient_id == "123"


def test_a_pattern_also_names_the_patients_of_ct_series(tmp_path: Path) -> None:
    ct_series(tmp_path / "in" / "case7", thorax())
    prepare("folder", tmp_path / "in", tmp_path / "out", patient_from=r"case\d")
    assert read_manifest(tmp_path / "out")[0].patient_id == "case7"


@pytest.mark.parametrize(
    ("names", "patients", "warning"),
    [
        (["007_a.png", "007_b.png", "008_a.png"], ["007", "007", "008"], ""),
        (["a.png", "b.png", "c_1.png"], ["a.png", "b.png", "c"], "PATIENTS UNKNOWN: 2 of 3 files name no patient"),
        (["chest_1.png", "chest_2.png"], ["chest"] * 2, "ONE PATIENT: all 2 images count as patient 'chest'"),
    ],
)
def test_without_a_pattern_the_name_up_to_its_underscore_is_the_patient(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, names: list[str], patients: list[str], warning: str
) -> None:
    for name in names:
        picture(tmp_path / "in" / name)
    prepare("folder", tmp_path / "in", tmp_path / "out")
    assert [record.patient_id for record in read_manifest(tmp_path / "out")] == patients
    assert warning in caplog.text
    assert ("PATIENT" in caplog.text) == bool(warning)


def test_one_image_under_the_names_of_two_patients_in_two_splits_is_told(tmp_path, caplog):
    for patient in range(12):
        picture(tmp_path / "in" / f"{patient}_1.png", chest(top=200 + patient // 2))
    prepare("folder", tmp_path / "in", tmp_path / "out")
    splits = {record.source_path: record.split for record in read_manifest(tmp_path / "out")}
    twins = [sorted((f"{patient}_1.png", f"{patient + 1}_1.png")) for patient in range(0, 12, 2)]
    expected = {f"{a} ({splits[a]}) and {b} ({splits[b]})" for a, b in twins if splits[a] != splits[b]}
    messages = [message for message in caplog.messages if message.startswith("THE SAME IMAGE IN TWO SPLITS: ")]
    assert expected == {re.search(r": (.+) are equal", message)[1] for message in messages} != set()


def test_files_of_one_name_and_different_kind_do_not_meet(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a_1.png")
    picture(tmp_path / "in" / "a_1.jpg", 255 - chest())
    prepare("folder", tmp_path / "in", tmp_path / "out")
    assert [record.file.name for record in read_manifest(tmp_path / "out")] == ["a_1.jpg.png", "a_1.png.png"]


def test_a_dicom_file_with_a_damaged_header_is_listed(tmp_path: Path) -> None:
    whole = radiograph(picture(tmp_path / "in" / "a_1.png").with_name("x"), chest(dtype="uint16", top=4095))
    whole.write_bytes(whole.read_bytes().replace(b"\x10\x00\x20\x00LO", b"\x10\x00\x20\x00L?"))
    prepare("folder", tmp_path / "in", tmp_path / "out")
    assert skipped(tmp_path / "out")["x"].startswith("x: cannot be read as DICOM (NotImplementedError)")
