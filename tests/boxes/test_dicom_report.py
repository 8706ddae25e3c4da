"""Boxes as DICOM reports: written ones, to the eyes of independent readers too, and those of other producers read."""

import sys
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from highdicom import sr
from monai_sr_bundle.boxes.box import Box, Figures, check_edges
from monai_sr_bundle.boxes.codes import finding_code, finding_name
from monai_sr_bundle.boxes.dicom_planes import plane_of
from monai_sr_bundle.boxes.dicom_report_read import read_report
from monai_sr_bundle.boxes.dicom_report_write import write_report
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.images.dicom_file import quiet_pydicom
from monai_sr_bundle.images.dicom_read import read_dicom, read_headers
from monai_sr_bundle.images.dicom_write import write_dicom
from pydicom import dcmread, uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.coding import Code

from tests.images.dicom_files import (
    SERIES,
    STUDY,
    capture,
    ct_series,
    ct_slice,
    enlarged,
    phantom,
    provenance,
    radiograph,
)

NODULE = Box("Nodule", 3.25, 5.5, 9.75, 20.125, reader="R1", certainty=0.8)
WHOLE = Box("Effusion", 0, 0, 20, 24, reader="R1")


def film(folder, **attributes):
    """A radiograph of 24 rows and 20 columns, as headers."""
    file = radiograph(folder / "film.dcm", **attributes)
    return read_headers([file], file)[0]


def volume(folder, slices=3, **options):
    """An oblique CT series with oblong pixels, as headers from slice to slice."""
    return read_headers(ct_series(folder / "ct", phantom(slices=slices), **options), folder / "ct")[0]


def written(boxes, sources, folder, **options):
    write_report(boxes, sources, folder / "boxes.dcm", **options)
    return folder / "boxes.dcm"


def edges(box):
    return box.x_min, box.y_min, box.x_max, box.y_max


def items(dataset, value_type):
    """All content items of one type below a data set."""
    for item in dataset.get("ContentSequence", ()):
        if item.ValueType == value_type:
            yield item
        yield from items(item, value_type)


# Written


def test_a_box_of_a_radiograph_is_its_pixel_edges_to_the_bit(tmp_path):
    sources = film(tmp_path)
    dataset = dcmread(written([NODULE, WHOLE], sources, tmp_path))
    assert dataset.SOPClassUID == uid.ComprehensiveSRStorage
    first, whole = items(dataset, "SCOORD")
    # PS3.3 C.18.6: the top left corner of the top left pixel is 0\0, the bottom right one of the last Columns\Rows.
    assert first.GraphicData == [3.25, 5.5, 9.75, 5.5, 9.75, 20.125, 3.25, 20.125, 3.25, 5.5]
    assert whole.GraphicData == [0, 0, 20, 0, 20, 24, 0, 24, 0, 0]
    assert (first.GraphicType, "PixelOriginInterpretation" in first) == ("POLYLINE", False)
    (image,) = first.ContentSequence
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == sources[0].SOPInstanceUID
    assert image.ReferencedSOPSequence[0].ReferencedSOPClassUID == sources[0].SOPClassUID


def test_a_box_on_an_oblique_slice_is_at_its_pixels_in_the_patient(tmp_path):
    sources = volume(tmp_path)
    dataset = dcmread(written([replace(NODULE, slice_index=1)], sources, tmp_path))
    assert dataset.SOPClassUID == uid.Comprehensive3DSRStorage
    (region,) = items(dataset, "SCOORD3D")
    slice_ = sources[1]
    # By the equation of PS3.3 C.7.6.2.1.1, whose indices count from the centre of the first pixel.
    across, down = np.reshape(np.array(slice_.ImageOrientationPatient, float), (2, 3))
    row_mm, column_mm = map(float, slice_.PixelSpacing)
    expected = [
        np.array(slice_.ImagePositionPatient, float) + across * column_mm * (x - 0.5) + down * row_mm * (y - 0.5)
        for x, y in ((3.25, 5.5), (9.75, 5.5), (9.75, 20.125), (3.25, 20.125), (3.25, 5.5))
    ]
    np.testing.assert_allclose(np.reshape(region.GraphicData, (5, 3)), expected, atol=1e-5)
    assert (region.GraphicType, region.ReferencedFrameOfReferenceUID) == ("POLYGON", slice_.FrameOfReferenceUID)
    named = {item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in items(dataset, "IMAGE")}
    assert named == {slice_.SOPInstanceUID}


