"""One fine-tuning, in a process of its own: `python -m labelling.training_process FOLDER`.

FOLDER/job.pickle is the `TrainingTask`. The progress goes to standard output as JSON lines; the report is
FOLDER/report.json. Where the other end of standard input is closed, as the server has ended, this process ends, too.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_sr_bundle.errors import SuperResolutionError
from monai_sr_bundle.training.stages import training_stages

from labelling.models import prepare_bundle
from labelling.training_data import SET, LabelledImage, split_of, write_data_set

MARGIN_DB = 0.1
"""Largest loss of PSNR, with 95 % confidence, at which the new weights are called not worse."""
FIGURES = {"psnr": "whole image", "box_psnr": "inside boxes"}
HELD_OUT = "the set of held-out images"
LEARNING_RATE_SHARE = 0.1
"""Share of the bundle's learning rate: the weights are good already."""


@dataclass(frozen=True)
class TrainingTask:
    """A fine-tuning.

    Attributes:
        bundle: folder of the bundle, with the present weights.
        shipped: folder of the bundle, with the shipped weights and their error bars.
        images: images with boxes to learn from.
        target: folder of the bundle with the new weights.
        iterations: steps of the optimizer.
        box_weight: weight inside boxes, added to the 1 of every pixel. Default: the bundle's, or 1.
        box_repeats: how often an image with boxes is drawn. Default: the bundle's, or 4.
        stage: stage of the bundle's training. Default: of a flow its own, else the first.
        overrides: other keys of the workflow.
    """

    bundle: str
    shipped: str
    images: tuple[LabelledImage, ...]
    target: Path
    iterations: int
    box_weight: float | None = None
    box_repeats: int | None = None
    stage: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)


def run(task: TrainingTask, folder: Path) -> dict[str, Any]:
    """Train, compare with the present weights on held-out images, and return the report."""
    from monai_sr_bundle.packing.release import add_learnt_from
    from monai_sr_bundle.shipped_bundles import find_bundle
    from monai_sr_bundle.training.training import open_training

    bundle = find_bundle(task.bundle)
    start, _ = bundle.weights("model.pt")
    _tell(state="preparing", fraction=0.0)
    data = write_data_set(task.images, bundle.modality, folder / "data")
    last_told = 0.0

    def listen(record: Any) -> None:
        nonlocal last_told
        if record.kind == "training" and time.monotonic() - last_told > 0.5:
            last_told = time.monotonic()
            loss = record.values.get("loss")
            fraction = min(1.0, record.iteration / task.iterations)
            _tell(state="training", fraction=fraction, loss=loss)

    facts = bundle.facts
    rate = LEARNING_RATE_SHARE * float(facts["learning_rate"])
    training = open_training(
        bundle, data, folder / "run",
        stage=task.stage or _default_stage(bundle), start=start, sets=[SET],
        iterations=task.iterations, callback=listen,
        box_weight=task.box_weight if task.box_weight is not None else float(facts.get("box_weight") or 1.0),
        box_repeats=task.box_repeats or max(4, int(facts.get("box_repeats") or 1)),
        **{"learning_rate": rate, **task.overrides},
    )  # fmt: skip
    training.run()
    weights = training.save()
    _tell(state="comparing", fraction=1.0)
    new = prepare_bundle(bundle, weights, task.target)
    add_learnt_from(str(new.folder), str(bundle.folder), data, [SET])
    report = compare(str(bundle.folder), str(new.folder), data)
    if report["not_worse"]:
        report["error_bars"] = calibrate(str(new.folder), task.shipped, data)
    splits = [split_of(image.patient) for image in task.images]
    boxes = sum(len(image.boxes) for image in task.images)
    return {
        "bundle": bundle.name,
        "iterations": task.iterations,
        "images": {split: splits.count(split) for split in ("train", "val", "test")},
        "boxes": boxes,
        **report,
    }


def compare(old: str, new: str, data: Path) -> dict[str, Any]:
    """Compare two bundles on the held-out images: whole, and inside boxes.

    Returns:
        For each figure in dB the two means, the paired difference, and its 95 % interval by bootstrap over patients;
        `not_worse`, where every interval lies above -`MARGIN_DB`, of at least two patients; and `reason`.
    """
    from monai_sr_bundle.benchmark.measure import measure
    from monai_sr_bundle.benchmark.protocol import Protocol, Row
    from monai_sr_bundle.metrics.mean import Mean
    from monai_sr_bundle.shipped_bundles import find_bundle

    bundle = find_bundle(old)
    protocol = Protocol(
        "fine_tuning", "Fine-tuning", "", bundle.modality, (SET,), bundle.operator, bundle.window,
        int(bundle.facts["levels"]), (Row(old, "before"), Row(new, "after")), reference=old,
        reduce=int(bundle.facts.get("reduce", 1)),
    )  # fmt: skip
    comparison = measure(protocol, data)
    before, after = comparison.results
    figures: dict[str, Any] = {}
    for figure, words in FIGURES.items():
        pairs = [
            (a, b, patient)
            for a, b, patient in zip(
                after.figures.get(figure, ()), before.figures.get(figure, ()), comparison.patients, strict=False
            )
            if math.isfinite(a) and math.isfinite(b)
        ]
        if not pairs:
            continue
        difference = Mean.of([a - b for a, b, _ in pairs], [patient for *_, patient in pairs])
        figures[figure] = {
            "where": words,
            "before": Mean.of([b for _, b, _ in pairs]).mean,
            "after": Mean.of([a for a, *_ in pairs]).mean,
            "difference": difference.mean,
            "low": difference.low,
            "high": difference.high,
            "images": len(pairs),
            "patients": len({patient for *_, patient in pairs}),
        }
    not_worse, reason = _judge(figures)
    return {"figures": figures, "not_worse": not_worse, "reason": reason, "margin_db": MARGIN_DB}


