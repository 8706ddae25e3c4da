"""The place of nodes in the subject hierarchy, and their removal with all that belongs to them."""

from __future__ import annotations

import slicer


def putBelow(parentNode, node) -> None:
    """Put a node below another one in the subject hierarchy. Slicer may have made its item already."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    parent = hierarchy.GetItemByDataNode(parentNode)
    if not parent:
        parent = hierarchy.CreateItem(hierarchy.GetSceneItemID(), parentNode)
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent)
    else:
        hierarchy.CreateItem(parent, node)


def remove(node) -> None:
    """Remove a node from its scene with its display nodes (a legend is one of them), storage nodes and item."""
    scene = node.GetScene()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(node)
    belonging = [node.GetNthStorageNode(n) for n in range(node.GetNumberOfStorageNodes())]
    if node.IsA("vtkMRMLDisplayableNode"):
        belonging += [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())]
    if item:
        hierarchy.RemoveItem(item, False, False)
    scene.RemoveNode(node)
    for other in belonging:
        if other is not None and scene.IsNodePresent(other):
            scene.RemoveNode(other)
