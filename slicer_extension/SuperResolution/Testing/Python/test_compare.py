"""Before and after in rendered slice views. SUPERRESOLUTION_PICTURES=FOLDER keeps what they showed."""

import numpy as np
import phantom_volumes
import pytest
import slicer
from sliceview import difference
from SuperResolutionLib import compare, framing


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
    for view in pair:
        framing.fitTo(view.node, result)
    layers = [(view.composite.GetBackgroundVolumeID(), view.composite.GetForegroundVolumeID()) for view in pair]
    assert layers == [(source.GetID(), None), (source.GetID(), result.GetID())]
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
        framing.fitTo(view.node, result)
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
    for view in pair:
        framing.fitTo(view.node, result)
        assert view.picture().max() > 0


def test_without_a_layout_manager_side_by_side_says_so(application, red, source, result):
    background = red.composite.GetBackgroundVolumeID()
    with pytest.raises(RuntimeError, match="The views SuperResolutionBefore and SuperResolutionAfter were not made"):
        compare.showSideBySide(application.logic, source, result)
    assert red.composite.GetBackgroundVolumeID() == background


def test_one_cursor_shows_the_same_place_in_both_views(application, pair, source, result, keep):
    compare.showSideBySide(application.logic, source, result)
    for view in pair:
        framing.fitTo(view.node, result)
    without = pair[1].picture()
    cursor = compare.LinkedCursor(application.scene)
    pair[0].moveMouse(100, 200)
    picture = pair[1].picture()
    keep(picture, "cursor")
    rows, columns = np.nonzero(difference(without, picture) > 60)
    assert (columns.mean(), 299 - rows.mean()) == pytest.approx((100, 200), abs=2)
    cursor.stop()
    cursor.stop()
    pair[0].moveMouse(50, 50)
    assert difference(without, pair[1].picture()).max() == 0
