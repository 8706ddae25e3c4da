import numpy as np
import pytest
import torch
from monai_sr_bundle.inferers.postprocessing import enlarge_bicubic


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("shape", [(17, 31), (8, 8), (1, 5), (1, 1)])
def test_it_is_the_bicubic_interpolation_of_pytorch(shape, scale):
    image = np.random.default_rng(0).normal(0, 1000, shape).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None, None].double(), scale_factor=scale, mode="bicubic", align_corners=False
    )
    result = enlarge_bicubic(image, scale)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected[0, 0].numpy(), atol=2e-3)  # of values of 1000: float32


def test_whole_numbers_and_views_are_taken_and_left_as_they_are():
    image = np.arange(80, dtype=np.int16).reshape(8, 10)[:, ::2]
    before = image.copy()
    np.testing.assert_array_equal(enlarge_bicubic(image, 4), enlarge_bicubic(image.astype(np.float32), 4))
    np.testing.assert_array_equal(image, before)
