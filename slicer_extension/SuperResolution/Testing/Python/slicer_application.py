"""A stand-in for Slicer's application, for tests on the slicer-core wheel, without Qt.

`slicer-core` holds Slicer's C++ classes: the scene, the module logics and the displayable managers of slice views
are the real ones. Missing is what Qt plugins do: `newSubjectHierarchyItems` stands in for one of them.
"""

import tempfile
from pathlib import Path

import numpy as np
import slicer
import vtk


class Application:
    """A scene with the logics that Slicer's core modules register for it."""

    def __init__(self):
        self.cacheFolder = tempfile.TemporaryDirectory()
        self.scene = slicer.vtkMRMLScene()
        slicer.mrmlScene = self.scene
        self._readAndWriteFiles()
        self.logic = slicer.vtkSlicerApplicationLogic()
        self.logic.SetSliceLogics(vtk.vtkCollection())
        self.logic.SetViewLogics(vtk.vtkCollection())
        # The application logic refers to them weakly, so that somebody has to keep them.
        self.moduleLogics = {
            "Colors": slicer.vtkSlicerColorLogic(),
            "SubjectHierarchy": slicer.vtkSlicerSubjectHierarchyModuleLogic(),
            "Markups": slicer.vtkSlicerMarkupsLogic(),
            "Volumes": slicer.vtkSlicerVolumesLogic(),
            "Sequences": slicer.vtkSlicerSequencesLogic(),
        }
        for name, moduleLogic in self.moduleLogics.items():
            moduleLogic.SetMRMLApplicationLogic(self.logic)
            moduleLogic.SetMRMLScene(self.scene)
            self.logic.SetModuleLogic(name, moduleLogic)
        slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance().SetMRMLApplicationLogic(self.logic)
        self.clear()

    @property
    def crosshair(self):
        return slicer.util.getNodesByClass("vtkMRMLCrosshairNode", self.scene)[0]

    @property
    def subjectHierarchy(self):
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)

    def clear(self):
        """An empty scene, as after Slicer's File, Close scene; views too are gone."""
        self.logic.SetMRMLScene(None)
        self.scene.Clear(True)
        self.logic.SetMRMLScene(self.scene)  # brings the nodes of selection and interaction
        self.moduleLogics["Colors"].AddDefaultColorNodes()
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        self.scene.AddNode(crosshair)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)

    def _readAndWriteFiles(self):
        # Without them ReadFromMRB answers False.
        self.cache = slicer.vtkCacheManager()
        self.cache.SetRemoteCacheDirectory(self.cacheFolder.name)
        self.dataIO = slicer.vtkDataIOManager()
        self.dataIO.SetCacheManager(self.cache)
        self.scene.SetCacheManager(self.cache)
        self.scene.SetDataIOManager(self.dataIO)

    def close(self):
        self.scene.Clear(True)
        slicer.mrmlScene = None
        self.cacheFolder.cleanup()

    def addVolume(self, array, ijkToRas=None, name="chest", className="vtkMRMLScalarVolumeNode", modality=""):
        """A volume as Slicer's readers leave it: with display node, and with an item in the subject hierarchy."""
        volume = slicer.util.addVolumeFromArray(np.ascontiguousarray(array), ijkToRas, name, className)
        self.newSubjectHierarchyItems()
        if modality:
            self.setModality(volume, modality)
        return volume

    def loadVolume(self, path, modality, name=None, files=None):
        """Load a volume of one file or several, as Slicer's readers leave it, with a DICOM modality."""
        options = 8 if files else 4 | 8  # window by the voxels; one file alone
        logic = self.moduleLogics["Volumes"]
        volume = logic.AddArchetypeVolume(str(path), name or Path(path).stem, options, files)
        self.newSubjectHierarchyItems()
        self.setModality(volume, modality)
        return volume

    def setModality(self, volume, modality):
        """Set the DICOM modality of a volume, as Slicer's DICOM module does."""
        attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
        item = self.subjectHierarchy.GetItemByDataNode(volume)
        self.subjectHierarchy.SetItemAttribute(item, attribute, modality)

    def addRoi(self, volume=None, extent=None, name="R"):
        """A region box; on an extent of a volume, or not drawn yet."""
        from SuperResolutionLib import region

        roi = self.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", name)
        if extent is not None:
            region.placeBox(roi, volume, extent)
        return roi

    def move(self, node, *matrices):
        """Put a node below transforms, the innermost matrix first."""
        for matrix in matrices:
            transform = self.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "T")
            transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
            node.SetAndObserveTransformNodeID(transform.GetID())
            node = transform

    def bend(self, node):
        """Put a node below a transform under which straight lines need not stay straight."""
        transform = self.scene.AddNewNodeByClass("vtkMRMLTransformNode", "Bend")
        transform.SetAndObserveTransformToParent(vtk.vtkThinPlateSplineTransform())
        node.SetAndObserveTransformNodeID(transform.GetID())

    def newSubjectHierarchyItems(self):
        """Add an item for a new node, as Slicer's subject hierarchy plugins do."""
        for node in slicer.util.getNodesByClass("vtkMRMLDisplayableNode"):
            if not node.GetHideFromEditors() and self.subjectHierarchy.GetItemByDataNode(node) == 0:
                self.subjectHierarchy.CreateItem(self.subjectHierarchy.GetSceneItemID(), node)

    def saveScene(self, path):
        """Save as MRB: as Slicer does, each node that can be stored has a storage node before."""
        for node in slicer.util.getNodesByClass("vtkMRMLStorableNode"):
            if node.GetSaveWithScene() and node.GetStorageNode() is None:
                node.AddDefaultStorageNode()
        assert self.scene.WriteToMRB(str(path), None), f"{path} was not written"

    def loadScene(self, path, close=True):
        """Load an MRB, after closing the scene or into it."""
        assert Path(path).is_file(), path
        if close:
            self.scene.Clear(False)
        assert self.scene.ReadFromMRB(str(path), False), f"{path} was not read"

    def nodeIds(self):
        """The ID of every node in the scene, sorted."""
        return sorted(self.scene.GetNthNode(n).GetID() for n in range(self.scene.GetNumberOfNodes()))