@pytest.mark.parametrize("make", [film, volume])
def test_a_report_is_a_new_series_in_the_study_of_its_image(tmp_path, make):
    sources = make(tmp_path, TimezoneOffsetFromUTC="+0100", SyntheticData="YES")
    source = sources[-1]
    box = replace(NODULE, sop_instance_uid=source.SOPInstanceUID)
    before = datetime.now().astimezone().replace(microsecond=0)
    first, second = dcmread(written([box], sources, tmp_path)), dcmread(written([box], sources, tmp_path))
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate"):
        assert first[keyword].value == source[keyword].value, keyword
    assert (first.Modality, first.SeriesNumber, first.SeriesDescription[:6]) == ("SR", 309, "Boxes ")
    assert (first.StudyInstanceUID, first.SyntheticData) == (STUDY, "YES")
    assert len({SERIES, first.SeriesInstanceUID, second.SeriesInstanceUID}) == 3
    assert len({source.SOPInstanceUID, first.SOPInstanceUID, second.SOPInstanceUID}) == 3
    (study,) = first.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == (STUDY, SERIES)
    assert [item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence] == [source.SOPInstanceUID]
    flags = first.CompletionFlag, first.VerificationFlag, first.PreliminaryFlag
    assert flags == ("PARTIAL", "UNVERIFIED", "PRELIMINARY")
    written_at = datetime.strptime(f"{first.ContentDate}{first.ContentTime}+0100", "%Y%m%d%H%M%S%z")
    assert before <= written_at <= datetime.now().astimezone()
    assert first.ContentTemplateSequence[0].TemplateIdentifier == "1500"


def test_a_finding_without_a_code_gets_one_of_our_own_and_says_whose_it_is(tmp_path):
    dataset = dcmread(written([replace(NODULE, finding="Nodule/Mass")], film(tmp_path), tmp_path))
    codes = [item.ConceptCodeSequence[0] for item in items(dataset, "CODE")]
    (code,) = [code for code in codes if code.CodeMeaning == "Nodule/Mass"]
    assert (code.CodingSchemeDesignator, len(code.CodeValue)) == ("99MONAISR", 12)
    assert dataset.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99MONAISR"
    coded = dcmread(written([NODULE], film(tmp_path), tmp_path))
    assert "CodingSchemeIdentificationSequence" not in coded


@pytest.mark.parametrize(
    ("finding", "code"),
    [
        ("Atelectasis", ("46621007", "SCT")),
        ("Cardiomegaly", ("8186001", "SCT")),
        ("Effusion", ("60046008", "SCT")),
        ("Infiltrate", ("112121", "DCM")),
        ("Mass", ("4147007", "SCT")),
        ("Nodule", ("27925004", "SCT")),
        ("Pneumonia", ("233604007", "SCT")),
        ("Pneumothorax", ("36118008", "SCT")),
        ("Adenocarcinoma", ("1187332001", "SCT")),
    ],
)
def test_every_finding_of_the_data_has_a_public_code_and_comes_back_by_it(finding, code):
    assert finding_code(finding)[:2] == finding_code(f" {finding.upper()} ")[:2] == code
    assert finding_name(Code(*code, "anything")) == finding


def test_findings_come_back_by_their_code_whatever_their_meaning_says():
    assert finding_name(finding_code("Pleural effusion")) == "Effusion"
    assert finding_name(Code("M-03010", "SRT", "Nodulus")) == "Nodule"  # SNOMED RT
    assert finding_name(Code("409609008", "SCT", "Pulmonary infiltrate")) == "Infiltrate"
    assert finding_name(finding_code("Rib  fracture")) == "Rib fracture"
    assert finding_code("rib fracture").value == finding_code("Rib  fracture").value


# Round trips


@pytest.mark.parametrize("with_image", [True, False])
def test_a_radiograph_s_boxes_come_back(tmp_path, with_image):
    sources = film(tmp_path)
    boxes = [
        replace(NODULE, before=Figures(812.5, 20.25), after=Figures(813, 24.5), tracking_uid="2.25.11"),
        replace(WHOLE, reader="Nguyễn^Văn^A", certainty=1 / 3),
        Box("Nodule/Mass", 1.1, 2.2, 3.3, 4.4),
    ]
    report = read_report(written(boxes, sources, tmp_path), sources if with_image else ())
    assert report.notes == ()
    for box, back in zip(boxes, report.boxes, strict=True):
        np.testing.assert_allclose(edges(back), edges(box), atol=1e-6)
        assert (back.finding, back.reader, back.slice_index) == (box.finding, box.reader, None)
        assert back.certainty == pytest.approx(box.certainty)
        assert (back.before, back.after) == (box.before, box.after)
        assert back.sop_instance_uid == sources[0].SOPInstanceUID
    assert report.boxes[0].tracking_uid == "2.25.11"
    assert len({box.tracking_uid for box in report.boxes}) == 3


@pytest.mark.parametrize("in_patient", [True, False])
@pytest.mark.parametrize("with_image", [True, False])
def test_a_series_boxes_come_back_on_their_slices(tmp_path, with_image, in_patient):
    sources = volume(tmp_path)
    boxes = [
        replace(NODULE, slice_index=0, tracking_uid="2.25.5", before=Figures(-12.5, 80.0)),
        replace(NODULE, slice_index=1, tracking_uid="2.25.5", x_min=3.75),
        replace(WHOLE, slice_index=2, reader="R1"),
    ]
    file = written(boxes, sources, tmp_path, in_patient=in_patient)
    assert (dcmread(file).SOPClassUID == uid.Comprehensive3DSRStorage) is in_patient
    report = read_report(file, sources if with_image else ())
    assert report.notes == ()
    for box, back in zip(boxes, report.boxes, strict=True):
        np.testing.assert_allclose(edges(back), edges(box), atol=2e-4)
        assert back.sop_instance_uid == sources[box.slice_index].SOPInstanceUID
        assert back.slice_index == (box.slice_index if with_image else None)
        assert (back.finding, back.reader, back.before) == (box.finding, box.reader, box.before)
    assert [box.tracking_uid for box in report.boxes[:2]] == ["2.25.5", "2.25.5"]
    if with_image:  # at the very edge, inside all the same
        for box in report.boxes:
            check_edges(box, 20, 24)


