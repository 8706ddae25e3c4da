"""Statistics that a site sends of its images: histograms of at least ten images, and nothing else."""

from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("nvflare", reason="federated training: nvflare is not installed (extra [federated])")

from monai_sr_bundle.federated.image_statistics import INTENSITY, SHARPNESS, ImageStatistics, list_statistics
from monai_sr_bundle.federated.site_settings import SiteSettings
from monai_sr_bundle.federated.site_statistics import write_statistics_job
from nvflare.app_common.abstract.statistics_spec import Bin, Histogram, HistogramType
from nvflare.app_common.app_constant import StatisticsConstants as StC
from nvflare.app_common.statistics.statisitcs_objects_decomposer import fobs_registration
from nvflare.fuel.utils import fobs

from tests.drawn_data import write_radiographs, write_volumes
from tests.federated.conftest import site_context

fobs_registration()  # as NVFlare's part of a job does


def initialized(folder, images):
    data = write_radiographs(folder / "data", size=64, counts=(("train", images), ("val", 1)))
    return initialized_with(folder, data, "chest_xray_srcnn_x4")


def initialized_with(folder, data, bundle):
    statistics = ImageStatistics(bundle)
    statistics.initialize(site_context(folder, SiteSettings(data, folder / "work")))
    return statistics


def test_counts_sums_and_histograms_are_those_of_the_images(tmp_path):
    statistics = initialized(tmp_path, 10)
    assert statistics.count("train", SHARPNESS) == 10
    assert statistics.count("train", INTENSITY) == 10 * 32 * 32  # the bundle reduces its files by two
    histogram = statistics.histogram("train", INTENSITY, 20, 0.0, 1.0)
    assert sum(each.sample_count for each in histogram.bins) == 10 * 32 * 32
    middles = np.array([(each.low_value + each.high_value) / 2 for each in histogram.bins])
    counts = np.array([each.sample_count for each in histogram.bins])
    assert abs(middles @ counts / counts.sum() - statistics.mean("train", INTENSITY)) < 0.025
    assert 0.1 < statistics.stddev("train", INTENSITY) < 0.5


def test_a_site_with_few_images_answers_without_figures(tmp_path, caplog):
    statistics = initialized(tmp_path, 9)
    assert "9 training images of 9 patients, and sends no statistics of fewer than 10 images or 5" in caplog.text
    assert statistics.features() == {"train": []}
    first = answer({StC.STATS_COUNT: {"train": {}}}, **{StC.STATS_FEATURES: fobs.dumps({"train": []})})
    assert fobs.loads(list_statistics(first)[StC.STATS_2nd_STATISTICS]) == {StC.STATS_COUNT: {"train": {}}}


def test_the_slices_of_one_patient_are_no_images_of_many(tmp_path, caplog):
    data = write_volumes(tmp_path / "data", slices=12)
    assert initialized_with(tmp_path, data, "chest_ct_edsr_x4").features() == {"train": []}
    assert "12 training images of 1 patients" in caplog.text


def test_the_job_has_no_code(tmp_path):
    folder = write_statistics_job("chest_xray_srcnn_x4", ["north", "south"], tmp_path)
    assert sorted(path.suffix for path in folder.rglob("*") if path.is_file()) == [".json"] * 4


def histogram_over(low, high, bins=20):
    edges = [low + (high - low) * index / bins for index in range(bins + 1)]
    return Histogram(HistogramType.STANDARD, [Bin(*ends, 3.0) for ends in pairwise(edges)])


def answer(statistics, **more):
    return {StC.STATISTICS_TASK_KEY: StC.STATS_2nd_STATISTICS, StC.STATS_2nd_STATISTICS: fobs.dumps(statistics), **more}


def test_statistics_pass_as_they_are():
    histogram = histogram_over(0, 1)
    statistics = {StC.STATS_VAR: {"train": {SHARPNESS: 0.5}}, StC.STATS_HISTOGRAM: {"train": {INTENSITY: histogram}}}
    listed = list_statistics(answer(statistics, image="pixels"))
    assert fobs.loads(listed[StC.STATS_2nd_STATISTICS]) == statistics
    assert "image" not in listed


def test_features_pass_as_nvflare_sends_them(tmp_path):
    features = fobs.dumps(initialized(tmp_path, 10).features())
    first = {StC.STATISTICS_TASK_KEY: StC.STATS_1st_STATISTICS, StC.STATS_FEATURES: features}
    listed = list_statistics(
        first | {StC.STATS_1st_STATISTICS: fobs.dumps({StC.STATS_COUNT: {"train": {SHARPNESS: 10}}})}
    )
    assert listed[StC.STATS_FEATURES] == features


@pytest.mark.parametrize(
    "refused",
    [
        answer({"patients": {"train": {SHARPNESS: 1.0}}}),
        answer({StC.STATS_VAR: {"one_patient": {SHARPNESS: 1.0}}}),
        answer({StC.STATS_VAR: {"train": {"name": 1.0}}}),
        answer({StC.STATS_VAR: {"train": {SHARPNESS: "a file"}}}),
        answer({StC.STATS_HISTOGRAM: {"train": {SHARPNESS: histogram_over(-8, 2, 21)}}}),
        answer({StC.STATS_HISTOGRAM: {"train": {SHARPNESS: histogram_over(-3.5, -3.4)}}}),
        answer({StC.STATS_HISTOGRAM: {"train": {SHARPNESS: histogram_over(0, 1)}}}),
        answer({StC.STATS_HISTOGRAM: {"train": {SHARPNESS: Histogram(HistogramType.STANDARD, [])}}}),
        {StC.STATISTICS_TASK_KEY: "another"},
    ],
)
def test_anything_else_is_refused(refused):
    with pytest.raises(ValueError, match=r".") as error:
        list_statistics(refused)
    assert "patient" not in str(error.value)
