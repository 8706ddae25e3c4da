"""Lists of the anomaly boxes on a volume, to compare."""

import numpy as np
from SuperResolutionLib import box_nodes, nodes


def boxesOn(volume):
    """Return words, UID of the lesion and bounds of all boxes on a volume, sorted by their bounds."""
    boxes = [
        (box_nodes.wordsOf(node), box_nodes.toBoxes(node, volume)[0].tracking_uid, box_nodes.boundsIn(node, volume))
        for node in box_nodes.boxesOf(volume.GetScene(), volume)
    ]
    return sorted(boxes, key=lambda box: np.round(box[2], 1).tolist())


def assertSameBoxes(boxes, others, tolerance=2e-3):
    """Assert that boxes have the same words and lesions, and the same bounds but for a tolerance in voxels."""
    assert [box[:2] for box in boxes] == [box[:2] for box in others]
    np.testing.assert_allclose([box[2] for box in boxes], [box[2] for box in others], atol=tolerance)


def removeBoxes(volume):
    """Remove all boxes of a volume."""
    for node in box_nodes.boxesOf(volume.GetScene(), volume):
        nodes.Removal(node)