def test_a_series_whose_slices_have_a_frame_of_reference_each_comes_back(tmp_path):
    for index, file in enumerate(ct_series(tmp_path / "ct", phantom(slices=3))):
        dataset = dcmread(file)
        dataset.FrameOfReferenceUID = f"2.25.77.{index}"
        dataset.save_as(file)
    sources = read_headers(sorted((tmp_path / "ct").iterdir()), tmp_path / "ct")[0]
    file = written([replace(NODULE, slice_index=index) for index in (2, 0)], sources, tmp_path)
    assert [box.slice_index for box in read_report(file, sources).boxes] == [2, 0]
    assert read_report(file).notes == ()


def test_a_box_names_its_frame_of_several(tmp_path):
    file = capture(tmp_path / "frames.dcm", phantom(slices=3, dtype="uint16"))
    sources = read_headers([file], file)[0]
    report = written([replace(NODULE, slice_index=2)], sources, tmp_path)
    (region,) = items(dcmread(report), "SCOORD")
    assert region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber == 3
    for back in (read_report(report, sources), read_report(report)):
        assert [box.slice_index for box in back.boxes] == [2]


@pytest.mark.parametrize("lacks", ["PixelSpacing", "ImagePositionPatient", "FrameOfReferenceUID", "SliceThickness"])
def test_a_ct_slice_whose_place_is_not_known_has_boxes_in_pixels(tmp_path, lacks):
    file = ct_slice(tmp_path / "in.dcm", **{lacks: None})
    sources = read_headers([file], file)[0]
    report = written([NODULE], sources, tmp_path)
    assert dcmread(report).SOPClassUID == uid.ComprehensiveSRStorage
    assert edges(read_report(report, sources).boxes[0]) == edges(NODULE)


def test_figures_of_the_result_name_the_result(tmp_path):
    file = radiograph(tmp_path / "film.dcm")
    image = read_dicom([file], file)
    write_dicom(enlarged(image), provenance(), tmp_path / "sr.dcm")
    result = read_headers([tmp_path / "sr.dcm"], tmp_path / "sr.dcm")[0]
    box = replace(NODULE, before=Figures(1.0, 2.0), after=Figures(3.0, 4.0))
    report = written([box], image.header, tmp_path, result=result)
    measured = {}
    for item in items(dcmread(report), "NUM"):
        images = [child for child in item.get("ContentSequence", ()) if child.ValueType == "IMAGE"]
        value = float(item.MeasuredValueSequence[0].NumericValue)
        measured[value] = [each.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for each in images]
    before, after = [image.header[0].SOPInstanceUID], [result[0].SOPInstanceUID]
    assert measured == {80.0: [], 1.0: before, 2.0: before, 3.0: after, 4.0: after}
    evidence = dcmread(report).CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert {series.SeriesInstanceUID for series in evidence} == {SERIES, result[0].SeriesInstanceUID}
    assert read_report(report, image.header).boxes[0].after == Figures(3.0, 4.0)


def test_a_result_of_another_image_is_refused(tmp_path):
    other = radiograph(tmp_path / "other.dcm", SOPInstanceUID="2.25.4")
    write_dicom(enlarged(read_dicom([other], other)), provenance(), tmp_path / "sr.dcm")
    result = read_headers([tmp_path / "sr.dcm"], tmp_path / "sr.dcm")[0]
    with pytest.raises(InputError, match=r"box 1: sr.dcm was not made from the slice of the box, film.dcm. Pass the"):
        written([NODULE], film(tmp_path), tmp_path, result=result)


# Readers


def test_each_of_several_readers_is_named_at_their_box(tmp_path):
    boxes = [NODULE, replace(NODULE, reader="Roe^Jane"), replace(NODULE, reader="")]
    file = written(boxes, film(tmp_path), tmp_path)
    assert [box.reader for box in read_report(file).boxes] == ["R1", "Roe^Jane", ""]
    names = [str(item.PersonName) for item in items(dcmread(file), "PNAME")]
    assert names == ["R1^", "Roe^Jane", "Unknown^"] * 2  # of the report, and of each group


def test_a_reader_s_script_needs_not_be_the_source_s(tmp_path):
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    japanese = film(tmp_path, SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName=name)
    file = written([replace(NODULE, reader="Łukasz^Świątek")], japanese, tmp_path)
    dataset = dcmread(file)
    assert (dataset.SpecificCharacterSet, str(dataset.PatientName)) == ("ISO_IR 192", name)
    assert read_report(file).boxes[0].reader == "Łukasz^Świątek"


