"""A result as a derived DICOM series, by the package's own writer: `monai-sr enhance` on the files of its source.

The same model, seed, steps and region give the same pixels; headers, identity and the word on synthetic texture are
those of docs/dicom.md. The work is a process of its own, as the worker is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from SuperResolutionLib import result_nodes
from SuperResolutionLib.command import Command, freePath
from SuperResolutionLib.errors import InputError
from SuperResolutionLib.headers import filesOf
from SuperResolutionLib.volumes import shapeOf

INSTEAD = "Save the result with File, Save instead, or load the source through the DICOM module."


def optionsOf(resultNode) -> list[str]:
    """The options of `monai-sr enhance` that give a result again.

    Raises:
        InputError: the source is gone, or the result shows some of its slices only, which a series cannot say.
    """
    source = result_nodes.existingSource(resultNode)
    k0, k1, r0, r1, c0, c1 = result_nodes.extentOf(resultNode)
    slices = shapeOf(source)[0]
    if (k0, k1) != (0, slices):
        raise InputError(
            f"'{resultNode.GetName()}' shows {k1 - k0} of the {slices} slices of its source. A series is written of "
            "all of them: enhance a box that goes through all slices, then export that."
        )
    told = result_nodes.reportOf(resultNode)["provenance"]
    options = ["--bundle", told["bundle"], "--seed", str(told["seed"]), "--backend", told["backend"]]
    options += ["--roi", *map(str, (c0, r0, c1, r1))]
    sampling = told.get("sampling") or {}
    for name in ("texture", "steps"):
        if sampling.get(name):
            options += [f"--{name}", str(sampling[name])]
    return options


class Export(Command):
    """An export that runs; see `Command`.

    Args:
        resultNode: to be written.
        folder: in which a new folder is made for the files.
        fileOf: as `filesOf`.
        python, environment: as `Command`.

    Attributes:
        fraction: 0 to 1.
        written: the files, when it is done.
    """

    def __init__(self, resultNode, folder, fileOf: Callable[[str], str], python=None, environment=None):
        self.fraction, self.written = 0.0, []
        files = filesOf(result_nodes.existingSource(resultNode), fileOf, INSTEAD)
        self._options = [freePath(Path(folder) / resultNode.GetName()), *optionsOf(resultNode)]
        super().__init__("The export", files, python, environment)

    def words(self, image: str) -> list[str]:
        return ["enhance", image, *self._options, "--progress", "json"]

    def hear(self, event: dict) -> None:
        kind = event.get("event")
        if kind == "progress":
            self.fraction = float(event["fraction"])
        elif kind == "finished":
            self.written = list(event["written"])
        elif kind in ("failed", "error"):
            self.message = str(event.get("message") or event.get("error"))
