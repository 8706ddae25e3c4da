import numpy as np

from monai_sr_bundle.images.padding import find_padding


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
