"""Measured results: `results.json` holds them, and the tables of the documents are filled from it.

    python docs/results.py record monai-sr evaluate chest_xray_edsr_x4 --data DIR
    python docs/results.py record --printed OUT monai-sr benchmark quality --data DIR --out OUT --protocol chest_ct
    python docs/results.py check monai-sr benchmark quality --data DIR --out OUT --protocol chest_xray_films --limit 4
    python docs/results.py fill

`record` runs a command and keeps the numbers it prints; with `--printed` it has run already. `check` runs a command
again that was recorded, and fails where a method gains less over bicubic than then. `fill` writes the tables of
README.md, the documents of `_FILLED` and the cards, and the figures in the metadata of the bundles. A document asks for
a table in a comment, and `fill` writes all that stands between it and `<!-- end -->`:

    <!-- table: chest_xray/chest_xray_edsr_x4, chest_xray_edsr_x4+sets=cxr_pediatric | tested_on, psnr_gain, command -->
    <!-- films: chest_xray_films | 4 -->
    <!-- gains: chest_xray_films | 4 -->
    <!-- unmodified: chest_xray_films | 4 -->
    <!-- coverage: chest_xray_films | 4 -->
    <!-- speed: chest_xray_speed -->
    <!-- memory: memory -->
    <!-- federated: chest_xray_four_sites -->
    <!-- privacy: chest_xray_private -->
    <!-- training -->

Before the bar are rows: `run/method`, `run` for all of its methods but bicubic, `run/*` for all. Behind it are columns.
`table across` puts the methods side by side.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from monai_sr_bundle.benchmark.training_curve import TrainingTime, training_time

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results.json"
WIDTH = 118
_FILLED = ("README.md", "docs/figures.md", "docs/federated.md", "docs/federated_privacy.md", "docs/security_review.md")
TOLERATED_LOSS = 0.05
"""In dB, when a recorded command is run again."""

SETS = {
    "cxr_nih": "adults, NIH test split",
    "cxr_pediatric": "children, another hospital",
    "cxr_native": "crops of adults' and children's films at full resolution",
    "ct": "**one patient**",
    "ct_patients": "another patient",
    "ct_slices": "single slices of more patients",
}
METRICS: dict[str, tuple[str, int, bool]] = {
    "psnr": ("PSNR (dB)", 2, False),
    "ssim": ("SSIM", 3, False),
    "ms_ssim": ("MS-SSIM", 4, False),
    "uqi": ("UQI", 4, False),
    "box_psnr": ("PSNR in boxes (dB)", 2, False),
    "feature_distance": ("SqueezeNet distance (lower is better)", 3, False),
    "high_frequency_ratio": ("high-frequency energy (original: 1)", 2, False),
    "log_spectral_distance": ("log-spectral distance (dB)", 1, False),
    "artifact_energy_removed": ("artifact energy removed", 1, True),
    "consistency": ("distance to the input when reduced again (RMS, grey levels)", 2, False),
    "coverage": ("pixels within the 90 % error bars", 1, True),
    "structure_coverage": ("pixels within the 90 % error bars, at small structures of the result", 1, True),
    "box_coverage": ("the same in boxes of findings", 1, True),
    "error_bar": ("mean half-width of the error bars (grey levels)", 1, False),
    "cut_off": ("agreement with the original up to (cycles per pixel)", 3, False),
    "nodule_1": ("contrast of a drawn nodule that comes back, sigma 1 pixel", 2, False),
    "nodule_1.5": ("contrast of a drawn nodule that comes back, sigma 1.5 pixels", 2, False),
    "nodule_2": ("contrast of a drawn nodule that comes back, sigma 2 pixels", 2, False),
    "detectability_1": ("detectability d′ of a drawn nodule, sigma 1 pixel", 2, True),
    "detectability_1.5": ("detectability d′ of a drawn nodule, sigma 1.5 pixels", 2, True),
    "detectability_2": ("detectability d′ of a drawn nodule, sigma 2 pixels", 2, True),
    "sensitivity_bright_1": ("sensitivity to bright blobs, sigma 1 pixel", 2, True),
    "sensitivity_bright_1.5": ("sensitivity to bright blobs, sigma 1.5 pixels", 2, True),
    "sensitivity_bright_2": ("sensitivity to bright blobs, sigma 2 pixels", 2, True),
    "sensitivity_dark_1": ("sensitivity to dark blobs, sigma 1 pixel", 2, True),
    "sensitivity_dark_1.5": ("sensitivity to dark blobs, sigma 1.5 pixels", 2, True),
    "sensitivity_dark_2": ("sensitivity to dark blobs, sigma 2 pixels", 2, True),
}
"""Name in `results.json`: title, digits behind the point, whether the mean is shown with its interval."""
UNMODIFIED = {
    "noise": ("noise ({unit})", 1),
    "edge_width": ("edge (pixels)", 2),
    "edge_width_mm": ("edge (mm)", 2),
    "overshoot": ("overshoot ({unit})", 1),
    "near_padding": ("near padding ({unit})", 1),
    "disagreement": ("distance to the input ({unit})", 1),
    "flicker": ("flicker ({unit})", 1),
    "interpolated": ("interpolated", 0),
    "warned": ("warned", 0),
}
"""Figures of unmodified images in `results.json`: title and digits behind the point; the last two are shares."""
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "bicubic_means")
PERCENT = {"artifact_energy_removed", "coverage", "structure_coverage", "box_coverage"}
CARD_COLUMNS = ("tested_on", "psnr", "psnr_gain", "ssim_gain", "minutes", "command")

Row = dict[str, Any]
Runs = dict[str, Any]


def read_results() -> Runs:
    return dict(json.loads(RESULTS.read_text(encoding="utf-8")))


def write_results(runs: Runs) -> None:
    """Write one line per row, so that a difference of two versions shows which results changed."""
    texts = []
    for name, run in runs.items():
        facts = "".join(f"    {json.dumps(k)}: {json.dumps(v)},\n" for k, v in run.items() if k != "rows")
        rows = ",\n".join(f"      {json.dumps(row)}" for row in run["rows"])
        texts.append(f'  {json.dumps(name)}: {{\n{facts}    "rows": [\n{rows}\n    ]\n  }}')
    RESULTS.write_text("{\n" + ",\n".join(texts) + "\n}\n", encoding="utf-8")


# Recording


def measure(words: Sequence[str], printed: Path | None = None) -> Runs:
    """Run a command that measures, or read what it has printed.

    Args:
        words: the command, from `monai-sr` on.
        printed: the text that `monai-sr evaluate` printed, or the folder that `monai-sr benchmark` or `monai-sr
            federated` wrote; None to run the command.

    Returns:
        Its results by the names of the runs.
    """
    if list(words[:1]) != ["monai-sr"] or words[1:2] not in (["evaluate"], ["benchmark"], ["federated"]):
        raise SystemExit(
            f"{' '.join(words)} is not a command that measures. Use monai-sr evaluate, monai-sr benchmark or monai-sr "
            "federated simulate or privacy."
        )
    text = ""
    if printed is None:
        command = [sys.executable, "-m", "monai_sr_bundle", *words[1:]]
        text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    if words[1] == "evaluate":
        return dict([evaluation(text or Path(str(printed)).read_text(encoding="utf-8"), words)])
    folder = printed or Path(words[list(words).index("--out") + 1])
    if words[1] == "federated":
        if "privacy" in words:
            return dict([privacy_curve(folder / "privacy_curve.json", words)])
        return dict([federated_comparison(folder / "comparison.json", words)])
    return {
        **dict(comparison(path, words) for path in sorted(folder.glob("*/comparison.json"))),
        **dict(film_comparison(path, words) for path in sorted(folder.glob("*/conditions.json"))),
        **dict(speed_comparison(path, words) for path in sorted(folder.glob("*/speed.json"))),
        **dict(memory_comparison(path, words) for path in sorted(folder.glob("*/memory.json"))),
    }


def record(new_runs: Runs) -> None:
    """Keep the results of `measure`, in place of older ones of the same methods."""
    runs = read_results()
    for name, run in new_runs.items():
        runs[name] = merge_runs(runs[name], run) if name in runs else run
    write_results(runs)


def find_losses(recorded: Runs, measured: Runs, tolerance: float = TOLERATED_LOSS) -> list[str]:
    """Return a sentence for each gain over the reference, mostly bicubic, that is lower than when it was recorded.

    Args:
        recorded: the runs of `results.json`.
        measured: the same runs of today, from `measure`.
        tolerance: dB by which a gain may be lower, for other processors compute otherwise.
    """
    sentences = [] if measured else ["Nothing was measured."]
    for name, run in measured.items():
        for row in run["rows"]:
            if row["method"].partition("+")[0] in INTERPOLATIONS:
                continue
            _, then = next(choose_rows(recorded, f"{name}/{row['method']}"))
            gains = _gains(row)
            for cell, expected in _gains(then).items():
                gain = gains.get(cell, float("nan"))
                if not gain >= expected - tolerance:
                    label = ", ".join((name, row["method"], *cell))
                    sentences.append(f"{label}: {gain:+.2f} dB, expected {expected:+.2f} dB.")
    return sentences


def _gains(row: Row) -> dict[tuple[str, ...], float]:
    """Return the gains in PSNR of a row: one, one for each cell or site, none for a reference, speed and memory."""
    if "gains" in row:
        return {(site,): gain for site, (gain, *_) in row["gains"].items()}
    if "cells" in row:
        return {(films, loss): gain for films, loss, _, gain, *_ in row["cells"]}
    gain = row.get("differences", {}).get("psnr")
    return {} if gain is None else {(): gain[0] if isinstance(gain, list) else gain}  # older records have one number


def shown_command(words: Sequence[str]) -> str:
    """Return a command without the folders and settings of one machine."""
    stand_ins = {"--data": "DIR", "--out": "OUT", "--calibration": "FILE"}
    printed, remaining = [], iter(words)
    for word in remaining:
        if word in ("--workers", "--progress", "--csv"):
            next(remaining)
        elif word in stand_ins:
            next(remaining)
            printed += [word, stand_ins[word]]
        elif word == "--backbone":
            printed += [word, Path(next(remaining)).name]
        elif word != "--overwrite":
            printed.append(word)
    return " ".join(printed)


def evaluation(text: str, words: Sequence[str]) -> tuple[str, Row]:
    """Return name and results of what `monai-sr evaluate` printed."""
    header = re.search(
        r"^(\S+) (\S+) \| (\w+) split of (.+): (\d+) images of (\d+) patients? \| (\S+)(?: \| turned by (\d+) degrees)?"
        r" \| [^|]+?(?: \| (.+))?$",
        text,
        flags=re.MULTILINE,
    )
    if header is None:
        raise SystemExit("the text does not begin as that of monai-sr evaluate does: bundle, version, split, images.")
    bundle, version, split, sets, images, patients, operator, _, sampling = header.groups()
    titles = {title.lower().split(" (")[0]: name for name, (title, _, _) in METRICS.items()}
    bicubic, method, gain = {}, {}, {}
    line = r"^([A-Z-]+)(?: \(dB\))? +([\d.]+) +([\d.]+) +([+-][\d.]+) +\[([+-][\d.]+), ([+-][\d.]+)\]"
    for title, *numbers in re.findall(line, text, flags=re.MULTILINE):
        metric = titles[title.lower()]
        bicubic[metric], method[metric] = float(numbers[0]), float(numbers[1])
        gain[metric] = [float(number) for number in numbers[2:]]
    words = shown_command(words).split()
    options = " ".join(words[words.index("--data") + 2 :]).split("--")[1:]
    name = bundle + "".join("+" + "=".join(option.split()) for option in options if option.split() != ["split", "test"])
    training = training_time(metadata(bundle))
    row = {
        "method": bundle,
        "label": short_name(bundle),
        "training_minutes": training and training.minutes,
        **({"gpu_minutes": training.on_gpu} if training and training.on_gpu else {}),
        "command": " ".join(words),
        "date": date.today().isoformat(),
        "version": version,
        **({"sampling": sampling} if sampling and not sampling.startswith("thin slices") else {}),
        "means": method,
        "differences": gain,
    }
    run = {
        "reference": "bicubic",
        "sets": sets.split(", "),
        "split": split,
        "operator": operator,
        "images": int(images),
        "patients": int(patients),
        "rows": [{"method": "bicubic", "label": "Bicubic", "means": bicubic}, row],
    }
    return name, run


def comparison(path: Path, words: Sequence[str]) -> tuple[str, Row]:
    """Return name and results of one `comparison.json` of `monai-sr benchmark`."""
    content = json.loads(path.read_text(encoding="utf-8"))
    protocol = content["protocol"]
    rows = []
    for method in content["methods"]:
        row = {"method": method["method"], "label": method["label"]}
        for key in ("training_minutes", "gpu_minutes", "gained_until_minutes", "multiply_adds"):
            if method.get(key):
                row[key] = round(method[key], 1)
        row |= {"command": shown_command(words), "date": date.today().isoformat()}
        row["version"] = content["versions"].get("monai_sr_bundle", content["versions"].get("monai-sr-bundle"))
        row["means"] = {name: _interval(mean) for name, mean in (method["means"] | method.get("detection", {})).items()}
        if method["difference_to_reference"]:
            row["differences"] = {
                name: _interval(paired["difference"]) for name, paired in method["difference_to_reference"].items()
            }
            of_detection = method.get("detection_difference_to_reference", {})
            row["differences"] |= {name: _interval(difference) for name, difference in of_detection.items()}
        rows.append(row)
    run = {
        "title": protocol["title"],
        "reference": protocol["reference"],
        **{key: protocol[key] for key in ("sets", "split", "operator")},
        "images": content["images"],
        "patients": content["patients"],
        "rows": rows,
    }
    return _run_name(protocol["name"], words), run


def film_comparison(path: Path, words: Sequence[str]) -> tuple[str, Row]:
    """Return name and results of one `conditions.json` of `monai-sr benchmark`: a row for each method and scale."""
    content = json.loads(path.read_text(encoding="utf-8"))
    protocol = content["protocol"]
    made_by = {
        "command": shown_command(words),
        "date": date.today().isoformat(),
        "version": content["versions"]["monai_sr_bundle"],
    }
    rows = []
    for method in content["methods"]:
        for of_scale in method["scales"]:
            summary = of_scale["summary"]
            row = {"method": f"{method['method']}+scale={of_scale['scale']}", "label": method["label"]}
            for key in ("training_minutes", "gpu_minutes"):
                if method.get(key):
                    row[key] = round(method[key], 1)
            row |= made_by | {
                "mean": round(summary["mean"], 5),
                "worse": round(summary["worse"], 5),
                "interpolated": [round(summary[key], 5) for key in ("interpolated", "unmodified_interpolated")],
                "pairs": summary["pairs"],
                "lowest": [summary["lowest"][key] for key in ("gain", "set", "loss")],
                "cells": [
                    [
                        cell["set"],
                        cell["loss"],
                        round(cell["psnr"]["mean"], 5),
                        *_interval(cell["gain"]),
                        cell["worse"],
                        cell["coverage"] and _interval(cell["coverage"]),
                        *_error_bar_parts(cell),
                    ]
                    for cell in of_scale["cells"]
                ],
            }
            if of_scale["unmodified"]:
                row["unmodified"] = [
                    [cell["set"], cell["images"], _rounded(cell["figures"]), _rounded(cell["ratios"])]
                    for cell in of_scale["unmodified"]
                ]
            rows.append(row)
    run = {
        "title": protocol["title"],
        "reference": "bicubic",
        "sets": [[each["set"], each["images"], each["patients"]] for each in content["sets"]],
        "split": protocol["split"],
        "operator": "every loss of the protocol",
        "modality": protocol["modality"],
        "worse_db": content["worse_db"],
        "images": sum(each["images"] for each in content["sets"]),
        "patients": None,
        "rows": rows,
    }
    return _run_name(protocol["name"], words), run


def _error_bar_parts(cell: Row) -> Iterator[float]:
    """Yield the shares of pixels inside their error bars at structures and by width, and the width, if measured."""
    if cell.get("structure_coverage"):
        parts = cell["structure_coverage"]["mean"], *cell["tenths_coverage"], cell.get("relative_width")
        yield from (round(part, 5) for part in parts if part is not None)


def _coverage_text(coverage: float | Sequence[float], digits: int) -> str:
    """Return a share of pixels in percent; with its interval, which older records and single patients do not have."""
    if isinstance(coverage, float):
        return f"{100 * coverage:.{digits}f} %"
    if coverage[1] == coverage[2]:
        return _coverage_text(coverage[0], digits)
    mean, low, high = (f"{100 * each:.{digits}f}" for each in coverage)
    return f"{mean} % [{low}, {high}]"


def speed_comparison(path: Path, words: Sequence[str]) -> tuple[str, Row]:
    """Return name and results of one `speed.json` of `monai-sr benchmark`: a row for each method, size and threads."""
    content = json.loads(path.read_text(encoding="utf-8"))
    protocol = content["protocol"]
    rows = []
    for measured in content["rows"]:
        row = {"method": f"{measured['method']}+size={measured['size']}+threads={measured['threads']}"}
        row |= {key: measured[key] for key in ("label", "backend", "size", "threads", "runs")}
        for key in ("seconds", "peak_mb", "share_of_rate", "times_onnx", "times_reference", "psnr"):
            if measured[key] is not None:
                row[key] = float(f"{measured[key]:.4g}")
        row |= {"command": shown_command(words), "date": date.today().isoformat()}
        rows.append(row | {"version": content["versions"]["monai_sr_bundle"]})
    run = {
        "title": protocol["title"],
        **{key: protocol[key] for key in ("reference", "sets", "split", "operator")},
        **{key: content[key] for key in ("images", "processor", "cores", "versions")},
        "convolution_rate": {count: float(f"{rate:.4g}") for count, rate in content["convolution_rate"].items()},
        "rows": rows,
    }
    return _run_name(protocol["name"], words), run


def memory_comparison(path: Path, words: Sequence[str]) -> tuple[str, Row]:
    """Return name and results of `memory.json` of `monai-sr benchmark`: a row for each run."""
    content = json.loads(path.read_text(encoding="utf-8"))
    made_by = {"command": shown_command(words), "date": date.today().isoformat(), "version": content["version"]}
    rows = [
        {"method": measured["what"], **{key: measured[key] for key in ("result", "bound", "passed")}, **made_by}
        for measured in content["rows"]
    ]
    return "memory", {"reference": "", "rows": rows}


def memory_table(run: Row | None) -> str:
    """Return the table of `monai-sr benchmark memory`, or how to make it."""
    if run is None:
        return "Not measured yet: `python docs/results.py record monai-sr benchmark memory --out OUT`."
    lines = ["| run | memory | bound |", "| --- | --- | --- |"]
    lines += [f"| {row['method']} | {row['result']} | {row['bound']} |" for row in run["rows"]]
    return "\n".join([*lines, "", *_commands(run["rows"])])


def speed_table(run: Row | None, name: str) -> str:
    """Return the table of a run of `monai-sr benchmark speed`, or how to make it."""
    if run is None:
        command = f"monai-sr benchmark speed --protocol {name} --data DIR --out OUT"
        return f"Not measured yet: `python docs/results.py record {command}`."
    rates = " and ".join(
        f"{rate / 1e9:.0f} G multiply-adds a second on {count} thread{'s' * (int(count) > 1)}"
        for count, rate in run["convolution_rate"].items()
    )
    titles = {
        "method": lambda row: row["label"],
        "runtime": lambda row: row["backend"],
        "input (pixels)": lambda row: f"{row['size']} x {row['size']}",
        "threads": lambda row: str(row["threads"]),
        "seconds": lambda row: f"{row['seconds']:.3g}",
        "images a second": lambda row: f"{1 / row['seconds']:.3g}",
        "peak memory (MB)": lambda row: f"{row['peak_mb']:.0f}" if "peak_mb" in row else "",
        "multiply-adds a second, of the convolution's": lambda row: f"{row['share_of_rate']:.2f}",
        "times as fast as by ONNX Runtime": lambda row: f"{row['times_onnx']:.2f}" if "times_onnx" in row else "",
        "as the reference": lambda row: f"{row['times_reference']:,.0f}" if "times_reference" in row else "",
        "PSNR (dB)": lambda row: f"{row['psnr']:.2f}" if "psnr" in row else "",
    }
    lines = [
        f"{run['processor']}, {run['cores']} cores; a convolution of 64 channels in float32 does {rates}.",
        "",
        f"| {' | '.join(titles)} |",
        f"| {' | '.join('---' for _ in titles)} |",
        *(
            f"| {' | '.join(cell(row) for cell in titles.values())} |"
            for row in sorted(run["rows"], key=lambda row: (row["size"], row["threads"]))
        ),
        "",
    ]
    sources = dict.fromkeys((row["command"], row["version"], row["date"]) for row in run["rows"])
    return "\n".join(
        [
            *lines,
            *(
                f"- `{command}`: {run['images']} test images; version {version}, {day}"
                for command, version, day in sources
            ),
        ]
    )


def federated_comparison(path: Path, words: Sequence[str]) -> tuple[str, Row]:
    """Return name and results of one `comparison.json` of `monai-sr federated simulate`: a row for each column."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["quick"]:
        raise SystemExit(f"{path} is of a run with --quick, from which nothing follows. Run the command without it.")
    sites = content["sites"]
    rows = []
    for column, label in content["columns"].items():
        row = {
            "method": column,
            "label": label,
            "psnr": {name: round(of["psnr"][column], 4) for name, of in sites.items()},
        }
        if column != "bicubic":
            row["gains"] = {name: _interval(of["gain"][column]) for name, of in sites.items()}
        rows.append(
            row | {"command": shown_command(words), "date": date.today().isoformat(), "version": content["version"]}
        )
    run = {
        "title": content["title"],
        "reference": "bicubic",
        "sets": list(sites),
        "operator": ", ".join(of["operator"] for of in sites.values()),
        "images": sum(of["images"] for of in sites.values()),
        "iterations": content["task"]["rounds"] * content["task"]["iterations"],
        "pairs": {words: _interval(pair) for words, pair in content["differences"].items()},
        "rows": rows,
    }
    return content["study"], run


