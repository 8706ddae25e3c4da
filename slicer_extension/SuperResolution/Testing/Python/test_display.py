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


def test_wide_error_bars_are_seen_over_the_image_and_narrow_ones_are_not(red, source, result, keep):
    plain = red.picture()
    bars = result_nodes.errorBarsOf(result)
    display.colorErrorBars(bars, threshold=30)
    bars.GetDisplayNode().SetInterpolate(False)
    display.showOver([red.composite], bars)
    over = red.picture()
    changed = difference(plain, over) > 4
    color = red.colorAt(over, phantom_volumes.world(*widest()))
    assert color[0] > color[2] + 20  # warm
    errorBars = (phantom_volumes.BARS[1] >= 30).mean()
    corner = [red.pixel(phantom_volumes.world(*voxel)) for voxel in ((2, 31.5, 31.5), (2, 95.5, 127.5))]
    area = (corner[1][0] - corner[0][0]) * (corner[1][1] - corner[0][1])
    assert changed.sum() / area == pytest.approx(errorBars, rel=0.15)
    display.setThreshold(bars, 0)
    assert (difference(plain, red.picture()) > 4).sum() > 0.9 * area
    display.showOver([red.composite], None)
    assert difference(plain, red.picture()).max() == 0


def test_the_legend_says_what_the_colours_mean_and_goes_with_them(red, source, result, keep):
    plain = red.picture()
    bars = result_nodes.errorBarsOf(result)
    display.setThreshold(bars, 30)
    display.showOver([red.composite], bars)
    without = red.picture()
    legend = display.showLegend(bars, "error bar (HU)")
    picture = red.picture()
    keep(picture, "error_bars")
    rows, columns = np.nonzero(difference(without, picture) > 30)
    assert columns.min() > 420 * 0.6  # at the right edge
    assert rows.size > 300
    assert display.showLegend(bars, "error bar") is legend
    display.showOver([red.composite], None)
    assert difference(plain, red.picture()).max() == 0


def test_the_trust_mask_covers_what_is_uncertain_and_nothing_else(red, source, result, keep):
    plain = red.picture()
    mask = result_nodes.addTrustMask(result, 60.0)
    display.showMask([red.composite], mask)
    picture = red.picture()
    keep(picture, "trust_mask")
    share = (difference(plain, picture) > 4).sum()
    corner = [red.pixel(phantom_volumes.world(*voxel)) for voxel in ((2, 31.5, 31.5), (2, 95.5, 127.5))]
    area = (corner[1][0] - corner[0][0]) * (corner[1][1] - corner[0][1])
    assert share / area == pytest.approx((phantom_volumes.BARS[1] > 60).mean(), rel=0.15)
    color = red.colorAt(picture, phantom_volumes.world(*widest()))
    assert color[0] > color[1] + 40
    display.showMask([red.composite], None)
    assert difference(plain, red.picture()).max() == 0


def test_the_difference_is_black_where_nothing_changed_orange_where_brighter_blue_where_darker(
    red, source, result, keep
):
    plain = red.picture()
    node = result_nodes.addDifference(result)
    display.showLegend(node, "after - before (HU)")
    node.GetDisplayNode().SetInterpolate(False)
    display.show([red.composite], node)
    picture = red.picture()
    keep(picture, "difference")
    assert red.colorAt(picture, phantom_volumes.world(2, 20, 60)).max() == 0
    values = np.zeros(phantom_volumes.FINE.shape, np.float32)
    values[phantom_volumes.CUT] = phantom_volumes.RESULT - phantom_volumes.interpolateSource(result)
    for sign, channel in ((1, 0), (-1, 2)):
        voxel = np.unravel_index((sign * values[2])[:, 32:70].argmax(), (128, 38))
        color = red.colorAt(picture, phantom_volumes.world(*(2, int(voxel[0]), int(voxel[1]) + 32)))
        assert color[channel] == color.max() > 100
    display.show([red.composite], source)
    assert difference(plain, red.picture()).max() == 0


def test_linked_windows_survive_that_a_volume_is_removed(source, result):
    link = display.WindowLink(source, result)
    result_nodes.remove(result)
    source.GetDisplayNode().SetWindowLevel(100, 10)
    link.stop()
    link.stop()


def test_a_region_box_is_an_outline_and_hides_nothing(application, red, source, keep):
    plain = red.picture()
    roi = application.addRoi(source, phantom_volumes.EXTENT)
    roi.CreateDefaultDisplayNodes()
    display.showHandles(roi, False)
    assert (difference(plain, red.picture()) > 20).mean() > 0.1  # as Slicer fills it
    display.outlineOnly(roi)
    outlined = red.picture()
    keep(outlined, "region")
    changed = difference(plain, outlined) > 20
    assert 0 < changed.mean() < 0.03
    assert (
        red.colorAt(outlined, phantom_volumes.world(2, 66, 56)).tolist()
        == red.colorAt(plain, phantom_volumes.world(2, 66, 56)).tolist()
    )


def test_each_kind_of_colours_is_made_once(application):
    first = display.colors(application.scene, "ErrorBars")
    assert display.colors(application.scene, "ErrorBars") is first
    assert display.colors(application.scene, "Mask") is not first
