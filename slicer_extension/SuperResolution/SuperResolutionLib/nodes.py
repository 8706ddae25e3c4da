"""The place of nodes in the subject hierarchy, and their removal, which can be undone."""

from __future__ import annotations

import slicer


def putBelow(parentNode, node) -> None:
    """Put a node below another one in the subject hierarchy."""
    hierarchy = _hierarchyOf(node.GetScene())
    hierarchy.CreateItem(hierarchy.GetItemByDataNode(parentNode), node)  # or moves the item that there is


def putBeside(siblingNode, node) -> None:
    """Put a node beside another one in the subject hierarchy: under the same study, if there is one."""
    hierarchy = _hierarchyOf(node.GetScene())
    hierarchy.CreateItem(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(siblingNode)), node)


class Removal:
    """The removal of nodes from their scene, each before those it refers to; `undo` brings them back.

    With a node go its display nodes (a legend is one of them), its storage nodes and its item.
    """

    def __init__(self, *nodes):
        self._scene, self._removed = None, []
        for node in nodes:
            if node.GetScene() is None:
                continue
            self._scene = node.GetScene()
            belonging = [
                node.GetNthNodeReference(role, n)
                for role in ("display", "storage")
                for n in range(node.GetNumberOfNodeReferences(role))
            ]
            hierarchy = _hierarchyOf(self._scene)
            item = hierarchy.GetItemByDataNode(node)
            parent = hierarchy.GetItemParent(item) if item else None
            self._removed.append((node, belonging, parent, hierarchy.GetItemDataNode(parent) if item else None))
            if item:
                hierarchy.RemoveItem(item, False, False)
            for each in (node, *belonging):
                self._scene.RemoveNode(each)

    def undo(self) -> None:
        """Put the nodes back into their scene, with their references to each other and to others, and their items."""
        hierarchy, newIds = _hierarchyOf(self._scene), {}
        for node, belonging, parent, parentNode in reversed(self._removed):
            for each in (*belonging, node):
                oldId = each.GetID()
                newIds[oldId] = self._scene.AddNode(each).GetID()
            if parentNode is not None:  # whose item may have another number now
                parent = hierarchy.GetItemByDataNode(parentNode)
            if parent is not None:
                hierarchy.CreateItem(parent, node)
        for node, belonging, *_ in self._removed:
            for each in (*belonging, node):
                for oldId, newId in newIds.items():  # they differ if a scene that was loaded meanwhile has the old one
                    each.UpdateReferenceID(oldId, newId)


def _hierarchyOf(scene):
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