@pytest.mark.parametrize(
    ("keyword", "value"), [("PatientBirthDate", "1950"), ("StudyTime", "12:30"), ("PatientSex", "male")]
)
def test_names_and_dates_may_have_a_form_that_dicom_does_not_know(tmp_path, keyword, value):
    with quiet_pydicom():
        file = written([NODULE], film(tmp_path, **{keyword: value}), tmp_path)
        assert dcmread(file)[keyword].value == value
    assert len(read_report(file).boxes) == 1


def test_a_distance_of_slices_that_is_empty_is_not_stated(tmp_path):
    file = written([replace(NODULE, slice_index=1)], volume(tmp_path, SpacingBetweenSlices=""), tmp_path)
    assert len(read_report(file).boxes) == 1


# Independent readers

KINDS = {
    "dx": lambda folder: film(folder),
    "cr": lambda folder: film(folder, modality="CR"),
    "cr without names and dates": lambda folder: film(
        folder, modality="CR", **dict.fromkeys(("PatientID", "PatientName", "StudyDate", "StudyID", "SeriesNumber"))
    ),
    "frames": lambda folder: read_headers([capture(folder / "a.dcm", phantom(slices=2, dtype="uint16"))], folder)[0],
    "ct": volume,
}
TWO_READERS = [
    replace(NODULE, slice_index=0, before=Figures(1.0, 2.0), after=Figures(3.0, 4.0)),
    Box("Nodule/Mass", 1, 2, 3, 4, reader="Roe^Jane", slice_index=1),
]


