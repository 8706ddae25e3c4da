"""Every format out and in again: the same place to half a pixel, the same finding, the same reader where it has one."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from dataclasses import replace
from xml.etree import ElementTree

import nibabel
import numpy as np
import pydicom
import pytest
from drawn_readings import box, reading
from labelling.catalogue import FolderCatalogue, safe_name
from labelling.errors import RefusedError
from labelling.formats import exchange, slicer_markups
from labelling.formats.nifti import is_left_handed
from labelling.formats.slices import ImageFacts, ImageNames
from monai_sr_bundle.boxes.box import BoxError, FindingCode
from monai_sr_bundle.boxes.readings import ImageIdentity, Reader
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images import files

from tests.images.dicom_files import ct_series, radiograph

CHEST = ImageFacts(ImageIdentity("chest.png", columns=200, rows=100, slices=1))
OBLIQUE = np.array([[0.0, -0.6, 0.3, 10], [0.7, 0, 0, -20], [0, 0.1, 2.5, 30], [0, 0, 0, 1.0]])
UIDS = tuple(f"1.2.3.{index}" for index in range(6))
CT = ImageFacts(ImageIdentity("ct", columns=64, rows=48, slices=6, series_instance_uid="1.2.3"), UIDS, lambda: OBLIQUE)
NIFTI = ImageFacts(ImageIdentity("scan.nii.gz", columns=64, rows=48, slices=6))
IMAGES = {facts.identity.id: facts for facts in (CHEST, CT, NIFTI)}
NAMES = ImageNames(list(IMAGES), IMAGES.__getitem__)
FRAMES = ImageFacts(ImageIdentity("frames.dcm", columns=64, rows=48, slices=6), ("1.2.4",) * 6)
"""One file of several frames, which share its SOP Instance UID."""


def examples():
    """Three readers: fractions, two findings, a lesion on three slices, and nothing found."""
    lesion = [
        box(5.25, 6.5, 20, 30.75, slice_index=k, sop_instance_uid=UIDS[k], tracking_uid="2.25.7") for k in (2, 3, 4)
    ]
    return [
        reading("ada", box(10.5, 20.25, 30, 50.75, certainty=0.5), box(0, 0, 200, 100, finding="Effusion")),
        reading("bob"),
        reading("ada", *lesion, image=CT.identity),
        reading("eve", box(1, 2, 3, 4, slice_index=5), image=NIFTI.identity),
    ]


def exported(name, readings=None):
    return exchange.export(name, readings or examples(), IMAGES, {})


def positions(readings):
    return sorted(
        (each.image.id, each.reader.id, drawn_box.finding, IMAGES[each.image.id].index_of(drawn_box), *drawn_box.xyxy)
        for each in readings
        for drawn_box in each.boxes
    )


def assert_same_positions(got, expected, tolerance=0.01):
    assert [position[:4] for position in got] == [position[:4] for position in expected]
    assert np.abs(np.array([p[4:] for p in got]) - np.array([p[4:] for p in expected])).max() <= tolerance


def no_findings(readings):
    return sorted((each.image.id, each.reader.id) for each in readings if each.no_finding)


@pytest.mark.parametrize("name", ["json", "coco", "yolo"])
def test_formats_with_readers_come_back(name):
    _, content = exported(name).packed()
    imported = exchange.read(name, content, NAMES, reader="import")
    assert_same_positions(positions(imported.readings), positions(examples()))
    assert no_findings(imported.readings) == [("chest.png", "bob")]
    assert imported.unknown_findings == imported.unknown_images == []
    if name != "yolo":
        (first,) = [each for each in imported.readings if each.image.id == "chest.png" and each.boxes]
        assert sorted(each.certainty or 0 for each in first.boxes) == [0, 0.5]


def test_a_ct_slice_is_an_image_named_by_its_sop_instance_uid():
    document = json.loads(exported("coco").files["instances.json"])
    names = {entry["file_name"] for entry in document["images"]}
    assert names == {"chest.png", *UIDS[2:5], "scan.nii.gz.slice0005"}
    assert document["images"][0]["width"] == 200


def test_nih_has_a_table_for_each_reader_and_comes_back():
    files = exported("nih").files
    assert sorted(files) == ["ada/BBox_List.csv", "bob/BBox_List.csv", "eve/BBox_List.csv"]
    imported = exchange.read("nih", files["ada/BBox_List.csv"], NAMES, reader="ada")
    assert_same_positions(positions(imported.readings), [each for each in positions(examples()) if each[1] == "ada"])
    assert exported("nih").notes == ("1 readings without boxes have no place in this format.",)


def test_the_published_header_of_nih_is_read():
    table = b"Image Index,Finding Label,Bbox [x,y,w,h],,,\nchest.png,Atelectasis,10.5,20.25,19.5,30.5,,,\n"
    (only,) = exchange.read("nih", table, NAMES, reader="nih").readings
    assert only.boxes[0].xyxy == (10.5, 20.25, 30.0, 50.75)
    assert only.boxes[0].codes == (FindingCode("46621007", "SCT", "Atelectasis"),)


def test_pascal_voc_counts_pixels_from_1_with_both_ends():
    files = exported("voc").files
    root = ElementTree.fromstring(files["Annotations/ada/chest.png.xml"])
    corners = [{edge.tag: int(edge.text) for edge in each.find("bndbox")} for each in root.iter("object")]
    for got, expected in zip(corners, examples()[0].boxes, strict=True):
        assert (got["xmin"] - 1, got["ymin"] - 1, got["xmax"], got["ymax"]) == pytest.approx(expected.xyxy, abs=0.5)
    assert [each.findtext("name") for each in root.iter("object")] == ["Nodule", "Effusion"]
    (corner,) = exported("voc", [reading("ada", box(199.6, 99.6, 200, 100))]).files.values()
    edges = [int(edge.text) for edge in ElementTree.fromstring(corner).find("object/bndbox")]
    assert edges == [200, 100, 200, 100]
    assert list(ElementTree.fromstring(files["Annotations/bob/chest.png.xml"]).iter("object")) == []
    assert "Annotations/ada/1.2.3.3.xml" in files


def test_vinbigdata_has_its_columns_classes_and_no_finding_rows():
    readings = [*examples(), reading("fay", box(finding="Azygos lobe"))]
    rows = list(csv.DictReader(io.StringIO(exported("vinbigdata", readings).files["train.csv"].decode())))
    assert list(rows[0]) == ["image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max"]
    by_class = {row["class_name"]: row["class_id"] for row in rows}
    assert by_class == {"Nodule/Mass": "8", "Pleural effusion": "10", "No finding": "14", "Azygos lobe": "15"}
    first = next(row for row in rows if row["class_name"] == "Nodule/Mass")
    assert [float(first[edge]) for edge in ("x_min", "y_min", "x_max", "y_max")] == [10.5, 20.25, 30, 50.75]


@pytest.mark.parametrize("facts", [CHEST, CT], ids=["radiograph", "oblique CT"])
def test_slicers_markups_come_back_in_their_place(facts):
    (one,) = [each for each in examples() if each.image.id == facts.identity.id and each.boxes]
    content = slicer_markups.write(one, facts)
    markups = json.loads(content)["markups"]
    assert len(markups) == (2 if facts is CHEST else 1)  # a lesion on three slices is one box in space
    imported = exchange.read("slicer", content, NAMES, reader="ada", image=facts)
    assert_same_positions(positions(imported.readings), positions([one]))


def test_what_monai_labels_module_submits_is_read():
    """ROIs as its detection writes them: no class, its own name, orientation by LPS axes turned."""
    markup = {
        "type": "ROI", "coordinateSystem": "LPS", "name": "Detection ROI - 0", "center": [20.0, 40.0, 0.0],
        "size": [20.0, 30.0, 1.0], "orientation": [-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0],
        "controlPoints": [{"label": "Detection ROI - 0-1", "position": [20.0, 40.0, 0.0]}],
    }  # fmt: skip
    document = {"@schema": slicer_markups.SCHEMA, "markups": [markup, {"type": "Fiducial"}]}
    imported = exchange.read("slicer", json.dumps(document).encode(), NAMES, reader="ada", image=CHEST)
    (only,) = imported.readings[0].boxes
    assert only.xyxy == (10.5, 25.5, 30.5, 55.5)  # millimetre 20 is the middle of pixel 20, whose edges are 20 and 21
    assert only.finding == "Finding"
    assert imported.unknown_findings == ["Finding"]
    assert imported.notes == ["1 markups that are no boxes (ROI) are left out."]


def test_a_box_that_slicer_named_after_its_node_has_the_nodes_finding():
    markup = {"type": "ROI", "center": [20, 40, 0], "size": [2, 2, 2], "controlPoints": [{"label": "Nodule-1"}]}
    content = json.dumps({"markups": [markup]}).encode()
    imported = exchange.read("slicer", content, NAMES, reader="ada", image=CHEST)
    assert imported.readings[0].boxes[0].finding == "Nodule"


LIDC = """<?xml version="1.0"?><LidcReadMessage xmlns="http://www.nih.gov"><readingSession>
<unblindedReadNodule><noduleID>1</noduleID>
<roi><imageSOP_UID>1.2.3.4</imageSOP_UID><inclusion>TRUE</inclusion>
<edgeMap><xCoord>10</xCoord><yCoord>20</yCoord></edgeMap><edgeMap><xCoord>15</xCoord><yCoord>26</yCoord></edgeMap>
<edgeMap><xCoord>12</xCoord><yCoord>22</yCoord></edgeMap></roi></unblindedReadNodule>
<unblindedReadNodule><noduleID>2</noduleID><roi><imageSOP_UID>1.2.3.4</imageSOP_UID><inclusion>TRUE</inclusion>
<edgeMap><xCoord>30</xCoord><yCoord>31</yCoord></edgeMap></roi></unblindedReadNodule>
<nonNodule><nonNoduleID>3</nonNoduleID></nonNodule></readingSession><readingSession/></LidcReadMessage>"""


def test_lidcs_outlines_run_outside_of_the_nodule():
    imported = exchange.read("lidc", LIDC.encode(), NAMES, reader="lidc")
    (only,) = imported.readings
    assert only.reader.id == "lidc-1"
    assert only.boxes[0].xyxy == (11, 21, 15, 26)
    assert (only.boxes[0].slice_index, only.boxes[0].sop_instance_uid) == (4, "1.2.3.4")
    assert [note[0] for note in imported.notes] == ["1", "1"]


def test_unknown_findings_and_images_are_listed():
    table = b"Image Index,Finding Label,Bbox [x,y,w,h],,,\nchest.png,Odd thing,1,2,3,4\nelsewhere.png,Nodule,1,2,3,4\n"
    imported = exchange.read("nih", table, NAMES, reader="nih")
    assert imported.unknown_findings == ["Odd thing"]
    assert imported.readings[0].boxes[0].finding == "Odd thing"
    assert imported.unknown_images == ["elsewhere.png"]


def image_of(names, text, **unreadable):
    def facts(name):
        if name in unreadable.values():
            raise InputError(f"{name} cannot be decoded")
        return {**IMAGES, FRAMES.identity.id: FRAMES}.get(name) or ImageFacts(ImageIdentity(name))

    match = ImageNames(names, facts).find(text)
    return match and (match[0].identity.id, match[1])


def test_a_path_is_that_of_the_image_below_the_folder_and_never_another_file_of_the_same_name():
    names = ["film.png", safe_name("ada/film.png"), safe_name("bob/film.png")]
    assert [image_of(names, f"{folder}film.png") for folder in ("", "ada/", "/data/chest/bob/", "images\\")] == [
        (names[0], None), (names[1], None), (names[2], None), (names[0], None),
    ]  # fmt: skip
    assert image_of(names[1:], "eve/film.png") is None
    assert image_of(["film.png"], "film.dcm") == ("film.png", None)
    assert image_of(["film.png", "film.dcm"], "film.jpg") is None  # one of the two, and nobody knows which


def test_an_image_that_cannot_be_read_hides_no_uid_of_another():
    assert image_of(["broken.png", "ct"], "1.2.3.4", unreadable="broken.png") == ("ct", 4)
    assert image_of(["broken.png", "ct"], "1.2.9", unreadable="broken.png") is None


def test_a_wrong_image_is_not_told_as_a_wrong_file():
    def facts(name):
        raise InputError("chest.png: damaged")

    with pytest.raises(InputError, match="chest.png: damaged"):
        exchange.read("coco", exported("coco").files["instances.json"], ImageNames(["chest.png"], facts), reader="x")


@pytest.mark.parametrize("name", ["coco", "yolo", "nih"])
def test_frames_of_one_file_are_images_of_their_own_and_come_back(name):
    images = {FRAMES.identity.id: FRAMES}
    boxes = [FRAMES.placed(box(k, 2, k + 4, 6, slice_index=k)) for k in (1, 4)]
    written = exchange.export(name, [reading("ada", *boxes, image=FRAMES.identity)], images, {})
    imported = exchange.read(name, written.packed()[1], ImageNames(list(images), images.__getitem__), reader="ada")
    assert [(each.slice_index, each.x_min) for each in imported.readings[0].boxes] == [(1, 1), (4, 4)]


def test_a_box_on_a_file_of_several_frames_names_its_frame():
    with pytest.raises(BoxError, match=r"names no slice of the 6. Add slice_index\.$"):
        FRAMES.placed(box(1, 2, 3, 4, sop_instance_uid="1.2.4"))
    with pytest.raises(BoxError, match="expected 0 to 5"):
        FRAMES.placed(box(1, 2, 3, 4, sop_instance_uid="1.2.4", slice_index=99))


def zipped(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_txt", ".txt").replace("_png", ".png"), content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("json", b"{", "no JSON"),
        ("json", b'{"schema": "sr-boxes/2", "readings": []}', "sr-boxes/1"),
        ("coco", b"[]", "no COCO file"),
        ("coco", b'{"images": [], "categories": [], "annotations": [{}]}', "no COCO file"),
        ("yolo", b"no zip", "no zip"),
        ("yolo", zipped(labels__chest_png_txt="0 0.5 0.5 0.1 0.1"), "no classes.txt"),
        ("yolo", zipped(classes_txt="Nodule\n", labels__chest_png_txt="0 0.5 0.5"), "line 1"),
        ("yolo", zipped(classes_txt="Nodule\n", labels__chest_png_txt="0 .5 .5 .6 .5 .6 .6 .5 .6"), "8 numbers"),
        ("yolo", zipped(classes_txt="Nodule\n", labels__chest_png_txt="0 0.5 0.5 1.5 0.1"), "outside its image"),
        ("yolo", zipped(classes_txt="Nodule\n", labels__chest_png_txt="-1 0.5 0.5 0.1 0.1"), "expected a class"),
        ("nih", b"a,b\n", "the columns are a, b"),
        ("nih", b"Image Index,Finding Label,Bbox [x,y,w,h]\nchest.png,Nodule,1,2,0,4\n", "empty"),
        ("nih", b"Image Index,Finding Label,Bbox [x,y,w,h]\nchest.png,Nodule,1,2,x,4\n", "line 2"),
        ("lidc", b"<a>", "no XML"),
        ("lidc", b"<a/>", "no readingSession"),
        ("lidc", b'<!DOCTYPE a [<!ENTITY b "c">]><a/>', "entities"),
        ("lidc", '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a><a/>'.encode("utf-16"), "entities"),
        ("slicer", b"{}", "no file of Slicer's markups"),
        ("slicer", b'{"markups": [{"type": "ROI"}]}', "no box with centre"),
        (
            "slicer",
            b'{"markups": [{"type": "ROI", "center": [1, 1, 0], "size": [1, 1, 1], "controlPoints": ["Nodule"]}]}',
            r"markups\[0\] is no box with centre",
        ),
        ("slicer", b'{"markups": [{"type": "ROI", "center": [900, 0, 0], "size": [1, 1, 1]}]}', "outside the image"),
    ],
)
def test_wrong_files_say_what_is_wrong(name, content, message):
    with pytest.raises(BoxError, match=message):
        exchange.read(name, content, NAMES, reader="x", image=CHEST)


def test_a_zip_that_is_damaged_or_holds_too_much_is_refused(monkeypatch):
    content = zipped(classes_txt="Nodule\n", labels__chest_png_txt="0 0.5 0.5 0.1 0.1")
    late = content.replace((0).to_bytes(4, "little") + b"classes.txt", b"\xff\xff\xff\x7f" + b"classes.txt")
    assert late != content  # its place in the file is beyond the end
    with pytest.raises(BoxError, match="it is no zip that can be read"):
        exchange.read("yolo", late, NAMES, reader="x")
    monkeypatch.setattr(exchange, "MOST_FILES", 1)
    with pytest.raises(BoxError, match="the zip holds too much"):
        exchange.read("yolo", content, NAMES, reader="x")


def test_unknown_formats_and_missing_images_are_refused():
    with pytest.raises(RefusedError, match="no format"):
        exchange.export("word", examples(), IMAGES, {})
    with pytest.raises(RefusedError, match="no format"):
        exchange.read("voc", b"", NAMES, reader="x")
    with pytest.raises(RefusedError, match="image=NAME"):
        exchange.read("slicer", b"{}", NAMES, reader="x")
    with pytest.raises(RefusedError, match="no DICOM"):
        exchange.read("dicom", b"", NAMES, reader="x", image=CHEST)
    with pytest.raises(RefusedError, match="nothing to write"):
        exchange.export("dicom", examples(), IMAGES, {})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (box(1, 2, 3, 4), "names no slice"),
        (box(1, 2, 3, 4, slice_index=6), "expected 0 to 5"),
        (box(1, 2, 3, 4, sop_instance_uid="9.9"), "none of the 6 slices of image ct. Send it with"),
        (box(1, 2, 3, 4, sop_instance_uid=UIDS[1], slice_index=2), "that of slice 1"),
        (box(60, 2, 65, 4, slice_index=1), "outside its image"),
    ],
)
def test_a_box_must_lie_on_a_slice_of_its_image(wrong, message):
    with pytest.raises(BoxError, match=message):
        CT.placed(wrong)


def test_dicom_reports_come_back_for_radiographs_and_ct(tmp_path):
    (tmp_path / "dx").mkdir()
    radiograph(tmp_path / "dx" / "film.dcm", np.zeros((40, 32), np.uint16))
    ct_series(tmp_path / "ct" / "series", np.zeros((4, 32, 40), np.int16))
    for folder, drawn_box in (
        ("dx", box(1.5, 2, 20.25, 30)),
        ("ct", box(3, 4.5, 30, 20, slice_index=2, finding="Mass")),
    ):
        catalogue = FolderCatalogue(tmp_path / folder)
        (name,) = catalogue.names()
        facts = ImageFacts(catalogue.identity(name), catalogue.uids(name))
        headers = catalogue.headers(name)
        names = ImageNames([name], {name: facts}.__getitem__)
        placed = facts.placed(drawn_box)
        readings = [reading("ada", placed, image=facts.identity), reading("bob", image=facts.identity)]
        exported_files = exchange.export("dicom", readings, {name: facts}, {name: headers})
        assert exported_files.notes == (f"{name}: a reading without boxes has no report, and is left out.",)
        (content,) = exported_files.files.values()
        report = pydicom.dcmread(io.BytesIO(content))
        assert report.CompletionFlag == "COMPLETE"
        assert {"111030", "POLYLINE"} <= {str(element.value) for element in report.iterall()}
        (corners,) = [element.value for element in report.iterall() if element.keyword == "GraphicData"]
        assert (len(corners), corners[:2]) == (10, corners[8:])  # closed, of five points
        (imported,) = exchange.read("dicom", content, names, reader="x", image=facts, headers=headers).readings
        assert imported.reader.id == "ada"
        assert imported.boxes[0].xyxy == pytest.approx(placed.xyxy, abs=0.01)
        assert (imported.boxes[0].finding, imported.boxes[0].slice_index) == (placed.finding, placed.slice_index)


def test_a_reading_that_dicom_cannot_hold_is_left_out_and_the_others_go_on(tmp_path):
    radiograph(tmp_path / "film.dcm", np.zeros((40, 32), np.uint16))
    catalogue = FolderCatalogue(tmp_path)
    facts, headers = {"film.dcm": ImageFacts(catalogue.identity("film.dcm"))}, catalogue.headers("film.dcm")
    image = facts["film.dcm"].identity
    odd, good = (reading("ada", box(1, 2, 3, 4, finding=name), image=image) for name in ("a\\b", "Nodule"))
    written = exchange.export("dicom", [odd, replace(good, reader=Reader("bob"))], facts, {"film.dcm": headers})
    assert list(written.files) == ["film.dcm/bob.dcm"]
    (note,) = written.notes
    assert note.startswith("film.dcm: a reading cannot be written as DICOM, and is left out. box 1: the finding is ")
    with pytest.raises(RefusedError, match=r"nothing to write as DICOM. film.dcm: a reading cannot be written"):
        exchange.export("dicom", [odd], facts, {"film.dcm": headers})


@pytest.mark.parametrize("name", ["yolo", "voc", "nih", "slicer"])
def test_a_reader_of_another_program_leads_to_no_folder_outside_of_the_export(name):
    readings = [reading(reader, box(1, 2, 3, 4)) for reader in ("../../x", "a/b", "Grey^Zoe", "c:x", "..")]
    files = exported(name, readings).files
    assert len([path for path in files if path != "classes.txt"]) == len(readings)
    for path in files:
        assert not {"..", "a", "c:x"} & set(path.split("/")), path
    assert any("Grey^Zoe" in path for path in files)


def test_pseudonyms_depend_on_the_servers_secret():
    assert exchange.pseudonym("ada", "a") == exchange.pseudonym("ada", "a") != exchange.pseudonym("ada", "b")
    assert "ada" not in exchange.pseudonym("ada", "a")


@pytest.mark.parametrize(("sform", "qform", "expected"), [
    ((1, 1, 1), None, False), ((1, -1, 1), None, True), (None, (1, 1, 1), False), (None, (-1, 1, 1), True),
    (None, None, False),  # no place is stated, and Slicer takes the axes as they are
])  # fmt: skip
def test_the_handedness_of_a_nifti_file_is_that_of_the_form_it_states(tmp_path, sform, qform, expected):
    file = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4))
    for form, state in ((sform, file.set_sform), (qform, file.set_qform)):
        state(np.diag([*(form or (1, 1, 1)), 1]), code=1 if form else 0)
    nibabel.save(file, tmp_path / "scan.nii.gz")
    with files.discover([tmp_path / "scan.nii.gz"]) as (source,):
        assert is_left_handed(source) == expected