def federated_table(run: Row | None, name: str) -> str:
    """Return the table of a run of `monai-sr federated simulate`, or how to make it."""
    if run is None:
        command = f"monai-sr federated simulate {name} --data DIR --out OUT"
        return f"Not measured yet: `python docs/results.py record {command}`."
    rows = run["rows"]
    lines = [
        f"| test images of | {' | '.join(row['label'] for row in rows)} |",
        f"| --- | {' | '.join('---' for _ in rows)} |",
        *(f"| {site} | {' | '.join(format(row['psnr'][site], '.2f') for row in rows)} |" for site in run["sets"]),
        "",
        *(
            f"- {words}: {mean:+.2f} dB [{low:+.2f}, {high:+.2f}] over the patients of all sites"
            for words, (mean, low, high) in run["pairs"].items()
        ),
        f"- `{rows[0]['command']}`: PSNR in dB of {run['images']} test images after {run['iterations']} iterations; "
        f"version {rows[0]['version']}, {rows[0]['date']}",
    ]
    return "\n".join(lines)


def privacy_curve(path: Path, words: Sequence[str]) -> tuple[str, Row]:
    """Return name and results of one `privacy_curve.json` of `monai-sr federated privacy`: a row for each noise."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["quick"]:
        raise SystemExit(f"{path} is of a run with --quick, from which nothing follows. Run the command without it.")
    command, day = shown_command(words), date.today().isoformat()
    rows = [
        {
            "method": label,
            "psnr": {site: round(value, 4) for site, value in row["psnr"].items()},
            "epsilon": max(row["epsilon"].values(), default=None),
            "command": command,
            "date": day,
            "version": content["version"],
        }
        for label, row in content["rows"].items()
    ]
    run = {
        "title": content["title"],
        "reference": "bicubic",
        "sets": list(content["images"]),
        "operator": "",
        "images": sum(content["images"].values()),
        "training_patients": content["training_patients"],
        "iterations": content["task"]["rounds"] * content["task"]["iterations"],
        "delta": content["privacy"]["delta"],
        "rows": rows,
    }
    return content["study"], run


def privacy_table(run: Row | None, name: str) -> str:
    """Return the table of a run of `monai-sr federated privacy`, or how to make it."""
    if run is None:
        command = f"monai-sr federated privacy {name} --data DIR --out OUT"
        return f"Not measured yet: `python docs/results.py record {command}`."
    rows, sites = run["rows"], run["sets"]
    lines = [f"| model | epsilon | {' | '.join(sites)} | mean |", f"| --- | --- | {'--- | ' * len(sites)}--- |"]
    for row in rows:
        values = [row["psnr"][site] for site in sites]
        epsilon = "" if row["epsilon"] is None else f"{row['epsilon']:.2g}"
        figures = " | ".join(f"{value:.2f}" for value in (*values, sum(values) / len(values)))
        lines.append(f"| {row['method']} | {epsilon} | {figures} |")
    patients = ", ".join(str(count) for count in run["training_patients"].values())
    lines += [
        "",
        f"- `{rows[0]['command']}`: PSNR in dB of {run['images']} test images after {run['iterations']} iterations a "
        f"site, with {patients} patients to train on; delta {run['delta']:g}; version {rows[0]['version']}, "
        f"{rows[0]['date']}",
    ]
    return "\n".join(lines)


def _run_name(protocol: str, words: Sequence[str]) -> str:
    limit = re.search(r"--limit (\d+)", " ".join(words))
    calibration = "+calibration" if "--calibration" in words else ""
    return protocol + (f"+limit={limit[1]}" if limit else "") + calibration


def _interval(mean: Row) -> list[float]:
    return [round(mean[key], 5) for key in ("mean", "low", "high")]


def _rounded(figures: Row) -> Row:
    return {name: round(value, 4) for name, value in figures.items() if value is not None}


def merge_runs(old: Row, new: Row) -> Row:
    """Replace the rows that were measured again; what was measured on other images cannot stand beside them."""
    if any(old.get(key) != new.get(key) for key in ("sets", "images", "operator", "reference")):
        return new
    measured = {row["method"]: row for row in new["rows"]}
    for row in old["rows"]:
        if row["method"] in INTERPOLATIONS and "means" in measured.get(row["method"], {}):
            measured[row["method"]]["means"] = {**row.get("means", {}), **measured[row["method"]]["means"]}
    rows = [measured.pop(row["method"], row) for row in old["rows"]]
    return {**new, "rows": [*rows, *measured.values()]}


# Filling


def metadata(bundle: str) -> Row:
    """Return the metadata of a bundle or of one of its variants."""
    name, _, variant = bundle.partition(":")
    folder = ROOT / "configs" / name / (f"variants/{variant}" if variant else "")
    return dict(json.loads((folder / "metadata.json").read_text(encoding="utf-8")))


def short_name(bundle: str) -> str:
    """Return what tables call a bundle: the method at the end of its name, and its variant."""
    name, _, variant = bundle.partition(":")
    full = str(metadata(name)["name"])
    method = re.search(r"\(([^()]+)\)$", full)
    return (method[1] if method else full) + (f", `:{variant}`" if variant else "")


def choose_rows(runs: Runs, selector: str) -> Iterator[tuple[Row, Row]]:
    """Yield run and row of `run/method`, or all rows of a run but bicubic."""
    name, _, method = selector.partition("/")
    if name not in runs:
        raise SystemExit(f"docs/results.json has no run {name!r}; it has {', '.join(sorted(runs))}.")
    run = runs[name]
    rows = [row for row in run["rows"] if (row["method"] == method if method else row["method"] != "bicubic")]
    if method == "*":
        rows = run["rows"]
    if not rows:
        raise SystemExit(
            f"run {name!r} has no row {method!r}; it has {', '.join(row['method'] for row in run['rows'])}."
        )
    yield from ((run, row) for row in rows)


def table(runs: Runs, selectors: Sequence[str], columns: Sequence[str], *, across: bool = False) -> str:
    """Return a Markdown table; `across` puts the methods side by side."""
    chosen = [pair for name in selectors for pair in choose_rows(runs, name)]
    header = [column_title(column, chosen[0][0]) for column in columns]
    cells = [[column_text(column, run, row) for column in columns] for run, row in chosen]
    measured = [[title, *texts] for title, *texts in zip(header, *cells, strict=True) if any(texts)]
    lines = measured if across else [list(line) for line in zip(*measured, strict=True)]
    if across:
        lines[0][0] = ""
    lines.insert(1, ["---"] * len(lines[0]))
    text = "\n".join(("| " + " | ".join(line) + " |").replace("|  |", "| |").replace("|  |", "| |") for line in lines)
    return text if "command" in columns else f"{text}\n\n{sources(chosen)}"


def _coverage_lines(methods: Sequence[Row]) -> Iterator[str]:
    """Yield a table of the share of pixels inside their error bars, of the methods that have them."""
    covered = [row for row in methods if all(cell[7:] and cell[7] is not None for cell in row["cells"])]
    if not covered:
        return
    yield from ("", "Pixels inside their error bars, which are made to hold 90 %:", "")
    losses = list(dict.fromkeys(cell[1] for cell in covered[0]["cells"]))
    yield f"| images | method | {' | '.join(losses)} |"
    yield "| --- " * (2 + len(losses)) + "|"
    for films in dict.fromkeys(cell[0] for cell in covered[0]["cells"]):
        for row in covered:
            shares = [_coverage_text(cell[7], 0) for cell in row["cells"] if cell[0] == films]
            yield f"| {films} | {row['label']} | {' | '.join(shares)} |"


def _unmodified_lines(run: Row, methods: Sequence[Row]) -> Iterator[str]:
    """Yield a table of what unmodified images look like after each method that was measured on them."""
    cells = [(row["label"], *cell) for row in methods for cell in row.get("unmodified", [])]
    if not cells:
        return
    unit = {"CT": "HU", "CXR": "grey levels"}[run["modality"]]
    columns = [name for name in UNMODIFIED if any(name in figures for _, _, _, figures, _ in cells)]
    yield from ("", "Unmodified images; in brackets relative to bicubic ([what is measured](benchmark.md)):", "")
    yield f"| images | number | method | {' | '.join(UNMODIFIED[name][0].format(unit=unit) for name in columns)} |"
    yield "| --- " * (3 + len(columns)) + "|"
    for films in dict.fromkeys(cell[1] for cell in cells):
        for label, of, count, figures, ratios in cells:
            if of == films:
                texts = (_unmodified_text(name, figures.get(name), ratios.get(name)) for name in columns)
                yield f"| {films} | {count} | {label} | {' | '.join(texts)} |".replace("|  |", "| |").replace(
                    "|  |", "| |"
                )


def _unmodified_text(name: str, value: float | None, ratio: float | None) -> str:
    if value is None:
        return ""
    if name in ("interpolated", "warned"):
        return f"{100 * value:.0f} %"
    return f"{value:.{UNMODIFIED[name][1]}f}" + ("" if ratio is None else f" ({ratio:.2f})")


def film_tables(run: Row, scale: int, *, gains_alone: bool = False) -> str:
    """Return a table of the methods of a film protocol at one scale, and one of its cells."""
    bicubic, *methods = [row for row in run["rows"] if row["method"].endswith(f"+scale={scale}")]
    # Results that were recorded before interpolated images were counted have no such column.
    counted = all("interpolated" in row for row in methods)
    titles = (
        "method",
        "mean over cells (dB)",
        "least cell (dB)",
        f"made worse by more than {run['worse_db']} dB",
        "lowest image (dB)",
        *(["interpolated: of the pairs, of the images as they are"] if counted else []),
    )
    lines = [f"| {' | '.join(titles)} | minutes of training |", "| --- " * (len(titles) + 1) + "|"]
    for row in methods:
        films, loss, _, least, *_ = min(row["cells"], key=lambda cell: cell[3])
        gain, *condition = row["lowest"]
        facts = (
            row["label"],
            f"{row['mean']:+.2f}",
            f"{least:+.2f} ({films}; {loss})",
            f"{100 * row['worse']:.1f} % of {row['pairs']:,}",
            f"{gain:+.2f} ({'; '.join(condition)})",
            *([", ".join(f"{100 * share:.2f} %" for share in row["interpolated"])] if counted else []),
            _minutes(run, row),
        )
        lines.append(f"| {' | '.join(facts)} |")
    lines += ["", f"| images | loss | bicubic (dB) | {' | '.join(row['label'] for row in methods)} |"]
    lines.append("| --- " * (3 + len(methods)) + "|")
    for (films, loss, psnr, *_), *cells in zip(*(row["cells"] for row in (bicubic, *methods)), strict=True):
        gains = (
            f"{gain:+.2f}" + (f" [{low:+.2f}, {high:+.2f}]" if low < high else "")  # none over a single patient
            for _, _, _, gain, low, high, *_ in cells
        )
        lines.append(f"| {films} | {loss} | {psnr:.2f} | {' | '.join(gains)} |")
    if not gains_alone:
        lines += _coverage_lines(methods)
        lines += _unmodified_lines(run, [bicubic, *methods])
    sizes = "; ".join(
        f"{label}: {images} image{'s' * (images != 1)} of {patients} patient{'s' * (patients != 1)}"
        for label, images, patients in run["sets"]
    )
    return "\n".join([*lines, "", f"{sizes}.", "", *_commands(methods)])


def unmodified_table(run: Row, scale: int) -> str:
    """Return the table of unmodified images alone, of a film protocol at one scale."""
    rows = [row for row in run["rows"] if row["method"].endswith(f"+scale={scale}")]
    return "\n".join([*list(_unmodified_lines(run, rows))[3:], "", *_commands(rows)])


def coverage_table(run: Row, scale: int) -> str:
    """Return the table of the pixels inside their error bars: all, at small structures, and by the bars' width."""
    rows = [row for row in run["rows"] if row["method"].endswith(f"+scale={scale}")]
    rows = [row for row in rows if all(len(cell) > 8 for cell in row["cells"])]
    has_width = any(len(cell) > 19 for row in rows for cell in row["cells"])  # older records do not have it
    titles = ["images", "loss", "method", "all pixels", "at small structures", "narrowest tenth to widest"]
    titles += ["width"] * has_width
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    for films, loss in dict.fromkeys((cell[0], cell[1]) for row in rows for cell in row["cells"]):
        for row in rows:
            cell = next(each for each in row["cells"] if each[:2] == [films, loss])
            tenths = ", ".join(f"{100 * share:.0f}" for share in cell[9:19])
            shares = _coverage_text(cell[7], 1), f"{100 * cell[8]:.1f} %", f"{tenths} %"
            width = [f"{each:.2f}" for each in cell[19:]]
            lines.append(f"| {' | '.join((films, loss, row['label'], *shares, *width))} |")
    return "\n".join([*lines, "", *_commands(rows)])


