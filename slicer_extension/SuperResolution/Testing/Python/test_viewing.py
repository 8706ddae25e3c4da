"""Real slice views during a comparison: what they show, and that they show what they did before when it ends."""

import types

import numpy as np
import phantom_volumes
import pytest
import slicer
from sliceview import difference
from SuperResolutionLib import compare, framing, result_nodes
from SuperResolutionLib.viewing import Viewing
from SuperResolutionLib.volumes import resultAffine


@pytest.fixture
def viewing(application, red):
    viewing = Viewing(application.logic)
    yield viewing
    viewing.stop()


@pytest.fixture
def pair(application, sliceView):
    """The views of our layout, which in Slicer the layout manager makes; the layout shows one view."""
    layout = application.scene.AddNewNodeByClass("vtkMRMLLayoutNode")
    layout.SetViewArrangement(layout.SlicerLayoutOneUpRedSliceView)
    return [sliceView(name, 300, 300) for name in (compare.BEFORE, compare.AFTER)]


def layersOf(view):
    composite = view.composite
    names = [composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID(), composite.GetLabelVolumeID()]
    return [*names, composite.GetForegroundOpacity(), composite.GetNumberOfAdditionalLayers()]


def insideOf(view):
    """The rows and columns of a picture of `view` that lie inside the region, without its frame."""
    (left, top), (right, bottom) = (view.pixel(phantom_volumes.world(2, *at)) for at in ((31.5, 31.5), (95.5, 127.5)))
    return slice(round(top) + 4, round(bottom) - 4), slice(round(left) + 4, round(right) - 4)


def outsideOf(view, picture):
    """The pixels that lie beside the region, its frame and its caption."""
    rows, columns = insideOf(view)
    outside = np.ones(picture.shape[:2], bool)
    outside[rows.start - 30 : rows.stop + 8, columns.start - 8 : columns.stop + 8] = False
    return outside


def captionsOf(source, view=None):
    """The texts on the image, in all views or in one."""
    points = slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode", source.GetScene())
    if view is not None:
        points = [each for each in points if each.GetDisplayNode().IsDisplayableInView(view.node.GetID())]
    return {each.GetNthControlPointLabel(n) for each in points for n in range(each.GetNumberOfControlPoints())}


def windowsOf(*volumes):
    return [(node.GetDisplayNode().GetWindow(), node.GetDisplayNode().GetLevel()) for node in volumes]


def test_a_result_lies_exactly_over_its_source(application, red, source, result):
    whole = application.addVolume(phantom_volumes.FINE, resultAffine(phantom_volumes.GRID, [0] * 6, (1, 4, 4)))
    whole.GetDisplayNode().CopyContent(source.GetDisplayNode())
    pictures = []
    for foreground in (None, result, whole):
        (foreground or source).GetDisplayNode().SetInterpolate(False)
        red.composite.SetForegroundVolumeID(foreground and foreground.GetID())
        red.composite.SetForegroundOpacity(1)
        pictures.append(red.picture())
    before, after, fine = pictures
    assert difference(after, fine)[insideOf(red)].max() == 0
    assert difference(before, fine)[insideOf(red)].max() > 60
    for changed, inside in zip(np.nonzero(difference(before, after) > 2), insideOf(red)):  # only the region changed
        assert inside.start - 5 <= changed.min() <= changed.max() <= inside.stop + 5  # `insideOf` leaves out 4


@pytest.mark.parametrize("kind", ["inPlace", "difference"])
def test_a_comparison_changes_the_picture_and_is_ended_without_a_trace(kind, viewing, red, result, application):
    nodes, before, picture = application.nodeIds(), layersOf(red), red.picture()
    viewing.show(kind, result, fit=False)
    assert (red.picture() != picture).any()
    viewing.stop()
    viewing.stop()
    assert (viewing.kind, layersOf(red)) == ("", before)
    np.testing.assert_array_equal(red.picture(), picture)
    added = [slicer.mrmlScene.GetNodeByID(name) for name in set(application.nodeIds()) - set(nodes)]
    assert all(node.GetNodeReferenceID(result_nodes.RESULT) or node.IsA("vtkMRMLVolumeDisplayNode")
               or node.IsA("vtkMRMLColorTableNode") for node in added)  # fmt: skip


