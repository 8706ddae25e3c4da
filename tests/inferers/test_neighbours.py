import numpy as np
import pytest
from monai_sr_bundle.inferers.tiling import middle, neighbours, stacked


@pytest.mark.parametrize(
    ("index", "count", "slices", "expected"),
    [
        (4, 9, 1, [4]),
        (4, 9, 3, [3, 4, 5]),
        (4, 9, 5, [2, 3, 4, 5, 6]),
        (0, 9, 3, [0, 0, 1]),
        (8, 9, 5, [6, 7, 8, 8, 8]),
        (0, 1, 3, [0, 0, 0]),
    ],
)
def test_beyond_an_end_of_the_volume_stands_the_end_slice(index, count, slices, expected):
    assert neighbours(index, count, slices) == expected


def test_a_single_image_is_taken_for_its_own_neighbours():
    image = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(stacked(image, 3), [image, image, image])
    np.testing.assert_array_equal(stacked(image, 1), [image])


@pytest.mark.parametrize(("count", "slices", "expected"), [(5, 3, [1, 2, 3]), (5, 5, range(5)), (3, 1, [1])])
def test_of_more_neighbours_the_nearest_are_taken(count, slices, expected):
    stack = np.arange(float(count))[:, None, None] * np.ones((1, 2, 3))
    np.testing.assert_array_equal(stacked(stack, slices)[:, 0, 0], list(expected))
    np.testing.assert_array_equal(middle(stacked(stack, slices)), middle(stack))