def _commands(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(f"- `{row['command']}`; version {row['version']}, {row['date']}" for row in rows))


FILM_TABLES: dict[str, Callable[[Row, int], str]] = {
    "films": film_tables,
    "gains": partial(film_tables, gains_alone=True),
    "unmodified": unmodified_table,
    "coverage": coverage_table,
}


def sources(chosen: Sequence[tuple[Row, Row]]) -> str:
    """Return the commands that printed these rows, with the images, version and date."""
    lines: dict[str, None] = {}
    for run, row in chosen:
        if "command" in row:
            patients = f" of {run['patients']} patient{'s' * (run['patients'] != 1)}" if run["patients"] else ""
            images = f"{run['images']} images{patients}, {run['operator']}"
            lines[f"`{row['command']}`: {images}; version {row['version']}, {row['date']}"] = None
    return "\n".join(f"- {line}" for line in lines)


def column_title(column: str, run: Row) -> str:
    if column.endswith("_gain"):
        title = METRICS[column.removesuffix("_gain")][0]
        reference = next((row["label"] for row in run["rows"] if row["method"] == run["reference"]), "bicubic")
        against = "over bicubic" if run["reference"] == "bicubic" else f"against {reference}"
        return title.replace(" (dB)", f" {against} (dB)") if "(dB)" in title else f"{title} {against}"
    if column in METRICS:
        return METRICS[column][0]
    return {"tested_on": "tested on", "minutes": "minutes of training", "multiply_adds": "multiply-adds"}.get(
        column, column
    )


