"""Results in the scene: in place, linked, told apart, saved, found again, and away again."""

import json

import numpy as np
import phantom_volumes
import pytest
import slicer
from grids import GRIDS, makeGrid
from SuperResolutionLib import display, result_nodes
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.volumes import ijkToRasOf, outerCorners, toWorldOf, transformPoints


def worldCorners(volume, extent):
    return transformPoints(toWorldOf(volume), outerCorners(ijkToRasOf(volume), extent))


@pytest.mark.parametrize("grid", GRIDS)
def test_a_result_covers_its_region_in_the_world(application, grid):
    source = application.addVolume(phantom_volumes.COARSE, grid)
    application.move(source, makeGrid((0.3, 0.2, -0.7), (1.1, 1, 0.9), (10, 20, 30)))
    result = phantom_volumes.addResult(source)
    assert result.GetParentTransformNode() is source.GetParentTransformNode()
    error = worldCorners(result, [0, 3, 0, 64, 0, 96]) - worldCorners(source, phantom_volumes.EXTENT)
    print(f"corners off by at most {np.abs(error).max():.1e} mm")
    assert np.abs(error).max() < 1e-6
    bars = result_nodes.errorBarsOf(result)
    np.testing.assert_array_equal(ijkToRasOf(bars), ijkToRasOf(result))
    assert bars.GetParentTransformNode() is source.GetParentTransformNode()


def test_a_result_says_what_it_is_and_where_it_came_from(source, result):
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(result), phantom_volumes.RESULT)
    assert result.GetName() == "chest x4, chest_ct_edsr_x4, 24x16 at 8 8, slices 2 to 4, texture 0.5 seed 7"
    attributes = {name: result.GetAttribute(f"SuperResolution.{name}") for name in
            ("Model", "Version", "Scale", "BundleSHA", "Texture", "Seed", "Synthetic")}  # fmt: skip
    assert attributes == {
        "Model": "chest_ct_edsr_x4", "Version": "0.1.0", "Scale": "1 4 4", "BundleSHA": "ab" * 32, "Texture": "0.5",
        "Seed": "7", "Synthetic": "0",
    }  # fmt: skip
    assert result_nodes.sourceOf(result) is source
    assert result_nodes.extentOf(result) == phantom_volumes.EXTENT
    report = result_nodes.reportOf(result)
    assert report["consistency"] == phantom_volumes.DONE["consistency"]
    assert "/tmp/private" not in json.dumps(report)


def test_a_repeated_run_takes_the_place_of_the_first_one_and_another_one_stands_beside_it(source, result):
    difference = result_nodes.addDifference(result)
    phantom_volumes.fillAll()
    half = (phantom_volumes.RESULT // 2).copy()
    repeated = result_nodes.addResult(
        source, half, phantom_volumes.EXTENT, phantom_volumes.DONE, phantom_volumes.BARS, texture=0.5, seed=7
    )
    assert repeated is result
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(result), half)
    assert difference.GetScene() is None  # it was that of the former voxels
    assert result_nodes.resultsOf(source) == [result]
    done = {**phantom_volumes.DONE, "sha256": "cd" * 32}
    others = [
        phantom_volumes.addResult(source, texture=0.5, seed=8),
        phantom_volumes.addResult(source, texture=0.7, seed=7),
        result_nodes.addResult(source, phantom_volumes.RESULT, phantom_volumes.EXTENT, done),
    ]
    assert result_nodes.resultsOf(source) == [result, *others]


def test_a_result_is_shown_as_its_source_is_and_never_automatically_and_leaves_the_source_as_it_is(source):
    units = slicer.vtkCodedEntry()
    units.SetValueSchemeMeaning("[hnsf'U]", "UCUM", "Hounsfield unit")
    source.SetVoxelValueUnits(units)
    displayNode = source.GetDisplayNode()
    displayNode.SetInterpolate(0)
    displayNode.SetAutoWindowLevel(1)
    before = (source.GetMTime(), source.GetImageData().GetMTime(), displayNode.GetMTime())
    result = phantom_volumes.addResult(source)
    display = result.GetDisplayNode()
    assert (source.GetMTime(), source.GetImageData().GetMTime(), displayNode.GetMTime()) == before
    assert (display.GetWindow(), display.GetLevel()) == (displayNode.GetWindow(), displayNode.GetLevel())
    assert not display.GetAutoWindowLevel()
    assert not display.GetInterpolate()
    assert display.GetColorNode() is displayNode.GetColorNode()
    assert result.GetVoxelValueUnits().GetCodeValue() == "[hnsf'U]"


