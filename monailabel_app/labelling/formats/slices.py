"""Names of slices in formats that know no volumes: a DICOM slice is an image named by its SOP Instance UID."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

import numpy as np
from monai_sr_bundle.boxes.box import Box, BoxError, check_edges
from monai_sr_bundle.boxes.codes import PRIVATE, finding_code, finding_name, public_codes
from monai_sr_bundle.boxes.readings import ImageIdentity, Reader, Reading, Tool
from monai_sr_bundle.errors import InputError, OutOfMemoryError

from labelling.catalogue import safe_name

TOOL = Tool("monai-sr label")
_NUMBERED = re.compile(r"^(.+)\.slice([0-9]{4,9})$")


@dataclass(frozen=True)
class ImageFacts:
    """The facts of an image that formats need.

    Attributes:
        identity: name, hash and size.
        uids: SOP Instance UID of each slice; empty of an image that is no DICOM.
        affine: reads the ``[4, 4]`` matrix from the centre of a pixel (x, y, slice) to LPS millimetres.
    """

    identity: ImageIdentity
    uids: tuple[str, ...] = ()
    affine: Callable[[], np.ndarray] = lambda: np.eye(4)

    @property
    def slices(self) -> int:
        return self.identity.slices or 1

    def slice_name(self, box: Box) -> str:
        """Return the name of a box's slice."""
        if self.slices == 1:
            return self.identity.id
        index = self.index_of(box)
        if self.uids and self.uids.count(self.uids[index]) == 1:
            return self.uids[index]
        return f"{self.identity.id}.slice{index:04d}"

    def index_of(self, box: Box) -> int:
        """Return the index of a box's slice.

        Raises:
            BoxError: a slice that the image does not have, or none named in a volume.
        """
        if box.sop_instance_uid and self.uids:
            if box.sop_instance_uid not in self.uids:
                raise BoxError(
                    f"the box is on slice {box.sop_instance_uid}, which is none of the {self.slices} slices of image "
                    f"{self.identity.id}. Send it with the image that has this slice, or draw it on this one."
                )
            if self.uids.count(box.sop_instance_uid) == 1:  # the frames of one file share it
                index = self.uids.index(box.sop_instance_uid)
                if box.slice_index not in (None, index):
                    raise BoxError(
                        f"slice_index is {box.slice_index}, but the SOP Instance UID is that of slice {index}."
                    )
                return index
        index = 0 if box.slice_index is None and self.slices == 1 else box.slice_index
        if index is None:
            advice = "slice_index" if len(set(self.uids)) == 1 else "slice_index or sop_instance_uid"
            raise BoxError(f"the box names no slice of the {self.slices}. Add {advice}.")
        if not 0 <= index < self.slices:
            raise BoxError(f"slice_index is {index}, expected 0 to {self.slices - 1}.")
        return index

    def placed(self, box: Box) -> Box:
        """Return a box that names its slice in both ways, after checking that it lies in the image.

        Raises:
            BoxError: it does not.
        """
        check_edges(box, self.identity.columns, self.identity.rows)
        index = self.index_of(box)
        uid = self.uids[index] if self.uids else ""
        return replace(box, slice_index=index if self.slices > 1 else None, sop_instance_uid=uid)


class ImageNames:
    """Finds the image, and the slice, that a file of boxes names.

    Args:
        names: names of all images.
        facts: returns the facts of one of them.
    """

    def __init__(self, names: Sequence[str], facts: Callable[[str], ImageFacts]) -> None:
        self._names, self._facts = dict.fromkeys(names), facts
        stems = Counter(map(_stem, names))
        self._by_stem = {_stem(name): name for name in names if stems[_stem(name)] == 1}
        self._by_uid: dict[str, tuple[str, int]] | None = None

    def find(self, text: str) -> tuple[ImageFacts, int | None] | None:
        """Return an image by its name, the path or name of its file, or the SOP Instance UID of a slice.

        A path is that of the image below --studies, where there is one; folders before that are passed over. The suffix
        may be another, or missing, where only one image has the name.

        Returns:
            The image, and the index of the slice if a slice was named; None where there is no such image.
        """
        path = PurePosixPath(text.replace("\\", "/"))
        base = path.name
        numbered = _NUMBERED.match(base)
        if numbered and numbered[1] in self._names:
            return self._facts(numbered[1]), int(numbered[2])
        paths = [safe_name("/".join(path.parts[start:])) for start in range(len(path.parts))]
        for name in (text, *paths, self._by_stem.get(_stem(base), "")):
            if name in self._names:
                return self._facts(name), None
        if re.fullmatch(r"[0-9.]+", base):
            return self._find_uid(base)
        return None

    def _find_uid(self, uid: str) -> tuple[ImageFacts, int | None] | None:
        if self._by_uid is None:
            self._by_uid = {}
            for name in self._names:
                try:
                    facts = self._facts(name)
                except (InputError, OutOfMemoryError):  # its UIDs are not known
                    continue
                indices = range(len(facts.uids)) if len(set(facts.uids)) == len(facts.uids) else [-1] * len(facts.uids)
                self._by_uid |= {each: (name, index) for index, each in zip(indices, facts.uids, strict=True)}
                if facts.identity.series_instance_uid:
                    self._by_uid.setdefault(facts.identity.series_instance_uid, (name, -1))
        if uid not in self._by_uid:
            return None
        name, index = self._by_uid[uid]
        facts = self._facts(name)
        return facts, index if index >= 0 and facts.slices > 1 else None


