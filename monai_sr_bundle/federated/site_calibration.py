"""The calibration of a bundle at several sites: those of a federation, or simulated ones on this machine."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.calibrate.calibrate import require_share
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.federated.calibration import COVERAGE_FILE, describe_coverage, write_calibration_job
from monai_sr_bundle.federated.messages import LEAST_PATIENTS_OF_SITE
from monai_sr_bundle.federated.privacy import Privacy
from monai_sr_bundle.federated.simulator import require_empty, simulate_job
from monai_sr_bundle.federated.site_data import usual_sites, write_site_data
from monai_sr_bundle.federated.submit import run_to_result
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.uncertainty.calibration import FILE, read_calibration
from nvflare.fuel.flare_api.flare_api import Session


def simulate_calibration(
    name: str,
    data: Path,
    out: Path,
    *,
    sites: int,
    split: str,
    alpha: float,
    limit: int | None,
) -> str:
    """Calibrate a bundle's error bars at sites that share the patients of one data set.

    Args:
        name: name of a bundle with error bars.
        data: folder with a manifest, or of such folders.
        out: new folder for `calibration.json`, `coverage.json` and what the sites write.
        sites: number of sites.
        split, alpha, limit: see `write_calibration_job`; the limit is that of each site.

    Returns:
        The table for the terminal.

    Raises:
        InputError, BundleError, OutputError: see `write_site_data` and `write_calibration_job`.
        SuperResolutionError: the job has failed; the message names its log.
    """
    bundle = find_bundle(name)
    require_share(alpha)  # before anything is written
    require_empty(out)
    settings = write_site_data(usual_sites(bundle, sites), bundle, data, out)
    job = write_calibration_job(
        bundle,
        out / "job",
        alpha=alpha,
        split=split,
        limit=limit,
        minimum_sites=sites,
        result_filters=Privacy().result_filters(bundle.name),
    )
    results = simulate_job(job, settings, out / "simulator", (FILE, COVERAGE_FILE))
    return _keep_result(bundle, results, out)


def calibrate_federation(
    session: Session,
    name: str,
    out: Path,
    *,
    sites: int,
    split: str,
    alpha: float,
    limit: int | None,
    report: Callable[[str], None] = print,
) -> str:
    """Calibrate a bundle's error bars at the sites of a federation.

    Args:
        session: see `submit.open_session`.
        name: name of a bundle with error bars that is installed at the sites.
        out: new folder for `calibration.json` and `coverage.json`.
        sites: sites that have to answer.
        split, alpha, limit: see `write_calibration_job`; the limit is that of each site.
        report: called with a line for the person who waits. Default: print.

    Returns:
        The table for the terminal.

    Raises:
        InputError: the job fails, as where too few sites have enough patients.
        BundleError, OutputError: see `write_calibration_job`.
    """
    bundle = find_bundle(name)
    require_empty(out)
    with tempfile.TemporaryDirectory() as temporary:
        job = write_calibration_job(bundle, Path(temporary), alpha=alpha, split=split, limit=limit, minimum_sites=sites)
        location = run_to_result(session, job, Path(temporary) / "result", report)
        results = next((path.parent for path in location.rglob(COVERAGE_FILE)), None)
        if results is None:
            raise InputError(
                f"the sites have made no calibration: fewer than {sites} have {LEAST_PATIENTS_OF_SITE} patients and "
                "the same weights, or all have too few together. The log of the server's job says which."
            )
        return _keep_result(bundle, results, out)


def _keep_result(bundle: Bundle, results: Path, out: Path) -> str:
    """Copy the files of a job's result, and return their table."""
    out.mkdir(parents=True, exist_ok=True)
    for file in (FILE, COVERAGE_FILE):
        shutil.copyfile(results / file, out / file)
    coverage = json.loads((out / COVERAGE_FILE).read_text(encoding="utf-8"))
    return describe_coverage(read_calibration(out / FILE, bundle), coverage)
