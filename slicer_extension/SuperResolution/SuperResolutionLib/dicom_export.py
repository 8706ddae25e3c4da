"""Export of a result as a derived DICOM series: `monai-sr enhance` in its own process, on the files of the source.

The same model, seed, steps and region give the same pixels. docs/dicom.md describes the headers, the identity and the
label of synthetic texture.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from SuperResolutionLib import result_nodes, volumes
from SuperResolutionLib.command import Command, freePath
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.headers import filesOf
from SuperResolutionLib.translation import _


def optionsOf(resultNode) -> list[str]:
    """Return the options of `monai-sr enhance` that repeat a result.

    Raises:
        InputError: the source is gone, or the result shows only some of its slices.
    """
    source = result_nodes.existingSource(resultNode)
    k0, k1, r0, r1, c0, c1 = result_nodes.extentOf(resultNode)
    slices = volumes.shapeOf(source)[0]
    if (k0, k1) != (0, slices):
        message = _(
            "'{name}' shows {count} of the {slices} slices of its source. A series is written of all of them: enhance "
            "a box that goes through all slices, then export that."
        )
        raise InputError(message, name=resultNode.GetName(), count=k1 - k0, slices=slices)
    answer, fileModality = source.GetAttribute(volumes.MODALITY), volumes.statedModality(source)
    if answer and fileModality not in (answer, volumes.UNKNOWN):
        message = _(
            "The files of '{name}' call it {stated}, and you have said that it is something else: a derived series "
            "would say it wrongly too. Save the result with File, Save."
        )
        raise InputError(message, name=source.GetName(), stated=fileModality)
    provenance = result_nodes.reportOf(resultNode)["provenance"]
    options = ["--roi", *map(str, (c0, r0, c1, r1))]
    for name in ("bundle", "seed", "backend"):
        options += [f"--{name}", str(provenance[name])]
    sampling = provenance.get("sampling") or {}
    for name in ("texture", "steps"):
        if sampling.get(name):
            options += [f"--{name}", str(sampling[name])]
    return options + ["--force"] * (fileModality == volumes.UNKNOWN)  # then the files do not say that the model fits


class Export(Command):
    """A running export; see `Command`.

    Args:
        resultNode: result to write.
        folder: parent of the new folder for the files.
        fileOf: function of a SOP Instance UID that returns its file.
        process: `python` and `environment`; see `Command`.

    Attributes:
        fraction: progress, 0 to 1.
        summary: text for the user, once the export is done.
    """

    def __init__(self, resultNode, folder, fileOf: Callable[[str], str], **process):
        self.fraction, self.summary = 0.0, ""
        sources = filesOf(result_nodes.existingSource(resultNode), fileOf)
        self._options = [freePath(Path(folder) / resultNode.GetName()), *optionsOf(resultNode)]
        super().__init__(_("The export cannot begin."), sources, **process)

    def words(self, image: str) -> list[str]:
        return ["enhance", image, *self._options, "--progress", "json"]

    def handleEvent(self, event: dict) -> None:
        kind = event.get("event")
        if kind == "progress":
            self.fraction = float(event["fraction"])
        elif kind == "finished":
            files = event["written"]
            self.summary = _("{count} files in {folder}.").format(count=len(files), folder=Path(files[0]).parent)
        elif kind == "failed":
            self.message = str(event["message"])
