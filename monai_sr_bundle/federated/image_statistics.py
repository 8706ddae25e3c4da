"""Histograms of the intensity and sharpness of a site's images, for a look at all hospitals before a study."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai_sr_bundle.federated.messages import LEAST_PATIENTS_OF_SITE
from monai_sr_bundle.federated.site_settings import read_site_settings, site_settings_file
from monai_sr_bundle.shipped_bundles import find_bundle
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.statistics_spec import (
    Bin,
    DataType,
    Feature,
    Histogram,
    HistogramType,
    Statistics,
)
from nvflare.app_common.app_constant import StatisticsConstants as StC
from nvflare.fuel.utils import fobs

logger = logging.getLogger(__name__)

MINIMUM_IMAGES = 10
"""A site with fewer training images, or of fewer patients than `LEAST_PATIENTS_OF_SITE`, answers without figures: their
histogram would describe single patients."""
BINS = 20
"""Intervals of a histogram. Others, or other ends, would tell the server the sharpness of single images."""
INTENSITY, SHARPNESS = "intensity", "sharpness"
_BINS = 4096
RANGES = {INTENSITY: (0, 1), SHARPNESS: (-8, 2)}
"""Ends of the histograms, the same at every site."""
_STATISTICS = {
    *(StC.STATS_COUNT, StC.STATS_FAILURE_COUNT, StC.STATS_SUM, StC.STATS_MEAN, StC.STATS_VAR, StC.STATS_STDDEV),
    StC.STATS_HISTOGRAM,
}


class ImageStatistics(Statistics):
    """Intensity and sharpness of a site's training images.

    `intensity` is that of all pixels, 0 and 1 being the ends of the bundle's window. `sharpness` is one number for each
    image: the logarithm, to base 10, of the variance of its Laplacian, which falls with blur and rises with noise.

    Args:
        bundle: name of the bundle that would be trained.
    """

    def __init__(self, bundle: str) -> None:
        self.bundle = bundle
        self._values: dict[str, np.ndarray] = {}
        self._weights: dict[str, np.ndarray] = {}

    def initialize(self, fl_ctx: FLContext) -> None:
        """Read the training images once; of too few images or patients, nothing is kept.

        Raises:
            InputError: they cannot be read.
        """
        settings = read_site_settings(site_settings_file(fl_ctx))
        counts = np.zeros(_BINS)
        sharpness, patients = [], set()
        for patient, image in _training_images(self.bundle, settings.data):
            patients.add(patient)
            counts += np.histogram(image, _BINS, (0, 1))[0]
            sharpness.append(_measure_sharpness(image))
        if len(sharpness) < MINIMUM_IMAGES or len(patients) < LEAST_PATIENTS_OF_SITE:
            logger.warning(
                "this site has %d training images of %d patients, and sends no statistics of fewer than %d images or "
                "%d patients", len(sharpness), len(patients), MINIMUM_IMAGES, LEAST_PATIENTS_OF_SITE,
            )  # fmt: skip
            return
        self._values = {INTENSITY: (np.arange(_BINS) + 0.5) / _BINS, SHARPNESS: np.array(sharpness)}
        self._weights = {INTENSITY: counts, SHARPNESS: np.ones(len(sharpness))}

    def features(self) -> dict[str, list[Feature]]:
        return {"train": [Feature(name, DataType.FLOAT) for name in self._values]}

    def count(self, dataset_name: str, feature_name: str) -> int:
        return int(self._weights[feature_name].sum())

    def sum(self, dataset_name: str, feature_name: str) -> float:
        return float(self._weights[feature_name] @ self._values[feature_name])

    def mean(self, dataset_name: str, feature_name: str) -> float:
        return self.sum(dataset_name, feature_name) / self.count(dataset_name, feature_name)

    def stddev(self, dataset_name: str, feature_name: str) -> float:
        mean, count = self.mean(dataset_name, feature_name), self.count(dataset_name, feature_name)
        return float(np.sqrt(self.variance_with_mean(dataset_name, feature_name, mean, count)))

    def variance_with_mean(
        self, dataset_name: str, feature_name: str, global_mean: float, global_count: float
    ) -> float:
        squares = self._weights[feature_name] @ (self._values[feature_name] - global_mean) ** 2
        return float(squares / max(1, global_count - 1))

    def histogram(
        self, dataset_name: str, feature_name: str, num_of_bins: int, global_min_value: float, global_max_value: float
    ) -> Histogram:
        counts, edges = np.histogram(
            np.clip(self._values[feature_name], global_min_value, global_max_value),
            num_of_bins,
            (global_min_value, global_max_value),
            weights=self._weights[feature_name],
        )
        bins = [Bin(low, high, count) for low, high, count in zip(edges, edges[1:], counts.tolist(), strict=False)]
        return Histogram(HistogramType.STANDARD, bins)


def list_statistics(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return a site's answer written anew from what may be in it: numbers and histograms of the two features.

    What stands beside them, as NVFlare's headers, stays at the site.

    Raises:
        ValueError: something else is in it; the text never says what.
    """
    task = answer.get(StC.STATISTICS_TASK_KEY)
    if task not in (StC.STATS_1st_STATISTICS, StC.STATS_2nd_STATISTICS):
        raise ValueError("the statistics are of no known kind.")
    listed: dict[str, Any] = {StC.STATISTICS_TASK_KEY: task}
    if StC.STATS_FEATURES in answer:
        features = fobs.loads(answer[StC.STATS_FEATURES])
        if features not in ({"train": []}, {"train": [Feature(name, DataType.FLOAT) for name in RANGES]}):
            raise ValueError("the statistics have unlisted features.")
        listed[StC.STATS_FEATURES] = fobs.dumps(features)
    statistics = {name: _list_statistic(name, values) for name, values in fobs.loads(answer[task]).items()}
    return {**listed, task: fobs.dumps(statistics)}


