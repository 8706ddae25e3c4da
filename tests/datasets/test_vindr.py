"""VinDr-CXR in the layouts of PhysioNet and Kaggle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from monai_sr_bundle.boxes.box import Box
from monai_sr_bundle.datasets.manifest import read_boxes, read_manifest
from monai_sr_bundle.datasets.prepare import prepare
from monai_sr_bundle.errors import InputError

from tests.datasets.layouts import chest, skipped, table
from tests.images.dicom_files import radiograph

ANNOTATIONS = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max"
TWELVE_BITS = chest(80, 160, "uint16", 4095)


def physionet(folder: Path) -> Path:
    for name in ("train/aa", "train/bb", "test/cc"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        radiograph(folder / f"{name}.dicom", TWELVE_BITS, PhotometricInterpretation="MONOCHROME2")
    table(
        folder / "annotations" / "annotations_train.csv",
        ANNOTATIONS,
        "aa,R1,Nodule/Mass,10,20,40,60",
        "aa,R2,Nodule/Mass,12,20,44,60",
        "aa,R3,No finding,,,,",
        *(f"bb,R{reader},No finding,,,," for reader in (1, 2, 3)),
    )
    table(
        folder / "annotations" / "annotations_test.csv",
        "image_id,class_name,x_min,y_min,x_max,y_max",
        "cc,Cardiomegaly,0,80,80,160",
    )
    table(
        folder / "annotations" / "image_labels_train.csv",
        "image_id,rad_id,Nodule/Mass,Tuberculosis",
        "aa,R1,1,1",
        "bb,R1,0,0",
    )
    return folder


def test_each_readers_boxes_are_scaled_and_kept_apart(tmp_path: Path) -> None:
    prepare("vindr", physionet(tmp_path / "in"), tmp_path / "out", long_side=80)
    images = tmp_path / "out" / "images"
    assert read_boxes(tmp_path / "out") == {
        images / "aa.png": [
            Box("Nodule/Mass", 5, 10, 20, 30, reader="R1"),
            Box("Nodule/Mass", 6, 10, 22, 30, reader="R2"),
        ],
        images / "cc.png": [Box("Cardiomegaly", 0, 40, 40, 80)],
    }


def test_labels_join_the_readers_every_image_is_a_patient_and_spacing_that_of_the_detector(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepare("vindr", physionet(tmp_path / "in"), tmp_path / "out", long_side=80)
    records = {record.file.stem: record for record in read_manifest(tmp_path / "out")}
    patients = {name: record.patient_id for name, record in records.items()}
    assert patients == {"aa": "vindr-aa", "bb": "vindr-bb", "cc": "vindr-cc"}
    assert "publishes no patient identifiers" in caplog.text
    assert records["aa"].others["labels"] == "Nodule/Mass|Tuberculosis"
    assert records["bb"].others["labels"] == "No finding"
    assert records["aa"].view == "PA"
    assert (records["aa"].width, records["aa"].height) == (40, 80)
    assert (records["aa"].mm_per_pixel, records["aa"].others["mm_per_pixel_y"]) == (0.2, "0.400000")
    assert records["aa"].others["spacing_source"] == "ImagerPixelSpacing, detector plane"


def test_the_published_test_folder_can_be_the_test_split(tmp_path: Path) -> None:
    prepare("vindr", physionet(tmp_path / "in"), tmp_path / "out", official_split=True)
    assert [r.file.stem for r in read_manifest(tmp_path / "out", split="test")] == ["cc"]


def test_the_kaggle_layout_with_monochrome1(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "in"
    (folder / "train").mkdir(parents=True)
    radiograph(folder / "train" / "aa.dicom", 4095 - TWELVE_BITS, PhotometricInterpretation="MONOCHROME1")
    header = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"
    table(folder / "train.csv", header, "aa,Aortic enlargement,0,R9,8,16,80,160", "gone,No finding,14,R1,,,,")
    prepare("vindr", folder, tmp_path / "out", long_side=0)
    with PIL.Image.open(tmp_path / "out" / "images" / "aa.png") as stored:
        np.testing.assert_allclose(np.asarray(stored), chest(80, 160), atol=1)
    ((box,),) = read_boxes(tmp_path / "out").values()
    assert box == Box("Aortic enlargement", 8, 16, 80, 160, reader="R9")
    assert "1 of 2 annotated images are not in" in caplog.text


def test_a_second_file_of_one_name_is_skipped(tmp_path: Path) -> None:
    folder = physionet(tmp_path / "in")
    radiograph(folder / "test" / "aa.dicom", TWELVE_BITS)
    prepare("vindr", folder, tmp_path / "out")
    assert skipped(tmp_path / "out") == {"train/aa.dicom": "a file of this name was found before"}


def test_the_official_split_needs_the_test_folder(tmp_path: Path) -> None:
    table(tmp_path / "in" / "train.csv", ANNOTATIONS)
    with pytest.raises(InputError, match=r"the official split needs the folder test"):
        prepare("vindr", tmp_path / "in", tmp_path / "out", official_split=True)


def test_a_box_with_a_hole_is_refused_with_its_line(tmp_path: Path) -> None:
    table(tmp_path / "in" / "train.csv", ANNOTATIONS, "aa,R1,Mass,1,,3,4")
    with pytest.raises(InputError, match=r"train\.csv, line 2: y_min is '', expected a number"):
        prepare("vindr", tmp_path / "in", tmp_path / "out")