def test_the_region_is_seen_at_once_with_its_surroundings_a_frame_and_a_caption(viewing, red, source, result):
    red.node.SetSliceOffset(red.node.GetSliceOffset() + 15)  # another slice than those of the region
    viewing.show("inPlace", result)
    picture = red.picture()
    rows, columns = insideOf(red)
    height, width = picture.shape[:2]
    share = max((rows.stop - rows.start) / height, (columns.stop - columns.start) / width)
    assert 0.5 < share < 0.75  # with a little context
    assert (rows.start + rows.stop) / 2 == pytest.approx(height / 2, abs=3)
    middle = (phantom_volumes.world(1, 0, 0)[2], phantom_volumes.world(3, 0, 0)[2])
    assert min(middle) - 2.5 <= red.logic.GetSliceOffset() <= max(middle) + 2.5
    yellow = np.abs(picture.astype(int) - np.array([255, 217, 51])).max(axis=2) < 60
    assert yellow[rows.start - 6 : rows.start, columns].any(axis=0).mean() > 0.9  # the frame
    assert yellow[rows.start - 22 : rows.start - 6, columns].sum() > 60  # the caption above it
    assert (picture[outsideOf(red, picture)] > 0).mean() > 0.9  # the surroundings


@pytest.mark.parametrize(("report", "caption"), [
    ({}, "enhanced x4, predicted detail"),
    ({"synthetic": True}, "enhanced x4, texture: generated"),
    ({"provenance": {"instead_of": "chest_ct_blind"}}, "interpolated x4, nothing added"),
])  # fmt: skip
def test_the_caption_says_what_the_pixels_are_and_goes_with_them(report, caption, viewing, application, source):
    done = {**phantom_volumes.DONE, **report}
    result = result_nodes.addResult(source, phantom_volumes.RESULT, phantom_volumes.EXTENT, done)
    viewing.show("inPlace", result)
    assert captionsOf(source) == {caption}
    viewing.showOriginal(True)
    assert captionsOf(source) == {"original"}
    application.scene.RemoveNode(result)  # by hand
    viewing.stop()
    assert captionsOf(source) == set()


def test_the_original_appears_in_place_by_one_change_of_each_view(viewing, red, source, result):
    viewing.show("inPlace", result)
    after, changes = red.picture(), []
    red.composite.AddObserver("ModifiedEvent", lambda *_: changes.append(1))
    viewing.showOriginal(True)
    assert len(changes) == 1
    changed = difference(after, red.picture())
    assert changed[insideOf(red)].max() > 60
    assert changed[outsideOf(red, after)].max() == 0
    viewing.showOriginal(False)
    assert difference(after, red.picture()).max() == 0


def test_error_bars_lie_over_the_image_and_never_instead_of_it_and_a_legend_beside_it(viewing, red, result, capfd):
    viewing.showErrorBars(result, 0.0)
    assert viewing.kind == "inPlace"  # they start a comparison where there is none
    display = result_nodes.errorBarsOf(result).GetDisplayNode()
    widest, upperQuarter = np.percentile(phantom_volumes.BARS, (99, 75))
    assert (display.GetWindowLevelMax(), display.GetLowerThreshold()) == pytest.approx((widest, upperQuarter), rel=1e-5)
    viewing.hideErrorBars()
    before, plain = layersOf(red), red.picture()
    viewing.showErrorBars(result, 20.0)
    assert layersOf(red)[:4] == before[:4]
    assert (display.GetWindowLevelMin(), display.GetLowerThreshold()) == (0, 20)
    picture, region = red.picture(), insideOf(red)
    coloured = np.ptp(picture.astype(int), axis=2) > 30
    assert coloured[region].mean() == pytest.approx((phantom_volumes.BARS[1] > 20).mean(), rel=0.4)
    legendColumn = region[1].stop + 8
    changes = np.where(outsideOf(red, picture), difference(plain, picture), 0)
    assert changes[:, :legendColumn].max() == 0
    assert changes[:, legendColumn:].max() > 60  # the legend
    assert "ERR|" not in capfd.readouterr().err
    viewing.showOriginal(True)
    assert (np.ptp(red.picture()[region].astype(int), axis=2) > 30).sum() == 0
    viewing.showOriginal(False)
    viewing.hideErrorBars()
    assert layersOf(red) == before
    assert difference(plain, red.picture()).max() == 0


