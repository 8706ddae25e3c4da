"""Writing DICOM: the derived series says that it is derived, keeps what is still true, and passes the validator."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from monai_sr_bundle.errors import OutputError
from monai_sr_bundle.images.dicom_read import read_dicom
from monai_sr_bundle.images.dicom_write import write_dicom
from monai_sr_bundle.images.given_spacing import with_spacing
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from tests.images.dicom_files import SOURCES, capture, ct_series, ct_slice, enlarged, phantom, provenance, radiograph

SYNTHETIC_TAG_IS_NEWER_THAN_THE_VALIDATOR = "(0x0008,0x001c)"


def enlarge_series(folder: Path, out: Path, scale=(1, 4, 4), **attributes):
    """Write a CT series and its enlargement; return the image that was read and the data sets of the result."""
    image = read_dicom(ct_series(folder, **{"volume": phantom(slices=3), **attributes}), folder)
    files = write_dicom(enlarged(image, scale), provenance(scale_zyx=scale), out)
    return image, [dcmread(file) for file in files]


def write_one(source: Path, out: Path, scale=(1, 4, 4), **changes) -> Dataset:
    """Read, enlarge and write one file; return the written data set."""
    image = read_dicom([source], source)
    facts = provenance(scale_zyx=scale, **changes)
    assert write_dicom(enlarged(image, scale), facts, out) == [out]
    return dcmread(out)


def test_the_validator_is_installed():
    assert shutil.which("dciodvfy"), "install dciodvfy with: apt-get install -y dicom3tools"


@pytest.mark.parametrize("kind", SOURCES)
def test_the_validator_finds_no_error_in_source_or_result(tmp_path, dciodvfy, kind):
    source = SOURCES[kind](tmp_path / "source.dcm")
    write_one(source, tmp_path / "out.dcm")
    assert dciodvfy(source) == []
    assert dciodvfy(tmp_path / "out.dcm") == []


@pytest.mark.parametrize("scale", [(1, 4, 4), (2, 1, 1)])
def test_the_validator_finds_no_error_in_a_series(tmp_path, dciodvfy, scale):
    enlarge_series(tmp_path / "ct", tmp_path / "out", scale)
    assert [error for file in (tmp_path / "out").iterdir() for error in dciodvfy(file)] == []


def test_the_validator_finds_no_error_in_a_real_ct_slice(tmp_path, dciodvfy):
    write_one(Path(get_testdata_file("CT_small.dcm", download=False)), tmp_path / "out.dcm")
    assert dciodvfy(tmp_path / "out.dcm") == []


def test_the_only_error_about_generated_texture_is_the_validators_age(tmp_path, dciodvfy):
    write_one(radiograph(tmp_path / "dx.dcm"), tmp_path / "out.dcm", generative=True)
    assert all(SYNTHETIC_TAG_IS_NEWER_THAN_THE_VALIDATOR in error for error in dciodvfy(tmp_path / "out.dcm"))


@pytest.mark.parametrize("kind", SOURCES)
def test_our_own_result_reads_back_the_same(tmp_path, kind):
    source = SOURCES[kind](tmp_path / "in.dcm")
    image = enlarged(read_dicom([source], source))
    write_dicom(image, provenance(), tmp_path / "out.dcm")
    back = read_dicom([tmp_path / "out.dcm"], tmp_path / "out.dcm")
    np.testing.assert_array_equal(back.pixels, image.pixels)
    assert back.pixels.dtype == image.pixels.dtype
    for name in ("modality", "slope", "intercept", "stored_range", "bits", "black_is_high"):
        assert getattr(back, name) == getattr(image, name), name
    assert back.grid.spacing_source == image.grid.spacing_source
    assert back.grid.spacing_xyz == pytest.approx(image.grid.spacing_xyz if image.grid.in_millimetres else (1, 1, 1))
    if image.modality == "CT":
        np.testing.assert_allclose(back.grid.affine, image.grid.affine, atol=1e-8)


def test_the_headers_of_the_source_do_not_change(tmp_path):
    image = read_dicom(ct_series(tmp_path / "ct", phantom(slices=3)), tmp_path / "ct")
    headers = [str(header) for header in image.header]
    write_dicom(enlarged(image), provenance(), tmp_path / "out")
    assert [str(header) for header in image.header] == headers


# The identity of the result


def test_identity_is_new_where_it_must_be_and_kept_where_it_must_be(tmp_path):
    source = dcmread(SOURCES["ct"](tmp_path / "in.dcm"))
    written = write_one(tmp_path / "in.dcm", tmp_path / "out.dcm")
    unchanged = ("SOPClassUID", "StudyInstanceUID", "PatientID", "FrameOfReferenceUID", "StudyDate", "InstanceNumber")
    for keyword in unchanged:
        assert written[keyword].value == source[keyword].value, keyword
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert written[keyword].value != source[keyword].value, keyword
        assert written[keyword].value.is_valid
    assert written.file_meta.MediaStorageSOPInstanceUID == written.SOPInstanceUID
    assert written.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian
    assert (written.SeriesNumber, written.SeriesDescription) == (301, "AI x4 Chest 2.5 soft")
    for event in ("InstanceCreation", "Content", "Series"):
        assert (written[f"{event}Date"].value, written[f"{event}Time"].value) == ("20261120", "101112")


def test_a_series_is_one_new_series_of_new_instances(tmp_path):
    image, written = enlarge_series(tmp_path / "ct", tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["0001.dcm", "0002.dcm", "0003.dcm"]
    assert len({w.SeriesInstanceUID for w in written}) == 1
    assert len({w.SOPInstanceUID for w in written}) == 3
    sources = [[item.ReferencedSOPInstanceUID for item in w.SourceImageSequence] for w in written]
    assert sources == [[header.SOPInstanceUID] for header in image.header]
    assert [w.InstanceNumber for w in written] == [3, 2, 1]


@pytest.mark.parametrize(("number", "expected"), [(30026, 3002601), (None, None), (2**31 - 1, None)])
def test_the_series_number_is_a_hundred_times_the_sources_where_that_fits(tmp_path, number, expected):
    source = ct_slice(tmp_path / "in.dcm", SeriesNumber=number or 1)
    image = read_dicom([source], source)
    image.header[0].SeriesNumber = number
    write_dicom(enlarged(image), provenance(), tmp_path / "out.dcm")
    assert dcmread(tmp_path / "out.dcm").SeriesNumber == expected


@pytest.mark.parametrize(
    ("source", "facts", "expected"),
    [
        ("x" * 64, {}, "AI x4 " + "x" * 58),  # 64 characters at most
        ("Chest 2.5 soft", {"weights_sha256": ""}, "Interpolated x4 Chest 2.5 soft"),
    ],
)
def test_the_series_description_begins_with_the_method(tmp_path, source, facts, expected):
    written = write_one(ct_slice(tmp_path / "in.dcm", SeriesDescription=source), tmp_path / "out.dcm", **facts)
    assert written.SeriesDescription == expected


def test_what_was_measured_stands_in_the_derivation(tmp_path):
    written = write_one(ct_slice(tmp_path / "in.dcm"), tmp_path / "out.dcm", findings="Sharper by 2 dB.")
    assert "Sharper by 2 dB." in written.DerivationDescription


def test_times_follow_the_sources_time_zone(tmp_path):
    written = write_one(ct_slice(tmp_path / "in.dcm", TimezoneOffsetFromUTC="-0930"), tmp_path / "out.dcm")
    assert (written.ContentDate, written.ContentTime) == ("20261119", "234112")


@pytest.mark.parametrize("offset", ["-8435", "+0160", "east"])
def test_a_time_zone_that_cannot_be_stops_no_result(tmp_path, offset):
    written = write_one(ct_slice(tmp_path / "in.dcm", TimezoneOffsetFromUTC=offset), tmp_path / "out.dcm")
    assert (written.ContentDate, written.ContentTime) == ("20261120", "101112")


@pytest.mark.parametrize(("kind", "last"), [("ct", ["AXIAL"]), ("dx", [""]), ("cr", []), ("capture", [])])
def test_the_image_type_is_derived(tmp_path, kind, last):
    written = write_one(SOURCES[kind](tmp_path / "in.dcm"), tmp_path / "out.dcm")
    assert list(written.ImageType) == ["DERIVED", "SECONDARY", *last]
    assert "NumberOfFrames" not in written


@pytest.mark.parametrize(
    ("source", "third"),
    [(["ORIGINAL", "PRIMARY", "HELICAL"], "HELICAL"), (["ORIGINAL", "PRIMARY"], "AXIAL"), (None, "AXIAL")],
)
def test_the_third_value_of_the_image_type_of_ct_is_the_sources(tmp_path, source, third):
    written = write_one(ct_slice(tmp_path / "in.dcm", ImageType=source), tmp_path / "out.dcm")
    assert list(written.ImageType) == ["DERIVED", "SECONDARY", third]


# The method


def test_the_result_says_how_and_from_what_it_was_made(tmp_path):
    source = dcmread(SOURCES["dx"](tmp_path / "in.dcm"))
    written = write_one(tmp_path / "in.dcm", tmp_path / "out.dcm")
    assert written.DerivationDescription == provenance().sentence
    assert "predicted, not measured" in written.DerivationDescription
    code = written.DerivationCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("113085", "DCM")
    reference = written.SourceImageSequence[0]
    assert reference.ReferencedSOPClassUID == source.SOPClassUID
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    equipment = written.ContributingEquipmentSequence[-1]
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert (equipment.Manufacturer, equipment.ManufacturerModelName) == ("Test Makers", "chest_test_x4")
    assert equipment.SoftwareVersions == "1.2.3"
    assert equipment.ContributionDateTime == "20261120101112.000000+0100"


def test_the_methods_of_earlier_results_are_kept(tmp_path, dciodvfy):
    first = tmp_path / "first.dcm"
    write_one(SOURCES["dx"](tmp_path / "in.dcm"), first)
    written = write_one(first, tmp_path / "second.dcm", scale=(1, 2, 2))
    now, before = provenance(scale_zyx=(1, 2, 2)).sentence, provenance().sentence
    assert written.DerivationDescription == f"{now} Before: {before}"
    assert len(written.DerivationCodeSequence) == len(written.ContributingEquipmentSequence) == 2
    assert [item.ReferencedSOPInstanceUID for item in written.SourceImageSequence] == [dcmread(first).SOPInstanceUID]
    assert dciodvfy(tmp_path / "second.dcm") == []


def test_names_outside_ascii_stay_writable(tmp_path):
    written = write_one(SOURCES["ct"](tmp_path / "in.dcm"), tmp_path / "out.dcm", manufacturer="Jos\u00e9 \\ Co")
    assert written.ContributingEquipmentSequence[-1].Manufacturer == "Jos? / Co"
    for manufacturer, expected in (("", "unknown"), ("y" * 70, "y" * 64)):
        written = write_one(tmp_path / "in.dcm", tmp_path / "out.dcm", manufacturer=manufacturer)
        assert written.ContributingEquipmentSequence[-1].Manufacturer == expected


@pytest.mark.parametrize(
    ("character_set", "name"),
    [("ISO_IR 192", "M\u00fcller".encode("latin1")), ("ISO_IR 13", "\u5c71\u7530^\u592a\u90ce".encode("shift_jis"))],
)
def test_a_name_that_its_character_set_cannot_write_keeps_its_bytes(tmp_path, character_set, name):
    file = SOURCES["cr"](tmp_path / "in.dcm")
    dataset = dcmread(file)
    dataset.SpecificCharacterSet, dataset.PatientName = character_set, "N" * len(name)
    dataset.save_as(file)
    file.write_bytes(file.read_bytes().replace(b"N" * len(name), name))
    write_one(file, tmp_path / "out.dcm")
    assert name in (tmp_path / "out.dcm").read_bytes()


@pytest.mark.parametrize(
    ("in_source", "facts", "expected"),
    [
        (None, {}, None),
        (None, {"generative": True}, "YES"),
        (None, {"removed_places": 0}, None),
        (None, {"removed_places": 2}, "YES"),
        ("YES", {}, "YES"),
        ("NO", {}, None),
        ("NO", {"generative": True}, "YES"),
    ],
)
def test_synthetic_data_is_yes_or_absent(tmp_path, in_source, facts, expected):
    source = ct_slice(tmp_path / "in.dcm", **({"SyntheticData": in_source} if in_source else {}))
    written = write_one(source, tmp_path / "out.dcm", **facts)
    assert written.get("SyntheticData") == expected
    purpose = written.ContributingEquipmentSequence[-1].PurposeOfReferenceCodeSequence[0].CodeValue
    assert purpose == ("109100" if facts.get("generative") or facts.get("removed_places") else "109102")


# Elements that are still true, and those that are not


def test_display_and_compression_history_are_kept_and_stale_elements_removed(tmp_path):
    history = {
        "WindowCenter": "2000", "WindowWidth": "3000", "LossyImageCompression": "01",
        "LossyImageCompressionRatio": "10", "LossyImageCompressionMethod": "ISO_10918_1", "BurnedInAnnotation": "NO",
        "PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12,
    }  # fmt: skip
    source = radiograph(tmp_path / "in.dcm", **history)
    dataset = dcmread(source)
    dataset.add_new((0x6000, 0x0010), "US", 24)
    dataset.add_new((0x6000, 0x3000), "OW", b"\0" * 60)
    dataset.add_new((0x0013, 0x0010), "LO", "PRIVATE")
    dataset.add_new((0x0013, 0x1010), "LO", "secret")
    dataset.SmallestImagePixelValue, dataset.LargestImagePixelValue = 0, 1000
    dataset["SmallestImagePixelValue"].VR = dataset["LargestImagePixelValue"].VR = "US"
    dataset.IconImageSequence = [Dataset()]
    dataset.save_as(source)
    written = write_one(source, tmp_path / "out.dcm")
    for keyword, value in history.items():
        assert str(written[keyword].value) == str(value), keyword
    assert written.HighBit == 11
    stale = {"SmallestImagePixelValue", "LargestImagePixelValue", "IconImageSequence"}
    assert not stale & set(written.dir())
    assert not [tag for tag in list(written.keys()) if tag.is_private or tag.group >> 8 == 0x60]
    assert (written.Rows, written.Columns) == (96, 80)


def test_numbers_moved_down_by_the_reader_are_written_with_their_true_high_bit(tmp_path):
    shifted = phantom(dtype="uint16")[0] << 4
    source = radiograph(tmp_path / "in.dcm", shifted, "CR", BitsStored=12, HighBit=15)
    written = write_one(source, tmp_path / "out.dcm")
    assert (written.HighBit, written.pixel_array.max()) == (11, 1000)


def test_an_odd_number_of_bytes_is_padded(tmp_path, dciodvfy):
    written = write_one(SOURCES["cr 8 bit odd size"](tmp_path / "in.dcm"), tmp_path / "out.dcm", scale=(1, 3, 3))
    assert (written.Rows * written.Columns, len(written.PixelData)) == (891, 892)
    assert dciodvfy(tmp_path / "out.dcm") == []


# The position of the result


def test_every_spacing_a_radiograph_has_is_divided_and_none_of_zero_written(tmp_path):
    source = radiograph(tmp_path / "in.dcm", PixelSpacing=[0.19, 0.08], NominalScannedPixelSpacing=[0.4, 0.3])
    written = write_one(source, tmp_path / "out.dcm")
    np.testing.assert_allclose(written.PixelSpacing, [0.0475, 0.02])
    np.testing.assert_allclose(written.ImagerPixelSpacing, [0.05, 0.025])
    np.testing.assert_allclose(written.NominalScannedPixelSpacing, [0.1, 0.075])
    zero = radiograph(tmp_path / "zero.dcm", modality="CR", PixelSpacing=[0, 0], ImagerPixelSpacing=None)
    assert "PixelSpacing" not in write_one(zero, tmp_path / "out.dcm")


def test_a_spacing_given_by_the_user_is_written_and_named(tmp_path):
    source = radiograph(
        tmp_path / "in.dcm", modality="CR", PixelSpacing=[0.3, 0.3], PixelSpacingCalibrationType="FIDUCIAL"
    )
    image = read_dicom([source], source)
    write_dicom(enlarged(with_spacing(image, (0.16, 0.12))), provenance(), tmp_path / "out.dcm")
    written = dcmread(tmp_path / "out.dcm")
    np.testing.assert_allclose(written.PixelSpacing, [0.04, 0.03])
    assert "PixelSpacingCalibrationType" not in written
    assert "Pixel spacing given by the user." in written.DerivationDescription


def test_an_aspect_ratio_gives_way_to_a_spacing_given_by_the_user(tmp_path):
    source = radiograph(tmp_path / "in.dcm", ImagerPixelSpacing=None, PixelAspectRatio=[4, 3])
    assert write_one(source, tmp_path / "kept.dcm").PixelAspectRatio == [4, 3]
    image = with_spacing(read_dicom([source], source), (0.2, 0.2))
    write_dicom(enlarged(image), provenance(), tmp_path / "out.dcm")
    assert "PixelAspectRatio" not in dcmread(tmp_path / "out.dcm")


def test_what_describes_the_whole_film_or_its_old_pixels_does_not_describe_a_region(tmp_path, dciodvfy):
    histogram = Dataset()
    histogram.HistogramData = [256]
    field = {
        "FieldOfViewShape": "RECTANGLE", "FieldOfViewDimensions": [3, 3], "FieldOfViewOrigin": [0, 0],
        "FieldOfViewRotation": 0, "FieldOfViewHorizontalFlip": "NO",
    }  # fmt: skip
    source = radiograph(tmp_path / "in.dcm", **field, HistogramSequence=[histogram])
    whole = write_one(source, tmp_path / "whole.dcm")
    assert {name: whole[name].value for name in field} == field
    assert "HistogramSequence" not in whole
    region = write_one(source, tmp_path / "region.dcm", roi_xyxy=(0, 0, 8, 8))
    assert not [name for name in field if name in region]
    assert dciodvfy(tmp_path / "region.dcm") == []


def test_a_position_that_is_not_read_is_not_written(tmp_path):
    source = capture(tmp_path / "in.dcm", phantom(dtype="uint16")[0], ImagePositionPatient=[-100, -50, 20],
                     ImageOrientationPatient=[1, 0, 0, 0, 1, 0], PixelSpacing=[1, 1])  # fmt: skip
    written = write_one(source, tmp_path / "out.dcm", roi_xyxy=(8, 4, 16, 16))
    assert "ImagePositionPatient" not in written
    assert list(written.PixelSpacing) == [0.25, 0.25]


def test_shutters_move_with_the_pixels(tmp_path):
    edges = {
        "ShutterShape": ["RECTANGULAR", "CIRCULAR", "POLYGONAL"],
        "ShutterLeftVerticalEdge": 3,
        "ShutterRightVerticalEdge": 18,
        "ShutterUpperHorizontalEdge": 1,
        "ShutterLowerHorizontalEdge": 24,
        "CenterOfCircularShutter": [12, 10],
        "RadiusOfCircularShutter": 5,
        "VerticesOfThePolygonalShutter": [1, 1, 1, 20, 24, 20],
    }
    source = radiograph(tmp_path / "in.dcm", **edges)
    written = write_one(source, tmp_path / "out.dcm")
    assert (written.ShutterLeftVerticalEdge, written.ShutterRightVerticalEdge) == (10, 70)
    assert (written.ShutterUpperHorizontalEdge, written.ShutterLowerHorizontalEdge) == (2, 94)
    assert list(written.CenterOfCircularShutter) == [46, 38]
    assert written.RadiusOfCircularShutter == 20
    assert list(written.VerticesOfThePolygonalShutter) == [2, 2, 2, 78, 94, 78]
    cropped = write_one(source, tmp_path / "roi.dcm", roi_xyxy=(2, 4, 18, 20))
    assert (cropped.ShutterLeftVerticalEdge, cropped.ShutterUpperHorizontalEdge) == (2, -14)


def test_new_slices_get_positions_thickness_and_their_two_nearest_sources(tmp_path):
    image, written = enlarge_series(tmp_path / "ct", tmp_path / "out", (2, 4, 4), axes=np.eye(3), SliceLocation="1")
    assert [float(w.ImagePositionPatient[2]) for w in written] == pytest.approx(-30 - 0.625 + 1.25 * np.arange(6))
    assert {float(w.SliceThickness) for w in written} == {float(w.SpacingBetweenSlices) for w in written} == {1.25}
    assert [w.InstanceNumber for w in written] == [6, 5, 4, 3, 2, 1]  # as the source's, against its positions
    assert all("SliceLocation" not in w for w in written)
    nearest = [item.ReferencedSOPInstanceUID for item in written[1].SourceImageSequence]
    assert nearest == [image.header[0].SOPInstanceUID, image.header[1].SOPInstanceUID]


def test_new_slices_are_numbered_along_their_positions_where_the_source_is(tmp_path):
    axes = np.diag([1.0, 1, -1])  # the series begins at the other end
    _, written = enlarge_series(tmp_path / "ct", tmp_path / "out", (2, 4, 4), axes=axes, step=(0, 0, -2.5))
    assert [w.InstanceNumber for w in written] == [1, 2, 3, 4, 5, 6]


def test_a_region_is_not_as_wide_as_its_source_was_reconstructed(tmp_path):
    source = ct_slice(tmp_path / "ct.dcm", ReconstructionDiameter="350")
    assert write_one(source, tmp_path / "whole.dcm").ReconstructionDiameter == 350
    assert "ReconstructionDiameter" not in write_one(source, tmp_path / "roi.dcm", roi_xyxy=(2, 4, 18, 20))


@pytest.mark.parametrize("thickness", ["1", "5", ""])
def test_new_slices_are_as_thick_as_they_lie_apart(tmp_path, thickness):
    attributes = {"SliceThickness": thickness, "SpacingBetweenSlices": "2.4"}
    for written in enlarge_series(tmp_path / "ct", tmp_path / "out", (2, 1, 1), **attributes)[1]:
        assert float(written.SliceThickness) == float(written.SpacingBetweenSlices) == pytest.approx(1.25)


def test_slices_keep_the_small_irregularities_of_their_positions(tmp_path):
    files = ct_series(tmp_path / "ct", phantom(slices=4), axes=np.eye(3), step=(0, 0, 0.625))
    for file in files:
        dataset = dcmread(file)
        dataset.ImagePositionPatient[2] = round(float(dataset.ImagePositionPatient[2]), 2)
        dataset.save_as(file)
    image = read_dicom(files, tmp_path / "ct")
    written = [dcmread(file) for file in write_dicom(enlarged(image), provenance(), tmp_path / "out")]
    before = [float(header.ImagePositionPatient[2]) for header in image.header]
    assert [float(w.ImagePositionPatient[2]) for w in written] == pytest.approx(before, abs=1e-9)


def test_new_slices_without_millimetres_are_refused(tmp_path):
    with pytest.raises(OutputError, match=r"ct: new slices need positions in millimetres"):
        enlarge_series(tmp_path / "ct", tmp_path / "out", (2, 1, 1), PixelSpacing=None)
    assert not (tmp_path / "out").exists()


def test_a_ct_slice_of_unknown_spacing_keeps_its_position(tmp_path):
    written = write_one(ct_slice(tmp_path / "in.dcm", PixelSpacing=None), tmp_path / "out.dcm")
    assert list(written.ImagePositionPatient) == [-100, 50, -30]
