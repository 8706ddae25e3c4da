"""Consensus and agreement of readers: boxes fused by weighted box fusion, and how well two readings agree.

Solovyev et al., "Weighted boxes fusion: Ensembling boxes from different object detection models", Image and Vision
Computing 107 (2021), https://arxiv.org/abs/1910.13302; the implementation is the authors' package ensemble-boxes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations

import numpy as np
from monai_sr_bundle.boxes.box import Box
from monai_sr_bundle.boxes.codes import finding_code
from monai_sr_bundle.boxes.readings import Reader, Reading, Tool

from labelling.box_store import CONSENSUS
from labelling.errors import RefusedError

SAME_FINDING_IOU = 0.5
"""Least overlap (intersection over union) of two boxes that mark one finding."""
_code = lru_cache(maxsize=1000)(finding_code)
_TOOL = Tool("weighted box fusion", "ensemble-boxes 1.0.9")


@dataclass(frozen=True)
class Agreement:
    """The agreement of two readings.

    Attributes:
        readers: the two readers.
        score: sum of the overlaps of matched boxes, divided by the number of findings that either has; 1 where both
            state that there is none.
        matched: number of boxes that both have.
        overlap: mean overlap of these; 0 without.
    """

    readers: tuple[str, str]
    score: float
    matched: int
    overlap: float


def overlap(first: Box, second: Box) -> float:
    """Return the intersection over union of two boxes of one slice."""
    width = min(first.x_max, second.x_max) - max(first.x_min, second.x_min)
    height = min(first.y_max, second.y_max) - max(first.y_min, second.y_min)
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (_area(first) + _area(second) - both)


def match(first: Sequence[Box], second: Sequence[Box]) -> list[tuple[int, int, float]]:
    """Match boxes one to one, so that the sum of the overlaps is largest; same finding and slice only.

    Returns:
        Index in `first`, index in `second`, and overlap of each pair that overlaps at all.
    """
    from scipy.optimize import linear_sum_assignment

    if not first or not second:
        return []
    table = np.array([[overlap(a, b) if _group(a) == _group(b) else 0.0 for b in second] for a in first])
    rows, columns = linear_sum_assignment(-table)
    return [(int(a), int(b), float(table[a, b])) for a, b in zip(rows, columns, strict=True) if table[a, b] > 0]


def agreement(first: Reading, second: Reading) -> Agreement:
    """Return how well two readings of one image agree."""
    pairs = match(first.boxes, second.boxes)
    total = sum(value for _, _, value in pairs)
    findings = len(first.boxes) + len(second.boxes) - len(pairs)
    score = total / findings if findings else 1.0
    return Agreement((first.reader.id, second.reader.id), score, len(pairs), total / len(pairs) if pairs else 0.0)


def disagreement(readings: Sequence[Reading]) -> float:
    """Return 1 minus the mean agreement of all pairs of readers; 0 for fewer than two readers."""
    scores = [agreement(*pair).score for pair in combinations(readings, 2)]
    return 1.0 - float(np.mean(scores)) if scores else 0.0


def fuse(readings: Sequence[Reading], iou: float = SAME_FINDING_IOU) -> Reading:
    """Fuse the readings of one image; a box stays where at least half of the readers have it.

    Args:
        readings: submitted readings, one of each reader, at least two.
        iou: least overlap of boxes that mark one finding, above 0 and below 1.

    Returns:
        A draft by the reader `CONSENSUS`. `certainty` of a box is the mean certainty of those who drew it (1 where
        they do not say) times the share of readers who did. `no_finding` where every reader states it.

    Raises:
        RefusedError: fewer than two readers, an `iou` out of range, or an image whose size is not known.
    """
    from ensemble_boxes import weighted_boxes_fusion

    if len(readings) < 2:
        raise RefusedError(f"{len(readings)} reader has submitted, expected at least 2 for a consensus.")
    if not 0 < iou < 1:
        raise RefusedError(f"iou is {iou:g}, expected a number above 0 and below 1.")
    image = readings[0].image
    if not image.columns or not image.rows:
        raise RefusedError("the size of the image is not known, so its boxes cannot be fused.")
    size = np.array([image.columns, image.rows] * 2, dtype=np.float64)
    fused: list[Box] = []
    for group in sorted({_group(box) for reading in readings for box in reading.boxes}):
        per_reader = [[box for box in reading.boxes if _group(box) == group] for reading in readings]
        edges, scores, _ = weighted_boxes_fusion(
            [[list(np.array(box.xyxy) / size) for box in boxes] for boxes in per_reader],
            [[1.0 if box.certainty is None else max(box.certainty, 1e-3) for box in boxes] for boxes in per_reader],
            [[0] * len(boxes) for boxes in per_reader],
            iou_thr=iou,
            conf_type="avg",
        )
        example = next(box for boxes in per_reader for box in boxes)
        for corners, score in zip(np.asarray(edges, dtype=np.float64) * size, scores, strict=True):
            x_min, y_min, x_max, y_max = (round(float(edge), 3) for edge in corners)
            box = replace(
                example, x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max, reader=CONSENSUS, tracking_uid="",
                certainty=min(1.0, float(score)), before=None, after=None,
            )  # fmt: skip
            supporters = sum(any(overlap(box, other) >= iou for other in boxes) for boxes in per_reader)
            if 2 * supporters >= len(readings):
                fused.append(box)
    return Reading(
        image,
        Reader(CONSENSUS, "consensus"),
        tuple(_tracked(fused, image.id)),
        status="draft",
        no_finding=all(reading.no_finding for reading in readings),
        tool=_TOOL,
    )


def _tracked(boxes: Sequence[Box], image: str) -> list[Box]:
    """Give boxes of one finding that overlap on neighbouring slices one tracking UID, the same every time."""
    lesions: list[list[Box]] = []
    for box in sorted(boxes, key=lambda each: (_group(each), each.xyxy)):
        for lesion in lesions:
            last = lesion[-1]
            neighbours = (box.slice_index or 0) - (last.slice_index or 0) == 1
            if _group(box)[:2] == _group(last)[:2] and neighbours and overlap(box, last) > 0:
                lesion.append(box)
                break
        else:
            lesions.append([box])
    tracked = []
    for lesion in lesions:
        text = f"{image} {lesion[0].finding} {lesion[0].slice_index} {lesion[0].xyxy}"
        uid = f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], 'big')}"
        tracked += [replace(box, tracking_uid=uid) for box in lesion]
    return tracked


def _group(box: Box) -> tuple[str, str, int, str]:
    """Return the code of a box's finding, and its slice, which boxes of one group share; names of one code are one."""
    code, index = _code(box.finding), -1 if box.slice_index is None else box.slice_index
    return code.scheme_designator, code.value, index, box.sop_instance_uid


def _area(box: Box) -> float:
    return (box.x_max - box.x_min) * (box.y_max - box.y_min)