def test_side_by_side_shows_the_same_place_and_goes_away(viewing, red, source, result, pair, application):
    layout = application.scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    before, (left, right) = layersOf(red), pair
    viewing.show("sideBySide", result)
    assert layout.GetViewArrangement() == compare.LAYOUT
    assert (layersOf(left)[:2], layersOf(right)[:2]) == ([source.GetID(), None], [source.GetID(), result.GetID()])
    assert [captionsOf(source, view) for view in pair] == [{"original"}, {"enhanced x4, predicted detail"}]
    np.testing.assert_allclose(left.ras(70, 90), right.ras(70, 90), atol=1e-9)
    assert difference(left.picture(), right.picture()).max() > 60
    viewing.showErrorBars(result, 0.0)
    assert (layersOf(left)[4], layersOf(right)[4]) == (0, 1)
    viewing.showOriginal(True)
    assert difference(left.picture(), right.picture())[insideOf(left)].max() == 0
    viewing.stop()
    assert (layersOf(red), layout.GetViewArrangement()) == (before, layout.SlicerLayoutOneUpRedSliceView)
    red.node.SetOrientation("Coronal")
    viewing.show("sideBySide", result)
    assert "Coronal" in layout.GetLayoutDescription(compare.LAYOUT)
    assert all(view.picture().max() > 0 for view in pair)
    layout.SetViewArrangement(layout.SlicerLayoutFourUpView)  # by the user
    viewing.stop()
    assert layout.GetViewArrangement() == layout.SlicerLayoutFourUpView


def test_a_maximized_view_makes_room_for_the_pair_whose_layout_is_not_saved(
    viewing, pair, red, result, application, tmp_path
):
    layout = application.scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    layout.SetSingletonTag("vtkMRMLLayoutNode")  # as Slicer's logic does, so that a scene changes it
    layout.AddMaximizedViewNode(red.node)
    viewing.show("sideBySide", result)
    assert layout.GetNumberOfMaximizedViewNodes() == 0
    application.saveScene(tmp_path / "scene.mrb")
    viewing.stop()
    application.loadScene(tmp_path / "scene.mrb", close=False)
    assert layout.GetViewArrangement() == layout.SlicerLayoutOneUpRedSliceView
    assert (layout.GetSaveWithScene(), layout.IsMaximizedViewNode(red.node)) == (1, True)


def test_what_moves_in_one_view_moves_in_the_other_and_one_cursor_shows_the_place(viewing, pair, result):
    viewing.show("sideBySide", result)
    left, right = pair
    without = right.picture()
    left.moveMouse(100, 200)
    rows, columns = np.nonzero(difference(without, right.picture()) > 60)
    assert (columns.mean(), 299 - rows.mean()) == pytest.approx((100, 200), abs=2)
    start = right.logic.GetSliceOffset()
    left.wheel()
    assert left.logic.GetSliceOffset() == right.logic.GetSliceOffset() != start
    viewing.stop()
    after = right.picture()
    left.moveMouse(50, 50)
    assert difference(after, right.picture()).max() == 0