def _list_statistic(name: str, values: Any) -> dict[str, dict[str, Any]]:
    if name in (StC.STATS_MIN, StC.STATS_MAX):
        # NVFlare asks for them before a histogram. The ends that the job states tell nothing of a site's images.
        range_ends = {feature: ends[name == StC.STATS_MAX] for feature, ends in RANGES.items()}
        if values in ({"train": {}}, {"train": range_ends}):
            return dict(values)
    if name not in _STATISTICS or set(values) != {"train"} or not set(values["train"]) <= {INTENSITY, SHARPNESS}:
        raise ValueError("a statistic has unlisted names.")
    return {"train": {feature: _list_value(name, feature, value) for feature, value in values["train"].items()}}


def _list_value(name: str, feature: str, value: Any) -> float | Histogram:
    if name != StC.STATS_HISTOGRAM:
        return float(value)
    edges = [*(each.low_value for each in value.bins), *(each.high_value for each in value.bins[-1:])]
    if len(edges) != BINS + 1 or not np.allclose(edges, np.linspace(*RANGES[feature], BINS + 1)):
        raise ValueError("a histogram has other intervals than those of this study's histograms.")
    bins = [Bin(float(each.low_value), float(each.high_value), float(each.sample_count)) for each in value.bins]
    return Histogram(HistogramType.STANDARD, bins)


def _training_images(bundle: str, data: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the patient of each training image, or slice, and the image as the bundle's training reads it."""
    from monai_sr_bundle.training.image_sets import with_image_sets
    from monai_sr_bundle.transforms.pairs import LoadHighResd, pair_items

    facts = with_image_sets(find_bundle(bundle), data).facts
    load = LoadHighResd("label", window=facts["window"], reduce=facts.get("reduce", 1), levels=facts["levels"])
    for item in pair_items(str(data), facts["modality"], "train", sets=facts["sets"]):
        yield str(item["patient"]), load(item)["label"].numpy()[0]


def _measure_sharpness(image: np.ndarray) -> float:
    neighbours = image[:-2, 1:-1] + image[2:, 1:-1] + image[1:-1, :-2] + image[1:-1, 2:]
    return float(np.log10(np.var(neighbours - 4 * image[1:-1, 1:-1]) + 1e-12))