def column_text(column: str, run: Row, row: Row) -> str:
    if column.endswith("_gain"):
        return number(row.get("differences", {}).get(column.removesuffix("_gain")), column.removesuffix("_gain"), "+")
    if column in METRICS:
        return number(row.get("means", {}).get(column), column)
    return COLUMNS[column](run, row)


def number(value: Any, metric: str, sign: str = "") -> str:
    """Return a mean, with its 95 % interval where one is shown."""
    if value is None:
        return ""
    _, digits, interval = METRICS[metric]
    factor, unit = (100, " %") if metric in PERCENT else (1, "")
    values = value if isinstance(value, list) else [value]
    if metric == "ssim" and sign:
        digits = 4
    mean, *ends = [f"{factor * each:{sign}.{digits}f}" for each in values]
    return f"{mean}{unit}" + (f" [{', '.join(ends)}]" if ends and (interval or sign) else "")


def _texture(row: Row) -> str:
    """Return the texture that a row was measured with, in words; empty where it is that of the bundle."""
    match = re.search(r"\+texture=([\d.]+)", row["method"]) or re.search(r"--texture ([\d.]+)", row.get("command", ""))
    return f"texture {float(match[1]):g}" if match else ""


def _method(run: Row, row: Row) -> str:
    texture = _texture(row)
    return f"{row['label']}, {texture}" if texture and "texture" not in row["label"] else str(row["label"])


