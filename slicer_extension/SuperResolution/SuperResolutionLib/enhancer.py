"""Send volumes of the scene to the worker and put results into the scene, for the panel and for scripts."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

from SuperResolutionLib import filling, headers, region, result_nodes, volumes
from SuperResolutionLib.controller import Choice, Controller, Enhancement, Subject
from SuperResolutionLib.errors import InputError, _

BOX, SLICE, WHOLE = "box", "slice", "whole"  # the kinds of region


def subjectOf(volumeNode, extent) -> Subject:
    """Describe a region of a volume that `volumes.check` accepts for the controller."""
    image = volumeNode.GetImageData()
    header = headers.headerOf(volumeNode)
    source = volumeNode.GetAttribute(volumes.SPACING_SOURCE) or header.spacingSource
    spacing = volumes.spacingZyx(volumeNode) if source != volumes.UNKNOWN else None
    return Subject(
        name=volumeNode.GetName(),
        volume=volumeNode,
        shape=tuple(volumes.shapeOf(volumeNode)),
        extent=tuple(extent),
        modality=volumes.modality(volumeNode),
        question=volumes.questionOf(volumeNode),
        spacingZyx=spacing,
        spacingSource=source if source != volumes.UNKNOWN else "",
        note=header.note if spacing or header.note else volumes.spacingAdvice(volumeNode),
        storedRange=_checkRange(header.storedRange, image),
        blackIsHigh=header.blackIsHigh,
        itemBytes=min(image.GetScalarSize(), 4),
        state=_stateOf(volumeNode),
        kernel=header.kernel,
    )


def _stateOf(volumeNode) -> tuple:
    """Return a key that changes when the voxels of a volume or their position change."""
    image = volumeNode.GetImageData()
    return volumeNode.GetID(), image and image.GetMTime(), volumes.ijkToRasOf(volumeNode).tobytes()


def _checkRange(storedRange, image):
    """Return the range if it holds the voxels, which Slicer may have rescaled; None if not, or for fractions."""
    if storedRange is None or image.GetScalarTypeAsString() in ("float", "double"):
        return None
    low, high = image.GetScalarRange()
    return storedRange if storedRange[0] <= low and high <= storedRange[1] else None


class Enhancer:
    """A link between a worker and the scene: it requests results and adds them to the scene of their source.

    Only `enhance` waits; otherwise the caller's timer calls `step`. `controller` chooses the next request.
    """

    def __init__(self, worker):
        self.controller = Controller()
        self._worker = worker

    def choose(self, volumeNode, kind: str, regionNode, choice: Choice) -> None:
        """Pass the user's current choice to the controller. Bad input becomes its message; the scene is not changed."""
        subject, problem = None, ""
        try:
            subject = subjectOf(volumeNode, region.whole(volumeNode))
            if kind != WHOLE:
                extent = (region.ofRoi if kind == BOX else region.ofSlice)(regionNode, volumeNode)
                subject = replace(subject, extent=tuple(extent))
            problem = subject.question
        except InputError as error:
            problem = str(error)
        self.controller.choose(subject, problem, choice)

    @property
    def isBusy(self) -> bool:
        """True while `step` has something to do, or something to wait for."""
        return self.controller.isBusy or self._worker.isEnding or filling.isBusy()

    def step(self) -> list:
        """Handle the worker's events, send the next request, and continue to fill volumes.

        Returns the result nodes that were added to the scene.
        """
        added = []
        for event in self._worker.poll():
            enhancement = self.controller.handleEvent(event)
            if enhancement is not None:
                added += self._addResult(enhancement, event)
        if (request := self.controller.nextRequest()) is not None:
            self._send(*request)
        if not added:
            filling.step()
        return added

    def run(self) -> None:
        """Request the enhancement that is planned, if the panel allows it."""
        if self.controller.panel().canRun:
            self.controller.retry()
            try:
                self._send("enhance", self.controller.enhancement)
            except InputError as error:  # the volume has changed since it was chosen
                self.controller.notify(str(error), isError=True)

    def cancel(self) -> None:
        """End the work at once. The next request starts a new worker."""
        self._worker.cancel()
        self.controller.setCanceled()

    def stop(self, message: str) -> None:
        """End the work and the worker, and start none until the controller's `retry`; the panel shows the message."""
        self.cancel()
        self._worker.endProcess()
        self.controller.setStopped(message)

    def close(self) -> None:
        """End the worker."""
        self._worker.close()

    def enhance(
        self, volumeNode, regionNode=None, bundle: str = "", texture: float = 0.0, steps: int = 0, seed: int = 0,
        errorBars: bool = True, modality: str = "", idle=None,
    ):  # fmt: skip
        """Enhance a volume, wait, and return the result's volume node, for scripts; for the options, see `Choice`.

        Args:
            volumeNode: radiograph or CT.
            regionNode: markups ROI, slice node (its slice), or None for the whole volume.
            modality: modality of the volume, "CXR" or "CT", if nothing else says it. Default empty: not said.
            idle: function that is called while waiting, for instance ``slicer.app.processEvents``.

        Raises an InputError with the message that the panel would show.
        """
        kind = WHOLE if regionNode is None else BOX if regionNode.IsA("vtkMRMLMarkupsROINode") else SLICE
        choice = Choice(bundle, texture, steps, seed, errorBars)
        if modality:
            volumeNode.SetAttribute(volumes.MODALITY, modality)
        self.choose(volumeNode, kind, regionNode, choice)
        self.controller.retry()
        isRequested = False
        while not (added := self.step()):
            panel = self.controller.panel()
            isDropped = isRequested and panel.message and not self.controller.isBusy
            if panel.absence or panel.messageIsError or isDropped:
                raise InputError(panel.message or panel.absence)
            if not isRequested and panel.canRun:
                self.run()
                isRequested = True
            if idle is not None:
                idle()
            time.sleep(0.005)
        return added[0]

    def _send(self, do: str, enhancement: Enhancement | None) -> None:
        fields = enhancement.fields() if enhancement else {}
        if do == "enhance":
            subject = enhancement.subject
            prepare = partial(volumes.narrow, name=subject.name)
            self._worker.enhance(volumes.voxelsOf(subject.volume), subject.state, prepare, **fields)
        else:
            self._worker.ask(do, **fields)
        self.controller.setSent(do, enhancement)

    def _addResult(self, enhancement: Enhancement, done: dict) -> list:
        subject = enhancement.subject
        if subject.volume.GetScene() is None:
            text = _("'{name}' was removed while its result was computed, so there is no result.")
        elif _stateOf(subject.volume) != subject.state:
            text = _("'{name}' was changed while its result was computed, so the result, which belongs to what it was, "
                     "is not shown. Press Run again.")  # fmt: skip
        else:
            array, errorBars = done.pop("resultArray"), done.pop("errorBarsArray")
            spacingSource = subject.spacingSource if subject.spacingZyx else volumes.UNKNOWN
            return [result_nodes.addResult(subject.volume, array, subject.extent, done, errorBars, spacingSource)]
        self.controller.notify(text.format(name=subject.name))
        return []
