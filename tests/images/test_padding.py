import gc
import tracemalloc
import weakref

import numpy as np
from monai_sr_bundle.engine.session import Session
from monai_sr_bundle.images.dicom_read import read_dicom
from monai_sr_bundle.images.from_array import image_from_array
from monai_sr_bundle.images.unit import (
    FADE,
    NEAR_PADDING,
    FilledSlices,
    Padding,
    fill_padding,
    find_padding,
    largest_around,
    restore_padding,
)
from monai_sr_bundle.shipped_bundles import find_bundle

from tests.images.dicom_files import ct_slice


def test_padding_is_what_lies_around_the_circle_and_not_dark_noise_in_it():
    rows, columns = np.indices((64, 64)) - 31.5
    circle = np.hypot(rows, columns) < 32
    hu = np.where(circle, -1000, -2000)
    hu[30:34, 30:34] = -1024  # noise in the air of a bronchus
    np.testing.assert_array_equal(find_padding(hu), ~circle)


def test_every_slice_of_a_volume_has_padding_of_its_own():
    hu = np.full((2, 16, 16), -1000)
    hu[1, :, :4] = -1024
    padding = find_padding(hu)
    assert not padding[0].any()
    np.testing.assert_array_equal(padding[1], hu[1] == -1024)


def test_a_slice_without_padding_has_none():
    assert not find_padding(np.full((16, 16), -1023)).any()
    assert not find_padding(np.full((16, 16), -1024)).any()  # nothing but air, as an empty slice stores it


def test_a_file_may_say_which_other_numbers_are_padding():
    hu = np.full((16, 16), 40)
    hu[:3, :3], hu[8, 8] = -900, -900
    assert not find_padding(hu).any()
    np.testing.assert_array_equal(np.argwhere(find_padding(hu, (-950.0, -850.0)))[[0, -1]], [[0, 0], [2, 2]])


def test_tissue_at_the_padding_fades_to_air():
    hu = np.full((1, 64, 64), 40, dtype=np.int16)
    hu[:, :, :32] = -2000
    filled, padding = fill_padding(image_from_array(hu, modality="CT"), "CT")
    row = filled.pixels[0, 32]
    assert (row[32:] == 40).all()
    assert (row[: 32 - FADE] == -1000).all()
    steps = np.diff(row[32 - FADE : 33].astype(int))
    assert (steps >= 0).all()
    assert steps.max() < 300  # cut off, the edge were one of 1040
    np.testing.assert_array_equal(padding, hu == -2000)


def test_padding_fades_to_the_darkest_number_where_the_storage_holds_no_air(tmp_path):
    pixels = np.full((1, 64, 64), 30, dtype=np.uint16)
    pixels[:, :, :32] = 0
    file = ct_slice(
        tmp_path / "ct.dcm", pixels[0], RescaleIntercept="0", PixelPaddingValue=0, PixelRepresentation=0, BitsStored=16,
        HighBit=15,
    )  # fmt: skip
    filled, padding = fill_padding(read_dicom([file], file), "CT")
    assert padding[0, :, :32].all()
    assert not padding[0, :, 32:].any()
    assert filled.pixels.max() == 30


def test_an_image_without_padding_and_one_of_another_modality_stay_as_they_are():
    tissue = image_from_array(np.zeros((16, 16), np.int16), modality="CT")
    film = image_from_array(np.full((16, 16), -2000, np.int16), modality="CXR")
    for image in (tissue, film):
        same, padding = fill_padding(image, "any")
        assert same is image
        assert padding is None


def test_a_dilated_mask_reaches_as_far_as_asked_and_not_around_the_edge():
    mask = np.zeros((1, 9, 9), dtype=bool)
    mask[0, 1, 7] = True
    expected = np.zeros((1, 9, 9), dtype=bool)
    expected[0, 0:4, 5:9] = True
    np.testing.assert_array_equal(largest_around(mask, 2), expected)
    assert mask.sum() == 1


def test_nothing_near_padding_is_brighter_than_the_source_around_it():
    source = np.full((1, 20, 24), 40, dtype=np.int16)
    source[:, :, :6] = -2000
    source[:, 10, 12] = 900  # too far from the padding to excuse anything near it, but for the columns in its reach
    padding = source == -2000
    enlarged = np.full((1, 40, 72), 1000, dtype=np.int16)
    restore_padding(enlarged, source, padding, bounded=True)
    assert (enlarged[:, :, : 6 * 3] == -2000).all()
    near_padding = enlarged[0, :, 6 * 3 : (6 + NEAR_PADDING) * 3]
    np.testing.assert_array_equal(np.unique(near_padding), [40, 900])
    assert (near_padding[: 2 * (10 - NEAR_PADDING)] == 40).all()
    assert (enlarged[:, :, (6 + NEAR_PADDING) * 3 :] == 1000).all()


def test_a_region_near_padding_is_the_crop_of_the_whole():
    rng = np.random.default_rng(0)
    source = rng.integers(-500, 500, (2, 16, 16)).astype(np.int16)
    source[:, :, :5] = -2000
    source[1, :7] = -2000
    padding = source == -2000
    whole = rng.integers(-2000, 2000, (2, 32, 32)).astype(np.int16)
    part = slice(1, 2), slice(6, 13), slice(4, 10)
    region = whole[1:, 12:26, 8:20].copy()
    restore_padding(whole, source, padding, bounded=True)
    restore_padding(region, source, padding, bounded=True, part=part)
    np.testing.assert_array_equal(region, whole[1:, 12:26, 8:20])


def test_a_long_ct_with_padding_is_enlarged_without_a_second_volume():
    session = Session(find_bundle("bicubic"), "onnx")
    scale, side = session.bundle.scale, 64

    def peak(slices):
        hu = np.full((slices, side, side), 40, dtype=np.int16)
        hu[:, :, :8] = -2000
        image = image_from_array(hu, modality="CT")
        tracemalloc.start()
        result = session.enhance(image)
        consistency = result.consistency
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert consistency.rms < 1
        assert (result.padding[slices - 1][:, :8]).all()
        return most

    peak(8)
    growth = peak(136) - peak(8)
    one_slice = 2 * (scale * side) ** 2
    assert growth - 128 * one_slice < 4 * one_slice


def test_a_ct_goes_with_its_filled_slices():
    hu = np.full((2, 16, 16), 40, np.int16)
    hu[:, :, :3] = -2000
    image = image_from_array(hu, modality="CT")
    slices, pixels = FilledSlices(Padding(image)), weakref.ref(image.pixels)
    assert slices[0][8, 0] == slices[[0, 1]][1, 8, 0] != -2000
    gc.disable()
    try:
        del hu, image, slices
        assert pixels() is None
    finally:
        gc.enable()
