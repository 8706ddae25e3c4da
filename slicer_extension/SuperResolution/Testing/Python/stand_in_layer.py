"""Stand-ins for Slicer's Python layer, of the same manners, for a clone that has none of Slicer's sources beside it.

`slicerpython.start` takes them only there, and test_slicers_python.py says so.
"""

import sys
import types
import unittest
from pathlib import Path
from typing import get_args, get_type_hints

import qt
import slicer
import vtk


def install():
    """Make the modules `slicer.ScriptedLoadableModule`, `slicer.parameterNodeWrapper` and `slicer.i18n`."""
    _install("ScriptedLoadableModule", ScriptedLoadableModule, ScriptedLoadableModuleWidget,
             ScriptedLoadableModuleLogic, ScriptedLoadableModuleTest)  # fmt: skip
    _install("parameterNodeWrapper", parameterNodeWrapper, WithinRange)
    _install("i18n", tr=lambda text: slicer.app.translate("", text), translate=lambda context, text: text)


def _install(name, *objects, **named):
    module = types.ModuleType(f"slicer.{name}")
    module.__dict__.update({item.__name__: item for item in objects}, **named)
    sys.modules[module.__name__] = module
    setattr(slicer, name, module)


class ScriptedLoadableModule:
    def __init__(self, parent):
        self.parent, self.moduleName = parent, type(self).__name__
        slicer.selfTests[self.moduleName] = self.runTest

    def runTest(self, msec=100, **options):
        getattr(sys.modules[self.__module__], f"{self.moduleName}Test")().runTest(**options)


class ScriptedLoadableModuleWidget:
    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent = parent or slicer.qMRMLWidget()
        if parent is None:
            self.parent.setLayout(qt.QVBoxLayout())
            self.parent.setMRMLScene(slicer.mrmlScene)
        self.layout = self.parent.layout()
        if parent is None:
            self.setup()
            self.parent.show()

    def resourcePath(self, name):
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / name)

    def setup(self):
        pass


class ScriptedLoadableModuleLogic:
    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self):
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
            node = slicer.mrmlScene.AddNode(node)
        node.SetAttribute("ModuleName", self.moduleName)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    def delayDisplay(self, message, requestedDelay=None, msec=None):
        pass


class WithinRange:
    """Annotation of a parameter: the bounds of its widget."""

    def __init__(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum


class _Parameter:
    """One typed entry of a vtkMRMLScriptedModuleNode, and the widgets it is shown by."""

    def __init__(self, name, annotated, default):
        self.name, notes = name, get_args(annotated)
        self.kind, self.limits = (notes[0], notes[1]) if notes else (annotated, None)
        self.isNode = issubclass(self.kind, slicer.vtkMRMLNode)
        self.default = default if default is not None or self.isNode else self.kind()

    def read(self, wrapper):
        node = wrapper.parameterNode
        if self.isNode:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        return text == "True" if self.kind is bool else self.kind(text)

    def write(self, wrapper, value):
        allowed = (int, float) if self.kind is float else self.kind
        isRight = (value is None and self.isNode) or isinstance(value, allowed)
        if not isRight or (self.limits and not self.limits.minimum <= value <= self.limits.maximum):
            raise ValueError(f"{self.name} is {value!r}, expected {self.kind.__name__} within its range")
        node = wrapper.parameterNode
        modified = node.StartModify()
        node.SetParameter(self.name, "" if self.isNode else str(value))
        if self.isNode:
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
        node.EndModify(modified)

    def bind(self, widget):
        """Return how a widget is read and written, and its signal."""
        if self.isNode:
            return widget.currentNode, widget.setCurrentNode, widget.currentNodeChanged
        if self.limits is not None:
            widget.minimum, widget.maximum = self.limits.minimum, self.limits.maximum
        name, signal = {bool: ("checked", "stateChanged"), str: ("text", "textChanged")}.get(
            self.kind, ("value", "valueChanged")
        )
        return lambda: getattr(widget, name), lambda value: setattr(widget, name, value), getattr(widget, signal)


class _Wrapper:
    def __init__(self, parameterNode):
        self.parameterNode, self._parameterGUIs, self._isWriting = parameterNode, {}, False
        for parameter in self.allParameters.values():
            if not parameterNode.HasParameter(parameter.name):
                parameter.write(self, parameter.default)

    def connectParametersToGui(self, mapping):
        bound = {}
        for name, widget in mapping.items():
            read, write, signal = self.allParameters[name].bind(widget)
            write(getattr(self, name))
            bound[name] = (write, signal, lambda *_, name=name, read=read: self._follow(name, read))
            signal.connect(bound[name][2])
        tag = len(self._parameterGUIs) + 1
        self._parameterGUIs[tag] = bound
        self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, self._show)
        return tag

    def disconnectGui(self, tag):
        for _, signal, follow in self._parameterGUIs.pop(tag).values():
            signal.disconnect(follow)

    def _follow(self, name, read):
        if not self._isWriting:
            setattr(self, name, read())

    def _show(self, caller, event):
        if self._isWriting:
            return
        self._isWriting = True
        for bound in self._parameterGUIs.values():
            for name, (write, _, _) in bound.items():
                write(getattr(self, name))
        self._isWriting = False


def parameterNodeWrapper(classType):
    """Class decorator: typed access to the entries of a parameter node."""
    hints = get_type_hints(classType, include_extras=True)
    parameters = {name: _Parameter(name, hint, getattr(classType, name, None)) for name, hint in hints.items()}
    body = {name: property(parameter.read, parameter.write) for name, parameter in parameters.items()}
    return type(classType.__name__, (_Wrapper,), {**body, "allParameters": parameters})
