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
    assert result_nodes.sourceOf(result) is source
    assert result_nodes.extentOf(result) == phantom_volumes.EXTENT
    report = result_nodes.reportOf(result)
    assert report["consistency"] == phantom_volumes.DONE["consistency"]
    assert "/tmp/private" not in json.dumps(report)


def test_a_repeated_run_takes_the_place_of_the_first_one_and_another_one_stands_beside_it(source, result):
    difference = result_nodes.addDifference(result)
    half = phantom_volumes.RESULT // 2
    options, otherModel = {"sampling": {"texture": 0.5}, "seed": 7}, {**phantom_volumes.DONE, "sha256": "cd" * 32}
    assert phantom_volumes.addResult(source, half, **options) is result
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(result), half)
    assert difference.GetScene() is None  # it was that of the former voxels
    assert len(result_nodes.derivedNodes(result)) == 1  # the new error bars
    others = [
        phantom_volumes.addResult(source, **{**options, "seed": 8}),
        phantom_volumes.addResult(source, **{**options, "sampling": {"texture": 0.7}}),
        result_nodes.addResult(source, half, phantom_volumes.EXTENT, otherModel),
        result_nodes.addResult(source, half, [0, 3, 8, 24, 8, 32], otherModel),
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
    resultDisplay = result.GetDisplayNode()
    assert (source.GetMTime(), source.GetImageData().GetMTime(), displayNode.GetMTime()) == before
    assert (resultDisplay.GetWindow(), resultDisplay.GetLevel()) == (displayNode.GetWindow(), displayNode.GetLevel())
    assert (resultDisplay.GetAutoWindowLevel(), resultDisplay.GetInterpolate()) == (0, 0)
    assert resultDisplay.GetColorNode() is displayNode.GetColorNode()
    assert result.GetVoxelValueUnits().GetCodeValue() == "[hnsf'U]"


def test_a_volume_of_a_script_without_a_display_node_is_shown_with_its_result(application, source):
    application.scene.RemoveNode(source.GetDisplayNode())
    displayNode, before = phantom_volumes.addResult(source).GetDisplayNode(), source.GetDisplayNode()
    assert (displayNode.GetWindow(), displayNode.GetLevel()) == (before.GetWindow(), before.GetLevel())


def test_a_result_is_in_place_only_on_the_grid_it_was_made_on(source, result):
    for spacing, isInPlace in ((2.7, False), (1.4, False), (0.56, False), (2.8, True)):
        source.SetSpacing(spacing, spacing, 5)
        assert result_nodes.isInPlace(result) == isInPlace
    result.SetAndObserveImageData(None)  # as of a saved scene whose file of it is gone
    assert not result_nodes.isInPlace(result)


def test_a_removed_result_comes_back_in_its_study_with_all_that_belongs_to_it(application, source):
    for kind in ("ErrorBars", "Difference"):
        display.colors(application.scene, kind)  # these stay in the scene
    hierarchy = application.subjectHierarchy
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(source), study)
    empty = application.nodeIds(), hierarchy.GetNumberOfItems()
    result = phantom_volumes.addResult(source)
    bars = result_nodes.errorBarsOf(result)
    result_nodes.addDifference(result)
    result.AddDefaultStorageNode()
    before = result.GetName(), result_nodes.reportOf(result), result.GetDisplayNode().GetWindow()

    removal = result_nodes.remove(result)
    assert (application.nodeIds(), hierarchy.GetNumberOfItems()) == empty
    removal.undo()

    assert (result.GetName(), result_nodes.reportOf(result), result.GetDisplayNode().GetWindow()) == before
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(result), phantom_volumes.RESULT)
    assert result_nodes.sourceOf(result) is source
    assert result_nodes.errorBarsOf(result) is bars
    item, itemOfBars = map(hierarchy.GetItemByDataNode, (result, bars))
    assert (hierarchy.GetItemParent(item), hierarchy.GetItemParent(itemOfBars)) == (study, item)
    result_nodes.remove(result)
    assert (application.nodeIds(), hierarchy.GetNumberOfItems()) == empty


def test_the_difference_is_what_interpolation_has_not_and_needs_the_source(application, source, result):
    result_nodes.addDifference(result)
    difference = slicer.util.arrayFromVolume(result_nodes.addDifference(result))
    assert len(result_nodes.derivedNodes(result, result_nodes.DIFFERENCE)) == 1  # one takes the place of the other
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
        with pytest.raises(ValueError, match=r"shape \(5, 128, 160\), expected \(3, 64, 96\): region .* enlarged"):
            result_nodes.addResult(source, arrays[0], phantom_volumes.EXTENT, phantom_volumes.DONE, arrays[1])
    assert application.nodeIds() == before


def valuesAt(volume, world):
    """Voxels at places in the world, of which each is the centre of one."""
    toIndex = np.linalg.inv(toWorldOf(volume) @ ijkToRasOf(volume))
    i, j, k = transformPoints(toIndex, world).round().astype(int).T
    return slicer.util.arrayFromVolume(volume)[k, j, i]


@pytest.mark.parametrize("grid", GRIDS)  # Slicer loads the slices of a left-handed one in the opposite order
def test_a_saved_scene_brings_everything_back_also_beside_what_was_saved(application, grid, tmp_path):
    source = application.addVolume(phantom_volumes.COARSE, grid)
    application.move(source, makeGrid((0.3, 0.2, -0.7), (1, 1, 1), (10, 20, 30)))
    result = phantom_volumes.addResult(source)
    result_nodes.addDifference(result)
    phantom_volumes.fillAll()
    report = result_nodes.reportOf(result)
    k, r, c = np.mgrid[0:3, 0:64:7, 0:96:5].reshape(3, -1)
    positions = transformPoints(toWorldOf(result) @ ijkToRasOf(result), np.stack([c, r, k], axis=1))
    before = [valuesAt(node, positions) for node in [result, *result_nodes.derivedNodes(result)]]
    application.saveScene(tmp_path / "scene.mrb")
    bars, removal = result_nodes.errorBarsOf(result), result_nodes.remove(result)

    application.loadScene(tmp_path / "scene.mrb", close=False)

    removal.undo()  # the nodes that were loaded have the IDs of those that were removed
    assert (result_nodes.resultsOf(source), result_nodes.errorBarsOf(result)) == ([result], bars)
    result_nodes.remove(result)
    [source] = [node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if result_nodes.resultsOf(node)]
    [result] = result_nodes.resultsOf(source)
    derived = result_nodes.derivedNodes(result)
    assert [node.GetAttribute(result_nodes.KIND) for node in derived] == ["ErrorBars", "Difference"]
    for node, values in zip([result, *derived], before):
        np.testing.assert_array_equal(valuesAt(node, positions), values)
    assert result_nodes.reportOf(result) == report
    np.testing.assert_allclose(worldCorners(result, [0, 3, 0, 64, 0, 96]).mean(axis=0),
                               worldCorners(source, result_nodes.extentOf(result)).mean(axis=0), atol=1e-6)  # fmt: skip
    for node in derived:
        assert node.GetDisplayNode().GetColorNode().GetAttribute(display.COLORS) == node.GetAttribute(result_nodes.KIND)
