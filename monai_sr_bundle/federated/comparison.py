"""The table of a simulation: federated training compared with the alternatives, at each site and at the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monai_sr_bundle import __version__
from monai_sr_bundle.federated.measurement import BICUBIC, SiteMeasures
from monai_sr_bundle.federated.study import Study
from monai_sr_bundle.metrics.mean import Mean

COLUMNS = {
    "bicubic": "bicubic",
    "local": "local",
    "local_elsewhere": "others' local",
    "global": "global",
    "personalised": "personalised",
    "personalised_elsewhere": "others' pers.",
    "pooled": "pooled",
}
"""Methods of the table: `elsewhere` are those of the other sites, averaged for each image."""
_PAIRS = (
    ("global", "pooled", "federated over pooled", "-0.3 dB or more"),
    ("global", "local_elsewhere", "federated over the other sites' local models", "+0.3 dB or more"),
    ("personalised", "local", "personalised over local, at its own site", "0 dB or more"),
)
"""Comparisons, in words, with what they are expected to be."""


def compare(
    study: Study, measures: Mapping[str, SiteMeasures], rounds: Sequence[Any], *, quick: bool
) -> dict[str, Any]:
    """Return all figures of the table, for `describe` and for programs, as docs/results.py.

    Args:
        study: the study.
        measures: figures by name of the site.
        rounds: record of the rounds.
        quick: whether nothing follows from them.
    """
    bundle = study.task.require_bundle()
    names = [site.name for site in study.sites]
    figures = {name: _image_figures(measures[name], name, names) for name in names}
    return {
        "study": study.name,
        "title": study.title,
        "quick": quick,
        "version": __version__,
        "task": dataclasses.asdict(study.task),
        "start": study.start,
        "columns": COLUMNS,
        "personal_rounds": study.personal_rounds,
        "sites": {
            site.name: {
                "operator": site.operator or bundle.operator,
                "images": len(measures[site.name].patients),
                "patients": len(set(measures[site.name].patients)),
                "psnr": {column: float(np.mean(values)) for column, values in figures[site.name].items()},
                "gain": _gains(figures[site.name], measures[site.name].patients),
            }
            for site in study.sites
        },
        "differences": {words: _over_sites(measures, figures, first, second) for first, second, words, _ in _PAIRS},
        "rounds": list(rounds),
    }


def describe(comparison: Mapping[str, Any]) -> str:
    """Return the table for the terminal of what `compare` has returned."""
    task, sites = comparison["task"], comparison["sites"]
    width = max(13, *map(len, COLUMNS.values())) + 2
    lines = [
        comparison["title"],
        f"{task['bundle']}, {task['algorithm']}: {task['rounds']} rounds of {task['iterations']} iterations a site; "
        f"every model {task['rounds'] * task['iterations']} iterations from the same weights.",
        "PSNR (dB) on the test images of each site, degraded as there:",
        f"{'site':22}" + "".join(f"{title:>{width}}" for title in COLUMNS.values()),
    ]
    for name, site in sites.items():
        row = "".join(f"{value:{width}.2f}" for value in site["psnr"].values())
        title = f"{name} ({site['images']})"
        lines.append(f"{title:22}{row}")
    means = [np.mean([site["psnr"][column] for site in sites.values()]) for column in COLUMNS]
    lines.append(f"{'mean over sites':22}" + "".join(f"{value:{width}.2f}" for value in means))
    lines.append("Gain over bicubic (dB), 95 % interval over patients:")
    for name, site in sites.items():
        gains = [
            f"{COLUMNS[column]} {gain['mean']:+.2f} [{gain['low']:+.2f}, {gain['high']:+.2f}]"
            for column, gain in site["gain"].items()
        ]
        lines.append(f"{name:22}" + ", ".join(gains))
    for _, _, words, expected in _PAIRS:
        difference = comparison["differences"][words]
        interval = f"[{difference['low']:+.2f}, {difference['high']:+.2f}]"
        lines.append(f"{words}: {difference['mean']:+.2f} dB {interval}, expected {expected}")
    if comparison["quick"]:
        lines.append(
            "This was --quick: it shows that all parts run. With so few iterations and images nothing follows from it."
        )
    return "\n".join(lines)


def _image_figures(measures: SiteMeasures, site: str, sites: Sequence[str]) -> dict[str, list[float]]:
    """Return the PSNR of each test image of a site, by column of the table."""
    others = [other for other in sites if other != site]

    def elsewhere(kind: str) -> list[float]:
        return list(np.mean([measures.psnr[f"{kind}_{other}"] for other in others], axis=0))

    return {
        "bicubic": measures.psnr[BICUBIC],
        "local": measures.psnr[f"local_{site}"],
        "local_elsewhere": elsewhere("local"),
        "global": measures.psnr["global"],
        "personalised": measures.psnr[f"personalised_{site}"],
        "personalised_elsewhere": elsewhere("personalised"),
        "pooled": measures.psnr["pooled"],
    }


def _gains(figures: Mapping[str, Sequence[float]], patients: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the mean gain of each column over bicubic, with its interval over patients."""
    return {
        column: dataclasses.asdict(Mean.of(np.subtract(values, figures["bicubic"]).tolist(), patients))
        for column, values in figures.items()
        if column != "bicubic"
    }


def _over_sites(
    measures: Mapping[str, SiteMeasures],
    figures: Mapping[str, Mapping[str, Sequence[float]]],
    first: str,
    second: str,
) -> dict[str, float]:
    """Return the mean difference over the images of all sites, with its interval over their patients."""
    values: list[float] = []
    patients: list[str] = []
    for site, of_site in figures.items():
        values += np.subtract(of_site[first], of_site[second]).tolist()
        patients += [f"{site} {patient}" for patient in measures[site].patients]
    return dataclasses.asdict(Mean.of(values, patients))
