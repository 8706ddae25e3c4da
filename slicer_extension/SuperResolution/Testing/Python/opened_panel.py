"""An open panel for tests: real widgets, the real scene, a real worker process."""

from PySide6 import QtTest
from pythonqt import qt
from waiting import waitFor


class Shared:
    """The worker of all tests, for one panel: what it closes stays open."""

    def __init__(self, worker):
        self._worker = worker

    def __getattr__(self, name):
        return getattr(self._worker, name)

    def close(self):
        self._worker.cancel()
        self._worker.poll()


class View(qt.QWidget):
    """A slice view in the panel's window, as far as it takes keys."""

    def __init__(self, parent):
        super().__init__(parent)
        self.keys = []
        self.resize(1, 1)
        self.show()

    def keyPressEvent(self, event):
        self.keys.append(qt.QKeySequence(event.key()).toString())


class Opened:
    """A panel on the screen of nobody, and how a user waits for it."""

    def __init__(self, module, worker):
        self.worker = Shared(worker)
        module.newClient = lambda: self.worker
        self.widget = module.SuperResolutionWidget()
        self.ui = self.widget.ui
        self.widget.parent.resize(480, 1000)
        self.view = View(self.widget.parent)
        self.widget.enter()

    @property
    def chosen(self):
        return self.widget._parameterNode

    def until(self, holds, what):
        waitFor(holds, qt.QApplication.processEvents, lambda: f"{what} (the panel: '{self.ui.messageLabel.text}')")

    def settle(self):
        """Until nothing is asked and all is shown."""
        widget, controller = self.widget, self.widget.logic.enhancer.controller
        self.until(
            lambda: not (widget._isChanged or controller.isBusy) and controller.panel() == widget._shownPanel,
            "the panel comes to rest",
        )

    def run(self):
        """Press Run and wait for the result."""
        before = self.chosen.result
        self.settle()
        assert self.ui.runButton.enabled, self.ui.messageLabel.text
        self.ui.runButton.click()
        self.until(lambda: self.chosen.result is not before, "a result")
        self.settle()
        return self.chosen.result

    def pressKey(self, name, focus=None):
        """Press a key while a widget has the focus, by default a slice view. Return True if that view got the key."""
        focus = focus or self.view
        qt.QWidget.activateWindow(self.widget.parent)
        focus.setFocus()
        self.view.keys.clear()
        QtTest.QTest.keyClick(focus, qt.QKeySequence(name)[0].key())
        return name in self.view.keys

    def close(self):
        self.widget.cleanup()
        for name in ("inputSelector", "regionSelector", "sliceSelector", "resultSelector"):
            getattr(self.ui, name).setMRMLScene(None)  # Qt would do it when it deletes them
