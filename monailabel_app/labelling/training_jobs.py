"""Fine-tunings in the background, one at a time: started, followed, cancelled; promoted where they are not worse."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labelling.box_store import BoxStore
from labelling.catalogue import Catalogue
from labelling.errors import ConflictError, NotFoundError, RefusedError
from labelling.image_changes import leave_out_changed, say_missing, shortened
from labelling.models import Models
from labelling.training_data import LabelledImage, agreed_reading, require_splits
from labelling.training_process import TrainingTask

logger = logging.getLogger(__name__)

_KIND = "training"
RUNNING = ("preparing", "training", "comparing")
MOST_ITERATIONS = 1_000_000


class TrainingJobs:
    """The fine-tunings of a server. What ran when the server ended is "interrupted" when it starts again.

    Args:
        store, catalogue, models: parts of the server, see `Context`.
        folder: folder of the jobs.
    """

    def __init__(self, store: BoxStore, catalogue: Catalogue, models: Models, folder: Path) -> None:
        self._store, self._catalogue, self._models, self._folder = store, catalogue, models, folder
        self._lock = threading.RLock()
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._progress: dict[str, dict[str, Any]] = {}
        for name, job in store.records(_KIND).items():
            if job["state"] in RUNNING:
                store.set_record(_KIND, name, {**job, "state": "interrupted", "reason": "The server was ended."})
                self._remove_images(name)

    def start(
        self,
        bundle_name: str,
        *,
        actor: str,
        iterations: int = 500,
        box_weight: float | None = None,
        box_repeats: int | None = None,
        stage: str | None = None,
        seed: int = 0,
        promote: bool = True,
    ) -> str:
        """Start the fine-tuning of a bundle on all images that were read, and return the name of the job.

        Args:
            bundle_name: name of a bundle of this server.
            actor: the user.
            iterations, box_weight, box_repeats, stage: see `TrainingTask`.
            seed: seed of the patches.
            promote: promote the new weights where they are not worse. Default True.

        Raises:
            NotFoundError: no such bundle.
            ConflictError: another training runs; the images that were read are too few.
            RefusedError: a number out of range.
        """
        bundle = self._models.find(bundle_name)
        if not 1 <= iterations <= MOST_ITERATIONS:
            raise RefusedError(f"iterations is {iterations}, expected 1 to {MOST_ITERATIONS}.")
        if box_weight is not None and not 0 < box_weight <= 1000:
            raise RefusedError(f"box_weight is {box_weight:g}, expected a number above 0, at most 1000.")
        if box_repeats is not None and not 1 <= box_repeats <= 1000:
            raise RefusedError(f"box_repeats is {box_repeats}, expected 1 to 1000.")
        with self._lock:
            running = [name for name, process in self._processes.items() if process.poll() is None]
            if running:
                raise ConflictError(f"the training {running[0]} is running. Wait for it, or cancel it.")
            images, left_out = self._labelled_images(bundle.modality)
            require_splits(images)
            name = f"{bundle_name}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
            folder = self._folder / name
            folder.mkdir(parents=True)
            shipped = str(self._models.shipped(bundle_name).folder)
            task = TrainingTask(
                str(bundle.folder), shipped, tuple(images), self._models.prepared(bundle_name, name), iterations,
                box_weight, box_repeats, stage, {"seed": seed},
            )  # fmt: skip
            (folder / "job.pickle").write_bytes(pickle.dumps(task))
            job = {
                "job": name, "bundle": bundle_name, "state": "preparing", "actor": actor, "promote": promote,
                "started": datetime.now(UTC).isoformat(timespec="seconds"), "left_out": left_out,
            }  # fmt: skip
            self._store.set_record(_KIND, name, job)
            self._store.note("train", actor=actor, reason=name)
            self._progress[name] = {"fraction": 0.0}
            package = Path(__file__).resolve().parents[1]
            path = [str(package), *filter(None, sys.path)]
            log = (folder / "log.txt").open("w")
            process = subprocess.Popen(
                [sys.executable, "-m", "labelling.training_process", str(folder)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            )  # fmt: skip
            log.close()
            self._processes[name] = process
        threading.Thread(target=self._follow, args=(name, process), daemon=True).start()
        return name

    def job(self, name: str) -> dict[str, Any]:
        """Return the state of a training, with its progress or its report.

        Raises:
            NotFoundError: no such job.
        """
        job = self._store.record(_KIND, name)
        if job is None:
            raise NotFoundError("there is no such training.")
        if job["state"] in RUNNING:
            job |= self._progress.get(name, {})
        return dict(job)

    def jobs(self) -> list[dict[str, Any]]:
        """Return all trainings, oldest first."""
        return [self.job(name) for name in self._store.records(_KIND)]

    def cancel(self, name: str, *, actor: str) -> dict[str, Any]:
        """End a training that is running.

        Raises:
            NotFoundError: no such job.
            ConflictError: it does not run.
        """
        job = self.job(name)
        with self._lock:
            process = self._processes.get(name)
            if process is None or process.poll() is not None or job["state"] not in RUNNING:
                raise ConflictError(f"the training is {job['state']}, and cannot be cancelled.")
            stored = self._store.record(_KIND, name)
            self._store.set_record(_KIND, name, {**stored, "state": "cancelled", "cancelled_by": actor})
            process.kill()
        process.wait()
        return self.job(name)

    def close(self) -> None:
        """End what is running; it is "interrupted" at the next start."""
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()

    def _labelled_images(self, modality: str) -> tuple[list[LabelledImage], list[str]]:
        """Return the images that were read, and a sentence on each whose readings are left out."""
        images, left_out = [], []
        names = set(self._catalogue.names())
        for name in sorted(self._store.images()):
            if name not in names:
                left_out.append(say_missing(name))
                continue
            versions, sentences = leave_out_changed(self._catalogue, name, self._store.current(name))
            left_out += sentences
            reading = agreed_reading(versions)
            if reading is not None and self._catalogue.modality(name) == modality:
                source = self._catalogue.source(name)
                images.append(LabelledImage(name, source, self._catalogue.patient(name), reading.boxes))
        return images, shortened(left_out)

    def _follow(self, name: str, process: subprocess.Popen[str]) -> None:
        """Read what a training tells until it ends, then keep its report, and promote its weights."""
        reason = ""
        assert process.stdout is not None
        for line in process.stdout:
            try:
                message = json.loads(line)
            except ValueError:  # a library that prints
                continue
            if not isinstance(message, dict) or "state" not in message:
                continue
            reason = message.get("reason", reason)
            self._progress[name] = {key: message[key] for key in ("fraction", "loss") if key in message}
            if message["state"] in RUNNING:
                self._set_state(name, message["state"])
        code = process.wait()
        self._remove_images(name)
        with self._lock:
            job = self._store.record(_KIND, name)
            if job["state"] not in RUNNING:
                return
            report = self._folder / name / "report.json"
            if code or not report.is_file():
                reason = reason or f"The process ended with {code}; log.txt in the folder of the job has more."
                self._store.set_record(_KIND, name, {**job, "state": "failed", "reason": reason})
                return
            content = json.loads(report.read_text(encoding="utf-8"))
            promote = job["promote"] and content["not_worse"]
            if promote:
                self._models.promote(job["bundle"], name, content, actor=job["actor"])
            self._store.set_record(_KIND, name, {**job, "state": "done", "promoted": promote, "report": content})

    def _remove_images(self, name: str) -> None:
        """Remove the copies of patients' images that a training was made of."""
        shutil.rmtree(self._folder / name / "data", ignore_errors=True)

    def _set_state(self, name: str, state: str) -> None:
        with self._lock:
            job = self._store.record(_KIND, name)
            if job["state"] in RUNNING and job["state"] != state:
                self._store.set_record(_KIND, name, {**job, "state": state})
