"""Anomaly boxes: drawn, listed, as rectangles on slices, saved and loaded."""

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


def addNodule(source, bounds=NODULE, finding="Nodule", reader="A. Reader", certainty=0.8, tracking=""):
    return box_nodes.addBox(source, bounds, finding, reader, certainty, tracking)


def allOf(volume):
    """Words, tracking and bounds of all boxes on a volume."""
    return [
        (box_nodes.wordsOf(node), node.GetAttribute(box_nodes.TRACKING), box_nodes.boundsIn(node, volume))
        for node in box_nodes.boxesOf(volume.GetScene(), volume)
    ]


def assertSame(boxes, others):
    assert [box[:2] for box in boxes] == [box[:2] for box in others]
    np.testing.assert_allclose([box[2] for box in boxes], [box[2] for box in others], atol=1e-3)


def test_a_box_lies_on_its_voxels_says_what_it_is_and_goes_without_a_trace(application, source):
    other = application.addVolume(phantom_volumes.COARSE, phantom_volumes.GRID, name="other")
    application.addRoi(source, phantom_volumes.EXTENT)  # is no anomaly box
    hierarchy = application.subjectHierarchy
    before = (application.nodeIds(), hierarchy.GetNumberOfItems())
    box, onOther = addNodule(source, [1, 4, 12.25, 17, 9, 14.5]), addNodule(other)
    assert box_nodes.boxesOf(application.scene, source) == [box]
    assert box_nodes.boxesOf(application.scene) == [box, onOther]
    assert box.GetName() == "Nodule 80%"
    assertSame(allOf(source), [(("Nodule", "A. Reader", 0.8), "", [1, 4, 12.25, 17, 9, 14.5])])
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(box)) == hierarchy.GetItemByDataNode(source)
    box.AddDefaultStorageNode()
    for node in (box, onOther):
        box_nodes.removeBox(node)
    assert (application.nodeIds(), hierarchy.GetNumberOfItems()) == before


@pytest.mark.parametrize("grid", GRIDS)
def test_rectangles_bring_boxes_back_on_turned_and_transformed_volumes(application, grid):
    source = application.addVolume(phantom_volumes.COARSE, grid)
    moved = application.addTransform(makeGrid((0.3, 0.2, -0.7), (1, 1, 1), (10, 20, 30)))
    source.SetAndObserveTransformNodeID(moved.GetID())
    nodes = [addNodule(source, [0, 1, 0, 4.5, 2, 7], "Effusion", "B. Reader", 1), addNodule(source)]
    box_nodes.track(nodes[1], "2.25.7")
    before = allOf(source)
    rectangles = [box for node in nodes for box in box_nodes.toBoxes(node, source)]
    assert [(box.slice_index, box.tracking_uid) for box in rectangles] == [
        (0, ""), (1, "2.25.7"), (2, "2.25.7"), (3, "2.25.7"),
    ]  # fmt: skip
    for node in nodes:
        box_nodes.removeBox(node)
    box_nodes.addBoxes(rectangles, source)
    assertSame(allOf(source), before)


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


def test_a_box_on_a_radiograph_is_one_slice_thick(application):
    film = application.addVolume(np.zeros((1, 40, 60), np.uint16), np.diag([-0.2, -0.2, 1, 1]))
    flat = addNodule(film, [0.4, 0.6, 5, 9, 7, 12])
    thin = addNodule(film, [0.45, 0.55, 5, 9.5, 7, 7.4])
    assert box_nodes.boundsIn(flat, film) == pytest.approx([0, 1, 5, 9, 7, 12], abs=1e-5)
    assert np.diff(box_nodes.boundsIn(thin, film))[::2] == pytest.approx([1, 4.5, 1], abs=1e-4)
    assert region.ofRoi(flat, film) == [0, 1, 5, 9, 7, 12]


def test_boxes_are_saved_in_one_file_and_come_back_also_in_slicer_itself(application, source, tmp_path):
    path = tmp_path / "case.mrk.json"
    turned = application.addRoi(source, NODULE)
    matrix = slicer.util.arrayFromVTKMatrix(turned.GetObjectToNodeMatrix()) @ makeGrid((0, 0, 0.4), (1, 1, 1), (0,) * 3)
    turned.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(matrix))
    box_nodes.describe(turned, "Mass", "A", 1)
    box_nodes.belongTo(turned, source)
    saved = [
        turned, addNodule(source), addNodule(source, [0, 2, 3, 9.5, 4, 8], 'Größe: "Mass"', "B; <r>", 0.25),
        addNodule(source, certainty=None, tracking="2.25.7"),
    ]  # fmt: skip
    assert saved[-1].GetName() == "Nodule"
    drawn, corners, nodes = allOf(source), region.cornersWorld(turned), application.nodeIds()
    box_nodes.saveBoxes(saved, path)
    assert application.nodeIds() == nodes
    assert list(tmp_path.iterdir()) == [path]
    for box in saved:
        box_nodes.removeBox(box)
    loaded = box_nodes.loadBoxes(path, source)
    assertSame(allOf(source), drawn)
    np.testing.assert_allclose(region.cornersWorld(loaded[0]), corners, atol=1e-3)
    assert all(node.GetStorageNode() is None for node in loaded)
    assert len(application.nodeIds()) == len(nodes)
    box_nodes.describe(loaded[-1], "Mass", "A", 0.5)
    assert loaded[-1].GetAttribute(box_nodes.TRACKING) == "2.25.7"
    application.clear()
    assert application.moduleLogics["Markups"].LoadMarkups(str(path), "case")
    opened = box_nodes.boxesOf(application.scene)
    assert [box_nodes.wordsOf(node) for node in opened] == [words for words, *_ in drawn]
    np.testing.assert_allclose(region.cornersWorld(opened[0]), corners, atol=1e-3)


