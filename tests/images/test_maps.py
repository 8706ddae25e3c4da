"""Error bars and trust masks as files: the values, the grid of the result, and what the headers say."""

import sys
from dataclasses import replace

import highdicom
import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.images import dicom_maps
from monai_sr_bundle.images.dicom_file import quiet_pydicom
from monai_sr_bundle.images.dicom_read import read_dicom
from monai_sr_bundle.images.files import Source, discover, read, write
from monai_sr_bundle.images.maps import check_maps, check_result, map_paths, write_maps
from PIL import Image as Picture
from pydicom import dcmread, uid

from tests.images.dicom_files import SOURCES, ct_series, ct_slice, enlarged, phantom, provenance, radiograph, zipped

TOLERANCE = 2.5


def half_width_of(image):
    """Error bars that differ from pixel to pixel, about half of them wider than `TOLERANCE`."""
    return 0.5 + 4 * np.random.default_rng(5).random(image.pixels.shape, dtype=np.float32)


def write_all(source_path, folder, *, unit="HU", generative=False):
    """Enlarge the image in a file or folder, write it and its maps; return it, its file, half-widths and map files."""
    with discover([source_path]) as (source,):
        result = enlarged(read(source))
        names = {"dicom": "out" if source.in_folder else "out.dcm", "nifti": "out.nii.gz"}
        out = folder / ("out.zip" if source.zipped else names.get(source.format, f"out{source_path.suffix}"))
        write(result, provenance(generative=generative), out)
        half_width = half_width_of(result)
        check_maps(result, result.pixels.shape)
        paths = map_paths(source, folder / "out", mask=True)
        meaning = {"percent": 90.0, "unit": unit, "tolerance": TOLERANCE}
        assert list(write_maps(half_width, result, provenance(generative=generative), out, paths, **meaning)) == paths
    return result, out, half_width, paths


# Names


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("dicom", ["a_sr_error_bar.dcm", "a_sr_trust_mask.dcm"]),
        ("nifti", ["a_sr_error_bar.nii.gz", "a_sr_trust_mask.nii.gz"]),
        ("png", ["a_sr_error_bar.tif", "a_sr_trust_mask.png"]),
        ("jpeg", ["a_sr_error_bar.tif", "a_sr_trust_mask.png"]),
        ("tiff", ["a_sr_error_bar.tif", "a_sr_trust_mask.tif"]),
    ],
)
def test_maps_are_named_after_the_result_in_a_format_that_holds_them(tmp_path, kind, names):
    source = Source(kind, (tmp_path / "a",), tmp_path, "a")
    assert map_paths(source, tmp_path / "a_sr", mask=True) == [tmp_path / name for name in names]
    assert map_paths(source, tmp_path / "a_sr", mask=False) == [tmp_path / names[0]]


# DICOM that lies in the patient


def frames_by_position(path):
    """Pixels of a multi-frame file, slice by slice in the order of their position along z, and those positions."""
    frames = [frame.PlanePositionSequence[0] for frame in dcmread(path).PerFrameFunctionalGroupsSequence]
    positions = np.array([frame.ImagePositionPatient for frame in frames], dtype=float)
    order = np.argsort(positions[:, 2])
    return highdicom.imread(path).get_frames()[order], positions[order]


def slice_order(result):
    """The slices of a result in the order of their position along z, and those positions."""
    positions = np.array([(result.grid.affine @ [0, 0, index, 1])[:3] for index in range(len(result.pixels))])
    order = np.argsort(positions[:, 2])
    return order, positions[order]


@pytest.mark.parametrize("in_zip", [False, True])
def test_a_ct_series_gets_a_parametric_map_and_a_segmentation_on_its_grid(tmp_path, in_zip):
    source = tmp_path / "ct"
    files = ct_series(source, phantom(slices=3))
    if in_zip:
        source = zipped(tmp_path / "ct.zip", files)
    result, out, half_width, (bar, mask) = write_all(source, tmp_path)
    order, expected = slice_order(result)
    storage_classes = uid.ParametricMapStorage, uid.SegmentationStorage
    for path, values, storage in zip((bar, mask), (half_width, half_width > TOLERANCE), storage_classes, strict=True):
        dataset, (frames, positions) = dcmread(path), frames_by_position(path)
        assert dataset.SOPClassUID == storage
        np.testing.assert_array_equal(frames, values[order])
        np.testing.assert_allclose(positions, expected, atol=1e-6)
        shared = dataset.SharedFunctionalGroupsSequence[0]
        x, y, _ = result.grid.spacing_xyz
        np.testing.assert_allclose(shared.PixelMeasuresSequence[0].PixelSpacing, [y, x], atol=1e-6)
        axes = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
        np.testing.assert_allclose(axes, (result.grid.affine[:3, :2] / [x, y]).T, atol=1e-6)
    # Each frame names the slice of the result that lies where it does.
    headers = {header.SOPInstanceUID: header for header in dicom_maps.read_result_headers(out)}
    assert len(headers) == 3
    for frame in dcmread(bar).PerFrameFunctionalGroupsSequence:
        reference = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert headers[reference].ImagePositionPatient == frame.PlanePositionSequence[0].ImagePositionPatient


