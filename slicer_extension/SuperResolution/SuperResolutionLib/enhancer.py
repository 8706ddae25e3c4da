"""Volumes out of the scene to the worker, results into the scene: what the panel and scripts both use."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

from SuperResolutionLib import filling, headers, region, result_nodes, volumes
from SuperResolutionLib.controller import Choice, Controller, Question, Subject
from SuperResolutionLib.errors import InputError

BOX, SLICE, WHOLE = "box", "slice", "whole"
"""Kinds of region."""


def extentOf(volumeNode, kind: str, regionNode=None) -> list[int]:
    """Voxels of a region: `BOX` with a markups ROI, `SLICE` with a slice view, or `WHOLE`.

    Raises:
        InputError: the volume cannot be enhanced, or the region has no voxels of it.
    """
    if kind == WHOLE:
        return region.whole(volumeNode)
    return region.ofRoi(regionNode, volumeNode) if kind == BOX else region.ofSlice(regionNode, volumeNode)


def subjectOf(volumeNode, extent, database=None) -> Subject:
    """What the controller has to know of a volume and a region of it.

    Args:
        volumeNode: checked.
        extent: of the region.
        database: Slicer's DICOM database, for volumes that were loaded from it.
    """
    image = volumeNode.GetImageData()
    found = headers.headerOf(volumeNode, database)
    header = found or headers.Header()
    told = volumeNode.GetAttribute(volumes.SPACING_SOURCE) or header.spacingSource
    spacing = volumes.spacingZyx(volumeNode) if told != volumes.UNKNOWN else None
    return Subject(
        name=volumeNode.GetName(),
        shape=tuple(volumes.shapeOf(volumeNode)),
        extent=tuple(extent),
        modality=volumes.modality(volumeNode),
        spacingZyx=spacing,
        spacingSource=told if told != volumes.UNKNOWN else "",
        note=header.note if spacing or header.note else volumes.spacingAdvice(volumeNode),
        storedRange=_holding(header.storedRange, image),
        blackIsHigh=header.blackIsHigh,
        itemBytes=min(image.GetScalarSize(), 4),
        state=(volumeNode.GetID(), image.GetMTime(), volumes.ijkToRasOf(volumeNode).tobytes()),
        isRead=found is not None,
    )


def _holding(storedRange, image):
    """A range that holds the voxels, which Slicer may have rescaled; None for fractions."""
    if storedRange is None or image.GetScalarTypeAsString() in ("float", "double"):
        return None
    low, high = image.GetScalarRange()
    return storedRange if storedRange[0] <= low and high <= storedRange[1] else None


class Enhancer:
    """Asks a worker for results and puts them into the scene of their source.

    Nothing waits but `enhance`: the caller's timer calls `step`.

    Args:
        worker: the client of the worker process, a `worker_client.Worker`.
        database: Slicer's DICOM database, or None.

    Attributes:
        controller: decides what is asked next and what a panel shows.
    """

    def __init__(self, worker, database=None):
        self.controller = Controller()
        self._worker, self._database = worker, database
        self._volume = None
        self._chosen = None  # of a volume whose file is being read, to be told again
        self._asked = None  # source, and result to be replaced, of the request that is worked on
        self._following = None  # the result that follows the region in live mode

    def choose(self, volumeNode, kind: str, regionNode, choice: Choice) -> None:
        """Tell the controller the user's present choice. Bad input becomes its message; the scene is not changed."""
        subject, problem = None, ""
        try:
            subject = subjectOf(volumeNode, region.whole(volumeNode), self._database)
            subject = replace(subject, extent=tuple(extentOf(volumeNode, kind, regionNode)))
        except InputError as error:
            problem = str(error)
        self._volume = volumeNode
        self._chosen = (volumeNode, kind, regionNode, choice) if subject and not subject.isRead else None
        self.controller.choose(subject, problem, choice)

    def step(self) -> list:
        """Hear what the worker said and ask for what is next; go on with volumes that are being filled.

        Returns the result nodes that came into the scene.
        """
        if self._chosen is not None:
            self.choose(*self._chosen)
        added = []
        for event in self._worker.poll():
            question = self.controller.heard(event)
            if question is not None:
                added += self._finished(question, event)
        wanted = self.controller.nextRequest()
        if wanted is not None:
            self._send(*wanted)
        if not added:
            filling.step()
        return added

    def cancel(self) -> None:
        """End the work at once; the worker starts again when it is needed."""
        self._worker.cancel()
        self._asked = None
        self.controller.canceled()

    def remove(self, resultNode) -> None:
        """Take a result out of the scene; live mode makes it again only when something changes."""
        if resultNode is self._following:
            self._following = None
        result_nodes.remove(resultNode)
        self.controller.forget()

    def close(self) -> None:
        """End the worker."""
        self._worker.close()

    def enhance(
        self,
        volumeNode,
        regionNode=None,
        bundle: str = "",
        texture: float = 0.0,
        steps: int = 0,
        seed: int = 0,
        errorBars: bool = True,
        idle=None,
        timeoutSeconds: float | None = None,
    ):
        """Enhance and wait for the result: for scripts.

        Args:
            volumeNode: radiograph or CT.
            regionNode: markups ROI, slice node (its slice), or None for the whole volume.
            bundle: a model's name; "" for the recommended one.
            texture, steps, seed: of the model; `steps` 0 for as many as it recommends.
            errorBars: where the model has them.
            idle: called while waiting, for instance ``slicer.app.processEvents``.
            timeoutSeconds: the longest wait; None waits as long as it takes.

        Returns:
            The result's volume node.

        Raises:
            InputError: whatever the panel would show as a message.
        """
        kind = WHOLE if regionNode is None else BOX if regionNode.IsA("vtkMRMLMarkupsROINode") else SLICE
        choice = Choice(bundle, texture, steps, seed, errorBars)
        self.choose(volumeNode, kind, regionNode, choice)
        self.controller.retry()
        until = None if timeoutSeconds is None else time.monotonic() + timeoutSeconds
        asked = False
        while True:
            added = self.step()
            if added:
                return added[0]
            panel = self.controller.panel()
            if not panel.installed:
                raise InputError(panel.absence)
            if panel.messageIsError:
                raise InputError(panel.message)
            if not asked and panel.canRun:
                self.controller.run()
                asked = True
            if until is not None and time.monotonic() > until:
                self.cancel()
                raise InputError(f"No result after {timeoutSeconds:g} s. Choose a smaller region, or wait longer.")
            if idle is not None:
                idle()
            time.sleep(0.005)

    def _send(self, do: str, question: Question | None) -> None:
        if do == "bundles":
            self.controller.sent(self._worker.bundles(), do)
            return
        subject, options = question.subject, question.options()
        if do == "plan":
            number = self._worker.plan(
                subject.shape, subject.extent, subject.modality, itemsize=subject.itemBytes, **options
            )
            self.controller.sent(number, do, question)
            return
        try:
            array = volumes.voxelsOf(self._volume)
        except InputError as error:
            self.controller.failedToSend(str(error))
            return
        self._asked, name = (self._volume, self._replaced()), self._volume.GetName()
        if subject.storedRange is not None and array.dtype.kind in "iu":
            options["storedRange"] = list(subject.storedRange)
        if subject.blackIsHigh:
            options["blackIsHigh"] = True
        number = self._worker.enhance(
            array, subject.extent, subject.modality, key=subject.state, prepare=partial(volumes.narrowed, name=name),
            **options
        )  # fmt: skip
        self.controller.sent(number, do, question)

    def _replaced(self):
        """In live mode, the result that the next one takes the place of."""
        following = self._following
        if not self.controller.isLive or following is None or following.GetScene() is None:
            return None
        return following if result_nodes.sourceOf(following) is self._volume else None

    def _finished(self, question: Question, done: dict) -> list:
        source, replaced = self._asked
        self._asked = None
        if source.GetScene() is None:
            return []  # the volume was removed meanwhile, and nobody can see where its result would lie
        if replaced is not None and replaced.GetScene() is None:
            replaced = None
        arrays = {key: done.pop(key) for key in ("resultArray", "errorBarsArray")}
        subject = question.subject
        node = result_nodes.addResult(
            source, arrays["resultArray"], subject.extent, done, arrays["errorBarsArray"],
            texture=question.texture, seed=question.seed, replace=replaced, wait=False,
            spacingSource=subject.spacingSource if subject.spacingZyx else volumes.UNKNOWN,
        )  # fmt: skip
        self._following = node if self.controller.isLive else None
        return [node]