@pytest.mark.parametrize("in_patient", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_validator_finds_no_error(tmp_path, dciodvfy, kind, in_patient):
    sources = KINDS[kind](tmp_path)
    boxes = TWO_READERS if kind in ("ct", "frames") else [replace(box, slice_index=None) for box in TWO_READERS]
    assert dciodvfy(written(boxes, sources, tmp_path, in_patient=in_patient)) == []


@pytest.mark.parametrize("kind", ["dx", "ct"])
def test_dcmtk_reads_what_we_wrote(tmp_path, dsrdump, kind):
    sources = KINDS[kind](tmp_path)
    boxes = TWO_READERS if kind == "ct" else [replace(box, slice_index=None) for box in TWO_READERS]
    content = dsrdump(written(boxes, sources, tmp_path))
    assert content.startswith("Comprehensive 3D SR Document" if kind == "ct" else "Comprehensive SR Document")
    for words in (
        'Imaging Measurement Report")=CONTINUOUS>  # TID 1500 (DCMR)',
        'Measurement Group")=CONTINUOUS>  # TID 1410 (DCMR)',
        '"Finding")=(27925004,SCT,"Nodule")',
        '"Tracking Identifier")="Nodule 1"',
        '"Certainty of Finding")="80.0" (%,UCUM,"Percent")',
        '"Person Observer Name")="Roe^Jane"',
        '(BEFORE,99MONAISR,"Before super-resolution")',
        f'"{sources[0].SOPInstanceUID}"',
        '"Attenuation Coefficient")="3.0" ([hnsf\'U],UCUM' if kind == "ct" else '"Grey level")="3.0" (1,UCUM',
        "(POLYGON," if kind == "ct" else "(POLYLINE,3.25/5.5,9.75/5.5,9.75/20.125,3.25/20.125,3.25/5.5)",
    ):
        assert words in content


@pytest.mark.parametrize("kind", ["dx", "ct"])
def test_highdicom_reads_what_we_wrote(tmp_path, kind):
    sources = KINDS[kind](tmp_path)
    report = sr.srread(written([replace(NODULE, slice_index=0)], sources, tmp_path))
    (group,) = report.content.get_planar_roi_measurement_groups()
    assert group.finding_type == Code("27925004", "SCT", "Nodule")
    assert group.tracking_identifier == "Nodule 1"
    assert group.roi.value.shape == (5, 3 if kind == "ct" else 2)
    (certainty,) = group.get_measurements(Code("111012", "DCM", "Certainty of Finding"))
    assert (certainty.value, certainty.unit) == (80.0, Code("%", "UCUM", "Percent"))
    (observer,) = report.content.get_observer_contexts()
    assert str(observer.observer_identifying_attributes.name) == "R1^"
    assert [instance for *_, instance, _ in report.get_evidence()] == [sources[0].SOPInstanceUID]


# Reports of other producers


def concept(value, meaning, scheme="DCM"):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def item(value_type, name, relationship="CONTAINS", below=(), **attributes):
    """A content item, by hand."""
    content_item = Dataset()
    content_item.RelationshipType, content_item.ValueType, content_item.ConceptNameCodeSequence = (
        relationship,
        value_type,
        [concept(*name)],
    )
    for keyword, value in attributes.items():
        setattr(content_item, keyword, value)
    if below:
        content_item.ContentSequence = list(below)
    return content_item


def outline(kind, points, instance="2.25.1010", relationship="CONTAINS", frame=None, name=("111030", "Image Region")):
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = uid.ComputedRadiographyImageStorage, instance
    if frame:
        reference.ReferencedFrameNumber = frame
    image = item("IMAGE", ("260753009", "Source", "SCT"), "SELECTED FROM", ReferencedSOPSequence=[reference])
    region = item("SCOORD", name, relationship, [image] if instance else [], GraphicType=kind)
    region.GraphicData = list(np.ravel(points).astype(float))
    return region


def spatial(points, frame_of_reference="2.25.1003", kind="POLYGON"):
    region = item("SCOORD3D", ("111030", "Image Region"), GraphicType=kind)
    region.GraphicData = list(np.ravel(points).astype(float))
    region.ReferencedFrameOfReferenceUID = frame_of_reference
    return region


def finding(value="27925004", meaning="Nodule", scheme="SCT"):
    return item("CODE", ("121071", "Finding"), ConceptCodeSequence=[concept(value, meaning, scheme)])


def num(name, value, unit, below=()):
    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = str(value), [concept(unit, unit, "UCUM")]
    return item("NUM", name, below=below, MeasuredValueSequence=[measured])


def person(name):
    return item("PNAME", ("121008", "Person Observer Name"), "HAS OBS CONTEXT", PersonName=name)


def group(*content):
    return item("CONTAINER", ("125007", "Measurement Group"), below=content)


def foreign(file, *groups, root=(), template="1500", title=("126000", "Imaging Measurement Report")):
    """A report made without this package and without highdicom."""
    dataset = item(
        "CONTAINER", title, below=[*root, item("CONTAINER", ("126010", "Imaging Measurements"), below=groups)]
    )
    del dataset.RelationshipType
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.ComprehensiveSRStorage, "2.25.500"
    dataset.Modality = "SR"
    if template:
        used = Dataset()
        used.MappingResource, used.TemplateIdentifier = "DCMR", template
        dataset.ContentTemplateSequence = [used]
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    dataset.save_as(file, enforce_file_format=True)
    return file


RECTANGLE = [(2, 3), (8, 3), (8, 9), (2, 9), (2, 3)]


@pytest.mark.parametrize(
    ("kind", "points"),
    [
        ("POLYLINE", RECTANGLE),
        ("POLYLINE", RECTANGLE[:4]),
        ("POLYLINE", [(2, 3), (8, 3), (2, 9), (8, 9)]),  # as Cornerstone orders its handles
        ("POLYLINE", RECTANGLE[::-1]),
        ("MULTIPOINT", RECTANGLE[:4]),
        ("MULTIPOINT", [(8, 3), (2, 9)]),
        ("POLYLINE", np.array(RECTANGLE) + 0.004 * np.array([(1, -1), (-1, 1), (1, 1), (-1, -1), (1, -1)])),
    ],
)
def test_a_rectangle_is_a_box_however_it_is_drawn(tmp_path, kind, points):
    report = read_report(foreign(tmp_path / "sr.dcm", group(finding(), outline(kind, points))))
    assert report.notes == ()
    np.testing.assert_allclose(edges(report.boxes[0]), (2, 3, 8, 9), atol=0.005)


@pytest.mark.parametrize(
    ("kind", "points", "box"),
    [
        ("POLYLINE", [(2, 3), (8, 3), (5, 9), (2, 3)], (2, 3, 8, 9)),
        ("CIRCLE", [(5, 6), (8, 6)], (2, 3, 8, 9)),
        ("ELLIPSE", [(2, 6), (8, 6), (5, 3), (5, 9)], (2, 3, 8, 9)),
        ("ELLIPSE", [(3, 4), (7, 8), (3, 8), (7, 4)], (5 - 8**0.5, 6 - 8**0.5, 5 + 8**0.5, 6 + 8**0.5)),
    ],
)
def test_another_outline_gives_the_box_around_it_and_says_so(tmp_path, kind, points, box):
    report = read_report(foreign(tmp_path / "sr.dcm", group(finding(), outline(kind, points))))
    np.testing.assert_allclose(edges(report.boxes[0]), box, atol=1e-5)
    note = f"group 1: is no rectangle along the image's edges ({kind}); its box is the smallest around it."
    assert report.notes == (f"sr.dcm, {note}",)


REFERENCE = item("IMAGE", ("121191", "Referenced Segment"))
BY_REFERENCE = Dataset()
BY_REFERENCE.RelationshipType, BY_REFERENCE.ReferencedContentItemIdentifier = "CONTAINS", [1, 2]


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ([outline("POINT", [(2, 3)])], "is a point (POINT), no box, and is left out."),
        ([outline("POLYLINE", [(2, 3), (8, 9)])], "is a line (POLYLINE), no box, and is left out."),
        ([outline("POLYLINE", [(2, 3), (8, 9), (2, 9)])], "is of 3 points (POLYLINE), no box, and is left out."),
        ([outline("POLYLINE", [(2, 3), (8, 9), (2, 9), (4, 4)])], "is 4 points that enclose nothing (POLYLINE)"),
        ([outline("MULTIPOINT", [(2, 3), (8, 9), (2, 9), (4, 4)])], "is 4 points that enclose nothing (MULTIPOINT)"),
        ([outline("POLYLINE", [(2, 3), (8, 3), (8, 3), (2, 3), (2, 3)])], "encloses no area and is left out."),
        ([outline("POLYLINE", RECTANGLE, instance="")], "has a region without the image it was drawn on"),
        ([spatial([(0, 0, 0), (5, 0, 0), (5, 5, 0), (0, 0, 0)])], "has corners in millimetres, and the report does no"),
        ([REFERENCE], "refers to an image or a segmentation as a whole, not to a region"),
        ([], "has no region and is left out."),
        ([BY_REFERENCE], "points at other parts of the report, which is not followed."),
    ],
)
def test_a_region_that_is_no_box_is_left_out_with_a_note(tmp_path, content, note):
    groups = group(finding(), outline("POLYLINE", RECTANGLE)), group(finding(), *content)
    report = read_report(foreign(tmp_path / "sr.dcm", *groups))
    assert len(report.boxes) == 1
    assert any(each.startswith(f"sr.dcm, group 2: {note}") for each in report.notes)
    alone = foreign(tmp_path / "alone.dcm", group(finding(), *content))
    with pytest.raises(InputError, match="alone.dcm: holds no box that can be used. alone.dcm, group 1: "):
        read_report(alone)


