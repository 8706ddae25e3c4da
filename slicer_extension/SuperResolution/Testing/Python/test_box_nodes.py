"""Anomaly boxes: drawn, listed, as rectangles on slices, saved, loaded, and what is inside them before and after."""

from dataclasses import replace

import numpy as np
import phantom_volumes
import pytest
import slicer
from grids import GRIDS, makeGrid
from sliceview import difference
from SuperResolutionLib import box_nodes, display, region
from SuperResolutionLib.box import Box
from SuperResolutionLib.errors import InputError

NODULE = [1, 4, 12, 17, 9, 15]  # around the drawn nodule, in voxels of the source


def addNodule(source, bounds=NODULE, finding="Nodule", reader="A. Reader", certainty=0.8):
    return box_nodes.addBox(source, bounds, finding, reader, certainty)


def allOf(scene, volume):
    """Words, tracking and bounds of all boxes on a volume."""
    return [
        (box_nodes.wordsOf(node), node.GetAttribute(box_nodes.TRACKING), box_nodes.boundsIn(node, volume))
        for node in box_nodes.boxesOf(scene, volume)
    ]


def test_a_box_lies_on_its_voxels_and_says_what_it_is(application, source):
    box = addNodule(source, [1, 4, 12.25, 17, 9, 14.5])
    assert box_nodes.boxesOf(application.scene) == [box]
    assert box_nodes.wordsOf(box) == ("Nodule", "A. Reader", 0.8)
    assert box_nodes.boundsIn(box, source) == pytest.approx([1, 4, 12.25, 17, 9, 14.5], abs=1e-5)
    assert box.GetName() == "Nodule 80%"
    hierarchy = application.subjectHierarchy
    item = hierarchy.GetItemByDataNode(box)
    assert hierarchy.GetItemParent(item) == hierarchy.GetItemByDataNode(source)


@pytest.mark.parametrize("grid", GRIDS)
def test_rectangles_bring_boxes_back_on_turned_and_transformed_volumes(application, grid):
    source = application.addVolume(phantom_volumes.COARSE, grid)
    moved = application.addTransform(makeGrid((0.3, 0.2, -0.7), (1, 1, 1), (10, 20, 30)))
    source.SetAndObserveTransformNodeID(moved.GetID())
    box_nodes.track(addNodule(source), "2.25.7")
    addNodule(source, [0, 1, 0, 4.5, 2, 7], "Effusion", "B. Reader", 1)
    before = allOf(application.scene, source)
    rectangles = [box for node in box_nodes.boxesOf(application.scene) for box in box_nodes.toBoxes(node, source)]
    assert [box.slice_index for box in rectangles] == [1, 2, 3, 0]
    assert {box.tracking_uid for box in rectangles[:3]} == {"2.25.7"}
    for box in box_nodes.boxesOf(application.scene):
        box_nodes.removeBox(box)

    box_nodes.addBoxes(rectangles, source)

    for new, old in zip(allOf(application.scene, source), sorted(before, key=lambda box: box[2][0])):
        assert new[:2] == old[:2]
        assert new[2] == pytest.approx(old[2], abs=1e-3)
    assert len(box_nodes.boxesOf(application.scene)) == 2


def test_slices_may_be_named_by_their_uid(source):
    uids = [f"2.25.{number}" for number in (9, 7, 5, 3, 1)]
    rectangles = box_nodes.toBoxes(addNodule(source), source, uids)
    assert [(box.sop_instance_uid, box.slice_index) for box in rectangles] == [
        ("2.25.7", None), ("2.25.5", None), ("2.25.3", None),
    ]  # fmt: skip
    nodes = box_nodes.addBoxes(rectangles, source, uids)
    assert [box_nodes.boundsIn(node, source)[0] for node in nodes] == pytest.approx([1, 2, 3], abs=1e-5)