def calibrate(new: str, shipped: str, data: Path) -> str:
    """Give new weights the shipped error bars, calibrated anew on the held-out images, where these are enough.

    Returns:
        A sentence on the error bars, or on why the new weights have none.
    """
    from monai_sr_bundle.calibrate.calibrate import make_calibration, measure_losses
    from monai_sr_bundle.calibrate.loss_curve import require_enough
    from monai_sr_bundle.datasets.make_manifest import manifest_sha256
    from monai_sr_bundle.packing.release import keep_error_bars, remove_error_bars
    from monai_sr_bundle.shipped_bundles import find_bundle
    from monai_sr_bundle.transforms.pairs import pair_items
    from monai_sr_bundle.uncertainty.calibration import FILE, read_calibration
    from monai_sr_bundle.uncertainty.error_bars import find_calibration_file, has_error_bars

    from labelling.guard import without_paths

    before, split = find_bundle(shipped), "test"
    calibrated = find_calibration_file(before)
    if calibrated is None or not has_error_bars(before):
        return f"No error bars: {before.name} is shipped without."
    names = {(item["patient"], item["name"]) for item in pair_items(str(data), before.modality, split, sets=[SET])}
    advice = "Read images of more patients, and train again."
    try:
        require_enough(len(names), len({patient for patient, _ in names}), before.modality, HELD_OUT, advice)
        keep_error_bars(new, shipped)
        bundle = find_bundle(new)
        calibration = make_calibration(
            bundle, measure_losses(bundle, data, split, sets=[SET]), read_calibration(calibrated, before).alpha,
            source=HELD_OUT, advice=advice, data=HELD_OUT, split=split,
            manifest_sha256=manifest_sha256(data, sets=[SET], split=split),
        )  # fmt: skip
    except SuperResolutionError as error:
        remove_error_bars(new)
        return f"No error bars: those of the shipped weights do not hold for these, and {without_paths(str(error))}"
    calibration.write(find_bundle(new).folder / FILE)
    return (
        f"Error bars were calibrated anew on {calibration.images} held-out images of {calibration.patients} patients."
    )


def _judge(figures: dict[str, Any]) -> tuple[bool, str]:
    for figure, words in FIGURES.items():
        if figure not in figures:
            return False, f"No held-out image can be judged: {words}."
        patients = figures[figure]["patients"]
        if patients < 2:
            return False, f"{words}: {patients} held-out patient, expected at least 2 for an interval."
    for figure, words in FIGURES.items():
        low = figures[figure]["low"]
        if low < -MARGIN_DB:
            return False, f"{words}: may be {-low:.2f} dB worse, more than the {MARGIN_DB} dB that are tolerated."
    return True, "Not worse on the held-out images, whole and inside boxes."


def _default_stage(bundle: Any) -> str:
    """Return the stage that goes on with finished weights: of a flow its own, else the first after the pretraining."""
    stages = [name for name, texts in training_stages(bundle).items() if bundle.facts.get("pretraining") not in texts]
    return "flow" if "flow" in stages else str(stages[0])


def _tell(**content: Any) -> None:
    loss = content.get("loss")
    if isinstance(loss, float) and not math.isfinite(loss):
        content["loss"] = None
    print(json.dumps(content), flush=True)


def _end_with_server() -> None:
    def watch() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock would be held when the interpreter ends
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _explain(error: BaseException) -> str:
    """Return the reason at the bottom of what MONAI wraps in messages of its own."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__ or error
    return (
        str(error)
        if isinstance(error, SuperResolutionError | ValueError | OSError)
        else f"{type(error).__name__}; log.txt has more."
    )


def main() -> int:
    """Run the task of a folder, and return the exit code."""
    folder = Path(sys.argv[1])
    _end_with_server()
    if hasattr(os, "nice"):
        os.nice(10)  # readers wait for the server, and nobody for a training
    with (folder / "job.pickle").open("rb") as file:  # written by the server itself, into its own folder
        task = pickle.load(file)
    from labelling.guard import without_paths

    try:
        report = run(task, folder)
    except Exception as error:
        traceback.print_exc()
        _tell(state="failed", reason=without_paths(_explain(error)))
        return 1
    partial = folder / "report.json.partial"
    partial.write_text(json.dumps(report, indent=2), encoding="utf-8")
    os.replace(partial, folder / "report.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
