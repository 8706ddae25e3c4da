"""The manifest: what it reads, what it refuses, and that a split never moves."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from monai_sr_bundle.datasets.make_manifest import assign_split, manifest_sha256, write_boxes, write_manifest
from monai_sr_bundle.datasets.manifest import Box, Record, read_boxes, read_manifest
from monai_sr_bundle.errors import InputError, OutputError

from tests.datasets.layouts import picture, table

CXR = (
    "file,set,split,source_repo,source_commit,source_path,license,patient_id,view,labels,age,sex,width,height,"
    "source_width,source_height,mm_per_pixel,sha256"
)
CT = (
    "file,kind,split,source_repo,source_commit,source_path,license,patient_id,manufacturer,kernel,shape_xyz,spacing_mm,"
    "hu_min,hu_max,note"
)
BOXES = "image,finding,x_min,y_min,x_max,y_max"


def cxr_row(name: str, split: str = "train", patient: str = "a", width: object = 64, mm: object = 0.5) -> str:
    return (
        f"{name},s,{split},repo,c0ffee,raw/x.png,CC BY 4.0,{patient},PA,Mass|Nodule,50,F,{width},64,128,128,{mm},ab12"
    )


def a_set(folder: Path, *rows: str, header: str = CXR, boxes: tuple[str, ...] = ()) -> Path:
    """A set with a picture for every row."""
    for row in rows:
        picture(folder / row.split(",")[0])
    table(folder / "manifest.csv", header, *rows)
    if boxes:
        table(folder / "boxes.csv", BOXES, *boxes)
    return folder


def test_a_row_becomes_a_record(tmp_path: Path) -> None:
    (record,) = read_manifest(a_set(tmp_path, cxr_row("images/a.png")))
    assert record.file == tmp_path / "images/a.png"
    assert (record.kind, record.split, record.patient_id, record.view) == ("cxr", "train", "a", "PA")
    assert (record.mm_per_pixel, record.width, record.licence, record.sha256) == (0.5, 64, "CC BY 4.0", "ab12")
    assert (record.others["labels"], record.others["source_commit"]) == ("Mass|Nodule", "c0ffee")


def test_files_may_be_relative_to_the_parent_of_the_set(tmp_path: Path) -> None:
    picture(tmp_path / "nih" / "images" / "a.png")
    table(tmp_path / "nih" / "manifest.csv", CXR, cxr_row("nih/images/a.png"))
    assert [record.file for record in read_manifest(tmp_path / "nih")] == [tmp_path / "nih" / "images" / "a.png"]


def test_a_folder_of_sets_is_read_as_one_and_can_be_filtered_by_name_and_kind(tmp_path: Path) -> None:
    a_set(tmp_path / "one", cxr_row("a.png"))
    a_set(tmp_path / "two", cxr_row("b.png", "test", "b"))
    a_set(tmp_path / "ct", "v.png,nifti,val,r,c,p,CC0,c,Philips,B,8x9x10,0.8x0.7x5,-1000,99,n", header=CT)
    assert Counter(record.split for record in read_manifest(tmp_path)) == {"train": 1, "test": 1, "val": 1}
    assert [record.patient_id for record in read_manifest(tmp_path, sets=["two"])] == ["b"]
    (volume,) = read_manifest(tmp_path, kind="ct")
    assert (volume.shape_xyz, volume.spacing_xyz, volume.mm_per_pixel) == ((8, 9, 10), (0.8, 0.7, 5.0), 0.8)
    assert read_manifest(tmp_path, sets="two") == read_manifest(tmp_path, sets=["two"])
    message = (
        r"no set named three; there is ct, one, two\. Name sets with --sets, or in the protocol; with MONAI's train"
    )
    with pytest.raises(InputError, match=message):
        read_manifest(tmp_path, sets=["three"])


def test_a_folder_of_slices_can_be_a_file_of_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    table(tmp_path / "manifest.csv", CT, "series/,dicom series,test,r,c,p,CC0,c,Philips,D,8x8x6,0.7x0.7x1.0,,,n")
    assert read_manifest(tmp_path)[0].file == tmp_path / "series"


def test_samples_come_only_when_asked_for_and_need_no_patient(tmp_path: Path) -> None:
    a_set(tmp_path, "a.dcm.png,sample,CC0", "b.png,sample,CC0", header="file,split,license")
    assert len(read_manifest(tmp_path, split="sample")) == 2
    with pytest.raises(InputError, match=r"no train, val or test image; there is cxr sample 2"):
        read_manifest(tmp_path)


def test_no_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no manifest\.csv.*monai-sr prepare SOURCE DIR OUT"):
        read_manifest(tmp_path)


def test_an_empty_selection_says_what_there_is(tmp_path: Path) -> None:
    data = a_set(tmp_path, cxr_row("a.png"), cxr_row("b.png", "val", "b"))
    with pytest.raises(InputError, match=r"no test image; there is cxr train 1, cxr val 1"):
        read_manifest(data, split="test")
    with pytest.raises(InputError, match=r"no ct train image; there is cxr train 1"):
        read_manifest(data, split="train", kind="ct")


def test_an_unknown_split_is_refused_in_the_question_and_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"split 'validation' is unknown, expected one of train, val, test, sample"):
        read_manifest(tmp_path, split="validation")
    with pytest.raises(InputError, match=r"manifest\.csv, line 2: split is 'Train', expected one of train"):
        read_manifest(a_set(tmp_path, cxr_row("a.png", "Train")))


def test_missing_files_are_counted_and_the_first_three_named(tmp_path: Path) -> None:
    data = a_set(tmp_path, *(cxr_row(f"{name}.png") for name in "abcde"))
    for name in "abcd":
        (data / f"{name}.png").unlink()
    with pytest.raises(InputError, match=r"4 of 5 files of the manifest are missing: .*a\.png, .*b\.png, .*c\.png, \."):
        read_manifest(data)


@pytest.mark.parametrize(
    ("row", "header", "message"),
    [
        ("a.png,train", "file,split", r"column license is missing; the header holds file, split"),
        ("a.png,train,CC0", "file,split,license", r"line 2: patient_id is empty or missing"),
        (cxr_row("a.png", mm="wide"), CXR, r"line 2: mm_per_pixel is 'wide', expected a number above 0"),
        (cxr_row("a.png", mm=-1), CXR, r"line 2: mm_per_pixel is '-1', expected a number above 0"),
        (cxr_row("a.png", mm="nan"), CXR, r"line 2: mm_per_pixel is 'nan', expected a number above 0"),
        (cxr_row("a.png", width=63.5), CXR, r"line 2: width is 63\.5, expected a whole number"),
        ("a.png,n,val,r,c,p,CC0,c,P,B,8x9,1x1x1,-1,1,n", CT, r"line 2: shape_xyz is '8x9', expected three numbers"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path: Path, row: str, header: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_manifest(a_set(tmp_path, row, header=header))


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "", "b\\a.png"])
def test_a_path_that_leaves_the_set_is_refused(tmp_path: Path, name: str) -> None:
    table(tmp_path / "manifest.csv", CXR, cxr_row(name))
    with pytest.raises(InputError, match=r"line 2: file is .*, expected a path inside the set"):
        read_manifest(tmp_path)


def test_a_file_listed_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 3: a\.png was listed in line 2 already"):
        read_manifest(a_set(tmp_path, cxr_row("a.png"), cxr_row("a.png")))


def test_a_patient_in_two_splits_is_refused_even_across_sets(tmp_path: Path) -> None:
    a_set(tmp_path / "one", cxr_row("a.png", "train", "p7"))
    a_set(tmp_path / "two", cxr_row("b.png", "test", "p7"))
    with pytest.raises(InputError, match=r"1 patients are in more than one split, the first is p7 in test and train"):
        read_manifest(tmp_path, split="train")


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_bytes(b"\xff\xfe\x00file")
    with pytest.raises(InputError, match=r"cannot be read as a comma-separated table"):
        read_manifest(tmp_path)


def test_boxes_are_read_by_image_with_their_slice_and_reader(tmp_path: Path) -> None:
    data = a_set(tmp_path, cxr_row("a.png"), cxr_row("b.png", "val", "b"))
    table(data / "boxes.csv", BOXES + ",reader", "a.png,Mass,1,2,64,40.5,R1", "a.png,Mass,3,2,6,4,R2")
    assert read_boxes(data) == {
        data / "a.png": [Box("Mass", 1, 2, 64, 40.5, reader="R1"), Box("Mass", 3, 2, 6, 4, reader="R2")]
    }


def test_a_set_without_boxes_gives_none(tmp_path: Path) -> None:
    assert read_boxes(a_set(tmp_path, cxr_row("a.png"))) == {}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,Mass,1,2,65,40", r"boxes\.csv, line 2: the box goes from x 1 to 65, outside its image of 64 x 64"),
        ("a.png,Mass,9,2,9,40", r"line 2: the box is empty: x_min 9 is not below x_max 9"),
        ("a.png,Mass,one,2,9,40", r"line 2: x_min is 'one', expected a number"),
        ("z.png,Mass,1,2,9,40", r"line 2: z\.png is not in manifest\.csv"),
    ],
)
def test_a_bad_box_is_refused_with_its_line(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_boxes(a_set(tmp_path, cxr_row("a.png"), boxes=(row,)))


def test_a_box_on_an_image_of_unknown_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 2: the size of a\.png is unknown"):
        read_boxes(a_set(tmp_path, cxr_row("a.png", width=""), boxes=("a.png,Mass,1,2,9,40",)))


def test_a_box_on_a_slice_the_volume_has_not_is_refused(tmp_path: Path) -> None:
    a_set(tmp_path, "v.png,nifti,val,r,c,p,CC0,c,Philips,B,8x9x10,0.8x0.8x5,-1000,99,n", header=CT)
    table(tmp_path / "boxes.csv", BOXES + ",slice_index", "v.png,Mass,1,2,8,9,9")
    assert read_boxes(tmp_path)[tmp_path / "v.png"][0].slice_index == 9
    table(tmp_path / "boxes.csv", BOXES + ",slice_index", "v.png,Mass,1,2,8,9,10")
    with pytest.raises(InputError, match=r"slice_index is 10, but v\.png has 10 slices"):
        read_boxes(tmp_path)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    files = [picture(tmp_path / "images" / name) for name in ("a.png", "v.png")]
    of_film = {"mm_per_pixel": 0.25, "width": 64, "height": 64, "sha256": "00", "others": {"labels": "Mass"}}
    of_volume = {"shape_xyz": (4, 5, 6), "spacing_xyz": (0.78125, 0.78125, 1.25)}
    film = Record(files[0], "cxr", "train", "a", "CC0", **of_film)
    records = [film, Record(files[1], "ct", "val", "b", "CC0", **of_volume)]
    write_manifest(records, tmp_path)
    write_boxes({files[0]: [Box("Mass", 1.25, 2, 3, 4, reader="R1")]}, tmp_path)
    radiograph, volume = read_manifest(tmp_path)
    assert radiograph == records[0]
    assert (volume.shape_xyz, volume.spacing_xyz) == (records[1].shape_xyz, records[1].spacing_xyz)
    assert read_boxes(tmp_path) == {files[0]: [Box("Mass", 1.25, 2, 3, 4, reader="R1")]}


def test_a_manifest_is_never_overwritten_by_another(tmp_path: Path) -> None:
    file = picture(tmp_path / "a.png")
    write_manifest([Record(file, "cxr", "train", "a", "CC0")], tmp_path)
    write_manifest([Record(file, "cxr", "train", "a", "CC0")], tmp_path)
    with pytest.raises(OutputError, match=r"manifest\.csv: exists with other content and is never overwritten"):
        write_manifest([Record(file, "cxr", "test", "a", "CC0")], tmp_path)
    assert read_manifest(tmp_path)[0].split == "train"


def test_the_fingerprint_follows_the_images_not_their_place_order_or_labels(tmp_path: Path) -> None:
    one, two = cxr_row("images/a.png"), cxr_row("images/b.png", "test", "b")
    data = a_set(tmp_path / "here" / "nih", one, two)
    print_ = manifest_sha256(data)
    assert manifest_sha256(tmp_path / "here") == print_
    moved = Path(shutil.copytree(data, tmp_path / "there"))
    table(moved / "manifest.csv", CXR, two.replace("Mass", "Hernia"), one)
    assert manifest_sha256(moved) == print_
    assert manifest_sha256(data, split="test") != print_
    table(moved / "manifest.csv", CXR, two.replace("ab12", "ab13"), one)
    assert manifest_sha256(moved) != print_


def test_the_split_of_a_patient_never_changes() -> None:
    published = {"nih-00000001": "train", "nih-00000002": "val", "nih-00000004": "test", "openi-10": "test"}
    assert {patient: assign_split(patient) for patient in published} == published


def test_a_tenth_of_the_patients_is_for_validation_and_a_tenth_for_testing() -> None:
    counts = Counter(assign_split(f"patient-{number}") for number in range(5000))
    assert counts["val"] == pytest.approx(500, abs=70)
    assert counts["test"] == pytest.approx(500, abs=70)
    assert {assign_split(f"patient-{number}", val=0, test=0) for number in range(50)} == {"train"}