def test_rectangles_are_joined_only_where_they_go_on_as_one_lesion(source):
    first = Box("Mass", 4, 3, 8, 9, slice_index=1, reader="A", tracking_uid="2.25.7")
    following = replace(first, slice_index=2)
    apart = (
        replace(following, tracking_uid="2.25.8"), replace(following, reader="B"), replace(following, finding="Nodule"),
        replace(following, certainty=0.5), replace(following, x_max=8.5), replace(following, slice_index=3),
    )  # fmt: skip
    assert len(box_nodes.addBoxes([following, first], source)) == 1
    assert [len(box_nodes.addBoxes([first, other], source)) for other in apart] == [2] * len(apart)
    untracked = replace(first, tracking_uid="")
    assert len(box_nodes.addBoxes([untracked, replace(untracked, slice_index=2)], source)) == 2


def test_what_a_report_does_not_name_is_called_unknown_and_leaves_unnamed(source):
    (node,) = box_nodes.addBoxes([Box("", 4, 3, 8, 9, slice_index=1)], source)
    assert box_nodes.wordsOf(node) == ("Finding", "Unknown", None)
    assert box_nodes.toBoxes(node, source)[0].reader == ""


def test_a_turned_box_is_saved_turned(application, source, tmp_path):
    roi = application.addRoi(source, NODULE)
    matrix = slicer.util.arrayFromVTKMatrix(roi.GetObjectToNodeMatrix()) @ makeGrid((0, 0, 0.4), (1, 1, 1), (0, 0, 0))
    roi.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(matrix))
    box_nodes.describe(roi, "Nodule", "A", 1)
    box_nodes.saveBoxes([roi], tmp_path / "case.mrk.json")
    [loadedBox] = box_nodes.loadBoxes(tmp_path / "case.mrk.json", source)
    np.testing.assert_allclose(region.cornersWorld(loadedBox), region.cornersWorld(roi), atol=1e-3)


def test_a_box_on_a_radiograph_is_one_slice_thick(application):
    film = application.addVolume(np.zeros((1, 40, 60), np.uint16), np.diag([-0.2, -0.2, 1, 1]))
    flat = box_nodes.addBox(film, [0.4, 0.6, 5, 9, 7, 12], "Nodule", "A", 0.5)
    assert box_nodes.boundsIn(flat, film) == pytest.approx([0, 1, 5, 9, 7, 12], abs=1e-5)
    thinBox = application.addRoi(film, [0.45, 0.55, 5, 9.5, 7, 7.4])
    box_nodes.describe(thinBox, "Nodule", "A", 0.5)
    box_nodes.belongTo(thinBox, film)
    k0, k1, r0, r1, c0, c1 = box_nodes.boundsIn(thinBox, film)
    assert (k1 - k0, r1 - r0, c1 - c0) == pytest.approx((1, 4.5, 1), abs=1e-4)
    assert region.ofRoi(flat, film) == [0, 1, 5, 9, 7, 12]
    assert box_nodes.boxesOf(application.scene, film) == [flat, thinBox]


def test_boxes_are_listed_by_their_volume_and_other_regions_are_none(application, source):
    other = application.addVolume(phantom_volumes.COARSE, phantom_volumes.GRID, name="other")
    box = addNodule(source)
    addNodule(other)
    application.addRoi(source, phantom_volumes.EXTENT)
    assert box_nodes.boxesOf(application.scene, source) == [box]
    assert len(box_nodes.boxesOf(application.scene)) == 2


def test_removing_a_box_leaves_the_scene_as_it_was(application, source):
    before = (application.nodeIds(), application.subjectHierarchy.GetNumberOfItems())
    box = addNodule(source)
    box.AddDefaultStorageNode()
    box_nodes.removeBox(box)
    assert (application.nodeIds(), application.subjectHierarchy.GetNumberOfItems()) == before