@pytest.mark.filterwarnings("ignore:The value length")  # of that code, which such viewers write all the same
def test_a_region_below_each_measurement_is_one_box(tmp_path):
    """Viewers built on dcmjs write a rectangle under its area and its perimeter, with a free text finding."""
    corners = [(2, 3), (8, 3), (2, 9), (8, 9)]
    below = [outline("POLYLINE", corners, relationship="INFERRED FROM", name=("121055", "Path"))]
    tracking = ("112039", "Tracking Identifier"), "HAS OBS CONTEXT"
    content = group(
        item("TEXT", *tracking, TextValue="Cornerstone3DTools:Rectangle"),
        item("UIDREF", ("112040", "Tracking Unique Identifier"), "HAS OBS CONTEXT", UID="2.25.9"),
        finding("CORNERSTONEFREETEXT", "shadow", "CST4"),
        num(("G-A166", "Area", "SRT"), 36, "mm2", below),
        num(("131191004", "Perimeter", "SCT"), 24, "mm", below),
    )
    report = read_report(foreign(tmp_path / "sr.dcm", content, root=[person("Doe^Jane")], template=None))
    (box,) = report.boxes
    assert box == Box("shadow", 2, 3, 8, 9, reader="Doe^Jane", sop_instance_uid="2.25.1010", tracking_uid="2.25.9")
    assert report.notes == ("sr.dcm: measurements and evaluations that boxes have no place for: Area, Perimeter.",)


def test_a_volume_of_several_regions_is_a_box_on_each_slice(tmp_path):
    regions = [outline("POLYLINE", RECTANGLE, instance=f"2.25.{number}") for number in (1, 2)]
    tracking = item("UIDREF", ("112040", "Tracking Unique Identifier"), "HAS OBS CONTEXT", UID="2.25.9")
    report = read_report(foreign(tmp_path / "sr.dcm", group(tracking, finding(), *regions)))
    uids = [(box.sop_instance_uid, box.tracking_uid) for box in report.boxes]
    assert uids == [("2.25.1", "2.25.9"), ("2.25.2", "2.25.9")]


@pytest.mark.parametrize(
    ("root", "inside", "reader", "note"),
    [
        ([person("Doe^Jane")], [], "Doe^Jane", None),
        ([person("Doe^Jane"), person("R2")], [person("R2")], "R2", None),
        (
            [person("Doe^Jane"), person("R2")],
            [],
            "",
            "is by one of 2 observers, without saying which; its box has none.",
        ),
        ([person("Doe^Jane=Ideo=Phono")], [], "Doe^Jane", None),
        ([item("TEXT", ("121013", "Device Observer Name"), "HAS OBS CONTEXT", TextValue="CAD")], [], "CAD", None),
        ([], [], "", None),
    ],
)
def test_the_reader_is_who_stands_nearest(tmp_path, root, inside, reader, note):
    content = group(*inside, finding(), outline("POLYLINE", RECTANGLE))
    report = read_report(foreign(tmp_path / "sr.dcm", content, root=root))
    assert report.boxes[0].reader == reader
    assert report.notes == ((f"sr.dcm, group 1: {note}",) if note else ())


@pytest.mark.parametrize(
    ("value", "unit", "share", "note"),
    [(75, "%", 0.75, None), (0.75, "1", 0.75, None), (75, "1", None, "its certainty is 75, which is no share")],
)
def test_certainty_is_a_share_whatever_its_unit(tmp_path, value, unit, share, note):
    certainty = num(("111012", "Certainty of Finding"), value, unit)
    report = read_report(foreign(tmp_path / "sr.dcm", group(finding(), certainty, outline("POLYLINE", RECTANGLE))))
    assert report.boxes[0].certainty == share
    assert note in report.notes[0] if note else report.notes == ()