def test_a_view_that_gets_its_size_later_is_fitted_again_until_the_user_zooms(viewing, result, pair):
    viewing.show("sideBySide", result)
    for view in pair:
        view.logic.ResizeSliceNode(200, 400)
    width = 96 * 0.7  # of the region in millimetres
    assert [view.node.GetFieldOfView()[0] for view in pair] == pytest.approx([framing.CONTEXT * width] * 2)
    right = pair[1]
    right.node.SetFieldOfView(30, 60, 1)
    right.logic.ResizeSliceNode(300, 400)
    assert right.node.GetFieldOfView()[1] == pytest.approx(60)


def test_the_difference_is_black_where_nothing_changed_orange_where_brighter_blue_where_darker(viewing, red, result):
    viewing.show("difference", result)
    phantom_volumes.fillAll()
    red.node.SetSliceOffset(phantom_volumes.world(2, 0, 0)[2])
    node = next(iter(result_nodes.derivedNodes(result, result_nodes.DIFFERENCE)))
    node.GetDisplayNode().SetInterpolate(False)
    picture, values = red.picture(), slicer.util.arrayFromVolume(node)[1]
    for sign, channel in ((1, 0), (-1, 2)):
        row, column = np.unravel_index((sign * values)[4:-4, 4:-30].argmax(), (56, 62))
        color = red.colorAt(picture, phantom_volumes.world(2, int(row) + 36, int(column) + 36))
        assert color[channel] == color.max() > 100


def test_before_and_after_have_one_window_while_they_are_compared(viewing, red, result, source):
    source.GetDisplayNode().SetWindowLevel(300, 40)
    viewing.show("inPlace", result)
    assert windowsOf(source, result) == 2 * [(300, 40)]
    result.GetDisplayNode().SetWindowLevel(500, 60)
    assert windowsOf(source, result) == 2 * [(500, 60)]
    viewing.stop()
    source.GetDisplayNode().SetWindowLevel(700, 80)
    assert windowsOf(source, result) == [(700, 80), (500, 60)]


def test_a_ruler_needs_millimetres_and_axes_need_those_of_a_patient(viewing, red, film, result):
    view = red.node
    viewing.show("inPlace", result)
    assert view.GetRulerType() == view.RulerTypeThin
    assert view.GetOrientationMarkerType() == view.OrientationMarkerTypeAxes
    viewing.show("inPlace", film)
    assert view.GetRulerType() == view.RulerTypeNone
    assert view.GetOrientationMarkerType() == view.OrientationMarkerTypeNone


@pytest.fixture
def film(application):
    """A result of all of a film that was loaded from DICOM."""
    node = application.addVolume(phantom_volumes.COARSE[:1], np.diag([-1, -1, 1, 1.0]), modality="DX")
    node.SetAttribute("DICOM.instanceUIDs", "1.2.3")
    return result_nodes.addResult(node, phantom_volumes.FINE[:1], [0, 1, 0, 32, 0, 40], phantom_volumes.DONE)


def test_the_letters_of_a_film_lie_at_its_edges_and_turn_with_it(application, viewing, red, film, monkeypatch):
    def labelPositions():
        (_, *nodes) = slicer.util.getNodesByClass("vtkMRMLMarkupsNode")  # without the box
        numbers = [(node, n) for node in nodes for n in range(node.GetNumberOfControlPoints())]
        return {node.GetNthControlPointLabel(n): red.xy(node.GetNthControlPointPositionWorld(n)) for node, n in numbers}

    viewing.show("inPlace", film)
    assert set(labelPositions()) == {"enhanced x4, predicted detail"}  # nothing is guessed
    database = types.SimpleNamespace(isOpen=True, fileForInstance=str, fileValue=lambda file, tag: "R\\F")
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    viewing.show("inPlace", film)
    viewing.showOriginal(True)
    positions = labelPositions()
    assert positions["L"][0] < positions["H"][0] < positions["R"][0]  # the film says that it is mirrored
    assert positions["F"][1] < positions["L"][1] < positions["original"][1] < positions["H"][1]
    application.move(result_nodes.sourceOf(film), np.diag([-1.0, 1, 1, 1]))
    viewing.show("inPlace", film)
    positions = labelPositions()
    assert positions["R"][0] < positions["H"][0] < positions["L"][0]