def _tested_on(run: Row, row: Row) -> str:
    images = f"{run['images']} {'slices' if run['sets'] == ['ct'] else 'images'}"
    patients = (
        f" of {run['patients']} patients" if (run["patients"] or 0) > 1 and run["patients"] != run["images"] else ""
    )
    extra = f"; {row['sampling']}" if "sampling" in row else ""
    extra += f"; {texture}" if (texture := _texture(row)) and "texture" not in extra else ""
    losses = run["operator"].partition("+")[2].replace("+", ", ")
    extra += f"; with {losses}" if losses else ""
    # A set that is to train on alone has no images to test on.
    names = [SETS[name] for name in run["sets"] if not name.endswith("_train")]
    return f"{', '.join(names)}: {images}{patients}{extra}"


def _task(run: Row, row: Row) -> str:
    scale, _, losses = run["operator"].partition("_x")[2].partition("+")
    along = " along the slices" if run["operator"].startswith("slab") else ""
    return f"x{scale}{along}" + (f" with {losses.replace('+', ', ')}" if losses else "")


def _minutes(run: Row, row: Row) -> str:
    return str(TrainingTime(row["training_minutes"], row.get("gpu_minutes", 0))) if row.get("training_minutes") else ""


def _multiply_adds(run: Row, row: Row) -> str:
    return f"{row['multiply_adds'] / 1e9:.3g} G" if "multiply_adds" in row else ""


