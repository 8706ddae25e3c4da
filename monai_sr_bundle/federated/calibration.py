"""Error bars that hold for all sites together: each sends sums over its patients, the server picks the factors.

Conformal risk control needs of the images nothing but the sum of the patients' losses for every candidate factor
(`uncertainty.conformal`), so the result is that of all images in one place, to the last bit. No pixel leaves a site.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.calibrate.calibrate import calibration_runs, make_calibration, measure_losses, require_share
from monai_sr_bundle.calibrate.loss_curve import LossCurve, add_curves
from monai_sr_bundle.errors import BundleError, InputError, SuperResolutionError, require_count
from monai_sr_bundle.federated.job import BROADCAST, CALIBRATE_EXECUTOR, COLLECTOR, write_configs
from monai_sr_bundle.federated.messages import CALIBRATION_CURVE, CALIBRATION_NUMBERS, LEAST_PATIENTS_OF_SITE
from monai_sr_bundle.federated.site_settings import read_site_settings, site_settings_file
from monai_sr_bundle.images.staging import write_file
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.uncertainty.calibration import FILE, Calibration, bundle_sha256
from monai_sr_bundle.uncertainty.error_bars import find_bundle_calibration
from nvflare.apis.client import Client
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.response_processor import ResponseProcessor

TASK = "calibrate"
SPLITS = ("train", "val", "test", "all")
COVERAGE_FILE = "coverage.json"
"""File beside the calibration with the coverage at every site, before and after it."""


class CalibrateExecutor(Executor):
    """Measures at a site how many pixels lie outside their error bars, for every factor.

    Args:
        bundle: name of a bundle with error bars that is installed at the site.
        weights_sha256: `bundle_sha256` of it; a site with other weights refuses.
        split: split of the site's images, of patients that the bundle was not trained on. Default "val".
        limit: number of images, evenly spread. Default: all.

    Raises:
        InputError: a value of another kind.
    """

    def __init__(self, bundle: str, weights_sha256: str, split: str = "val", limit: int | None = None) -> None:
        super().__init__()
        # A name and not a folder: a job chooses among what a site has installed.
        if not isinstance(bundle, str) or not bundle.replace("_", "").isalnum():
            raise InputError(f"bundle is {bundle!r}, expected the name of an installed bundle.")
        if split not in SPLITS:
            raise InputError(f"split is {split!r}, expected one of {', '.join(SPLITS)}.")
        if limit is not None:
            require_count("limit", limit)
        self.bundle, self.weights_sha256, self.split, self.limit = bundle, weights_sha256, split, limit
        self._settings_file = Path()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Find the site's settings before the run starts."""
        if event_type == EventType.START_RUN:
            self._settings_file = site_settings_file(fl_ctx)

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Return the sums over the site's patients; of an error, its code, and the reason in the site's own log."""
        if task_name != TASK:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        try:
            bundle = find_bundle(self.bundle)
            if bundle_sha256(bundle) != self.weights_sha256:
                raise BundleError(
                    f"bundle {self.bundle} here has other weights than the one to calibrate. Install the version that "
                    "the study names."
                )
            settings = read_site_settings(self._settings_file)
            curves = measure_losses(bundle, settings.data, self.split, limit=self.limit)
            return DXO(DataKind.ANALYTIC, as_message(curves)).to_shareable()
        except SuperResolutionError as error:
            self.log_error(fl_ctx, str(error))
            return make_reply(ReturnCode.EXECUTION_EXCEPTION)


def as_message(curves: Sequence[LossCurve]) -> dict[str, dict[str, Any]]:
    """Return the message of a site: numbers and sums of every curve, by its position in `calibration_runs`.

    Raises:
        InputError: the curve is of so few patients that it says too much about each.
    """
    fewest = min(curve.patients for curve in curves)
    if fewest < LEAST_PATIENTS_OF_SITE:
        raise InputError(
            f"this site has {fewest} patients to calibrate on, expected at least {LEAST_PATIENTS_OF_SITE}: the curve "
            "of fewer says too much about each. Nothing was sent; take the images of every split, or stay out."
        )
    names = (*CALIBRATION_NUMBERS, CALIBRATION_CURVE)
    return {str(index): {name: getattr(curve, name) for name in names} for index, curve in enumerate(curves)}


def from_message(bundle: Bundle, message: Mapping[str, Mapping[str, Any]]) -> list[LossCurve]:
    """Return the curves that a site has sent.

    Raises:
        InputError: they are not those of the bundle.
    """
    runs = calibration_runs(bundle)
    if set(message) != {str(index) for index in range(len(runs))}:
        raise InputError(f"a site has sent {len(message)} curves, expected the {len(runs)} of {bundle.name}.")
    return [LossCurve(*run.stratum, **message[str(index)]) for index, run in enumerate(runs)]


def write_calibration_job(
    bundle: Bundle,
    folder: Path,
    *,
    alpha: float,
    split: str,
    limit: int | None,
    minimum_sites: int,
    result_filters: Sequence[dict[str, Any]] = (),
) -> Path:
    """Write the job that calibrates a bundle's error bars at all sites, into a new folder inside `folder`.

    Args:
        bundle: a bundle with error bars, installed at the sites.
        folder: folder for that of the job.
        alpha, split, limit: see `calibrate_sites` and `CalibrateExecutor`.
        minimum_sites: sites that have to answer.
        result_filters: see `write_job`.

    Returns:
        The job's folder.

    Raises:
        InputError, OutputError: see `require_share` and `write_configs`.
    """
    require_share(alpha)
    collector = {"path": COLLECTOR, "args": {"bundle": bundle.name, "alpha": alpha, "minimum_sites": minimum_sites}}
    measured = {"bundle": bundle.name, "weights_sha256": bundle_sha256(bundle), "split": split}
    return write_configs(
        folder / f"calibrate_{bundle.name}",
        minimum_sites=minimum_sites,
        workflow={"path": BROADCAST, "args": {"processor": "collector", "task_name": TASK, "timeout": 3600}},
        executor={"path": CALIBRATE_EXECUTOR, "args": measured | ({} if limit is None else {"limit": limit})},
        tasks=(TASK,),
        components=[{"id": "collector", **collector}],
        result_filters=result_filters,
    )


def describe_coverage(calibration: Calibration, coverage: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the table for the terminal: coverage of every site before and after a calibration."""
    lines = [
        f"{calibration.bundle} {calibration.version} | {calibration.images} images of {calibration.patients} patients "
        f"at {calibration.data} | made to hold: {calibration.coverage_percent:g} % of the pixels",
        "factors: " + ", ".join(f"{entry.factor:.3g}" for entry in calibration.entries),
        f"{'site':22}{'scale':>6}{'patients':>10}{'before':>9}{'after':>9}",
    ]
    for site, entries in coverage.items():
        for entry in entries:
            before = "none" if entry["before"] is None else f"{100 * entry['before']:.1f} %"
            after = f"{100 * entry['after']:.1f} %"
            lines.append(f"{site:22}{entry['scale']:>6}{entry['patients']:>10}{before:>9}{after:>9}")
    return "\n".join(lines)


