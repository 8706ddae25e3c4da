"""A slice view as Slicer's window has it: slice logic, image mapper, displayable managers and interactor style, all of
them Slicer's C++ classes, rendered without a display (VTK's EGL window).
"""

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

MANAGERS = ("Crosshair", "Ruler", "Markups", "ColorLegend", "OrientationMarker", "ScalarBar")


class SliceView:
    """One slice view: `node`, `composite`, `logic`, and `picture()`."""

    def __init__(self, application, name, width=320, height=320, orientation="Axial"):
        self.application = application
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetSize(width, height)
        self.window.SetAlphaBitPlanes(1)
        renderer = vtk.vtkRenderer()
        renderer.GetActiveCamera().ParallelProjectionOn()
        self.window.AddRenderer(renderer)
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self.interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
        self.interactor.Initialize()

        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(application.logic)
        application.logic.GetSliceLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(application.scene)
        self.node = self.logic.AddSliceNode(name)
        self.node.SetMappedInLayout(1)
        self.node.SetOrientation(orientation)
        self.composite = self.logic.GetSliceCompositeNode()

        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        for manager in (f"vtkMRML{name}DisplayableManager" for name in MANAGERS):
            if not factory.IsDisplayableManagerRegistered(manager):
                factory.RegisterDisplayableManager(manager)
        self.managers = slicer.vtkMRMLDisplayableManagerGroup()
        self.managers.SetRenderer(renderer)
        self.managers.Initialize(factory, renderer)
        self.managers.SetMRMLDisplayableNode(self.node)
        self.style = slicer.vtkMRMLSliceViewInteractorStyle()
        self.style.SetSliceLogic(self.logic)
        self.style.SetDisplayableManagers(self.managers)
        self.style.SetInteractor(self.interactor)

        self.mapper = vtk.vtkImageMapper()
        self.mapper.SetColorWindow(255)
        self.mapper.SetColorLevel(127.5)
        self.image = vtk.vtkActor2D()
        self.image.SetMapper(self.mapper)
        self.image.GetProperty().SetDisplayLocationToBackground()
        renderer.AddActor2D(self.image)
        self.logic.ResizeSliceNode(width, height)

    def show(self, volume):
        """Show one volume, fitted to the view, its slices parallel to the volume's."""
        self.composite.SetBackgroundVolumeID(volume.GetID())
        self.logic.RotateSliceToLowestVolumeAxes(False)
        self.logic.FitSliceToBackground()
        self.logic.SnapSliceOffsetToIJK()

    def picture(self):
        """Render. Returns ``[height, width, 3]`` uint8, first row at the top."""
        self.logic.UpdatePipeline()
        connection = self.logic.GetImageDataConnection()
        self.image.SetVisibility(connection is not None)
        self.mapper.SetInputConnection(connection)
        self.interactor.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        grab.ShouldRerenderOff()
        grab.Update()
        width, height = self.window.GetSize()
        pixels = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars())
        return np.array(pixels.reshape(height, width, -1)[::-1, :, :3])

    def ras(self, x, y):
        """World position of a pixel; here and below `y` is counted from the bottom, as VTK does."""
        return np.array(self.node.GetXYToRAS().MultiplyPoint([x, y, 0, 1]))[:3]

    def pixel(self, ras):
        """Column and row (from the top) of a world position in `picture()`."""
        x, y = np.linalg.solve(slicer.util.arrayFromVTKMatrix(self.node.GetXYToRAS()), [*ras, 1])[:2]
        return x, self.window.GetSize()[1] - 1 - y

    def colorAt(self, picture, ras):
        """Red, green and blue of a picture at a world position."""
        column, row = self.pixel(ras)
        return picture[round(row), round(column)].astype(int)

    def wheel(self):
        """Turn the mouse wheel over the view."""
        self._send("EnterEvent", 100, 100)
        self._send("MouseWheelForwardEvent", 100, 100)

    def moveMouse(self, x, y):
        """Move the mouse over the view."""
        self._send("EnterEvent", x, y)
        self._send("MouseMoveEvent", x, y)

    def drag(self, start, end, between=None):
        """Press the left button, move the mouse in steps, and let go; `between` is called before that."""
        self.moveMouse(*start)
        self._send("LeftButtonPressEvent", *start)
        for step in range(1, 6):
            self._send("MouseMoveEvent", *(round(a + (b - a) * step / 5) for a, b in zip(start, end)))
        if between:
            between()
        self._send("LeftButtonReleaseEvent", *end)

    def xy(self, ras):
        """Whole pixel of the screen at a world position."""
        column, row = self.pixel(ras)
        return round(column), self.window.GetSize()[1] - 1 - round(row)

    def _send(self, event, x, y):
        self.interactor.SetEventInformation(x, y, 0, 0, chr(0), 0, None)
        self.interactor.InvokeEvent(event)

    def close(self):
        self.managers.SetMRMLDisplayableNode(None)
        self.application.logic.GetSliceLogics().RemoveItem(self.logic)
        self.style.SetInteractor(None)
        self.window.Finalize()


def difference(picture, other):
    """By how much two pictures differ, pixel by pixel, in the colour where they differ most."""
    return np.abs(picture.astype(int) - other).max(axis=2)