def test_boxes_are_saved_with_the_scene(application, source, tmp_path):
    addNodule(source)
    drawn = allOf(source)
    application.newSubjectHierarchyItems()
    application.saveScene(tmp_path / "scene.mrb")
    application.clear()
    application.loadScene(tmp_path / "scene.mrb", close=False)
    assertSame(allOf(slicer.util.getNode("chest")), drawn)


def test_a_box_is_an_outline_that_covers_nothing_of_its_finding(red, source, keep):
    plain = red.picture()
    box = addNodule(source)
    picture = red.picture()
    keep(picture, "anomaly_box")
    changed = difference(plain, picture) > 20
    rows, columns = np.nonzero(changed)
    x, y = np.array([red.pixel(corner) for corner in region.cornersWorld(box)]).T
    assert (rows.min(), rows.max()) == pytest.approx((y.min(), y.max()), abs=3)
    assert (columns.min(), columns.max()) == pytest.approx((x.min(), x.max()), abs=3)
    assert not changed[rows.min() + 5 : rows.max() - 5, columns.min() + 5 : columns.max() - 5].any()
    display.showHandles(box, True)
    assert difference(picture, red.picture()).max() > 100


@pytest.mark.parametrize(("change", "message"), [
    ({"finding": " "}, "The finding is ' ', expected words"),
    ({"reader": None}, "The reader is None, expected words"),
    ({"certainty": 80}, "The certainty is 80, expected a number from 0 to 1"),
    ({"certainty": float("nan")}, "The certainty is nan, expected a number"),
])  # fmt: skip
def test_what_is_no_box_is_refused_and_nothing_is_added(application, source, change, message):
    before = application.nodeIds()
    with pytest.raises(InputError, match=message):
        addNodule(source, **change)
    assert application.nodeIds() == before


@pytest.mark.parametrize(("wrong", "message"), [
    (Box("x", 1, 2, 3, 4, reader="y"), "Box 2 is on slice None, expected one of the 5 of the volume, from 0"),
    (Box("x", 1, 2, 3, 4, 5, "y"), "Box 2 is on slice 5, expected one of the 5"),
    (Box("x", 1, 2, 3, 4, 4, "y", certainty=7), "The certainty is 7"),
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


@pytest.mark.parametrize(("name", "count", "message"), [
    ("case.json", 1, "'case.json' does not end in .mrk.json"),
    ("case.mrk.json", 0, "There are no boxes to save"),
    ("nowhere/case.mrk.json", 1, "cannot be written"),
])  # fmt: skip
def test_saving_tells_what_is_wrong(source, tmp_path, name, count, message):
    with pytest.raises(InputError, match=message):
        box_nodes.saveBoxes([addNodule(source)][:count], tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def writeRegion(application, path):
    """Save a region box that nobody has called a finding, as Slicer does."""
    roi = application.addRoi()
    roi.SetSize(5, 5, 5)
    roi.AddControlPoint(0, 0, 0)
    storage = roi.CreateDefaultStorageNode()
    storage.SetFileName(str(path))
    assert storage.WriteData(roi)


@pytest.mark.parametrize(("content", "message"), [
    (None, "cannot be read: No such file"),
    ("no json", "'case.mrk.json' is no markups file of Slicer"),
    ("[]", "is no markups file of Slicer"),
    ('{"markups": [{"type": "Line"}]}', r"holds no region box \(it holds Line\)"),
    ('{"markups": []}', r"holds no region box \(it holds nothing\)"),
    (writeRegion, "'case.mrk.json' holds 1 region boxes without finding, reader and certainty"),
])  # fmt: skip
def test_loading_tells_what_is_wrong(application, source, tmp_path, content, message):
    path = tmp_path / "case.mrk.json"
    if callable(content):
        content(application, path)
    elif content is not None:
        path.write_text(content)
    before = application.nodeIds()
    with pytest.raises(InputError, match=message):
        box_nodes.loadBoxes(path, source)
    assert application.nodeIds() == before