def test_a_result_lies_under_the_study_of_its_source_and_its_error_bars_below_it(application, source):
    hierarchy = application.subjectHierarchy
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(source), study)
    result = phantom_volumes.addResult(source)
    item = hierarchy.GetItemByDataNode(result)
    assert hierarchy.GetItemParent(item) == study
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(result_nodes.errorBarsOf(result))) == item


def test_a_result_is_removed_without_a_trace_and_undo_brings_it_back_with_all_that_belongs_to_it(application, source):
    hierarchy, view = application.subjectHierarchy, application.scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    before = application.nodeIds(), hierarchy.GetNumberOfItems()
    first, second = phantom_volumes.addResult(source), phantom_volumes.addResult(source, seed=1)
    for result in (first, second):
        difference = result_nodes.addDifference(result)
        result.AddDefaultStorageNode()
    state = first.GetName(), result_nodes.reportOf(first), first.GetDisplayNode().GetWindow()
    bars, otherBars = result_nodes.errorBarsOf(first), result_nodes.errorBarsOf(second)
    assert bars.GetDisplayNode().GetColorNode() is otherBars.GetDisplayNode().GetColorNode()
    view.SetBackgroundVolumeID(second.GetID())
    view.SetForegroundVolumeID(otherBars.GetID())
    view.SetLabelVolumeID(difference.GetID())

    removal = result_nodes.remove(first)
    assert result_nodes.resultsOf(source) == [second]
    another = phantom_volumes.addResult(source, seed=3)  # it may take the place that the first one has left
    removal.undo()

    assert set(result_nodes.resultsOf(source)) == {first, second, another}
    assert (first.GetName(), result_nodes.reportOf(first), first.GetDisplayNode().GetWindow()) == state
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(first), phantom_volumes.RESULT)
    assert result_nodes.sourceOf(first) is source
    assert result_nodes.errorBarsOf(first) is bars
    assert bars.GetDisplayNode().GetColorNode().GetAttribute(display.COLORS) == "ErrorBars"
    assert result_nodes.errorBarsOf(another) not in (bars, None)
    item, itemOfSource, itemOfBars = map(hierarchy.GetItemByDataNode, (first, source, bars))
    assert hierarchy.GetItemParent(item) == hierarchy.GetItemParent(itemOfSource)
    assert hierarchy.GetItemParent(itemOfBars) == item
    result_nodes.remove(first).undo()
    assert result_nodes.errorBarsOf(first) is bars

    for result in (first, another, second):
        assert result_nodes.errorBarsOf(second).GetDisplayNode().GetColorNode() is not None
        result_nodes.remove(result)
    assert view.GetBackgroundVolumeID() == source.GetID()
    assert (view.GetForegroundVolumeID(), view.GetLabelVolumeID()) == (None, None)
    assert (application.nodeIds(), hierarchy.GetNumberOfItems()) == before


def test_the_difference_is_what_interpolation_has_not_and_needs_the_source(application, source, result):
    difference = slicer.util.arrayFromVolume(result_nodes.addDifference(result))
    phantom_volumes.fillAll()
    assert difference.dtype == np.float32
    interpolated = phantom_volumes.interpolateSource(result)
    np.testing.assert_allclose(interpolated + difference, phantom_volumes.RESULT, atol=1e-3)
    smooth = phantom_volumes.BARS == 5
    assert np.abs(difference[smooth]).mean() < np.abs(difference[~smooth]).mean() / 2
    application.scene.RemoveNode(source)
    with pytest.raises(InputError, match="The source of 'chest x4, .*' is no longer in the scene"):
        result_nodes.addDifference(result)


def test_arrays_that_do_not_fit_are_refused_and_nothing_is_added(application, source):
    before = application.nodeIds()
    for arrays in ((phantom_volumes.FINE, None), (phantom_volumes.RESULT, phantom_volumes.FINE)):
        with pytest.raises(ValueError, match=r"shape \(5, 128, 160\), expected \(3, 64, 96\): region .* times \[1, 4"):
            result_nodes.addResult(source, arrays[0], phantom_volumes.EXTENT, phantom_volumes.DONE, arrays[1])
    assert application.nodeIds() == before