def test_boxes_are_saved_in_one_file_and_come_back(application, source, tmp_path):
    saved = [addNodule(source), addNodule(source, [0, 2, 3, 9.5, 4, 8], 'Größe: "Mass"', "B; <r>", 0.25)]
    descriptions = allOf(application.scene, source)
    before = application.nodeIds()
    box_nodes.saveBoxes(saved, tmp_path / "case.mrk.json")
    assert application.nodeIds() == before
    assert [path.name for path in tmp_path.iterdir()] == ["case.mrk.json"]
    for box in saved:
        box_nodes.removeBox(box)

    loadedBoxes = box_nodes.loadBoxes(tmp_path / "case.mrk.json", source)

    after = allOf(application.scene, source)
    assert [entry[:2] for entry in after] == [entry[:2] for entry in descriptions]
    for old, new in zip(descriptions, after):
        assert new[2] == pytest.approx(old[2], abs=1e-4)
    assert all(node.GetStorageNode() is None for node in loadedBoxes)
    assert len(application.nodeIds()) == len(before)


def test_a_box_without_certainty_and_with_a_tracked_lesion_is_saved_and_comes_back(application, source, tmp_path):
    box = box_nodes.addBox(source, NODULE, "Nodule", "A", None, "2.25.7")
    assert box.GetName() == "Nodule"
    box_nodes.saveBoxes([box], tmp_path / "case.mrk.json")
    box_nodes.removeBox(box)
    box_nodes.loadBoxes(tmp_path / "case.mrk.json", source)
    (loadedBoxes,) = box_nodes.boxesOf(application.scene, source)
    assert (box_nodes.wordsOf(loadedBoxes)[2], loadedBoxes.GetAttribute(box_nodes.TRACKING)) == (None, "2.25.7")
    box_nodes.describe(loadedBoxes, "Mass", "A", 0.5)
    assert loadedBoxes.GetAttribute(box_nodes.TRACKING) == "2.25.7"


def test_slicer_itself_opens_the_file_and_its_boxes_are_boxes(application, source, tmp_path):
    box_nodes.saveBoxes([addNodule(source), addNodule(source, certainty=0.1)], tmp_path / "case.mrk.json")
    corners = region.cornersWorld(box_nodes.boxesOf(application.scene)[0])
    application.clear()
    assert application.moduleLogics["Markups"].LoadMarkups(str(tmp_path / "case.mrk.json"), "case")
    loadedBoxes = box_nodes.boxesOf(application.scene)
    assert [box_nodes.wordsOf(node)[2] for node in loadedBoxes] == [0.8, 0.1]
    np.testing.assert_allclose(region.cornersWorld(loadedBoxes[0]), corners, atol=1e-4)


def test_boxes_are_saved_with_the_scene(application, source, tmp_path):
    addNodule(source)
    [descriptions] = allOf(application.scene, source)
    application.newSubjectHierarchyItems()
    application.saveScene(tmp_path / "scene.mrb")
    application.clear()
    application.loadScene(tmp_path / "scene.mrb", close=False)
    [loadedBoxes] = allOf(application.scene, slicer.util.getNode("chest"))
    assert loadedBoxes[:2] == descriptions[:2]
    assert loadedBoxes[2] == pytest.approx(descriptions[2], abs=1e-4)


def test_a_box_is_an_outline_that_covers_nothing_of_its_finding(red, source, keep):
    plain = red.picture()
    box = addNodule(source)
    picture = red.picture()
    keep(picture, "anomaly_box")
    changed = difference(plain, picture) > 20
    rows, columns = np.nonzero(changed)
    corners = region.cornersWorld(box)
    x, y = np.array([red.pixel(corner) for corner in corners]).T
    assert (rows.min(), rows.max()) == pytest.approx((y.min(), y.max()), abs=3)
    assert (columns.min(), columns.max()) == pytest.approx((x.min(), x.max()), abs=3)
    assert not changed[rows.min() + 5 : rows.max() - 5, columns.min() + 5 : columns.max() - 5].any()
    display.showName(box, True)
    display.showHandles(box, True)
    assert difference(picture, red.picture()).max() > 100