def test_a_series_whose_slices_have_a_frame_of_reference_each_is_one_volume(tmp_path):
    for index, file in enumerate(ct_series(tmp_path / "ct", phantom(slices=3))):
        dataset = dcmread(file)
        dataset.FrameOfReferenceUID = f"2.25.77.{index}"
        dataset.save_as(file)
    result, out, half_width, (bar, mask) = write_all(tmp_path / "ct", tmp_path)
    for path in (bar, mask):
        assert dcmread(path).FrameOfReferenceUID == dicom_maps.read_result_headers(out)[0].FrameOfReferenceUID
    np.testing.assert_array_equal(frames_by_position(bar)[0], half_width[slice_order(result)[0]])


def test_the_maps_of_a_ct_slice_belong_to_its_study_and_are_series_of_their_own(tmp_path):
    ct_slice(tmp_path / "in.dcm", TimezoneOffsetFromUTC="+0100")
    _, out, half_width, paths = write_all(tmp_path / "in.dcm", tmp_path, generative=True)
    result = dcmread(out)
    written = [dcmread(path) for path in paths]
    for dataset in written:
        for keyword in ("StudyInstanceUID", "PatientID", "FrameOfReferenceUID", "ContentDate", "ContentTime"):
            assert dataset[keyword].value == result[keyword].value, keyword
        assert dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == result.SeriesInstanceUID
        (reference,) = dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        assert reference.ReferencedSOPInstanceUID == result.SOPInstanceUID
        assert (dataset.Manufacturer, dataset.ManufacturerModelName) == ("Test Makers", "chest_test_x4")
        assert dataset.DeviceSerialNumber == "0123456789abcdef" * 4
        assert dataset.ContributingEquipmentSequence[0].ManufacturerModelName == "chest_test_x4"
        assert dataset.SyntheticData == "YES"  # what derives from it stays so
        assert dataset.TimezoneOffsetFromUTC == "+0100"
    assert len({dataset.SeriesInstanceUID for dataset in (result, *written)}) == 3
    assert [dataset.SeriesNumber for dataset in (result, *written)] == [301, 302, 303]
    bar, mask = written
    assert bar.SeriesDescription == "Error bar of AI x4 Chest 2.5 soft"
    assert mask.SeriesDescription == "Trust mask of AI x4 Chest 2.5 soft"
    mapping = bar.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.LUTExplanation == "Half-width of the 90 % error bars in HU"
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "[hnsf'U]"
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert mapping.DoubleFloatRealWorldValueLastValueMapped == half_width.max()
    segment = mask.SegmentSequence[0]
    assert (segment.SegmentLabel, segment.SegmentAlgorithmType) == ("Error bar wider than 2.5 HU", "AUTOMATIC")
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("chest_test_x4", "1.2.3")
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"


@pytest.mark.parametrize(("part", "region"), [("CHEST", "51185008"), (None, "51185008"), ("KNEE", "38266002")])
def test_a_parametric_map_names_no_body_part_that_the_source_does_not(tmp_path, part, region):
    ct_slice(tmp_path / "in.dcm", BodyPartExamined=part)
    _, _, _, (bar, _) = write_all(tmp_path / "in.dcm", tmp_path)
    (anatomy,) = dcmread(bar).SharedFunctionalGroupsSequence[0].FrameAnatomySequence
    assert anatomy.AnatomicRegionSequence[0].CodeValue == region


# DICOM that lies nowhere in the patient

