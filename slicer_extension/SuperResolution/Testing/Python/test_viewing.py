"""Real slice views during a comparison; afterwards they show what they showed before."""

import numpy as np
import phantom_volumes
import pytest
from SuperResolutionLib import compare, result_nodes
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.viewing import Viewing


@pytest.fixture
def viewing(application, red):
    viewing = Viewing(application.logic, lambda name: red.renderer if name == "Red" else None)
    yield viewing
    viewing.stop()


def layersOf(view):
    composite = view.logic.GetSliceCompositeNode()
    names = [composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID(), composite.GetLabelVolumeID()]
    return [*names, composite.GetForegroundOpacity()]


@pytest.mark.parametrize("kind", ["over", "reveal", "flicker", "difference"])
def test_a_comparison_changes_the_picture_and_is_ended_without_a_trace(kind, viewing, red, result, source):
    before, picture = layersOf(red), red.picture()
    viewing.show(kind, result)
    assert viewing.kind == kind
    assert (red.picture() != picture).any()
    viewing.stop()
    assert viewing.kind == ""
    assert layersOf(red) == before
    np.testing.assert_array_equal(red.picture(), picture)


def test_side_by_side_shows_both_and_goes_away(viewing, red, result, source, sliceView):
    before = layersOf(red)
    left, right = sliceView(compare.BEFORE), sliceView(compare.AFTER)
    viewing.show("sideBySide", result)
    assert layersOf(left)[0] == source.GetID()
    assert layersOf(right)[0] == result.GetID()
    viewing.showErrorBars(result, 0.0, "HU")
    assert layersOf(left)[1] is None
    assert layersOf(right)[1] is not None
    viewing.stop()
    assert layersOf(red) == before


def test_before_and_after_have_one_window_while_they_are_compared(viewing, result, source):
    def windows():
        return [(node.GetDisplayNode().GetWindow(), node.GetDisplayNode().GetLevel()) for node in (source, result)]

    source.GetDisplayNode().SetWindowLevel(300, 40)
    viewing.show("over", result)
    assert windows() == 2 * [(300, 40)]
    result.GetDisplayNode().SetWindowLevel(500, 60)
    assert windows() == 2 * [(500, 60)]
    viewing.stop()
    source.GetDisplayNode().SetWindowLevel(700, 80)
    assert windows() == [(700, 80), (500, 60)]


def test_one_comparison_ends_the_other(viewing, red, result):
    viewing.show("reveal", result)
    viewing.show("over", result)
    assert layersOf(red)[1] == result.GetID()
    assert viewing.kind == "over"


def test_a_flicker_shows_each_in_turn_and_ends_with_the_result(viewing, red, result):
    viewing.show("flicker", result)
    opacities = []
    for _ in range(4):
        viewing.tick()
        opacities.append(layersOf(red)[3])
    assert opacities == [0.0, 1.0, 0.0, 1.0]
    result_nodes.remove(result)
    viewing.tick()
    assert viewing.kind == ""


def test_error_bars_lie_over_the_result_with_a_legend(viewing, red, result, keep):
    bars = result_nodes.errorBarsOf(result)
    viewing.showErrorBars(result, 20.0, "HU")
    assert layersOf(red)[:2] == [result.GetID(), bars.GetID()]
    assert bars.GetDisplayNode().GetLowerThreshold() == 20.0
    keep(red.picture(), "viewing_error_bars")
    coloured = red.picture().astype(int)
    assert (np.ptp(coloured, axis=2) > 60).sum() > 200
    viewing.hideErrorBars()
    assert layersOf(red)[1] == result.GetID()
    assert (np.ptp(red.picture().astype(int), axis=2) > 60).sum() < 200


def test_the_mask_marks_what_is_wider_than_the_tolerance_and_tells_its_share(viewing, red, result):
    share = viewing.showMask(result, 20.0)
    assert share == pytest.approx((phantom_volumes.BARS > 20.0).mean(), abs=1e-3)
    assert layersOf(red)[2] is not None
    viewing.hideMask(result)
    assert layersOf(red)[2] is None


def test_what_cannot_be_shown_is_told(viewing, result, source):
    with pytest.raises(InputError, match="The tolerance is 0. Enter the widest error bar"):
        viewing.showMask(result, 0.0)
    with pytest.raises(InputError, match="View 'Green' is not shown. Choose a layout with it"):
        viewing.show("reveal", result, "Green")
    bare = phantom_volumes.addResult(source, None)
    for show in (lambda: viewing.showErrorBars(bare, 0.0, "HU"), lambda: viewing.showMask(bare, 5.0)):
        with pytest.raises(InputError, match="has no error bars. Enhance with a model that has them."):
            show()