COLUMNS: dict[str, Callable[[Row, Row], str]] = {
    "method": _method,
    "bundle": lambda run, row: "" if row["method"] == "bicubic" else f"`{re.split(r'[+@]', row['method'])[0]}`",
    "task": _task,
    "tested_on": _tested_on,
    "minutes": _minutes,
    "multiply_adds": _multiply_adds,
    "iterations": lambda run, row: f"{row['iterations']:,}" if "iterations" in row else "",
    "command": lambda run, row: f"`{row['command']}`" if "command" in row else "",
}


def training(bundle: str) -> str:
    """Return what the metadata says of a bundle's training: stages, minutes, seed, data, size and known inputs."""
    facts = metadata(bundle)
    stages = list(facts["training"]["stages"])
    bars = facts.get("error_bars_training")
    minutes: dict[tuple[str, str], list[str]] = {}
    iterations: Counter[tuple[str, str]] = Counter()
    for stage in [*stages, *([bars] if bars else [])]:
        name = stage["stage"].replace("_", " ")
        name = name if stage["bundle"] == bundle else f"`{stage['bundle']}`, {name}"
        gpu = "" if stage.get("device", "cpu") == "cpu" else f" of one {stage['device']}"
        minutes.setdefault((name, gpu), []).append(f"{stage['minutes']:.{1 if gpu else 0}f}")
        iterations[name, gpu] += stage["iterations"]
    words = [
        f"{name} {' + '.join(each)} minutes{gpu} ({iterations[name, gpu]:,} iterations)"
        for (name, gpu), each in minutes.items()
    ]
    seeds, manifests = ({stage[key]: None for stage in stages if key in stage} for key in ("seed", "manifest_sha256"))
    whole = training_time(facts)
    assert whole is not None
    on_gpu = f" and {whole.on_gpu:.0f} of a GPU" if whole.on_gpu else ""
    inputs = ""
    for measure, phrase in (("spacing_mm", "pixels of {} mm"), ("slice_spacing_mm", "means of slices {} mm apart")):
        if measure in facts.get("input_range", {}):
            ends = dict.fromkeys(f"{end:.3g}" for end in facts["input_range"][measure])
            inputs = f"Training inputs: {phrase.format(' to '.join(ends))}. "
    text = (
        f"{facts['parameters']:,} weights, {whole.minutes - whole.on_gpu:.0f} minutes of one CPU thread{on_gpu} in "
        f"all, seed {', '.join(map(str, seeds))}: {'; '.join(words)}. {inputs}"
        f"SHA-256 of the data manifest: {', '.join(f'`{sha}`' for sha in manifests)}."
    )
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def fill_text(text: str, runs: Runs, bundle: str | None = None) -> str:
    """Return a document with every table filled."""

    def filled(match: re.Match[str]) -> str:
        kind, _, argument = match[1].strip().partition(":")
        if kind == "training":
            assert bundle is not None, "only a card has a training"
            body = training(bundle)
        elif kind in FILM_TABLES:
            name, _, scale = argument.partition("|")
            body = FILM_TABLES[kind](runs[name.strip()], int(scale))
        elif kind == "speed":
            body = speed_table(runs.get(argument.strip()), argument.strip())
        elif kind == "memory":
            body = memory_table(runs.get(argument.strip()))
        elif kind == "federated":
            body = federated_table(runs.get(argument.strip()), argument.strip())
        elif kind == "privacy":
            body = privacy_table(runs.get(argument.strip()), argument.strip())
        else:
            rows, _, columns = argument.partition("|")
            names = [name.strip() for name in columns.split(",") if name.strip()]
            selectors = [name.strip() for name in rows.split(",")]
            body = table(runs, selectors, names or CARD_COLUMNS, across=kind == "table across")
        return f"<!-- {match[1].strip()} -->\n{body}\n<!-- end -->"

    return re.sub(
        r"<!-- ((?:table|training|films|gains|unmodified|coverage|speed|memory|federated|privacy)[^>]*?) -->\n"
        r".*?<!-- end -->",
        filled,
        text,
        flags=re.DOTALL,
    )


