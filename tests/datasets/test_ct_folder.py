"""A folder of DICOM CT: which series become volumes, and where they lie."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai_sr_bundle.datasets.ct_folder import scan
from monai_sr_bundle.datasets.manifest import read_manifest
from monai_sr_bundle.datasets.prepare import prepare

from tests.datasets.layouts import skipped, thorax
from tests.images.dicom_files import TILTED, capture, ct_series, ct_slice, radiograph


def test_a_series_becomes_a_volume_in_hu_at_its_place(tmp_path: Path) -> None:
    ct_series(tmp_path / "in", thorax(), PatientIdentityRemoved="YES", ConvolutionKernel="B30f")
    prepare("ct", tmp_path / "in", tmp_path / "out")
    (record,) = read_manifest(tmp_path / "out")
    assert (record.kind, record.patient_id, record.kernel) == ("ct", "PHANTOM", "B30f")
    assert (record.shape_xyz, record.spacing_xyz) == ((24, 24, 6), (0.6, 0.9, 2.5))
    volume = nibabel.load(record.file)
    assert volume.get_data_dtype() == np.int16
    np.testing.assert_array_equal(np.asarray(volume.dataobj), thorax().transpose(2, 1, 0) - 1024)
    last = np.array([-100.0, 50.0, -30.0]) + TILTED @ (np.array([23, 23, 5]) * [0.6, 0.9, 2.5])
    np.testing.assert_allclose(volume.affine @ [23, 23, 5, 1], [*(last * [-1, -1, 1]), 1], atol=1e-3)
    assert (record.others["hu_min"], record.others["hu_max"]) == ("-1000", "45")


def test_the_name_of_a_multi_frame_file_is_the_same_wherever_its_folder_lies(tmp_path: Path) -> None:
    frames = np.zeros((6, 16, 16), np.uint16)
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        capture(tmp_path / folder / "a.dcm", frames, Modality="CT", SOPInstanceUID="2.25.7", StudyInstanceUID=None)
    (one,), (other,) = (scan(tmp_path / folder).items for folder in ("one", "other"))
    assert (one.name, one.patient_id) == (other.name, other.patient_id)


def test_a_patient_id_that_was_not_removed_becomes_a_pseudonym(tmp_path: Path) -> None:
    ct_series(tmp_path / "in", thorax())
    prepare("ct", tmp_path / "in", tmp_path / "out")
    patient = read_manifest(tmp_path / "out")[0].patient_id
    assert patient.startswith("p-")
    assert "PHANTOM" not in (tmp_path / "out" / "manifest.csv").read_text()


def test_series_of_one_patient_share_a_split_and_a_study_stands_in_for_a_missing_patient(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ct_series(tmp_path / "in" / "a", thorax(), SeriesInstanceUID="2.25.1")
    ct_series(tmp_path / "in" / "b", thorax(), SeriesInstanceUID="2.25.2")
    ct_series(tmp_path / "in" / "c", thorax(), SeriesInstanceUID="2.25.3", PatientID="")
    prepare("ct", tmp_path / "in", tmp_path / "out")
    patients = [record.patient_id for record in read_manifest(tmp_path / "out")]
    assert patients[0] == patients[1]
    assert patients[2].startswith("study-")
    assert "1 series have no Patient ID" in caplog.text


def test_what_is_no_chest_volume_is_listed_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    ct_series(folder / "good", thorax())
    ct_series(folder / "short", thorax(3), SeriesInstanceUID="2.25.11")
    scout = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    ct_series(folder / "scout", thorax(), SeriesInstanceUID="2.25.12", ImageType=scout)
    ct_series(folder / "gap", thorax(), SeriesInstanceUID="2.25.13")[3].unlink()
    ct_series(folder / "blank", np.full((6, 24, 24), 24, "int16"), SeriesInstanceUID="2.25.14")
    ct_series(folder / "unknown", thorax(), SeriesInstanceUID="2.25.21", PixelSpacing=None)
    ct_series(folder / "bone", thorax() + 1000, SeriesInstanceUID="2.25.15")
    ct_slice(folder / "other.dcm", thorax()[0], Modality="MR")
    radiograph(folder / "cxr.dcm", np.full((8, 8), 7, "uint16"))
    (folder / "README").write_text("about")
    prepare("ct", folder, tmp_path / "out")
    assert [record.source_path for record in read_manifest(tmp_path / "out")] == ["good/00_0.dcm and 5 more"]
    reasons = {file.split("/")[0].split(" ")[0]: reason for file, reason in skipped(tmp_path / "out").items()}
    assert reasons.pop("gap").startswith("gap: ")
    assert reasons.pop("blank").startswith("blank: almost blank, its standard deviation is 0.00 of 255 grey levels")
    assert reasons.pop("unknown").startswith("unknown: the spacing of its pixels is unknown, expected millimetres")
    assert reasons.pop("bone").startswith("bone: values from 0 to 1045 are not the Hounsfield units of a chest")
    assert reasons == {
        "short": "3 slices, expected 4 or more",
        "scout": "a localizer, not a volume",
        "other.dcm": "the modality is MR, expected CT",
        "cxr.dcm": "the modality is DX, expected CT",
        "README": "not DICOM",
    }


def test_damaged_headers_are_listed(tmp_path: Path) -> None:
    whole = ct_series(tmp_path / "in", thorax())[0].read_bytes()
    (tmp_path / "in" / "cut.dcm").write_bytes(whole[:200])
    # Patient ID (0010,0020) with a value representation that does not exist.
    (tmp_path / "in" / "odd.dcm").write_bytes(whole.replace(b"\x10\x00\x20\x00LO", b"\x10\x00\x20\x00L?"))
    prepare("ct", tmp_path / "in", tmp_path / "out")
    reasons = skipped(tmp_path / "out")
    assert reasons["cut.dcm"] == "the modality is missing, expected CT"
    assert reasons["odd.dcm"].startswith("odd.dcm: cannot be read as DICOM (NotImplementedError); it is damaged")


def test_the_least_number_of_slices_can_be_chosen(tmp_path: Path) -> None:
    ct_series(tmp_path / "in", thorax(3))
    prepare("ct", tmp_path / "in", tmp_path / "out", min_slices=3)
    assert read_manifest(tmp_path / "out")[0].shape_xyz == (24, 24, 3)


def test_values_beyond_12_bits_are_cut(tmp_path: Path) -> None:
    stored = thorax()
    stored[:, 0, 0], stored[:, 23, 23] = -976, 5024
    ct_series(tmp_path / "in", stored)
    prepare("ct", tmp_path / "in", tmp_path / "out")
    hu = np.asarray(nibabel.load(read_manifest(tmp_path / "out")[0].file).dataobj)
    assert (hu.min(), hu.max()) == (-1024, 3071)
