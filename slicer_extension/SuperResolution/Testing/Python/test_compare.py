"""Before and after in rendered slice views. SUPERRESOLUTION_PICTURES=FOLDER keeps what they showed."""

import numpy as np
import phantom_volumes
import pytest
import slicer
from sliceview import difference
from SuperResolutionLib import compare, display, result_nodes


def grey(hu):
    """Return the grey level that Slicer shows for HU with window 1400 and level -400."""
    return np.clip((hu - (-400 - 700)) / 1400, 0, 1) * 255


def shows(view, picture, volumeArray, voxels, tolerance=12):
    """Return True if a picture shows the numbers of the fine grid at these voxels."""
    return all(
        np.abs(view.colorAt(picture, phantom_volumes.world(*voxel)) - grey(volumeArray[voxel])).max() <= tolerance
        for voxel in voxels
    )


def edges():
    """Voxels at the rims of ribs inside the region, where before and after differ most: ``(slice, row, column)``."""
    before = np.repeat(np.repeat(phantom_volumes.COARSE, 4, axis=1), 4, axis=2)
    rows, columns = np.nonzero(np.abs(grey(phantom_volumes.FINE[2]) - grey(before[2])) > 60)
    inside = [(2, int(r), int(c)) for r, c in zip(rows, columns) if 36 < r < 92 and 36 < c < 124]
    return inside[:: len(inside) // 12]


def test_a_result_lies_exactly_over_its_source(red, source, result, keep):
    for node in (source, result):
        node.GetDisplayNode().SetInterpolate(False)
    before = red.picture()
    red.composite.SetForegroundVolumeID(result.GetID())
    red.composite.SetForegroundOpacity(1)
    after = red.picture()
    keep(before, "before")
    keep(after, "after")
    assert shows(red, after, phantom_volumes.FINE, edges())
    assert not shows(red, before, phantom_volumes.FINE, edges())
    # Only the region changed.
    column0, row0 = red.pixel(phantom_volumes.world(2, 31.5, 31.5))
    column1, row1 = red.pixel(phantom_volumes.world(2, 95.5, 127.5))
    rows, columns = np.nonzero(difference(before, after) > 2)
    assert row0 - 1 <= rows.min() <= rows.max() <= row1 + 1
    assert column0 - 1 <= columns.min() <= columns.max() <= column1 + 1


def test_flicker_shows_before_and_after_in_turn_and_then_what_was_shown(red, source, result):
    picture = red.picture()
    flicker = compare.Flicker([red.composite], source, result)
    after = red.picture()
    assert difference(picture, after).max() > 60
    assert flicker.showsAfter
    assert flicker.tick()
    assert not flicker.showsAfter
    assert difference(picture, red.picture()).max() == 0
    assert flicker.tick()
    assert difference(after, red.picture()).max() == 0
    flicker.stop()
    flicker.stop()
    assert not flicker.tick()
    assert red.composite.GetForegroundVolumeID() is None
    assert difference(picture, red.picture()).max() == 0


def test_left_of_the_line_is_before_and_right_of_it_after(red, source, result, keep):
    before = red.picture()
    red.composite.SetForegroundVolumeID(result.GetID())
    red.composite.SetForegroundOpacity(1)
    after = red.picture()
    red.composite.SetForegroundVolumeID(None)

    line = compare.RevealLine(red.logic, red.renderer, source, result)
    for position in (0.5, 0.31):
        line.moveTo(position)
        picture = red.picture()
        column = round(position * 420)
        below = slice(40, None)  # of the captions
        assert difference(picture, before)[below, : column - 2].max() == 0
        assert difference(picture, after)[below, column + 2 :].max() == 0
        assert np.abs(picture[200, column - 1 : column + 1] - np.array([255, 217, 51])).min(axis=0).max() < 60
    keep(picture, "reveal")
    line.moveTo(7)
    assert line._position == 1
    line.stop()
    line.stop()
    assert difference(before, red.picture()).max() == 0


def test_the_line_follows_the_mouse_over_its_view(application, red, source, result, keep):
    line = compare.RevealLine(red.logic, red.renderer, source, result)
    line.followCursor(application.crosshair)
    red.moveMouse(105, 100)
    assert line._position == pytest.approx(0.25, abs=0.01)
    red.moveMouse(300, 30)
    assert line._position == pytest.approx(300 / 420, abs=0.01)
    line.stop()
    red.moveMouse(42, 30)
    assert line._position == pytest.approx(300 / 420, abs=0.01)


def test_the_line_moves_with_the_slice_and_survives_that_its_result_is_removed(red, source, result):
    line = compare.RevealLine(red.logic, red.renderer, source, result)
    first = red.picture()
    red.logic.SetSliceOffset(red.logic.GetSliceOffset() + 5)
    assert difference(first, red.picture()).max() > 0
    result_nodes.remove(result)
    plain = red.picture()
    line.stop()
    assert difference(plain, red.picture()).max() == 0


def test_a_box_is_seen_over_the_line(application, red, source, result, keep):
    roi = application.addRoi(source, phantom_volumes.EXTENT)
    display.outlineOnly(roi, (0.0, 1.0, 0.0))
    line = compare.RevealLine(red.logic, red.renderer, source, result)
    line.moveTo(0.4)
    picture = red.picture()
    keep(picture, "reveal_with_region")
    assert red.colorAt(picture, phantom_volumes.world(2, 31.5, 110))[1] > 150
    line.stop()


@pytest.fixture
def pair(application, sliceView):
    """The views of our layout, which in Slicer the layout manager makes, and the node that asks for them."""
    views = [sliceView(name, 300, 300) for name in (compare.BEFORE, compare.AFTER)]
    layout = application.scene.AddNewNodeByClass("vtkMRMLLayoutNode")
    layout.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    return views


def test_side_by_side_shows_the_same_place_before_and_after(application, pair, source, result, keep):
    saved = compare.showSideBySide(application.logic, source, result)
    layout = compare.layoutNode(application.scene)
    assert layout.GetViewArrangement() == compare.LAYOUT
    assert [view.composite.GetBackgroundVolumeID() for view in pair] == [source.GetID(), result.GetID()]
    before, after = (view.picture() for view in pair)
    keep(np.concatenate([before, after], axis=1), "side_by_side")
    np.testing.assert_allclose(pair[0].ras(70, 90), pair[1].ras(70, 90), atol=1e-9)
    assert shows(pair[1], after, phantom_volumes.FINE, edges()[::3], tolerance=70)
    assert difference(before, after).max() > 60
    saved.restore()
    assert layout.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView
    layout.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    saved.restore()
    assert layout.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView


def test_what_moves_in_one_view_moves_in_the_other(application, pair, source, result):
    compare.showSideBySide(application.logic, source, result)
    for view in pair:
        view.picture()
    start = pair[1].logic.GetSliceOffset()
    pair[0].wheel()
    assert pair[0].logic.GetSliceOffset() != start
    assert pair[1].logic.GetSliceOffset() == pair[0].logic.GetSliceOffset()
    flags = slicer.vtkMRMLSliceNode.FieldOfViewFlag | slicer.vtkMRMLSliceNode.XYZOriginFlag
    pair[1].logic.StartSliceNodeInteraction(flags)
    pair[1].node.SetFieldOfView(80, 80, 1)
    pair[1].logic.EndSliceNodeInteraction()
    assert pair[0].node.GetFieldOfView()[:2] == (80, 80)


def test_side_by_side_twice_and_in_another_orientation(application, pair, source, result):
    compare.showSideBySide(application.logic, source, result)
    compare.showSideBySide(application.logic, source, result, orientation="Coronal")
    layout = compare.layoutNode(application.scene)
    assert "Coronal" in layout.GetLayoutDescription(compare.LAYOUT)
    assert all(view.picture().max() > 0 for view in pair)


def test_without_a_layout_manager_side_by_side_says_so(application, red, source, result):
    background = red.composite.GetBackgroundVolumeID()
    with pytest.raises(RuntimeError, match="The views SuperResolutionBefore and SuperResolutionAfter were not made"):
        compare.showSideBySide(application.logic, source, result)
    assert red.composite.GetBackgroundVolumeID() == background