def released_row(runs: Runs, bundle: str) -> Row | None:
    """Return the row whose figures the metadata of a bundle state, if it was measured."""
    names = [
        *(f"{bundle}{options}" for options in ("", "+limit=40", "+sets=ct")),
        "chest_xray",
        "chest_ct_interpolation",
    ]
    for name in names:
        for row in runs.get(name, {}).get("rows", []):
            if row["method"] == bundle:
                return dict(row)
    return None


def filled_metadata(text: str, row: Row) -> str:
    """Return metadata.json with the figures of its bundle."""
    figures = {
        "psnr_db": row["means"]["psnr"],
        "ssim": row["means"]["ssim"],
        "psnr_over_bicubic_db": row["differences"]["psnr"][0],
        "ssim_over_bicubic": row["differences"]["ssim"][0],
    }
    for name, value in figures.items():
        mean = value[0] if isinstance(value, list) else value
        text, count = re.subn(rf'("{name}": )[-\d.]+', rf"\g<1>{round(mean, 2 if name.endswith('_db') else 4)}", text)
        assert count == 1, name
    return text


def documents(runs: Runs) -> dict[Path, str]:
    """Return every document and metadata file as it should be."""
    texts = {}
    for path in (*(ROOT / name for name in _FILLED), *sorted((ROOT / "configs").glob("*/card.md"))):
        bundle = path.parent.name if path.name == "card.md" else None
        texts[path] = fill_text(path.read_text(encoding="utf-8"), runs, bundle)
    for path in sorted((ROOT / "configs").glob("chest_*/metadata.json")):
        row = released_row(runs, path.parent.name)
        if row is not None:
            texts[path] = filled_metadata(path.read_text(encoding="utf-8"), row)
    return texts


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("fill", help="write the tables of all documents")
    recorder = actions.add_parser("record", help="keep the results of a command that measures, then fill")
    recorder.add_argument(
        "--printed", type=Path, metavar="PATH", help="what the command printed or wrote; else it is run"
    )
    checker = actions.add_parser("check", help="run a recorded command again; fail where a method has got worse")
    for action in (recorder, checker):
        action.add_argument("words", nargs=argparse.REMAINDER, metavar="monai-sr ...")
    options = parser.parse_args(words)
    if options.action == "check":
        measured = measure(options.words)
        if losses := find_losses(read_results(), measured):
            raise SystemExit("\n".join(losses))
        print("as recorded:", ", ".join(measured))
        return
    if options.action == "record":
        measured = measure(options.words, options.printed)
        record(measured)
        print("recorded:", ", ".join(measured))
    for path, text in documents(read_results()).items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print("filled:", path.relative_to(ROOT))


if __name__ == "__main__":
    main()
