"""Histograms of the intensity and sharpness of the images of all hospitals, by NVFlare's federated statistics."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from monai_sr_bundle.errors import InputError
from monai_sr_bundle.federated.image_statistics import BINS, INTENSITY, MINIMUM_IMAGES, RANGES, ImageStatistics
from monai_sr_bundle.federated.messages import LEAST_PATIENTS_OF_SITE
from monai_sr_bundle.federated.submit import connected_sites, explain_loss, run_to_result
from monai_sr_bundle.images.staging import write_file
from nvflare.fuel.flare_api.flare_api import Session

_NAME, _FILE = "image_statistics", "statistics/image_statistics.json"
_LONGEST_SECONDS = 3600
_DIGITS = 9
"""Decimal places of a variance and of all else. NVFlare's own 4 make 0 of the small variance of a sharpness."""
_CONFIG: dict[str, Any] = {
    "count": {},
    "sum": {},  # NVFlare needs it for the mean
    "mean": {},
    "stddev": {},
    "histogram": {feature: {"bins": BINS, "range": [*ends]} for feature, ends in RANGES.items()},
}


def write_statistics_job(bundle: str, sites: Sequence[str], folder: Path) -> Path:
    """Write the job, without the code that NVFlare's recipe puts into it: the sites have the package.

    Args:
        bundle: name of the bundle that would be trained.
        sites: hospitals to ask.
        folder: folder for the job's own.
    """
    from nvflare.recipe.fedstats import FedStatsRecipe

    recipe = FedStatsRecipe(
        _NAME, _FILE, list(sites), _CONFIG, ImageStatistics(bundle), min_count=MINIMUM_IMAGES, max_bins_percent=100
    )
    with contextlib.redirect_stdout(io.StringIO()):
        recipe.export(str(folder))
    for code in folder.glob("*/*/custom"):
        shutil.rmtree(code)
    (settings,) = folder.glob("*/app_server/config/config_fed_server.json")
    job = json.loads(settings.read_text(encoding="utf-8"))
    # One hospital with enough images suffices. Reading all images takes the others longer than the ten seconds that
    # NVFlare waits for them, and then goes on without.
    job["workflows"][0]["args"] |= {
        "min_clients": 1,
        "wait_time_after_min_received": _LONGEST_SECONDS,
        "result_wait_timeout": _LONGEST_SECONDS,
        "precision": _DIGITS,
    }
    settings.write_text(json.dumps(job, indent=2), encoding="utf-8")
    for settings in folder.glob("*/*/config/config_fed_client.json"):
        job = json.loads(settings.read_text(encoding="utf-8"))
        job["executors"][0]["executor"]["args"] |= {"precision": _DIGITS}
        settings.write_text(json.dumps(job, indent=2), encoding="utf-8")
    return folder / _NAME


def collect_statistics(
    session: Session, bundle: str, out: Path, *, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """Ask every hospital that is connected, and write the answers.

    Args:
        session: see `submit.open_session`.
        bundle: name of the bundle that would be trained.
        out: file for the JSON text.
        report: called with a line for the person who waits. Default: print.

    Returns:
        NVFlare's statistics: by feature, statistic and site, where `Global` is all of them.

    Raises:
        InputError: no hospital is connected, or the job fails, as where none has enough images.
    """
    with explain_loss():
        sites = sorted(connected_sites(session))
    if not sites:
        raise InputError("no hospital is connected. Ask them to start their kits.")
    with tempfile.TemporaryDirectory() as temporary:
        job = write_statistics_job(bundle, sites, Path(temporary) / "job")
        location = run_to_result(session, job, Path(temporary) / "result", report)
        (file,) = location.rglob(Path(_FILE).name)
        statistics = json.loads(file.read_text(encoding="utf-8"))
    for site in sites:
        if site not in statistics[INTENSITY]["count"]:
            report(
                f"{site} has fewer than {MINIMUM_IMAGES} training images or {LEAST_PATIENTS_OF_SITE} patients, and "
                "sent no statistics"
            )
    write_file(out, f"{json.dumps(statistics, indent=2)}\n".encode())
    return dict(statistics)


def describe_statistics(statistics: dict[str, Any]) -> str:
    """Return a table: mean and standard deviation of each feature, by site."""
    lines = ["feature    site          count       mean       sd"]
    for feature, by_statistic in statistics.items():
        for site in by_statistic.get("count", {}):
            count, mean, deviation = (by_statistic[key][site]["train"] for key in ("count", "mean", "stddev"))
            lines.append(f"{feature:<10} {site:<12} {count:>8}  {mean:9.4f}  {deviation:7.4f}")
    return "\n".join(lines)