NOWHERE = {
    **{kind: SOURCES[kind] for kind in ("dx", "cr", "cr 8 bit odd size", "capture")},
    "ct without spacing": lambda file: ct_slice(file, PixelSpacing=None),
    "frames": SOURCES["frames 16 bit"],
}
CAPTURED_MASK = ("ct without spacing", "frames")


@pytest.mark.parametrize("kind", NOWHERE)
def test_error_bars_without_a_place_in_the_patient_are_a_capture_that_gives_their_values(tmp_path, kind):
    NOWHERE[kind](tmp_path / "in.dcm")
    _, out, half_width, (bar, mask) = write_all(tmp_path / "in.dcm", tmp_path, unit="grey levels")
    result, written, marked = dcmread(out), dcmread(bar), dcmread(mask)
    assert "Capture" in written.SOPClassUID.name
    assert written.Modality == "OT"
    (mapping,) = written.RealWorldValueMappingSequence
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    stored = written.pixel_array.reshape(half_width.shape)
    np.testing.assert_allclose(mapping.RealWorldValueSlope * stored, half_width, atol=0.51 * half_width.max() / 65535)
    assert float(written.RescaleSlope) == (1 if kind == "frames" else mapping.RealWorldValueSlope)
    assert "WindowCenter" not in written
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "PatientOrientation", "StudyInstanceUID"):
        assert (written.get(keyword) or None) == result.get(keyword), keyword
    assert len({dataset.SeriesInstanceUID for dataset in (result, written, marked)}) == 3
    assert [item.ReferencedSOPInstanceUID for item in written.SourceImageSequence] == [result.SOPInstanceUID]
    assert written.DerivationDescription.startswith("Half-width of the 90 % error bars in grey levels. Super-res")
    assert ("Capture" in marked.SOPClassUID.name) == (kind in CAPTURED_MASK)
    inside = marked.pixel_array.reshape(half_width.shape) > 0
    np.testing.assert_array_equal(inside, half_width > TOLERANCE)
    if kind not in CAPTURED_MASK:
        assert marked.SegmentSequence[0].SegmentLabel == "Error bar wider than 2.5 grey levels"
        frame = marked.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
        assert frame.ReferencedSOPInstanceUID == result.SOPInstanceUID


@pytest.mark.parametrize("kind", ["ct", "ct slice", *NOWHERE])
def test_the_validator_finds_no_error_in_maps(tmp_path, dciodvfy, kind):
    source = tmp_path / ("ct" if kind == "ct" else "in.dcm")
    if kind == "ct":
        ct_series(source, phantom(slices=3))
    elif kind == "ct slice":
        ct_slice(source)
    else:
        NOWHERE[kind](source)
    _, out, _, paths = write_all(source, tmp_path)
    errors_of_result = [] if kind == "ct" else dciodvfy(out)
    assert [error for path in paths for error in dciodvfy(path) if error not in errors_of_result] == []


def test_a_file_without_the_names_and_dates_it_should_have_gets_its_maps(tmp_path):
    removed = dict.fromkeys(("PatientID", "PatientName", "StudyDate", "StudyID", "AccessionNumber", "SeriesNumber"))
    radiograph(tmp_path / "in.dcm", modality="CR", **removed)
    _, _, half_width, (bar, mask) = write_all(tmp_path / "in.dcm", tmp_path)
    np.testing.assert_array_equal(dcmread(mask).pixel_array, half_width[0] > TOLERANCE)
    assert [dcmread(path).SeriesNumber for path in (bar, mask)] == [1, 2]


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("PatientBirthDate", "1950"), ("StudyDate", "00000000"), ("StudyTime", "12:30"), ("PatientSex", "male")],
)
@pytest.mark.parametrize("make", [ct_slice, radiograph])
def test_maps_have_names_and_dates_in_whichever_form_the_source_has_them(tmp_path, make, keyword, value):
    with quiet_pydicom():
        file = make(tmp_path / "a.dcm", **{keyword: value})
    *_, paths = write_all(file, tmp_path)
    with quiet_pydicom():
        assert [dcmread(path)[keyword].value for path in paths] == [value] * 2


def test_a_negative_series_number_is_left_out_of_the_count(tmp_path):
    file = radiograph(tmp_path / "a.dcm", SeriesNumber=-3)
    *_, paths = write_all(file, tmp_path)
    assert [dcmread(path).SeriesNumber for path in paths] == [1, 2]


