import numpy as np
import pytest
import torch

from monai_sr_bundle.inferers.interpolate import cubic_slice
from monai_sr_bundle.networks.through_plane import CubicRows


@pytest.mark.parametrize("scale", [2, 3, 4, 5])
def test_the_skip_is_the_cubic_interpolation_along_the_slices_of_the_report(scale):
    volume = np.random.default_rng(0).random((6, 1, 9), dtype=np.float32)
    expected = [cubic_slice(lambda index: volume[index], 6, part, scale)[0] for part in range(6 * scale)]
    enlarged = CubicRows(scale)(torch.from_numpy(volume[:, 0])[None, None])[0, 0]
    np.testing.assert_allclose(enlarged.numpy(), np.stack(expected), rtol=0, atol=1e-6)