@dataclass
class ImportedReadings:
    """The readings of a file, and notes on what was left out.

    Attributes:
        readings: one of each reader and image.
        unknown_images: names of images that this server does not have; their boxes are left out.
        unknown_findings: names of findings without a public code; their boxes are kept.
        notes: one sentence for everything else that was left out.
    """

    readings: list[Reading] = field(default_factory=list)
    unknown_images: list[str] = field(default_factory=list)
    unknown_findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Collector:
    """Gathers boxes, in any order, into one reading of each image and reader."""

    def __init__(self, names: ImageNames, default_reader: str) -> None:
        self._names, self._default_reader = names, default_reader
        self._readings: dict[tuple[str, str], tuple[ImageFacts, list[Box]]] = {}
        self._extra: dict[tuple[str, str], dict[str, object]] = {}
        self.imported = ImportedReadings()

    def add(self, image: str, box: Box | None, reader: str = "", label: str = "", **extra: object) -> None:
        """Add a box; None for an image in which the reader has found nothing.

        Args:
            image: name of the image or slice in the file.
            box: the box; its slice is that of `image` where that names one.
            reader: the reader. Default: that of the collector.
            label: position in the file, for messages.
            extra: other fields of the reading.

        Raises:
            BoxError: a box that does not lie in its image, or a name that is no Unicode.
        """
        for text in (image, reader, box.finding if box else ""):
            try:
                str(text).encode()
            except UnicodeEncodeError as error:
                raise BoxError(f"{label or 'a name'} holds half of a character. Save the file as UTF-8.") from error
        match = self._names.find(image)
        if match is None:
            if image not in self.imported.unknown_images:
                self.imported.unknown_images.append(image)
            return
        facts, index = match
        key = facts.identity.id, reader or self._default_reader
        boxes = self._readings.setdefault(key, (facts, []))[1]
        self._extra.setdefault(key, {}).update(extra)
        if box is None:
            return
        if index is not None:
            box = replace(box, slice_index=index, sop_instance_uid="")
        try:
            placed = facts.placed(box)
        except BoxError as error:
            raise BoxError(f"{label or image}: {error}") from error
        boxes.append(known_finding(placed, self.imported.unknown_findings))

    def finish(self, *, complete: bool = True) -> ImportedReadings:
        """Return the readings; `complete` for submitted ones unless a box's `extra` said otherwise."""
        for key, (facts, boxes) in self._readings.items():
            fields = {"status": "submitted" if complete else "draft", "tool": TOOL, **self._extra[key]}
            self.imported.readings.append(
                Reading(facts.identity, Reader(key[1]), tuple(boxes), no_finding=not boxes, **fields)  # type: ignore[arg-type]
            )
        return self.imported


def known_finding(box: Box, unknown: list[str]) -> Box:
    """Return a box whose finding has this package's name and code; a name without a code is noted in `unknown`."""
    if not box.finding:
        return box
    code = finding_code(box.finding)
    if code.scheme_designator == PRIVATE:
        if not box.codes and box.finding not in unknown:
            unknown.append(box.finding)
        return box
    return replace(box, finding=finding_name(code), codes=box.codes or public_codes(box.finding))


def folder_of(reader: str) -> str:
    """Return the name of a reader's folder or file in an export; a reader in a file of others may be called "../x"."""
    return reader if re.fullmatch(r"[^./\\:][^/\\:]*", reader) else safe_name(reader)


def _stem(name: str) -> str:
    for suffix in (".nii.gz", ".nii", ".dcm", ".png", ".jpg", ".jpeg", ".tif", ".tiff"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name