def calibrate_sites(bundle: Bundle, curves_of_sites: Mapping[str, Sequence[LossCurve]], alpha: float) -> Calibration:
    """Return the calibration for the patients of all sites together.

    Args:
        bundle: the bundle.
        curves_of_sites: curves of `measure_losses` by site, which have no patient in common.
        alpha: share of the pixels that may be outside their error bars.

    Raises:
        InputError: too few images or patients in all, or errors that do not follow their scale.
    """
    sites = sorted(curves_of_sites)
    curves = [add_curves(same) for same in zip(*(curves_of_sites[site] for site in sites), strict=True)]
    return make_calibration(
        bundle,
        curves,
        alpha,
        source=f"all {len(sites)} sites: the images",
        advice="Let more sites take part.",
        data=f"{len(sites)} sites",
        split="their own",
        manifest_sha256="",
    )


def measure_coverage(
    bundle: Bundle, curves_of_sites: Mapping[str, Sequence[LossCurve]], calibration: Calibration
) -> dict[str, list[dict[str, Any]]]:
    """Return of every site, and of every entry, its counts and its coverage before and after a calibration.

    Before is that of the bundle's own calibration; None where it has none for these settings.
    """
    runs = calibration_runs(bundle)
    shipped_calibrations = [find_bundle_calibration(run.bundle, run.options) for run in runs]
    return {
        site: [
            {
                "scale": run.bundle.scale,
                "images": curve.images,
                "patients": curve.patients,
                "before": None if shipped is None else curve.coverage(shipped[1].factor),
                "after": curve.coverage(entry.factor),
            }
            for run, shipped, curve, entry in zip(runs, shipped_calibrations, curves, calibration.entries, strict=True)
        ]
        for site, curves in sorted(curves_of_sites.items())
    }


class CalibrationCollector(ResponseProcessor):
    """The server's part: adds the sites' curves, picks the factors, and writes the calibration of all sites.

    Args:
        bundle: name of the bundle.
        alpha: see `calibrate_sites`.
        minimum_sites: sites that have to answer.
    """

    def __init__(self, bundle: str, alpha: float, minimum_sites: int) -> None:
        super().__init__()
        require_share(alpha)
        self.bundle, self.alpha, self.minimum_sites = bundle, alpha, minimum_sites
        self._curves: dict[str, list[LossCurve]] = {}

    def create_task_data(self, task_name: str, fl_ctx: FLContext) -> Shareable:
        """Return the request, which is the task's name alone."""
        self._curves = {}
        return Shareable()

    def process_client_response(self, client: Client, task_name: str, response: Shareable, fl_ctx: FLContext) -> bool:
        """Keep the curves of a site; one that has failed is left out."""
        if response.get_return_code() != ReturnCode.OK:
            self.log_warning(fl_ctx, f"{client.name} has no curves ({response.get_return_code()}); its log says why")
            return True
        try:
            self._curves[client.name] = from_message(find_bundle(self.bundle), from_shareable(response).data)
        except (InputError, TypeError, ValueError) as error:
            self.log_warning(fl_ctx, f"{client.name} has sent no curves of {self.bundle} ({error}); it is left out")
        return True

    def final_process(self, fl_ctx: FLContext) -> bool:
        """Write `calibration.json` and `coverage.json` into the job's folder."""
        if len(self._curves) < self.minimum_sites:
            self.log_error(fl_ctx, f"{len(self._curves)} sites have sent curves, expected {self.minimum_sites}")
            return False
        bundle = find_bundle(self.bundle)
        try:
            calibration = calibrate_sites(bundle, self._curves, self.alpha)
        except InputError as error:
            self.log_error(fl_ctx, str(error))
            return False
        folder = Path(fl_ctx.get_prop(FLContextKey.APP_ROOT))
        calibration.write(folder / FILE)
        coverage = measure_coverage(bundle, self._curves, calibration)
        write_file(folder / COVERAGE_FILE, f"{json.dumps(coverage, indent=2)}\n".encode())
        return True
