"""Reading DICOM: stored numbers and their meaning, their spacing and its source, and every file that is refused."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.dicom_file import derivation, is_dicom, series_key
from monai_sr_bundle.images.dicom_read import read_dicom
from pydicom import dcmread, dcmwrite, uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

from tests.images.dicom_files import capture, ct_series, ct_slice, phantom, radiograph


def shipped(name: str) -> Path:
    return Path(get_testdata_file(name, download=False))


SCOUT = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


def read_one(file: Path):
    return read_dicom([file], file)


def changed(file: Path, **attributes) -> Path:
    dataset = dcmread(file)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(file)
    return file


def compressed(file: Path, syntax: str, *, ratio: int | None = None, **attributes) -> Path:
    """Compress the pixels of a file, then change its attributes."""
    dataset = dcmread(file)
    options = {"j2k_cr": [ratio]} if ratio else {}
    dataset.compress(syntax, generate_instance_uid=False, **options)
    dataset.save_as(file)
    return changed(file, **attributes)


def refused(files, path: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_dicom(files, path)
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message


def dx(folder: Path, **attributes) -> Path:
    return radiograph(folder / "dx.dcm", **attributes)


def cr(folder: Path, pixels: np.ndarray | None = None, **attributes) -> Path:
    return radiograph(folder / "cr.dcm", pixels, "CR", **attributes)


def ct(folder: Path, pixels: np.ndarray | None = None, **attributes) -> Path:
    return ct_slice(folder / "ct.dcm", pixels, **attributes)


# DICOM files, and which of them belong together


def test_dicom_is_recognised_by_content_with_and_without_its_prefix(tmp_path):
    file = ct_slice(tmp_path / "picture.png")
    assert is_dicom(file)
    for name, implicit, little in (("implicit", True, True), ("explicit", False, True), ("big", False, False)):
        bare = dcmread(file)
        del bare.file_meta
        bare.preamble = None
        dcmwrite(tmp_path / name, bare, implicit_vr=implicit, little_endian=little, enforce_file_format=False)
        assert is_dicom(tmp_path / name), name
    np.testing.assert_array_equal(read_one(tmp_path / "implicit").pixels, phantom())


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n" + b"\0" * 200, b"\x08\0\x16\0UI" + b"\xff" * 300, b"\x08\0\0\0\x04\0\0\0ab"]
)
def test_a_file_that_only_looks_like_dicom_is_refused(tmp_path, content):
    file = tmp_path / "named.dcm"
    file.write_bytes(content)
    assert not any(map(is_dicom, (file, tmp_path, tmp_path / "absent")))
    refused([file], file, "named.dcm", "not a DICOM file")
    with pytest.raises(InputError, match="named.dcm: is not a DICOM file"):
        series_key(file)


def test_ct_slices_share_a_key_radiographs_do_not_and_reports_have_none(tmp_path):
    first, second = ct_series(tmp_path / "ct", phantom(slices=2))
    assert series_key(first) == series_key(second)
    frontal = radiograph(tmp_path / "a")
    lateral = radiograph(tmp_path / "b", SOPInstanceUID="2.25.5")
    assert dcmread(frontal).SeriesInstanceUID == dcmread(lateral).SeriesInstanceUID
    assert series_key(frontal) != series_key(lateral)
    assert series_key(Path(shutil.copy(frontal, tmp_path / "copy"))) != series_key(frontal)
    assert series_key(shipped("test-SR.dcm")) == ""
    assert series_key(shipped("DICOMDIR")) == ""


@pytest.mark.parametrize("content", ["cut off", "zeros", "without its rows"])
def test_a_damaged_header_is_not_one_without_an_image(tmp_path, content):
    file = ct(tmp_path, **({"Rows": None} if content == "without its rows" else {}))
    if content != "without its rows":
        file.write_bytes(file.read_bytes()[:500] if content == "cut off" else bytes(128) + b"DICM" + bytes(1000))
    with pytest.raises(InputError, match=r"ct\.dcm: has no Rows \(0028,0010\), .*; it is cut off or damaged\. Copy or"):
        series_key(file)
    refused([file], file, "ct.dcm: has no Rows")


def test_a_private_class_without_rows_is_no_image(tmp_path):
    file = ct(tmp_path, Rows=None, SOPClassUID="1.3.12.2.1107.5.9.1")
    dataset = dcmread(file)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.save_as(file)
    assert series_key(file) == ""


# Stored numbers


def test_a_ct_slice_keeps_its_stored_numbers_with_the_slope_to_hu(tmp_path):
    image = read_one(ct(tmp_path))
    np.testing.assert_array_equal(image.pixels, phantom())
    assert image.pixels.dtype == np.int16
    assert (image.modality, image.slope, image.intercept) == ("CT", 1.0, -1024.0)
    assert (image.stored_range, image.bits, image.black_is_high) == ((-32768, 32767), 16, False)


def test_monochrome1_is_marked_and_not_inverted(tmp_path):
    image = read_one(dx(tmp_path))
    np.testing.assert_array_equal(image.pixels, phantom(dtype="uint16"))
    assert (image.modality, image.black_is_high) == ("CXR", True)
    assert (image.stored_range, image.bits) == ((0, 4095), 12)


@pytest.mark.parametrize(
    ("dtype", "bits", "expected"),
    [("uint8", 8, (0, 255)), ("uint16", 10, (0, 1023)), ("uint16", 15, (0, 32767)), ("int16", 12, (-2048, 2047))],
)
def test_the_stored_range_follows_bits_stored_and_sign(tmp_path, dtype, bits, expected):
    pixels = phantom(dtype=dtype, bright=200)[0]
    image = read_one(ct(tmp_path, pixels, BitsStored=bits, HighBit=bits - 1))
    assert image.stored_range == expected
    np.testing.assert_array_equal(image.pixels[0], pixels)


def test_numbers_that_sit_high_in_their_cells_are_moved_down(tmp_path):
    image = read_one(cr(tmp_path, phantom(dtype="uint16")[0] << 4, BitsStored=12, HighBit=15))
    np.testing.assert_array_equal(image.pixels, phantom(dtype="uint16"))
    assert any("4 bit(s) higher" in note for note in image.notes)


def test_an_overlay_in_the_unused_bits_is_left_out(tmp_path):
    file = cr(tmp_path, phantom(dtype="uint16")[0] | (1 << 12))
    dataset = dcmread(file)
    dataset.add_new((0x6000, 0x0102), "US", 12)
    dataset.save_as(file)
    image = read_one(file)
    np.testing.assert_array_equal(image.pixels, phantom(dtype="uint16"))
    assert any("overlay drawings" in note for note in image.notes)


def test_an_overlay_of_its_own_is_left_out_with_a_note(tmp_path):
    file = cr(tmp_path)
    dataset = dcmread(file)
    dataset.add_new((0x6002, 0x3000), "OW", b"\1" * 60)
    dataset.save_as(file)
    assert any("marker of a side, are left out" in note for note in read_one(file).notes)
    assert not any("overlay" in note for note in read_one(cr(tmp_path)).notes)


def test_negative_numbers_written_without_their_sign_bits_are_negative(tmp_path):
    image = read_one(ct(tmp_path, np.full((8, 8), -100 & 0x0FFF, "int16"), BitsStored=12, HighBit=11))
    assert (image.pixels == -100).all()


def test_the_padding_of_a_ct_is_known_by_its_range(tmp_path):
    pixels = phantom()[0]
    pixels[0, :3] = -2000
    image = read_one(ct(tmp_path, pixels, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1990))
    assert image.pixels[0, 0, 0] == -2000
    assert image.padding == (-2000, -1990)


def test_the_padding_of_a_radiograph_is_counted_in_a_note(tmp_path):
    pixels = np.full((16, 16), 500, dtype="uint16")
    pixels[0, :3] = 7
    image = read_one(radiograph(tmp_path / "dx", pixels, PixelPaddingValue=7))
    assert any("3 pixel(s) are padding (value 7)" in note for note in image.notes)


def test_frames_of_a_capture_become_slices(tmp_path):
    frames = phantom(slices=3, dtype="uint8", bright=200)
    image = read_one(capture(tmp_path / "sc", frames))
    np.testing.assert_array_equal(image.pixels, frames)
    assert (image.modality, len(image.header)) == ("CXR", 1)


@pytest.mark.parametrize(
    ("named", "attributes", "modality"),
    [
        ("CR", {}, "CXR"),
        ("OT", {}, "unknown"),
        ("CT", {}, "unknown"),
        ("CT", {"RescaleSlope": "1", "RescaleIntercept": "-1024"}, "CT"),
    ],
)
def test_a_capture_is_what_its_modality_says_but_a_screenshot_of_ct_is_not_hu(tmp_path, named, attributes, modality):
    file = capture(tmp_path / "sc", phantom(dtype="uint16")[0], Modality=named, **attributes)
    assert read_one(file).modality == modality


def test_a_radiographs_rescale_is_taken_from_the_file(tmp_path):
    image, plain = read_one(dx(tmp_path, RescaleSlope="0.5", RescaleIntercept="3")), read_one(cr(tmp_path))
    assert (image.slope, image.intercept) == (0.5, 3.0)
    assert (plain.slope, plain.intercept) == (1.0, 0.0)


@pytest.mark.parametrize("value", [b"0 ", b"nonsense"])
def test_a_rescale_slope_that_is_no_number_or_zero_is_refused(tmp_path, value):
    file = ct(tmp_path)
    element = b"\x28\0\x53\x10DS"
    before, after = file.read_bytes().split(element + b"\x02\x00")
    file.write_bytes(before + element + len(value).to_bytes(2, "little") + value + after[2:])
    refused([file], file, "ct.dcm", "RescaleSlope", "not 0 for the slope")


@pytest.mark.parametrize(
    ("make", "attributes", "words"),
    [
        (ct, {"RescaleSlope": None, "RescaleIntercept": None}, "no rescale"),
        (ct, {"ModalityLUTSequence": [Dataset()]}, "non-linear"),
        (ct, {"ImagePositionPatient": None}, "no usable position"),
        (dx, {"BodyPartExamined": "HAND"}, "HAND, not the chest"),
        (ct, {"BodyPartExamined": "HEAD"}, "HEAD, not the chest"),
        (dx, {"PixelSpacing": [0, 0.1]}, "PixelSpacing is 0, 0.1"),
        (cr, {"ImagerPixelSpacing": None, "PixelSpacing": [0.1, 0.1]}, "corrected for magnification"),
        (cr, {"ImagerPixelSpacing": None, "PixelAspectRatio": [2, 1]}, "PixelAspectRatio is 2, 1"),
    ],
)
def test_a_note_says_what_a_user_should_know(tmp_path, make, attributes, words):
    assert any(words in note for note in read_one(make(tmp_path, **attributes)).notes)


@pytest.mark.parametrize("part", ["CHEST", "Thorax", "CHESTABDPELVIS", "LUNG", "WHOLEBODY", "HEART", "", None])
def test_a_part_of_the_body_with_the_chest_is_not_noted(tmp_path, part):
    for make in (ct, cr):
        assert not any("not the chest" in note for note in read_one(make(tmp_path, BodyPartExamined=part)).notes)


def test_an_element_that_breaks_its_own_type_is_left_out_and_logged_without_its_value(tmp_path, caplog):
    file = ct(tmp_path, TableHeight="123456")
    text, eight_byte_float = b"DS\x06\x00123456", b"FD\x06\x00Secret"
    file.write_bytes(file.read_bytes().replace(text, eight_byte_float))
    with caplog.at_level(logging.DEBUG):
        image = read_one(file)
    assert "TableHeight" not in image.header[0]
    assert "(0018,1130) is not readable" in caplog.text
    assert "Secret" not in caplog.text


# Compressed and big-endian sources


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000Lossless])
def test_losslessly_compressed_pixels_decode_to_the_same_numbers(tmp_path, syntax):
    pixels = phantom(64, 64, dtype="uint16")
    image = read_one(compressed(ct(tmp_path, pixels[0], BitsStored=12, HighBit=11), syntax))
    np.testing.assert_array_equal(image.pixels, pixels)
    assert "LossyImageCompression" not in image.header[0]


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLSLossless])
def test_numbers_wider_than_bits_stored_are_refused_however_they_are_compressed(tmp_path, syntax):
    pixels = phantom(64, 64, dtype="uint16")
    pixels[0, 20, 20] = 5000
    file = compressed(ct(tmp_path, pixels[0]), syntax, BitsStored=12, HighBit=11)
    refused([file], file, "ct", "1 pixel(s) need more than the 12 bits of Bits Stored")


def test_what_lossy_compression_moved_beyond_the_bits_is_cut_and_said(tmp_path):
    pixels = np.zeros((64, 64), dtype=np.uint16)
    pixels[8:40, 11:50] = 4095
    image = read_one(compressed(ct(tmp_path, pixels), uid.JPEG2000, ratio=20, BitsStored=12, HighBit=11))
    assert image.pixels.max() == 4095
    assert np.abs(image.pixels[0].astype(int) - pixels).max() < 400
    assert any("that the compression had moved beyond the 12 stored bits were cut to them" in n for n in image.notes)


def test_what_lies_far_beyond_the_bits_is_no_overshoot(tmp_path):
    pixels = np.full((64, 64), 40000, dtype=np.uint16)
    file = compressed(ct(tmp_path, pixels), uid.JPEG2000, ratio=20, BitsStored=12, HighBit=11)
    refused([file], file, "ct", "need more than the 12 bits of Bits Stored")


def test_cells_that_were_compressed_whole_give_the_numbers_in_their_upper_bits(tmp_path):
    pixels = phantom(64, 64, dtype="uint16")
    file = compressed(ct(tmp_path, pixels[0] << 4), uid.JPEGLSLossless, BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(read_one(file).pixels, pixels)


def test_loss_that_the_sender_did_not_admit_is_admitted(tmp_path):
    image = read_one(shipped("JPEGLSNearLossless_16.dcm"))
    source = image.header[0]
    assert source.LossyImageCompression == "01"
    assert source.LossyImageCompressionMethod == "ISO_14495_1"
    assert float(source.LossyImageCompressionRatio) > 1
    assert "The source was compressed with loss." in image.notes


def test_loss_of_jpeg_2000_is_known_by_its_wavelet(tmp_path):
    header = read_one(compressed(ct(tmp_path, phantom(64, 64)[0]), uid.JPEG2000, ratio=10)).header[0]
    assert (header.LossyImageCompression, header.LossyImageCompressionMethod) == ("01", "ISO_15444_1")


def test_an_unknown_transfer_syntax_is_named(tmp_path):
    file = ct(tmp_path)
    dataset = dcmread(file)
    dataset.PixelData = encapsulate([b"\0" * 10])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = uid.MPEG2MPML
    dataset.save_as(file)
    refused([file], file, "ct.dcm", "MPEG2 Main Profile", "uncompressed")


@pytest.mark.parametrize("others", [{}, {"pillow": None}])
def test_a_missing_decoder_is_named_with_the_command_that_installs_it(monkeypatch, others):
    monkeypatch.setattr(get_decoder(uid.JPEG2000), "_available", others)
    file = shipped("693_J2KI.dcm")
    refused([file], file, "693_J2KI.dcm", "JPEG 2000", "pip install pylibjpeg")


def test_damaged_compressed_pixels_are_refused_in_one_line_and_quietly(caplog):
    file = shipped("JPEG2000-embedded-sequence-delimiter.dcm")
    with caplog.at_level(logging.DEBUG):
        refused([file], file, "JPEG 2000", "cannot be decoded")
    assert not caplog.records


# Spacing and where it came from (PS3.3 10.7.1.3)


@pytest.mark.parametrize(
    ("attributes", "spacing_yx", "source"),
    [
        ({}, (0.2, 0.1), "ImagerPixelSpacing, detector plane"),
        ({"PixelSpacing": [0.19, 0.09]}, (0.19, 0.09), "PixelSpacing, calibrated"),
        ({"PixelSpacing": [0.2, 0.1]}, (0.2, 0.1), "ImagerPixelSpacing, detector plane"),
        ({"PixelSpacing": [0, 0.1]}, (0.2, 0.1), "ImagerPixelSpacing, detector plane"),
        (
            {"PixelSpacing": [0.2, 0.1], "PixelSpacingCalibrationType": "FIDUCIAL"},
            (0.2, 0.1),
            "PixelSpacing, calibrated (fiducial)",
        ),
        ({"ImagerPixelSpacing": None, "PixelSpacing": [0.3, 0.4]}, (0.3, 0.4), "PixelSpacing"),
        (
            {"ImagerPixelSpacing": None, "NominalScannedPixelSpacing": [0.3, 0.4]},
            (0.3, 0.4),
            "NominalScannedPixelSpacing, film plane",
        ),
        ({"ImagerPixelSpacing": None}, (1.0, 1.0), "unknown"),
        ({"ImagerPixelSpacing": [0, 0]}, (1.0, 1.0), "unknown"),
        ({"ImagerPixelSpacing": "0.2"}, (1.0, 1.0), "unknown"),
    ],
)
def test_a_radiographs_spacing_and_its_source(tmp_path, attributes, spacing_yx, source):
    image = read_one(dx(tmp_path, **attributes))
    x, y, _ = image.grid.spacing_xyz
    assert (y, x) == spacing_yx
    assert image.grid.spacing_source == source
    assert image.grid.in_millimetres == (source != "unknown")
    assert not any("unknown" in note for note in image.notes)  # the engine says it, once for all formats


# CT series


def test_a_series_is_sorted_by_position_whatever_its_names_and_numbers(tmp_path):
    volume = phantom(slices=6) + np.arange(6, dtype="int16")[:, None, None]
    files = ct_series(tmp_path / "ct", volume)
    image = read_dicom(files[::-1], tmp_path / "ct")
    np.testing.assert_array_equal(image.pixels, volume)
    np.testing.assert_allclose(image.grid.spacing_xyz, (0.6, 0.9, 2.5))
    np.testing.assert_allclose(image.grid.affine[:3, 3], (-100, 50, -30))
    assert [source.InstanceNumber for source in image.header] == [6, 5, 4, 3, 2, 1]
    assert all("PixelData" not in source for source in image.header)


@pytest.mark.parametrize(("thickness", "expected"), [("0.6", 0.6), ("0", 1.0), (None, 1.0)])
def test_a_single_slice_is_as_thick_as_its_header_says(tmp_path, thickness, expected):
    assert read_one(ct(tmp_path, SliceThickness=thickness)).grid.spacing_xyz[2] == pytest.approx(expected)


def test_an_orientation_of_five_numbers_counts_as_none(tmp_path):
    image = read_one(ct(tmp_path, ImageOrientationPatient=[1, 0, 0, 0, 1]))
    assert any("no usable position or orientation" in note for note in image.notes)


def test_the_derivation_is_told_by_the_image_and_by_its_equipment(tmp_path):
    equipment = Dataset()
    equipment.ContributionDescription = "Enlarged."
    attributes = {"DerivationDescription": "Averaged.", "ContributingEquipmentSequence": [equipment]}
    assert derivation(ct(tmp_path)) == ""
    assert derivation(ct(tmp_path, **attributes)) == "Averaged. Enlarged."
    assert derivation(ct(tmp_path, ContributingEquipmentSequence=[equipment])) == "Enlarged."


def test_an_orientation_rounded_by_the_sender_does_not_change_the_spacing(tmp_path):
    turn = [0.9999, 0.0101, 0, -0.0101, 0.9999, 0]
    image = read_one(ct(tmp_path, orientation=turn, spacing=(0.9, 0.6)))
    assert image.grid.spacing_xyz[:2] == pytest.approx((0.6, 0.9), abs=1e-9)


def test_a_tilted_gantry_gives_a_sheared_affine_and_a_note(tmp_path):
    files = ct_series(tmp_path / "ct", phantom(slices=5), axes=np.eye(3), step=(0, 1.0, 5.0))
    image = read_dicom(files, tmp_path / "ct")
    np.testing.assert_allclose(image.grid.affine[:3, 2], (0, 1, 5))
    assert any("tilted by 11.3 degrees" in note for note in image.notes)


def test_the_distance_between_slices_of_a_tilted_gantry_is_that_along_their_normal(tmp_path):
    files = ct_series(tmp_path / "ct", phantom(slices=5), axes=np.eye(3), step=(0, 1.0, 5.0))
    assert read_dicom(files, tmp_path / "ct").grid.spacing_xyz[2] == pytest.approx(5.0)


def test_a_localizer_in_a_series_is_left_out_with_a_note(tmp_path):
    files = ct_series(tmp_path / "ct", phantom(slices=3))
    scout = ct_slice(tmp_path / "scout", phantom(8, 9)[0], orientation=(1, 0, 0, 0, 0, -1), ImageType=SCOUT)
    image = read_dicom([scout, *files], tmp_path / "ct")
    assert image.pixels.shape == (3, 24, 20)
    assert any("1 localizer" in note for note in image.notes)


def test_a_missing_slice_is_refused_with_its_neighbours(tmp_path):
    files = ct_series(tmp_path / "ct", phantom(slices=6), axes=np.eye(3))
    others = [file for file in files if "_3" not in file.name]
    refused(others, tmp_path / "ct", "ct:", "1 missing slice(s)", "_2.dcm", "_4.dcm", "5.000 mm, expected 2.500 mm")


def test_uneven_spacing_is_refused(tmp_path):
    files = ct_series(tmp_path / "ct", phantom(slices=6), axes=np.eye(3))
    changed(files[-1], ImagePositionPatient=[-100, 50, dcmread(files[-1]).ImagePositionPatient[2] + 0.4])
    refused(files, tmp_path / "ct", "uneven slice spacing")


def test_positions_rounded_by_the_sender_are_no_gap(tmp_path):
    files = ct_series(tmp_path / "ct", phantom(slices=6), axes=np.eye(3), step=(0, 0, 0.625))
    for file in files:
        position = dcmread(file).ImagePositionPatient
        changed(file, ImagePositionPatient=[*position[:2], round(float(position[2]), 2)])
    assert read_dicom(files, tmp_path / "ct").grid.spacing_xyz[2] == pytest.approx(0.625, abs=2e-3)


def test_a_slice_shifted_sideways_is_refused(tmp_path):
    files = ct_series(tmp_path / "ct", phantom(slices=5), axes=np.eye(3))
    middle = next(file for file in files if "_2" in file.name)
    changed(middle, ImagePositionPatient=[-97, *dcmread(middle).ImagePositionPatient[1:]])
    refused(files, tmp_path / "ct", middle.name, "3 mm off the straight line")


def test_two_slices_at_one_position_are_refused(tmp_path):
    files = ct_series(tmp_path / "ct", phantom(slices=4))
    keywords = "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"
    twin = changed(ct(tmp_path), **{keyword: dcmread(files[0])[keyword].value for keyword in keywords})
    refused([*files, twin], tmp_path / "ct", "two slices lie at one position", files[0].name, "ct.dcm")
    copy = Path(shutil.copy(files[0], tmp_path / "ct" / "copy.dcm"))
    sentence = f"{files[0].name} and copy.dcm have the same SOP Instance UID: one is a copy. Remove it."
    refused([*files, copy], tmp_path / "ct", sentence)


def test_a_copy_among_slices_that_each_have_a_frame_of_reference_is_named_as_one(tmp_path):
    files = ct_series(tmp_path / "ct", phantom(slices=3))
    for number, file in enumerate(files):
        changed(file, FrameOfReferenceUID=f"2.25.77.{number}")
    copy = Path(shutil.copy(files[0], tmp_path / "ct" / "copy.dcm"))
    sentence = f"{files[0].name} and copy.dcm have the same SOP Instance UID: one is a copy. Remove it."
    refused([*files, copy], tmp_path / "ct", sentence)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"RescaleIntercept": "-1000"}, "differ in RescaleIntercept"),
        ({"PixelSpacing": [1, 1]}, "differ in PixelSpacing"),
        ({"SeriesInstanceUID": "2.25.77"}, "differ in SeriesInstanceUID"),
        ({"ImagePositionPatient": None}, "no usable Image Position (0020,0032)"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "different orientations"),
        ({"SOPClassUID": uid.SecondaryCaptureImageStorage}, "expected one such image at a time"),
    ],
)
def test_slices_that_do_not_fit_together_are_refused(tmp_path, attributes, words):
    files = ct_series(tmp_path / "ct", phantom(slices=3), axes=np.eye(3))
    changed(files[1], **attributes)
    refused(files, tmp_path / "ct", "ct:", files[1].name, words)


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID", "FrameOfReferenceUID"])
def test_slices_of_two_patients_are_refused_without_their_numbers(tmp_path, keyword):
    files = ct_series(tmp_path / "ct", phantom(slices=3))
    changed(files[1], **{keyword: "2.25.4711"})
    with pytest.raises(
        InputError, match=rf"ct: {files[0].name} and {files[1].name} differ in {keyword}\. Pass"
    ) as refusal:
        read_dicom(files, tmp_path / "ct")
    assert "4711" not in str(refusal.value)


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID", "FrameOfReferenceUID"])
@pytest.mark.parametrize("value", [None, ""])
def test_anonymised_slices_may_lack_what_others_state(tmp_path, keyword, value):
    files = ct_series(tmp_path / "ct", phantom(slices=3))
    changed(files[0], **{keyword: value})
    assert read_dicom(files, tmp_path / "ct").pixels.shape[0] == 3


def test_mixed_sizes_are_refused(tmp_path):
    files = ct_series(tmp_path / "ct", phantom(slices=3))
    other = ct_slice(tmp_path / "small.dcm", phantom(8, 8)[0])
    refused([*files, other], tmp_path / "ct", "differ in Rows", "small.dcm", "24", "8")


def test_localizers_without_slices_are_refused(tmp_path):
    files = [ct_slice(tmp_path / name, ImageType=SCOUT) for name in "ab"]
    refused(files, tmp_path / "ct", "ct: 2 CT localizers (scouts), expected the slices of a CT")
    refused(files[:1], files[0], "a: a CT localizer (scout), expected the slices of a CT")


# Files that are refused


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *((name, ["holds no image"]) for name in ("test-SR.dcm", "rtplan.dcm", "DICOMDIR", "waveform_ecg.dcm")),
        ("MR_small.dcm", ["MR Image Storage", "expected CT, CR, DX"]),
        ("rtdose_1frame.dcm", ["RT Dose Storage", "expected CT, CR, DX"]),
        *(
            (name, ["colour image", "expected MONOCHROME1"])
            for name in ("SC_rgb_rle.dcm", "SC_ybr_full_422_uncompressed.dcm", "examples_palette.dcm")
        ),
    ],
)
def test_another_kind_of_object_is_refused_by_its_name(name, words):
    refused([shipped(name)], shipped(name), name, *words)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (-100, ["cut off", "860 bytes", "expected 960"]),
        (-(960 + 12), ["no readable pixel data follows"]),
        (600, ["has no Rows (0028,0010)", "cut off or damaged"]),
    ],
)
def test_a_file_that_is_cut_off_is_refused(tmp_path, end, words):
    file = ct(tmp_path)
    file.write_bytes(file.read_bytes()[:end])
    refused([file], file, "ct.dcm", *words)


def test_a_file_that_breaks_the_parser_is_refused(tmp_path):
    file = tmp_path / "broken.dcm"
    file.write_bytes(b"\0" * 128 + b"DICM" + b"\x02\0\x10\0UI\x14\x001.2.840.10008.1.2.5\0" + b"\x08\0\x05\0C")
    refused([file], file, "broken.dcm")


@pytest.mark.parametrize(
    ("make", "attributes", "words"),
    [
        (ct, {"SOPInstanceUID": None}, ["no SOP Instance UID"]),
        (ct, {"NumberOfFrames": 2}, ["a CT Image with 2 frames"]),
        (ct, {"BitsStored": 20}, ["stores 20 bits in 16"]),
        (ct, {"BitsAllocated": 32, "BitsStored": 32}, ["stores 32 bits in 32"]),
        (ct, {"SharedFunctionalGroupsSequence": [Dataset()]}, ["functional groups"]),
        (ct, {"PerFrameFunctionalGroupsSequence": [Dataset()]}, ["functional groups"]),
        (ct, {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, ["expected two unit vectors"]),
        (
            ct,
            {"SOPClassUID": uid.EnhancedCTImageStorage, "SharedFunctionalGroupsSequence": [Dataset()]},
            ["Enhanced CT"],
        ),
        (ct, {"pixels": phantom(bright=5000)[0], "BitsStored": 12, "HighBit": 11}, ["more than the 12 bits"]),
        (cr, {"pixels": phantom(dtype="uint16", bright=5000)[0]}, ["more than the 12 bits", "5000"]),
        (cr, {"HighBit": 9}, ["High Bit 9", "12 stored bits"]),
        (cr, {"NumberOfFrames": -2}, ["Number of Frames (0028,0008) is -2"]),
    ],
)
def test_a_file_that_could_not_be_written_honestly_is_refused(tmp_path, make, attributes, words):
    file = make(tmp_path, **attributes)
    refused([file], file, file.name, *words)


@pytest.mark.parametrize(("keyword", "code"), [("FloatPixelData", "f4"), ("DoubleFloatPixelData", "f8")])
def test_floating_point_pixels_are_refused(tmp_path, keyword, code):
    file = ct(tmp_path)
    dataset = dcmread(file)
    del dataset.PixelData
    setattr(dataset, keyword, phantom()[0].astype(code).tobytes())
    dataset.save_as(file)
    refused([file], file, "ct.dcm", keyword, "NIfTI")


def test_frames_that_do_not_fill_the_image_are_refused(tmp_path):
    file = compressed(
        capture(tmp_path / "sc.dcm", phantom(dtype="uint16", slices=2)), uid.RLELossless, NumberOfFrames=3
    )
    refused([file], file, "sc.dcm", "cannot be decoded, it is damaged or cut off")
    refused([changed(file, NumberOfFrames=1)], file, "sc.dcm", "expected (1, 24, 20)")
