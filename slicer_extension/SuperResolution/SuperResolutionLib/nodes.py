"""Nodes and what belongs to them: their place in the subject hierarchy, and their removal without a trace."""

from __future__ import annotations

import slicer


def putBelow(parentNode, node) -> None:
    """Give a node its place in the subject hierarchy, below another one; Slicer may have made an item already."""
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
    """Take a node out of its scene with its display nodes (a legend is one of them), storage nodes and item."""
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