@pytest.mark.parametrize(("change", "message"), [
    ({"finding": " "}, "The finding is ' ', expected words"),
    ({"reader": None}, "The reader is None, expected words"),
    ({"certainty": 80}, "The certainty is 80, expected a number from 0 to 1"),
    ({"certainty": float("nan")}, "The certainty is nan, expected a number"),
    ({"certainty": True}, "The certainty is True, expected a number"),
    ({"certainty": "sure"}, "The certainty is 'sure', expected a number"),
    ({"bounds": [1, 4, 17, 12, 9, 15]}, "each start below its stop"),
    ({"bounds": [1, 4, 12, 17]}, "bounds is .*, expected 6 numbers"),
    ({"bounds": "all of it"}, "bounds is 'all of it', expected 6 numbers"),
    ({"bounds": [1, 4, 40, 44, 9, 15]}, r"lies outside 'chest', which has \(5, 32, 40\) voxels"),
])  # fmt: skip
def test_what_is_no_box_is_refused_and_nothing_is_added(application, source, change, message):
    before = application.nodeIds()
    with pytest.raises(InputError, match=message):
        addNodule(source, **change)
    assert application.nodeIds() == before


@pytest.mark.parametrize(("wrong", "message"), [
    (Box("x", 1, 2, 3, 4, reader="y"), "Box 2 is on slice None, expected one of the 5 of the volume, from 0"),
    (Box("x", 1, 2, 3, 4, 5, "y"), "Box 2 is on slice 5, expected one of the 5"),
    (Box("x", 1, 2, 3, 4, 0, "y", certainty=7), "The certainty is 7"),
    (Box("x", 1, 4, 3, 2, 0, "y"), "Box 2: the box is upside down: y_min 4 is not below y_max 2"),
    (Box("x", 1, 2, 41, 4, 0, "y"), "Box 2: the box goes from x 1 to 41, outside its image of 40 x 32 pixels"),
])  # fmt: skip
def test_one_wrong_rectangle_adds_none(application, source, wrong, message):
    before = application.nodeIds()
    with pytest.raises(InputError, match=message):
        box_nodes.addBoxes([Box("x", 1, 2, 3, 4, 3, "y"), wrong], source)
    assert application.nodeIds() == before


def test_a_box_that_is_not_drawn_yet_is_told(application):
    with pytest.raises(InputError, match="Box 'R' has no size yet. Finish drawing it"):
        box_nodes.describe(application.addRoi(), "Nodule", "A", 1)


def test_saving_tells_what_is_wrong(source, tmp_path):
    with pytest.raises(InputError, match="'case.json' does not end in .mrk.json"):
        box_nodes.saveBoxes([addNodule(source)], tmp_path / "case.json")
    with pytest.raises(InputError, match="There are no boxes to save"):
        box_nodes.saveBoxes([], tmp_path / "case.mrk.json")
    with pytest.raises(InputError, match="cannot be written"):
        box_nodes.saveBoxes([addNodule(source)], tmp_path / "nowhere" / "case.mrk.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("content", "message"), [
    (None, "cannot be read: No such file"),
    ("no json", "'case.mrk.json' is no markups file of Slicer"),
    ("[]", "is no markups file of Slicer"),
    ('{"markups": [{"type": "Line"}]}', r"holds no region box \(it holds Line\)"),
    ('{"markups": []}', r"holds no region box \(it holds nothing\)"),
])  # fmt: skip
def test_loading_tells_what_is_wrong(application, source, tmp_path, content, message):
    path = tmp_path / "case.mrk.json"
    if content is not None:
        path.write_text(content)
    before = application.nodeIds()
    with pytest.raises(InputError, match=message):
        box_nodes.loadBoxes(path, source)
    assert application.nodeIds() == before


def test_region_boxes_of_nobody_are_not_taken_for_findings(application, source, tmp_path):
    roi = application.addRoi(source, phantom_volumes.EXTENT)
    storage = roi.CreateDefaultStorageNode()
    storage.SetFileName(str(tmp_path / "region.mrk.json"))
    assert storage.WriteData(roi)
    before = application.nodeIds()
    with pytest.raises(
        InputError, match="'region.mrk.json' holds 1 region boxes without finding, reader and certainty"
    ):
        box_nodes.loadBoxes(tmp_path / "region.mrk.json", source)
    assert application.nodeIds() == before
