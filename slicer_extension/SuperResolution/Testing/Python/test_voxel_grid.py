"""The positions of a result's voxels: the rules of monai_sr_bundle, on oblique and left-handed grids."""

import numpy as np
import pytest
from grids import GRIDS
from SuperResolutionLib import voxel_grid

EXTENT, SCALE = [3, 7, 16, 80, 5, 133], (2, 4, 3)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_package_places_the_result_in_the_same_way_to_the_last_bit(grid, repository):
    from monai_sr_bundle.images.geometry import crop_affine, ras_from_lps, scale_affine, spacing_xyz

    lps = scale_affine(crop_affine(ras_from_lps(grid), (5, 16, 3)), SCALE[::-1])
    np.testing.assert_array_equal(voxel_grid.resultAffine(grid, EXTENT, SCALE), ras_from_lps(lps))
    assert voxel_grid.spacingOf(grid) == spacing_xyz(grid)
