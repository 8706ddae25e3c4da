"""Checks of an image, and warnings about its file, before thin slices are made of its slices."""

import numpy as np
import pytest
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images.dicom_read import read_dicom
from monai_sr_bundle.images.from_array import image_from_array
from monai_sr_bundle.images.input_checks import check_slices, slices_touch

from tests.images.dicom_files import ct_series, phantom


def series(folder, **attributes):
    return read_dicom(ct_series(folder / "ct", phantom(slices=5), **attributes), folder / "ct")


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        (1, r"a single slice or a radiograph, but bundle one_x4 .* at least 3 slices"),
        (2, "2 slices, but bundle one_x4 makes thin slices of thick ones"),
    ],
)
def test_too_few_slices_are_refused(slices, message):
    image = image_from_array(np.zeros((slices, 16, 16), np.int16), modality="CT")
    with pytest.raises(InputError, match=message):
        check_slices(image, "one_x4")


def test_an_array_of_enough_slices_needs_no_word():
    assert check_slices(image_from_array(np.zeros((3, 16, 16), np.int16), modality="CT"), "one_x4") == ()


def test_frames_of_one_dicom_file_are_refused(tmp_path):
    image = series(tmp_path)
    image.header[1:] = []
    with pytest.raises(InputError, match="5 frames in one DICOM file, but bundle one_x4 writes a file for each new"):
        check_slices(image, "one_x4")


def test_a_dicom_series_of_unknown_spacing_is_refused(tmp_path):
    with pytest.raises(InputError, match="ct: new slices need positions in millimetres, .* or pass --spacing-mm ROW"):
        check_slices(series(tmp_path, PixelSpacing=None), "one_x4")


@pytest.mark.parametrize(
    ("thickness", "starts"),
    [
        ("2.5", ()),
        ("2.45", ()),
        ("1", ("The slices are 1 mm thick and lie 2.5 mm apart: the new slices in the gaps are guessed",)),
        ("5", ("The slices are 5 mm thick and lie 2.5 mm apart: they overlap",)),
        ("", ()),
    ],
)
def test_gaps_and_overlaps_give_a_warning(tmp_path, thickness, starts):
    image = series(tmp_path, SliceThickness=thickness)
    warnings = check_slices(image, "one_x4")
    assert slices_touch(image) == (not starts)
    assert len(warnings) == len(starts)
    assert all(warning.startswith(start) for warning, start in zip(warnings, starts, strict=True))


def test_slices_of_several_thicknesses_are_told(tmp_path):
    image = series(tmp_path, SliceThickness="2.5")
    image.header[2].SliceThickness = "5"
    assert check_slices(image, "one_x4") == (
        "The slices are between 2.5 and 5 mm thick: they are taken as equal, and averaging the new slices does not "
        "give back the slices.",
    )
    assert not slices_touch(image)