def test_items_without_name_code_or_unit_do_not_stop_it(tmp_path):
    unnamed = item("TEXT", ("1", "one"), TextValue="a")
    del unnamed.ConceptNameCodeSequence
    bare = num(("111012", "Certainty of Finding"), 0.5, "1")
    bare.MeasuredValueSequence[0].MeasurementUnitsCodeSequence = []
    uncoded = item("CODE", ("121071", "Finding"), ConceptCodeSequence=[])
    content = group(unnamed, uncoded, finding(), bare, outline("POLYLINE", RECTANGLE))
    report = read_report(foreign(tmp_path / "sr.dcm", content, root=[unnamed]))
    assert [(box.finding, box.certainty) for box in report.boxes] == [("Nodule", 0.5)]


def test_a_damaged_report_is_read_as_far_as_it_goes_or_refused(tmp_path):
    data = written([NODULE, WHOLE], film(tmp_path), tmp_path).read_bytes()
    damage = np.random.default_rng(3)
    refusals = []
    for _ in range(60):
        damaged = bytearray(data)
        for index in damage.integers(300, len(data), 8):
            damaged[index] = damage.integers(256)
        (tmp_path / "damaged.dcm").write_bytes(damaged[: damage.integers(len(data) // 2, 3 * len(data))])
        try:
            assert len(read_report(tmp_path / "damaged.dcm").boxes) <= 2
        except InputError as error:
            refusals.append(str(error))
    assert 0 < len(refusals) < 60
    assert all(refusal.startswith("damaged.dcm: ") for refusal in refusals)


def test_a_box_without_a_finding_is_read_and_told(tmp_path):
    report = read_report(foreign(tmp_path / "sr.dcm", group(outline("POLYLINE", RECTANGLE))))
    assert report.boxes[0].finding == ""
    assert report.notes == ("sr.dcm, group 1: names no finding; its box has none.",)


def test_millimetres_alone_are_found_on_the_slice_they_lie_on(tmp_path):
    """Without any image named, by the place of the slices."""
    sources = volume(tmp_path)
    written([replace(NODULE, slice_index=1)], sources, tmp_path)
    (region,) = items(dcmread(tmp_path / "boxes.dcm"), "SCOORD3D")
    points = np.reshape(region.GraphicData, (5, 3))
    file = foreign(tmp_path / "sr.dcm", group(finding(), spatial(points, region.ReferencedFrameOfReferenceUID)))
    (box,) = read_report(file, sources).boxes
    assert (box.slice_index, box.sop_instance_uid) == (1, sources[1].SOPInstanceUID)
    np.testing.assert_allclose(edges(box), edges(NODULE), atol=2e-4)
    across = points.copy()
    across[0] += 5 * (np.array(sources[2].ImagePositionPatient, float) - sources[1].ImagePositionPatient)
    for moved, frame in ((across, region.ReferencedFrameOfReferenceUID), (points, "2.25.66")):
        file = foreign(tmp_path / "sr.dcm", group(finding(), spatial(moved, frame)))
        with pytest.raises(InputError, match="group 1: lies on no slice of the image, or across several"):
            read_report(file, sources)


def test_a_box_from_the_corner_of_its_image_begins_at_0_not_at_minus_0(tmp_path):
    sources = volume(tmp_path)
    written([replace(NODULE, slice_index=1, x_min=0, y_min=0)], sources, tmp_path)
    (region,) = items(dcmread(tmp_path / "boxes.dcm"), "SCOORD3D")
    corners = np.reshape(region.GraphicData, (5, 3))
    outside = corners + 1e-6 * (corners[0] - corners[2])  # as far as float32 may move them
    assert not np.signbit(plane_of(sources[1]).pixels(outside)).any()


def test_boxes_of_other_images_are_left_out_and_counted(tmp_path):
    sources = film(tmp_path)
    here, there = (outline("POLYLINE", RECTANGLE, instance=name) for name in (sources[0].SOPInstanceUID, "2.25.99"))
    report = read_report(foreign(tmp_path / "sr.dcm", group(finding(), here), group(finding(), there)), sources)
    assert len(report.boxes) == 1
    assert report.notes == ("sr.dcm: 1 box(es) belong to other images and are left out.",)
    with pytest.raises(InputError, match=r"sr.dcm: its 1 box\(es\) belong to other images than the 1 given. Pass the"):
        read_report(foreign(tmp_path / "sr.dcm", group(finding(), there)), sources)


def test_a_box_that_reaches_outside_its_image_is_left_out_and_told(tmp_path):
    sources = film(tmp_path)
    outside = outline("POLYLINE", np.array(RECTANGLE) * 3, instance=sources[0].SOPInstanceUID)
    inside = outline("POLYLINE", RECTANGLE, instance=sources[0].SOPInstanceUID)
    report = read_report(foreign(tmp_path / "sr.dcm", group(finding(), outside), group(finding(), inside)), sources)
    assert len(report.boxes) == 1
    assert report.notes == ("sr.dcm: box 1 of this image reaches outside its 20 x 24 pixels and is left out.",)


# Refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"x_max": 20.5},
            "box 1: the box goes from x 3.25 to 20.5, outside its image of 20 x 24 pixels. Is it a box o",
        ),
        ({"x_max": float("nan")}, "box 1: the box is mirrored: x_min 3.25 is not below x_max nan."),
        (
            {"certainty": 80.0},
            r"box 1: certainty is 80, expected 0 \(guess\) to 1 \(sure\). Divide percentages by 100.",
        ),
        ({"finding": " "}, "box 1: the finding is ' ', expected 1 to 64 characters without backslash or line break"),
        ({"finding": "a\\b"}, "box 1: the finding is"),
        ({"finding": "x" * 65}, "box 1: the finding is"),
        ({"reader": "Doe=Jane"}, "box 1: the reader's name or label is not one that DICOM holds"),
        ({"reader": "A^B^C^D^Doe^F"}, "box 1: the reader's name or label is not one that DICOM holds"),
        ({"tracking_uid": "lesion 1"}, "box 1: tracking_uid is 'lesion 1', expected a DICOM UID, as 2.25.1234."),
        ({"slice_index": 1}, r"box 1: slice_index is 1, but the image has 1 slice\(s\), counted from 0."),
        ({"slice_index": -1}, r"box 1: slice_index is -1, but the image has 1 slice\(s\), counted from 0."),
        ({"sop_instance_uid": "2.25.3"}, "box 1: the box belongs to the image 2.25.3, which is not among the 1 given."),
    ],
)
def test_a_wrong_box_is_refused_without_the_name_of_its_reader(tmp_path, change, words):
    with pytest.raises(InputError, match=words) as error_info:
        written([replace(NODULE, **change)], film(tmp_path), tmp_path)
    assert "Doe" not in str(error_info.value)
    assert not (tmp_path / "boxes.dcm").exists()


