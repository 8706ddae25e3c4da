"""The calibration of a bundle at several sites, all of them on this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from monai_sr_bundle.bundles import find_bundle
from monai_sr_bundle.errors import OutputError
from monai_sr_bundle.federated.calibration import COVERAGE_FILE, describe_coverage, write_calibration_job
from monai_sr_bundle.federated.privacy import Privacy
from monai_sr_bundle.federated.simulator import simulate_job
from monai_sr_bundle.federated.site_data import usual_sites, write_site_data
from monai_sr_bundle.federated.site_settings import SiteSettings
from monai_sr_bundle.images.staging import require_free
from monai_sr_bundle.uncertainty.calibration import FILE, read_calibration


def simulate_calibration(
    name: str,
    data: Path,
    out: Path,
    *,
    sites: int = 3,
    split: str = "val",
    alpha: float = 0.1,
    limit: int | None = None,
) -> str:
    """Calibrate a bundle's error bars at sites that share the patients of one data set.

    Args:
        name: name of a bundle with error bars.
        data: folder with a manifest, or of such folders.
        out: new folder for `calibration.json`, `coverage.json` and what the sites write.
        sites: number of sites. Default 3.
        split, alpha, limit: see `write_calibration_job`; the limit is that of each site.

    Returns:
        The table for the terminal.

    Raises:
        InputError, BundleError, OutputError: see `write_site_data` and `write_calibration_job`.
        SuperResolutionError: the job has failed; the message names its log.
    """
    bundle = find_bundle(name)
    require_free(out, overwrite=False)
    if out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out} is not empty. Choose another --out.")
    chosen = usual_sites(bundle, sites)
    write_site_data(chosen, bundle, data, out / "sites")
    settings = {site.name: SiteSettings(out / "sites" / site.name, out / "work" / site.name) for site in chosen}
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
    for file in (FILE, COVERAGE_FILE):
        shutil.copyfile(results / file, out / file)
    coverage = json.loads((out / COVERAGE_FILE).read_text(encoding="utf-8"))
    return describe_coverage(read_calibration(out / FILE, bundle), coverage)
