"""Export of a result as a derived DICOM series: `monai-sr enhance` in its own process, on the files of the source.

The same model, seed, steps and region give the same pixels. docs/dicom.md describes the headers, the identity and the
label of synthetic texture.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from SuperResolutionLib import result_nodes
from SuperResolutionLib.command import Command, freePath
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.headers import filesOf
from SuperResolutionLib.volumes import shapeOf

ADVICE = "Save the result with File, Save instead, or load the source through the DICOM module."


def optionsOf(resultNode) -> list[str]:
    """Return the options of `monai-sr enhance` that repeat a result.

    Raises:
        InputError: the source is gone, or the result shows only some of its slices.
    """
    source = result_nodes.existingSource(resultNode)
    k0, k1, r0, r1, c0, c1 = result_nodes.extentOf(resultNode)
    slices = shapeOf(source)[0]
    if (k0, k1) != (0, slices):
        raise InputError(
            f"'{resultNode.GetName()}' shows {k1 - k0} of the {slices} slices of its source. A series is written of "
            "all of them: enhance a box that goes through all slices, then export that."
        )
    provenance = result_nodes.reportOf(resultNode)["provenance"]
    options = ["--bundle", provenance["bundle"], "--seed", str(provenance["seed"])]
    options += ["--backend", provenance["backend"]]
    options += ["--roi", *map(str, (c0, r0, c1, r1))]
    sampling = provenance.get("sampling") or {}
    for name in ("texture", "steps"):
        if sampling.get(name):
            options += [f"--{name}", str(sampling[name])]
    return options


class Export(Command):
    """A running export; see `Command`.

    Args:
        resultNode: result to write.
        folder: parent of the new folder for the files.
        fileOf: function of a SOP Instance UID that returns its file.
        python, environment: passed to `Command`.

    Attributes:
        fraction: progress, 0 to 1.
        files: written files, once the export is done.
    """

    def __init__(self, resultNode, folder, fileOf: Callable[[str], str], python=None, environment=None):
        self.fraction, self.files = 0.0, []
        sources = filesOf(result_nodes.existingSource(resultNode), fileOf, ADVICE)
        self._options = [freePath(Path(folder) / resultNode.GetName()), *optionsOf(resultNode)]
        super().__init__("The export", sources, python, environment)

    def words(self, image: str) -> list[str]:
        return ["enhance", image, *self._options, "--progress", "json"]

    def handleEvent(self, event: dict) -> None:
        kind = event.get("event")
        if kind == "progress":
            self.fraction = float(event["fraction"])
        elif kind == "finished":
            self.files = list(event["written"])
        elif kind == "failed":
            self.message = str(event["message"])