@pytest.mark.parametrize("thickness", [None, "", "0"])
def test_slices_of_no_stated_thickness_are_as_thick_as_they_lie_apart(tmp_path, thickness):
    ct_series(tmp_path / "ct", phantom(slices=3), SliceThickness=thickness)
    *_, paths = write_all(tmp_path / "ct", tmp_path)
    for path in paths:
        (measures,) = dcmread(path).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
        assert measures.SliceThickness == 2.5


def test_maps_state_the_distance_at_which_their_slices_lie(tmp_path):
    ct_series(tmp_path / "ct", phantom(slices=3), SpacingBetweenSlices="7")
    *_, paths = write_all(tmp_path / "ct", tmp_path)
    for path in paths:
        (measures,) = dcmread(path).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
        assert measures.SpacingBetweenSlices == 2.5
        assert highdicom.imread(path).get_volume_geometry().spacing_between_slices == pytest.approx(2.5)


def test_one_slice_of_no_stated_thickness_gets_captures(tmp_path):
    *_, paths = write_all(ct_slice(tmp_path / "a.dcm", SliceThickness=None), tmp_path)
    for path in paths:
        assert dcmread(path).SOPClassUID == uid.SecondaryCaptureImageStorage


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("ISO_IR 100", "Müller^Jörg"),
    ],
)
@pytest.mark.parametrize("make", [ct_slice, radiograph])
def test_maps_keep_a_name_in_whichever_letters_it_is_written(tmp_path, make, character_set, name):
    file = make(tmp_path / "a.dcm", SpecificCharacterSet=character_set, PatientName=name)
    *_, paths = write_all(file, tmp_path)
    assert [str(dcmread(path).PatientName) for path in paths] == [name] * 2


def test_a_mask_that_marks_nothing_is_a_mask_of_zeros(tmp_path):
    ct_slice(tmp_path / "in.dcm")
    headers = [dcmread(tmp_path / "in.dcm", stop_before_pixels=True)]
    nothing = np.zeros((1, 24, 20), bool)
    dicom_maps.write_trust_mask(nothing, headers, provenance(), tmp_path / "mask.dcm", meaning="none")
    np.testing.assert_array_equal(highdicom.imread(tmp_path / "mask.dcm").get_frames(), nothing)


@pytest.mark.parametrize("kind", ["pm.ParametricMap", "seg.Segmentation"])
def test_a_header_that_highdicom_refuses_is_told(tmp_path, monkeypatch, kind):
    def refuse(*_arguments, **_options):
        raise ValueError("Source images must all be of one kind.")

    monkeypatch.setattr(f"highdicom.{kind}", refuse)
    ct_slice(tmp_path / "in.dcm")
    name = "out_error_bar.dcm" if "pm" in kind else "out_trust_mask.dcm"
    with pytest.raises(
        OutputError, match=rf"{name}: error bars cannot be written with .* of this image \(Source images must"
    ):
        write_all(tmp_path / "in.dcm", tmp_path)
    assert not (tmp_path / name).exists()


def test_maps_of_dicom_without_highdicom_say_how_to_get_it(tmp_path, monkeypatch):
    image = read_dicom([ct_slice(tmp_path / "in.dcm")], tmp_path / "in.dcm")
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(OutputError, match=r"highdicom, which is not installed. Install it with `pip .* '.\[dicom"):
        check_maps(image, (1, 96, 80))
    check_maps(replace(image, format="nifti"), (1, 96, 80))  # no other format needs it


def test_maps_that_could_not_be_written_are_refused_before_anything_is_computed(tmp_path):
    image = read_dicom([ct_slice(tmp_path / "in.dcm")], tmp_path / "in.dcm")
    check_maps(image, (255, 2048, 2048))
    with pytest.raises(OutputError, match=r"in.dcm: error bars of 2048 x 2048 x 256 pixels need 4,294,967,296 bytes"):
        check_maps(image, (256, 2048, 2048))
    del image.header[0].StudyInstanceUID
    with pytest.raises(InputError, match=r"in.dcm: has no Study Instance UID \(0020,000D\), which its error bars"):
        check_maps(image, (1, 96, 80))


def test_a_result_of_several_frames_beyond_one_dicom_object_is_refused_before_anything_is_computed(tmp_path):
    frames = read_dicom([SOURCES["frames 16 bit"](tmp_path / "in.dcm")], tmp_path / "in.dcm")
    check_result(frames, (127, 4096, 4096))
    with pytest.raises(OutputError, match=r"in.dcm: results of 4096 x 4096 x 128 pixels need 4,294,967,296 bytes"):
        check_result(frames, (128, 4096, 4096))
    ct_series(tmp_path / "ct", phantom(slices=3))
    slices = read_dicom([*(tmp_path / "ct").iterdir()], tmp_path / "ct")
    check_result(slices, (3000, 4096, 4096))  # a file each


