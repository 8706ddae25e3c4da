"""A stand-in for Slicer's application, without Qt: the scene and the logics of the slicer-core wheel are real."""

import tempfile
from pathlib import Path

import numpy as np
import slicer
import vtk
from SuperResolutionLib import region


class Application:
    """A scene with the logics that Slicer's core modules register for it."""

    def __init__(self):
        self.scene = slicer.vtkMRMLScene()
        slicer.mrmlScene = self.scene
        # Without a cache ReadFromMRB answers False.
        self.cacheFolder = tempfile.TemporaryDirectory()
        cache, dataIO = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
        cache.SetRemoteCacheDirectory(self.cacheFolder.name)
        dataIO.SetCacheManager(cache)
        self.scene.SetCacheManager(cache)
        self.scene.SetDataIOManager(dataIO)
        self.logic = slicer.vtkSlicerApplicationLogic()
        self.logic.SetSliceLogics(vtk.vtkCollection())
        self.logic.SetViewLogics(vtk.vtkCollection())
        self.moduleLogics = {  # the application logic refers to them weakly
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
        self.scene.AddNewNodeByClass("vtkMRMLCrosshairNode")
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)

    def addVolume(self, array, ijkToRas=None, name="chest", className="vtkMRMLScalarVolumeNode", modality=""):
        """A volume as Slicer's readers leave it: with display node and item in the subject hierarchy."""
        volume = slicer.util.addVolumeFromArray(np.ascontiguousarray(array), ijkToRas, name, className)
        self.setModality(volume, modality)
        return volume

    def loadVolume(self, path, modality, name=None, files=None):
        """Load a volume of one file or several, as Slicer's readers leave it, with a DICOM modality."""
        options = 8 if files else 4 | 8  # window by the voxels; one file alone
        logic = self.moduleLogics["Volumes"]
        volume = logic.AddArchetypeVolume(str(path), name or Path(path).stem, options, files)
        self.setModality(volume, modality)
        return volume

    def setModality(self, volume, modality):
        """Set the DICOM modality of a volume, as Slicer's DICOM module does, on an item that Slicer's plugins add."""
        attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
        hierarchy = self.subjectHierarchy
        item = hierarchy.GetItemByDataNode(volume) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), volume)
        if modality:
            hierarchy.SetItemAttribute(item, attribute, modality)

    def addRoi(self, volume=None, extent=None):
        """A region box; on an extent of a volume, or not drawn yet."""
        roi = self.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
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

    def saveScene(self, path):
        """Save as MRB, as Slicer does: each node that can be stored has a storage node before."""
        for node in slicer.util.getNodesByClass("vtkMRMLStorableNode"):
            if node.GetSaveWithScene() and node.GetStorageNode() is None:
                node.AddDefaultStorageNode()
        assert self.scene.WriteToMRB(str(path), None), f"{path} was not written"

    def loadScene(self, path, close=True):
        """Load an MRB, after closing the scene or into it."""
        if close:
            self.scene.Clear(False)
        assert self.scene.ReadFromMRB(str(path), False), f"{path} was not read"

    def nodeIds(self):
        """The ID of every node in the scene, sorted."""
        return sorted(self.scene.GetNthNode(n).GetID() for n in range(self.scene.GetNumberOfNodes()))
