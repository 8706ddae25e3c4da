"""NIH ChestX-ray14 as it is published, odd headers included."""

from __future__ import annotations

from pathlib import Path

import pytest
from monai_sr_bundle.boxes.box import Box
from monai_sr_bundle.datasets.make_manifest import assign_split
from monai_sr_bundle.datasets.manifest import read_boxes, read_manifest
from monai_sr_bundle.datasets.prepare import prepare
from monai_sr_bundle.errors import InputError

from tests.datasets.layouts import NIH_HEADER, nih, picture, skipped, split_of, table


def test_every_picture_gets_its_patient_view_labels_and_split(tmp_path: Path) -> None:
    prepare("nih", nih(tmp_path / "in", patients=(1, 2, 4)), tmp_path / "out", long_side=64)
    records = {record.file.stem: record for record in read_manifest(tmp_path / "out")}
    assert len(records) == 6
    record = records["00000002_001"]
    assert (record.patient_id, record.split, record.view) == ("nih-00000002", assign_split("nih-00000002"), "AP")
    assert [record.others[name] for name in ("labels", "age", "sex")] == ["Effusion|Nodule", "58", "F"]
    assert record.source_path == "images_001/images/00000002_001.png"
    assert {record.split for record in records.values()} == {"train", "val", "test"}


def test_spacing_is_that_of_the_film_spread_over_the_stored_pixels(tmp_path: Path) -> None:
    # NIH squeezed 3056x2544 pixels of 0.139 mm into a square, so columns are wider apart than rows.
    prepare("nih", nih(tmp_path / "in", side=128), tmp_path / "out", long_side=64)
    record = read_manifest(tmp_path / "out")[0]
    assert record.mm_per_pixel == pytest.approx(0.139 * 3056 / 64, abs=1e-6)
    assert float(record.others["mm_per_pixel_y"]) == pytest.approx(0.139 * 2544 / 64, abs=1e-6)
    assert record.others["spacing_source"] == "published table"


def test_boxes_refer_to_1024_pixels_and_are_scaled_to_the_stored_ones(tmp_path: Path) -> None:
    prepare("nih", nih(tmp_path / "in"), tmp_path / "out", long_side=64)
    assert read_boxes(tmp_path / "out") == {
        tmp_path / "out" / "images" / "00000001_000.png": [Box("Nodule", 16.0, 32.0, 24.0, 36.0)]
    }


def test_the_headers_of_the_later_editions_are_read_too(tmp_path: Path) -> None:
    folder = nih(tmp_path / "in", patients=(1,), images=1)
    v2020 = NIH_HEADER.removesuffix(",").replace("Gender", "Sex")
    table(folder / "Data_Entry_2017_v2020.csv", v2020, "00000001_000.png,No Finding,0,1,57,M,PA,2500,2048,0.168,0.168")
    prepare("nih", folder, tmp_path / "out", long_side=0)
    record = read_manifest(tmp_path / "out")[0]
    assert record.view == "PA"
    assert [record.others[name] for name in ("labels", "age", "sex")] == ["No Finding", "57", "M"]
    assert record.mm_per_pixel == pytest.approx(0.168 * 2500 / 128)

    sample = picture(tmp_path / "sample" / "images" / "00000013_005.png")
    header = NIH_HEADER.replace("OriginalImage[Width,Height]", "OriginalImageWidth,OriginalImageHeight")
    header = header.replace("[x,y],", "_x,OriginalImagePixelSpacing_y")
    table(tmp_path / "sample" / "sample_labels.csv", header, f"{sample.name},Mass,5,13,060Y,M,AP,3056,2544,0.139,0.139")
    prepare("nih", tmp_path / "sample", tmp_path / "sample_out")
    assert read_manifest(tmp_path / "sample_out")[0].mm_per_pixel == pytest.approx(0.139 * 3056 / 64)


def test_without_a_spacing_column_the_spacing_stays_unknown(tmp_path: Path) -> None:
    folder = nih(tmp_path / "in", patients=(1,), images=1)
    table(folder / "Data_Entry_2017.csv", "Image Index,Patient ID", "00000001_000.png,1")
    prepare("nih", folder, tmp_path / "out")
    record = read_manifest(tmp_path / "out")[0]
    assert record.mm_per_pixel is None
    assert "mm_per_pixel" not in (tmp_path / "out" / "manifest.csv").read_text()


def test_the_official_test_patients_can_be_kept(tmp_path: Path) -> None:
    hashed_to_test = split_of("test", "nih-{:08d}")
    patients = (1, hashed_to_test, 3)
    folder = nih(tmp_path / "in", patients=patients)
    (folder / "test_list.txt").write_text("00000003_000.png\r\n00000003_001.png\r\n")
    names = [f"{patient:08d}_{index:03d}.png" for patient in patients[:2] for index in range(2)]
    (folder / "train_val_list.txt").write_text("\n".join(names[:-1]))
    prepare("nih", folder, tmp_path / "out", official_split=True)
    tested = {record.patient_id for record in read_manifest(tmp_path / "out") if record.split == "test"}
    assert tested == {"nih-00000003"}
    ((file, reason),) = skipped(tmp_path / "out").items()
    assert file.endswith(names[-1])
    assert reason == "in neither train_val_list.txt nor test_list.txt"


def test_a_patient_in_both_official_lists_is_refused(tmp_path: Path) -> None:
    folder = nih(tmp_path / "in", patients=(1,))
    (folder / "test_list.txt").write_text("00000001_000.png")
    (folder / "train_val_list.txt").write_text("00000001_001.png")
    with pytest.raises(InputError, match=r"1 patients are in more than one split, the first is nih-00000001"):
        prepare("nih", folder, tmp_path / "out", official_split=True)


def test_pictures_and_rows_without_each_other_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = nih(tmp_path / "in", patients=(1,))
    (folder / "images_002" / "images" / "00000001_001.png").unlink()
    picture(folder / "images" / "logo.png")
    picture(folder / "images_003" / "images" / "00000001_000.png")
    prepare("nih", folder, tmp_path / "out")
    assert skipped(tmp_path / "out") == {
        "images/logo.png": "not in Data_Entry_2017.csv",
        "images_003/images/00000001_000.png": "a picture of this name was found before",
    }
    assert "1 of 2 pictures of Data_Entry_2017.csv are not in" in caplog.text


def test_a_bad_number_in_the_tables_is_refused_with_its_line(tmp_path: Path) -> None:
    folder = nih(tmp_path / "in", patients=(1,), images=1)
    table(folder / "BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,", "a.png,Mass,1,2,three,4,,,")
    with pytest.raises(InputError, match=r"BBox_List_2017\.csv, line 2: w is 'three', expected a number"):
        prepare("nih", folder, tmp_path / "out")
    table(folder / "Data_Entry_2017.csv", NIH_HEADER, "00000001_000.png,Mass,0,1,58,F,PA,3056,2544,0,0.1,")
    (folder / "BBox_List_2017.csv").unlink()
    with pytest.raises(InputError, match=r"line 2: OriginalImagePixelSpacing\[x is '0', expected a number above 0"):
        prepare("nih", folder, tmp_path / "out")