# NIfTI and pictures


@pytest.mark.parametrize("slope", [None, 2.0])
def test_a_nifti_gets_niftis_of_the_same_affine(tmp_path, slope):
    affine = np.array([[-0.48, 0.54, 0, 30], [0.36, 0.72, 0, -20], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])
    source = nibabel.Nifti1Image(phantom(slices=3).transpose(2, 1, 0), affine)
    source.header["cal_max"] = 500
    if slope:
        source.header.set_slope_inter(slope, -1024)
    source.to_filename(tmp_path / "in.nii.gz")
    _, out, half_width, (bar, mask) = write_all(tmp_path / "in.nii.gz", tmp_path)
    result, written, marked = (nibabel.load(path) for path in (out, bar, mask))
    for image in (written, marked):
        np.testing.assert_allclose(image.affine, result.affine, atol=1e-6)
        assert image.header["cal_max"] == 0
    np.testing.assert_array_equal(np.asanyarray(written.dataobj).transpose(2, 1, 0), half_width)
    assert written.get_data_dtype() == np.float32
    assert marked.get_data_dtype() == np.uint8
    assert bytes(written.header["descrip"].item()).startswith(b"Half-width of the 90 % error bars in HU. Super")
    read_result, read_bar, read_mask = (SimpleITK.ReadImage(str(path)) for path in (out, bar, mask))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(read_bar), half_width)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(read_mask), half_width > TOLERANCE)
    for name in ("GetSpacing", "GetOrigin", "GetDirection", "GetSize"):
        expected = getattr(read_result, name)()
        np.testing.assert_allclose(getattr(read_bar, name)(), expected, atol=1e-6)
        np.testing.assert_allclose(getattr(read_mask, name)(), expected, atol=1e-6)


def test_a_picture_gets_a_tiff_of_floats_and_a_black_and_white_mask(tmp_path):
    pixels = np.arange(24 * 20, dtype=np.uint16).reshape(24, 20)
    Picture.fromarray(pixels).save(tmp_path / "in.png", dpi=(254, 254))
    _, _, half_width, (bar, mask) = write_all(tmp_path / "in.png", tmp_path, unit="grey levels")
    np.testing.assert_array_equal(tifffile.imread(bar), half_width[0])
    np.testing.assert_array_equal(np.asarray(Picture.open(mask)), 255 * (half_width[0] > TOLERANCE))
    with Picture.open(bar) as picture:
        assert picture.mode == "F"
        assert picture.info["dpi"] == pytest.approx((4 * 254, 4 * 254), rel=1e-3)
        assert picture.tag_v2[270].startswith("Half-width of the 90 % error bars in grey levels. Super-resolution x4")
    with Picture.open(mask) as picture:
        assert picture.text["Description"].startswith("Error bar wider than 2.5 grey levels. Super-resolution x4")


def test_a_stack_of_pages_gets_stacks_of_pages(tmp_path):
    tifffile.imwrite(tmp_path / "in.tif", phantom(slices=3, dtype="uint8", bright=200), photometric="minisblack")
    _, _, half_width, (bar, mask) = write_all(tmp_path / "in.tif", tmp_path)
    np.testing.assert_array_equal(tifffile.imread(bar), half_width)
    np.testing.assert_array_equal(tifffile.imread(mask), 255 * (half_width > TOLERANCE))


def test_the_first_of_two_maps_is_yielded_before_the_second_fails(tmp_path, monkeypatch):
    def fail(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dicom_maps, "write_trust_mask", fail)
    image = read_dicom([ct_slice(tmp_path / "in.dcm")], tmp_path / "in.dcm")
    paths = [tmp_path / "bar.dcm", tmp_path / "mask.dcm"]
    meaning = {"percent": 90.0, "unit": "HU", "tolerance": TOLERANCE}
    maps = write_maps(half_width_of(image), image, provenance(), tmp_path / "in.dcm", paths, **meaning)
    assert next(maps) == paths[0]
    with pytest.raises(OutputError, match=r"mask.dcm could not be written: the disk or your quota is full"):
        next(maps)
    assert not paths[1].exists()