def valuesAt(volume, world):
    """Voxels at places in the world, of which each is the centre of one."""
    toIndex = np.linalg.inv(toWorldOf(volume) @ ijkToRasOf(volume))
    index = transformPoints(toIndex, world)
    np.testing.assert_allclose(index, index.round(), atol=1e-5)
    i, j, k = index.round().astype(int).T
    return slicer.util.arrayFromVolume(volume)[k, j, i]


@pytest.mark.parametrize("grid", GRIDS)  # Slicer loads the slices of a left-handed one in the opposite order
def test_a_saved_scene_brings_everything_back(application, grid, tmp_path):
    source = application.addVolume(phantom_volumes.COARSE, grid)
    application.move(source, makeGrid((0.3, 0.2, -0.7), (1, 1, 1), (10, 20, 30)))
    source.GetDisplayNode().SetAutoWindowLevel(0)
    source.GetDisplayNode().SetWindowLevel(1400, -400)
    result = phantom_volumes.addResult(source)
    result_nodes.addDifference(result)
    phantom_volumes.fillAll()
    report = result_nodes.reportOf(result)
    k, r, c = np.mgrid[0:3, 0:64:7, 0:96:5].reshape(3, -1)
    positions = transformPoints(toWorldOf(result) @ ijkToRasOf(result), np.stack([c, r, k], axis=1))
    before = [valuesAt(node, positions) for node in [result, *result_nodes.derivedNodes(result)]]
    barsDisplay = result_nodes.errorBarsOf(result).GetDisplayNode()
    window = (barsDisplay.GetWindowLevelMax(), barsDisplay.GetLowerThreshold())
    color = barsDisplay.GetColorNode().GetLookupTable().GetTableValue(200)
    application.saveScene(tmp_path / "scene.mrb")
    application.clear()

    application.loadScene(tmp_path / "scene.mrb", close=False)

    source = slicer.util.getNode("chest")
    [result] = result_nodes.resultsOf(source)
    for node, values in zip([result, *result_nodes.derivedNodes(result)], before):
        np.testing.assert_array_equal(valuesAt(node, positions), values)
    assert result_nodes.reportOf(result) == report
    np.testing.assert_allclose(worldCorners(result, [0, 3, 0, 64, 0, 96]).mean(axis=0),
                               worldCorners(source, result_nodes.extentOf(result)).mean(axis=0), atol=1e-6)  # fmt: skip
    assert (result.GetDisplayNode().GetWindow(), result.GetDisplayNode().GetLevel()) == (1400, -400)
    bars = result_nodes.errorBarsOf(result)
    barsDisplay = bars.GetDisplayNode()
    # MRML keeps six digits.
    assert (barsDisplay.GetWindowLevelMax(), barsDisplay.GetLowerThreshold()) == pytest.approx(window, rel=1e-5)
    assert barsDisplay.GetColorNode().GetLookupTable().GetTableValue(200) == pytest.approx(color, abs=0.01)
    assert len(result_nodes.derivedNodes(result)) == 2
    hierarchy = application.subjectHierarchy
    parents = [hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) for node in (result, source)]
    assert parents[0] == parents[1]


def test_a_scene_loaded_twice_keeps_each_result_with_its_own_source(application, source, tmp_path):
    phantom_volumes.addResult(source)
    application.saveScene(tmp_path / "scene.mrb")
    application.loadScene(tmp_path / "scene.mrb", close=False)
    sources = [node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if result_nodes.resultsOf(node)]
    assert len(sources) == 2
    for node in sources:
        [result] = result_nodes.resultsOf(node)
        assert result_nodes.errorBarsOf(result) is not None
    result_nodes.remove(result_nodes.resultsOf(sources[1])[0])
    assert len(result_nodes.resultsOf(sources[0])) == 1
    assert result_nodes.errorBarsOf(result_nodes.resultsOf(sources[0])[0]).GetDisplayNode().GetColorNode() is not None


def test_a_result_is_not_copied_because_the_interface_would_stand_still(source):
    array = np.ascontiguousarray(phantom_volumes.RESULT).copy()
    bars = phantom_volumes.errorBars(array).copy()
    node = result_nodes.addResult(source, array, phantom_volumes.EXTENT, phantom_volumes.DONE, errorBars=bars)
    assert np.shares_memory(slicer.util.arrayFromVolume(node), array)
    assert np.shares_memory(slicer.util.arrayFromVolume(result_nodes.errorBarsOf(node)), bars)
