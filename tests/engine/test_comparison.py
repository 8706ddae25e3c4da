"""The references of a result, in the plane and along the slices."""

import numpy as np
import pytest
from monai_sr_bundle.engine.comparison import cubic_slice, interpolate_source, reduce_result
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.inferers.postprocessing import enlarge_bicubic
from monai_sr_bundle.shipped_bundles import find_bundle


@pytest.mark.parametrize("scale", [2, 3, 4, 5])
def test_along_the_slices_it_is_that_of_an_image_of_one_column(scale):
    volume = np.random.default_rng(0).random((6, 1, 1), dtype=np.float32)
    expected = enlarge_bicubic(volume[:, :, 0], scale)[:, 0]
    slices = [cubic_slice(lambda index: volume[index], 6, part, scale)[0, 0] for part in range(6 * scale)]
    np.testing.assert_allclose(slices, expected, atol=1e-6)


def test_the_bicubic_picture_of_a_region_sees_beyond_its_border():
    low_res = np.random.default_rng(0).integers(0, 255, (30, 40)).astype(np.float32)
    whole, family = enlarge_bicubic(low_res, 4), find_bundle("bicubic").family
    for region in (Region(0, 30, 0, 40), Region(5, 17, 3, 20), Region(29, 30, 39, 40)):
        part = interpolate_source(family, lambda _index: low_res, 0, (0, 1), region)
        np.testing.assert_allclose(part, whole[region.scaled(4).as_slices], atol=1e-4)


def test_the_mean_of_thin_slices_is_compared_with_the_thick_one():
    thin = np.arange(8, dtype=np.float32).reshape(8, 1, 1)
    family = find_bundle("chest_ct_throughplane").family
    assert [reduce_result(family, lambda index: thin[index], index).item() for index in range(2)] == [1.5, 5.5]
