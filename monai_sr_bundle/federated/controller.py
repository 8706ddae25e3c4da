"""The server's side of a study: rounds that go on without sites that are late or lost."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai_sr_bundle.federated.messages import (
    BOX_FACTOR,
    BOXED_IMAGES,
    DELTA,
    EPSILON,
    IMAGES,
    ITERATIONS,
    PROCESS_OF,
    ROUNDS_FILE,
    SAMPLE_RATE,
    SECONDS,
    same_process,
)
from monai_sr_bundle.images.staging import write_file
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.workflows.fedavg import FedAvg

MAX_MISSED = 2
"""Rounds in a row without an answer after which a site is no longer asked."""


class FederatedAveraging(FedAvg):
    """Federated averaging over the sites that answer in time.

    McMahan et al., "Communication-efficient learning of deep networks from decentralized data", AISTATS 2017. Sites are
    weighted by their numbers of training images, and summed in the order of their names: the result does not depend on
    who answers first.

    Args:
        num_rounds: rounds of this job.
        minimum_sites: sites that have to answer in a round; with fewer the job ends with an error.
        round_seconds: longest round.
        grace_seconds: how long others are waited for once `minimum_sites` have answered.
        start_round: rounds that earlier jobs of the study have done. Default 0.
        kept_rounds: numbers of rounds after which the global model is also kept in a file of its own. Default none.
    """

    def __init__(
        self,
        num_rounds: int,
        minimum_sites: int,
        round_seconds: int,
        grace_seconds: int,
        start_round: int = 0,
        kept_rounds: Sequence[int] = (),
    ) -> None:
        super().__init__(num_rounds=num_rounds, start_round=start_round, ignore_result_error=True)
        self.minimum_sites, self.round_seconds, self.grace_seconds = minimum_sites, round_seconds, grace_seconds
        self.kept_rounds = tuple(kept_rounds)
        self._missed: Counter[str] = Counter()
        self._asked: list[str] = []
        self._answers: dict[str, FLModel] = {}
        self._box_factor = 1.0
        self._rounds: list[dict[str, Any]] = []
        self._round_start = 0.0

    def run(self) -> None:
        """Run the rounds, then let every site measure the last global model."""
        super().run()
        if not self.abort_signal.triggered:
            self._measure_last()

    def sample_clients(self, num_clients: int | None = None) -> list[str]:
        """Return the sites to ask: all but those that have missed too many rounds in a row."""
        sites = sorted(super().sample_clients(None))
        present = [site for site in sites if self._missed[site] < MAX_MISSED]
        self._asked = present if len(present) >= self.minimum_sites else sites
        return self._asked

    def send_model(self, **message: Any) -> None:
        """Send the global model, and end the round by its deadlines."""
        self._answers, self._round_start = {}, time.monotonic()
        data = message["data"]
        data.meta = {**(data.meta or {}), BOX_FACTOR: self._box_factor}
        self.broadcast_model(
            blocking=False,
            min_responses=min(self.minimum_sites, len(self._asked)),
            wait_time_after_min_received=self.grace_seconds,
            timeout=self.round_seconds,
            **message,
        )

    def _aggregate_one_result(self, result: FLModel) -> bool:
        site = (result.meta or {}).get("client_name", "")
        if result.params_type != ParamsType.DIFF or not result.params:
            self.warning(f"{site} has sent no difference of weights. Its answer is left out.")
            return False
        self._answers[site] = result
        self._received_count += 1
        self.info(f"{self._received_count} of {self._expected_count} sites have answered")
        return True

    def _get_aggregated_result(self) -> FLModel:
        sites = sorted(self._answers)
        missing = [site for site in self._asked if site not in sites]
        for site in self._asked:
            self._missed[site] = 0 if site in sites else self._missed[site] + 1
        if missing:
            self.warning(f"round {self.current_round}: no answer from {', '.join(missing)}")
        if len(sites) < self.minimum_sites:
            self.panic(
                f"{len(sites)} of {len(self._asked)} sites have answered in round {self.current_round}, expected at "
                f"least {self.minimum_sites}. The global model of the round before is kept; start another job with it."
            )
            return FLModel(params_type=ParamsType.DIFF, params={}, meta={})
        answers = [self._answers[site] for site in sites]
        processes = [tuple(answer.meta.get(PROCESS_OF) or ()) for answer in answers]
        if not all(same_process(each, processes[0]) for each in processes):
            self.panic(
                "the sites trained for different diffusion processes, whose weights have no mean. Install the same "
                "bundle at all sites."
            )
            return FLModel(params_type=ParamsType.DIFF, params={}, meta={})
        images = [float(answer.meta[IMAGES]) for answer in answers]
        boxed = sum(count for count, answer in zip(images, answers, strict=True) if answer.meta.get(BOXED_IMAGES))
        self._box_factor = sum(images) / boxed if boxed else 1.0
        record = {
            "round": self.current_round,
            "asked": len(self._asked),
            "answered": len(sites),
            "missing": missing,
            "seconds": round(time.monotonic() - self._round_start, 2),
            "sites": {
                site: {
                    "metrics": answer.metrics,
                    **{key: answer.meta.get(key) for key in (IMAGES, BOXED_IMAGES, ITERATIONS, SECONDS)},
                    **{key: answer.meta[key] for key in (EPSILON, DELTA, SAMPLE_RATE) if key in answer.meta},
                }
                for site, answer in zip(sites, answers, strict=True)
            },
        }
        self._rounds.append(record)
        self._answers = {}
        self._process = processes[0]
        return FLModel(
            params_type=ParamsType.DIFF,
            params=weighted_mean([answer.params for answer in answers], images),
            current_round=self.current_round,
            meta={"nr_aggregated": len(sites), "current_round": self.current_round},
        )

    def update_model(self, model: FLModel, aggr_result: FLModel) -> FLModel:
        """Add the mean difference to the global model; a fingerprint of a process is no difference."""
        model = super().update_model(model, aggr_result)
        if aggr_result.params and self._process:
            model.params[PROCESS_OF] = np.asarray(self._process, dtype=model.params[PROCESS_OF].dtype)
        return model

    def save_model(self, model: FLModel) -> None:
        """Save the global model, then the record of its rounds, and perhaps keep it."""
        super().save_model(model)
        self._write_record()
        self._last = model
        if self.current_round + 1 in self.kept_rounds:
            name = f"global_after_{self.current_round + 1}_rounds.npz"
            np.savez(Path(self._folder) / name, **model.params)

    def _measure_last(self) -> None:
        self._answers = {}
        sites = self.sample_clients()
        self._last.current_round = self.start_round + self.num_rounds
        self.broadcast_model(
            task_name=AppConstants.TASK_VALIDATION,
            data=self._last,
            targets=sites,
            blocking=False,
            min_responses=min(self.minimum_sites, len(sites)),
            wait_time_after_min_received=self.grace_seconds,
            timeout=self.round_seconds,
            callback=self._keep_metrics,
        )
        while self.get_num_standing_tasks() and not self.abort_signal.triggered:
            time.sleep(self._task_check_period)
        metrics = {site: {"metrics": answer.metrics} for site, answer in sorted(self._answers.items())}
        self._rounds.append({"round": self._last.current_round, "answered": len(metrics), "sites": metrics})
        self._write_record()

    def _keep_metrics(self, result: FLModel) -> bool:
        self._answers[(result.meta or {}).get("client_name", "")] = result
        return True

    @property
    def _folder(self) -> Path:
        return Path(self.persistor.log_dir)

    def _write_record(self) -> None:
        write_file(self._folder / ROUNDS_FILE, f"{json.dumps(self._rounds, indent=2)}\n".encode())


def weighted_mean(differences: Sequence[dict[str, np.ndarray]], weights: Sequence[float]) -> dict[str, np.ndarray]:
    """Return the weighted mean of arrays by name, summed in double precision in the order given.

    Args:
        differences: arrays by name; the mean of a name is over those that have it.
        weights: one for each, above 0.
    """
    names = sorted({name for difference in differences for name in difference})
    means = {}
    for name in names:
        weighted_values = [
            (difference[name], weight)
            for difference, weight in zip(differences, weights, strict=True)
            if name in difference
        ]
        total = sum(np.asarray(value, dtype=np.float64) * weight for value, weight in weighted_values)
        means[name] = np.asarray(
            total / sum(weight for _, weight in weighted_values), dtype=np.asarray(weighted_values[0][0]).dtype
        )
    return means