def test_on_a_volume_a_box_has_to_say_its_slice(tmp_path):
    sources = volume(tmp_path)
    with pytest.raises(InputError, match="line 7: does not say which of the 3 slices the box is on. Fill in slice_ind"):
        written([NODULE], sources, tmp_path, labels=["line 7"])
    torn = replace(NODULE, slice_index=0, sop_instance_uid=sources[2].SOPInstanceUID)
    with pytest.raises(InputError, match="box 1: slice 0 is not the image .*, which is slice 2, counted from 0"):
        written([torn], sources, tmp_path)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_an_image_without_its_study_or_series_has_no_report(tmp_path, keyword):
    with pytest.raises(InputError, match=rf"film.dcm: has no {keyword} \(0020,000[DE]\), by which a report names its"):
        written([NODULE], film(tmp_path, **{keyword: None}), tmp_path)


@pytest.mark.filterwarnings("ignore:Invalid value for VR DA")
def test_a_header_that_highdicom_refuses_is_told(tmp_path, monkeypatch):
    def refuse(*_arguments, **_options):
        raise ValueError("Evidence must be of one study.")

    monkeypatch.setattr(sr, "ComprehensiveSR", refuse)
    with pytest.raises(
        OutputError, match=r"boxes.dcm: the header of the image does not allow a report \(Evidence must"
    ):
        written([NODULE], film(tmp_path), tmp_path)


def test_writing_without_highdicom_says_how_to_get_it_and_reading_needs_none(tmp_path, monkeypatch):
    sources = film(tmp_path)
    file = written([NODULE], sources, tmp_path)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(OutputError, match=r"highdicom, not installed here. Install with `pip .* '.\[dicom"):
        written([NODULE], sources, tmp_path)
    assert len(read_report(file, sources).boxes) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("film.dcm", r"is Digital X-Ray Image Storage - For Presentation, expected a Struct"),
        ("text.txt", "is not a DICOM file, expected a Structured Report"),
        ("other.dcm", r"is a Structured Report by template 2000 \(Diagnostic imaging report\)"),
        ("basic.dcm", r"is a Structured Report by no stated template \(Report\), expected TID"),
        ("empty.dcm", "holds no box that can be used. It has no measurement group with a region"),
    ],
)
def test_a_file_without_a_report_of_measurements_is_refused(tmp_path, name, message):
    film(tmp_path)
    (tmp_path / "text.txt").write_text("not DICOM at all")
    foreign(tmp_path / "empty.dcm")
    foreign(tmp_path / "other.dcm", template="2000", title=("18748-4", "Diagnostic imaging report", "LN"))
    foreign(tmp_path / "basic.dcm", template=None, title=("18748-4", "Report", "LN"))
    basic = dcmread(tmp_path / "basic.dcm")
    basic.SOPClassUID, basic.ContentSequence = uid.BasicTextSRStorage, [person("Doe^Jane")]
    basic.save_as(tmp_path / "basic.dcm")
    with pytest.raises(InputError, match=f"{name}: {message}"):
        read_report(tmp_path / name)
