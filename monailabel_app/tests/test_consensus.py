"""Consensus and agreement of readers."""

from __future__ import annotations

import csv
from itertools import combinations
from pathlib import Path

import pytest
from drawn_readings import box, reading
from labelling.box_store import BoxStore
from labelling.consensus import agreement, disagreement, fuse, match, overlap
from labelling.errors import RefusedError
from labelling.next_image import next_image, set_readers_per_image
from monai_sr_bundle.boxes.readings import ImageIdentity

LIDC = Path(__file__).resolve().parents[3] / "shared" / "data" / "ct_patients"


def test_overlap_is_intersection_over_union():
    assert overlap(box(0, 0, 10, 10), box(5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert overlap(box(0, 0, 10, 10), box(10, 0, 20, 10)) == 0


def test_boxes_are_matched_one_to_one_within_a_finding_and_slice():
    first = [box(0, 0, 10, 10), box(20, 0, 30, 10), box(0, 0, 10, 10, finding="Mass")]
    second = [box(21, 0, 31, 10), box(0, 0, 10, 10), box(0, 0, 10, 10, slice_index=1)]
    assert [pair[:2] for pair in match(first, second)] == [(0, 1), (1, 0)]


def test_names_of_one_code_are_one_finding():
    names = ("Effusion", "Pleural effusion", "pleural  Effusion")
    slices = [[box(10, 10, 30, 30, finding=name, slice_index=k) for k in (3, 4)] for name in names]
    image = ImageIdentity("ct", columns=64, rows=64, slices=12)
    readings = [reading(str(k), *boxes, image=image) for k, boxes in enumerate(slices)]
    assert disagreement(readings) == pytest.approx(0)
    first, second = fuse(readings).boxes
    assert first.tracking_uid == second.tracking_uid
    assert [each.slice_index for each in (first, second)] == [3, 4]
    others = [reading("ada", box(finding="Odd")), reading("bob", box(finding="Other"))]
    assert disagreement(others) == 1


def test_readers_who_both_see_nothing_agree():
    assert agreement(reading("ada"), reading("bob")).score == 1
    assert agreement(reading("ada", box()), reading("bob")).score == 0
    assert disagreement([reading("ada", box()), reading("bob", box())]) == pytest.approx(0)
    assert disagreement([reading("ada")]) == 0


def test_a_box_that_two_of_three_drew_is_between_theirs_and_the_lonely_one_goes():
    fused = fuse(
        [
            reading("ada", box(10, 10, 30, 30)),
            reading("bob", box(12, 10, 32, 30), box(100, 50, 120, 70)),
            reading("eve"),
        ]
    )
    (only,) = fused.boxes
    assert only.xyxy == pytest.approx((11, 10, 31, 30), abs=0.01)
    assert only.certainty == pytest.approx(2 / 3, abs=1e-3)
    assert fused.reader.id == "consensus"
    assert not fused.no_finding


def test_certain_readers_weigh_more():
    fused = fuse(
        [reading("ada", box(10, 10, 30, 30, certainty=0.9)), reading("bob", box(14, 10, 34, 30, certainty=0.3))]
    )
    assert fused.boxes[0].x_min == pytest.approx(11, abs=0.01)


def test_no_finding_needs_all_readers():
    assert fuse([reading("ada"), reading("bob")]).no_finding
    assert not fuse([reading("ada", box()), reading("bob"), reading("eve")]).no_finding


def test_a_lesion_has_one_tracking_uid_over_its_slices():
    slices = [box(10, 10, 30, 30, slice_index=index) for index in (3, 4, 9)]
    image = ImageIdentity("ct", columns=64, rows=64, slices=12)
    fused = fuse([reading(name, *slices, image=image) for name in ("ada", "bob")])
    uids = [each.tracking_uid for each in sorted(fused.boxes, key=lambda each: each.slice_index)]
    assert uids[0] == uids[1] != uids[2]
    assert fused == fuse([reading(name, *slices, image=image) for name in ("ada", "bob")])


@pytest.mark.parametrize(
    ("readings", "iou", "message"),
    [
        ([reading("ada")], 0.5, "1 reader has submitted"),
        ([reading("ada"), reading("bob")], 1.0, "iou is 1"),
        ([reading("ada", image=ImageIdentity("x")), reading("bob")], 0.5, "size of the image"),
    ],
)
def test_what_cannot_be_fused_says_why(readings, iou, message):
    with pytest.raises(RefusedError, match=message):
        fuse(readings, iou)


def lidc_readings(table: Path) -> dict[str, list]:
    """The readings of LIDC: one for each annotation, on all slices of its image."""
    boxes: dict[str, dict[str, list]] = {}
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            edges = (float(row[name]) for name in ("x_min", "y_min", "x_max", "y_max"))
            drawn_box = box(*edges, finding=row["finding"], slice_index=int(row["slice_index"]))
            boxes.setdefault(row["image"], {}).setdefault(row["reader"], []).append(drawn_box)
    return {
        name: [
            reading(reader, *reader_boxes, image=ImageIdentity(Path(name).name, columns=512, rows=512, slices=64))
            for reader, reader_boxes in of_reader.items()
        ]
        for name, of_reader in boxes.items()
    }


def overlapping(readings):
    """Readings of LIDC that share a nodule with another one; each is of one nodule alone."""
    return [one for one in readings if any(match(one.boxes, other.boxes) for other in readings if other is not one)]


needs_lidc = pytest.mark.skipif(not LIDC.is_dir(), reason="real readings: ../shared/data/ct_patients is not here")
LIDC_TABLES = ("boxes.csv", "lidc0314_boxes.csv")


@needs_lidc
@pytest.mark.parametrize("table", LIDC_TABLES)
def test_the_consensus_of_real_readers_is_nearer_to_each_of_them_than_they_are_to_each_other(table):
    for name, all_readings in lidc_readings(LIDC / table).items():
        readings = overlapping(all_readings)
        fused = fuse(readings)
        between = [agreement(*pair).overlap for pair in combinations(readings, 2) if agreement(*pair).matched]
        to_consensus = [agreement(one, fused).overlap for one in readings if agreement(one, fused).matched]
        means = sum(between) / len(between), sum(to_consensus) / len(to_consensus)
        print(
            f"{Path(name).name}: {len(readings)} readers, overlap {means[0]:.3f} between them, {means[1]:.3f} to the "
            f"consensus; disagreement {disagreement(readings):.3f}"
        )
        assert means[1] > means[0]


@needs_lidc
def test_the_next_image_is_the_one_that_real_readers_disagree_on_most(tmp_path):
    store = BoxStore(tmp_path / "boxes.sqlite")
    expected = {}
    for table in LIDC_TABLES:
        for all_readings in lidc_readings(LIDC / table).values():
            readings = overlapping(all_readings)
            expected[readings[0].image.id] = disagreement(readings)
            for one in readings:
                store.save(one, actor="lidc", based_on=0)
    set_readers_per_image(store, 5)
    served = [next_image(store, list(expected), "reader-5", "disagreement")["id"] for _ in expected]
    assert served == sorted(expected, key=expected.get, reverse=True)
    store.close()
