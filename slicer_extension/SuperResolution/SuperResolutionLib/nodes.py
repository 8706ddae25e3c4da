"""The place of nodes in the subject hierarchy, and their removal, which can be undone."""

from __future__ import annotations

import slicer
import vtk


def putBelow(parentNode, node) -> None:
    """Put a node below another one in the subject hierarchy. Slicer may have made its item already."""
    hierarchy = _hierarchyOf(node.GetScene())
    _putUnder(hierarchy, hierarchy.GetItemByDataNode(parentNode), node)


def putBeside(siblingNode, node) -> None:
    """Put a node beside another one in the subject hierarchy: under the same study, if there is one."""
    hierarchy = _hierarchyOf(node.GetScene())
    sibling = hierarchy.GetItemByDataNode(siblingNode)
    _putUnder(hierarchy, hierarchy.GetItemParent(sibling) if sibling else hierarchy.GetSceneItemID(), node)


class Removal:
    """Nodes that are removed from a scene together; `undo` brings them back."""

    def __init__(self, scene):
        self.scene, self._removed = scene, []

    def remove(self, node) -> None:
        """Remove a node with its display nodes (a legend is one of them), storage nodes and item."""
        hierarchy = _hierarchyOf(self.scene)
        item = hierarchy.GetItemByDataNode(node)
        parent = hierarchy.GetItemParent(item) if item else None
        belonging = [node.GetNthStorageNode(n) for n in range(node.GetNumberOfStorageNodes())]
        if node.IsA("vtkMRMLDisplayableNode"):
            belonging += [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())]
        belonging = [other for other in belonging if other is not None]
        nodesWithReferences = [(each, each.GetID(), _referencesOf(each)) for each in (*belonging, node)]
        if item:
            hierarchy.RemoveItem(item, False, False)
        for each in (node, *belonging):
            if self.scene.IsNodePresent(each):
                self.scene.RemoveNode(each)
        self._removed.append((nodesWithReferences, node, parent, hierarchy.GetItemDataNode(parent) if item else None))

    def undo(self) -> None:
        """Put the nodes back into their scene, with their references to each other and to others, and their items."""
        newIds = {}
        for nodesWithReferences, *_ in reversed(self._removed):
            for node, identity, _ in nodesWithReferences:
                self.scene.AddNode(node)
                newIds[identity] = node.GetID()  # another one, if a new node has taken the old one
        hierarchy = _hierarchyOf(self.scene)
        for nodesWithReferences, main, parent, parentNode in reversed(self._removed):
            for node, _, references in nodesWithReferences:
                for role, identities in references:
                    for n, identity in enumerate(identities):
                        identity = newIds.get(identity, identity)
                        if node.GetNthNodeReferenceID(role, n) != identity:
                            node.SetNthNodeReferenceID(role, n, identity)
            if parent is not None:
                if parentNode is not None:  # whose item may have another number now
                    parent = hierarchy.GetItemByDataNode(parentNode)
                everyItem = vtk.vtkIdList()
                hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), everyItem, True)
                isThere = everyItem.IsId(parent) >= 0
                _putUnder(hierarchy, parent if isThere else hierarchy.GetSceneItemID(), main)
        self._removed = []


def _referencesOf(node) -> list:
    roles = [node.GetNthNodeReferenceRole(n) for n in range(node.GetNumberOfNodeReferenceRoles())]
    return [
        (role, [node.GetNthNodeReferenceID(role, n) for n in range(node.GetNumberOfNodeReferences(role))])
        for role in roles
    ]


def _hierarchyOf(scene):
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)


def _putUnder(hierarchy, parent, node) -> None:
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent)
    else:
        hierarchy.CreateItem(parent, node)
