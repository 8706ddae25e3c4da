"""Error bars, trust masks, differences and boxes as slice views show them."""

import numpy as np
import phantom_volumes
import pytest
from sliceview import difference
from SuperResolutionLib import display, result_nodes


def widest():
    """The voxel of the fine chest with the widest error bar of the middle slice of the region."""
    row, column = np.unravel_index(phantom_volumes.BARS[1].argmax(), (64, 96))
    return 2, int(row) + 32, int(column) + 32


def test_the_trust_mask_covers_what_is_uncertain_and_nothing_else(red, source, result, keep):
    plain = red.picture()
    mask = result_nodes.addTrustMask(result, 60.0)
    layer = display.Overlay([red.composite], mask, 0.5)
    picture = red.picture()
    keep(picture, "trust_mask")
    share = (difference(plain, picture) > 4).sum()
    corner = [red.pixel(phantom_volumes.world(*voxel)) for voxel in ((2, 31.5, 31.5), (2, 95.5, 127.5))]
    area = (corner[1][0] - corner[0][0]) * (corner[1][1] - corner[0][1])
    assert share / area == pytest.approx((phantom_volumes.BARS[1] > 60).mean(), rel=0.15)
    color = red.colorAt(picture, phantom_volumes.world(*widest()))
    assert color[0] > color[1] + 40
    layer.stop()
    layer.stop()
    assert difference(plain, red.picture()).max() == 0


def test_a_region_box_is_an_outline_and_hides_nothing(application, red, source, keep):
    plain = red.picture()
    roi = application.addRoi(source, phantom_volumes.EXTENT)
    roi.CreateDefaultDisplayNodes()
    display.showHandles(roi, False)
    assert (difference(plain, red.picture()) > 20).mean() > 0.1  # as Slicer fills it
    display.outlineOnly(roi, (1, 1, 0))
    outlined = red.picture()
    keep(outlined, "region")
    changed = difference(plain, outlined) > 20
    assert 0 < changed.mean() < 0.03
    place = phantom_volumes.world(2, 66, 56)
    assert red.colorAt(outlined, place).tolist() == red.colorAt(plain, place).tolist()


def test_handles_are_small_and_leave_the_middle_free(application, red, source, keep):
    roi = application.addRoi(source, phantom_volumes.EXTENT)
    display.outlineOnly(roi, (1, 1, 0))
    display.showHandles(roi, False)
    outlined = red.picture()
    display.showHandles(roi, True)
    picture = red.picture()
    keep(picture, "handles")
    changed = difference(outlined, picture) > 20
    assert 0 < changed.mean() < 0.004
    column, row = (round(at) for at in red.pixel(phantom_volumes.world(2, 63.5, 79.5)))
    assert not changed[row - 20 : row + 20, column - 20 : column + 20].any()
