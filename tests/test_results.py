"""Measured results stand in one file; tables, cards and metadata are filled from it; cards follow one template."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from monai_sr_bundle.__main__ import build_parser
from monai_sr_bundle.shipped_bundles import all_bundles

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def results():
    """Import docs/results.py, which is no part of the package."""
    specification = importlib.util.spec_from_file_location("results", ROOT / "docs" / "results.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_filling_the_tables_again_changes_nothing(results):
    outdated = [
        str(path.relative_to(ROOT))
        for path, text in results.documents(results.read_results()).items()
        if path.read_text(encoding="utf-8") != text
    ]
    assert outdated == [], "run `make docs`"


def test_writing_the_results_again_changes_nothing(results, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results.json")
    results.write_results(json.loads((ROOT / "docs" / "results.json").read_text(encoding="utf-8")))
    assert (tmp_path / "results.json").read_bytes() == (ROOT / "docs" / "results.json").read_bytes()


def test_every_result_names_the_command_that_printed_it(results):
    for name, run in results.read_results().items():
        for row in run["rows"]:
            command = row.get("command")
            if command is None:
                assert row["method"] == run["reference"], name  # it stands in the row of the method it is compared with
                continue
            build_parser().parse_args(shlex.split(command)[1:])
            assert row["date"]
            assert row["version"]


def test_rows_of_one_table_that_differ_in_texture_say_so_and_name_the_minutes(results):
    text = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    tables = re.findall(r"<!-- table: [^>]*\| (method,[^>]*) -->\n(.*?)\n\n", text, flags=re.DOTALL)
    assert len(tables) > 5
    for columns, table in tables:
        rows = [line.split(" | ")[: 1 + ("bundle" in columns)] for line in table.splitlines()[2:]]
        repeated = [row for row in rows if rows.count(row) > 1]
        assert repeated == [], columns
    for protocol in ("chest_xray_flow", "chest_ct_flow", "chest_xray_trust", "chest_xray_trust_external"):
        requested = re.findall(rf"<!-- table[^>]*{protocol}[+/][^>]*\|([^>|]*)-->", text)
        assert requested, protocol
        assert all("minutes" in columns for columns in requested), protocol


def test_what_evaluate_prints_is_recorded_as_it_is(results):
    header = "test split of cxr_nih: 4 images of 3 patients | bicubic_antialias_x4 | torch on cpu"
    printed = f"""chest_xray_edsr_x4 0.2.0 | {header}
                         bicubic  chest_xray_edsr_x4  difference  95 % interval
PSNR (dB)                  32.99               36.21       +3.21  [+3.01, +3.42]
MS-SSIM                   0.9841              0.9910     +0.0069  [+0.0065, +0.0074] over 3 of 4 images
LPIPS (lower is better) unavailable: its backbone is not here
Median time of chest_xray_edsr_x4 for 64x64 pixels: 18.0 ms (1 thread)
"""
    words = ["monai-sr", "evaluate", "chest_xray_edsr_x4", "--data", "/somewhere", "--limit", "4", "--workers", "2"]
    name, run = results.evaluation(printed, words)
    assert name == "chest_xray_edsr_x4+limit=4"
    assert (run["images"], run["patients"], run["sets"]) == (4, 3, ["cxr_nih"])
    baseline, row = run["rows"]
    assert baseline["means"] == {"psnr": 32.99, "ms_ssim": 0.9841}
    assert row["means"] == {"psnr": 36.21, "ms_ssim": 0.9910}
    assert row["differences"]["psnr"] == [3.21, 3.01, 3.42]
    assert row["command"] == "monai-sr evaluate chest_xray_edsr_x4 --data DIR --limit 4"
    assert row["training_minutes"] == 92.0


def test_what_a_benchmark_wrote_is_recorded_without_the_folders_of_this_machine(results, tmp_path):
    interval = {"mean": 0.123456, "low": 0.1, "high": 0.2}
    method = {
        "method": "chest_xray_edsr_x4", "label": "EDSR", "training_minutes": 92.0, "gained_until_minutes": None,
        "multiply_adds": 1.48e9, "means": {"psnr": interval},
        "difference_to_reference": {"psnr": {"difference": interval}},
    }  # fmt: skip
    protocol = {"name": "chest_xray", "title": "A title", "reference": "bicubic", "sets": [], "split": "test"}
    content = {
        "protocol": {**protocol, "operator": "bicubic_antialias_x4"}, "images": 4, "patients": 3,
        "versions": {"monai_sr_bundle": "0.2.0"}, "methods": [method],
    }  # fmt: skip
    (tmp_path / "comparison.json").write_text(json.dumps(content))
    words = shlex.split("monai-sr benchmark quality --data /a --out /b --backbone /c/d.npz --limit 4 --workers 1")
    name, run = results.comparison(tmp_path / "comparison.json", words)
    assert name == "chest_xray+limit=4"
    (row,) = run["rows"]
    assert row["command"] == "monai-sr benchmark quality --data DIR --out OUT --backbone d.npz --limit 4"
    assert row["means"]["psnr"] == row["differences"]["psnr"] == [0.12346, 0.1, 0.2]
    assert "gained_until_minutes" not in row


def test_what_the_benchmark_of_films_wrote_stands_in_its_tables(results, tmp_path):
    def cell(gain, worse):
        mean = {"mean": gain, "low": gain - 0.1, "high": gain + 0.1}
        psnr, coverage = {"mean": 40 + gain}, {"mean": 0.914, "low": 0.9, "high": 0.93} if gain else None
        cell = {"set": "whole films", "loss": "ideal", "psnr": psnr, "gain": mean, "worse": worse}
        return {**cell, "coverage": coverage}

    def method(name, label, gain, worse, minutes):
        lowest = {"gain": gain - 0.5, "set": "whole films", "loss": "ideal", "image": "film7"}
        summary = {"mean": gain, "worse": worse, "pairs": 40, "lowest": lowest}
        summary |= {"interpolated": 0.0005, "unmodified_interpolated": 0.0}
        figures = {"noise": 2 - gain, "edge_width": 4.0, "near_padding": None, "interpolated": 0.25, "warned": 0.0}
        ratios = {"noise": (2 - gain) / 2, "edge_width": 1.0, "flicker": None} if gain else {}
        unmodified = [{"set": "whole films", "images": 4, "figures": figures, "ratios": ratios}]
        scales = [{"scale": 4, "summary": summary, "cells": [cell(gain, worse)], "unmodified": unmodified}]
        return {"method": name, "label": label, "training_minutes": minutes, "scales": scales}

    content = {
        "protocol": {"name": "films", "title": "Films", "split": "test", "modality": "CXR"},
        "sets": [{"set": "whole films", "images": 40, "patients": 30}],
        "methods": [method("bicubic", "Bicubic", 0.0, 0.0, None), method("chest_xray_blind", "MDSR", 1.25, 0.025, 9.0)],
        "versions": {"monai_sr_bundle": "0.2.0"},
        "worse_db": 0.1,
    }
    (tmp_path / "conditions.json").write_text(json.dumps(content))
    words = ["monai-sr", "benchmark", "quality", "--data", "/here", "--out", "/there", "--protocol", "films"]
    name, run = results.film_comparison(tmp_path / "conditions.json", words)
    text = results.fill_text("<!-- films: films | 4 -->\n<!-- end -->", {name: run})
    assert (
        "| MDSR | +1.25 | +1.25 (whole films; ideal) | 2.5 % of 40 | +0.75 (whole films; ideal) | 0.05 %, 0.00 % | 9 |"
        in text
    )
    assert "made worse by more than 0.1 dB" in text
    assert "| whole films | ideal | 40.00 | +1.25 [+1.15, +1.35] |" in text
    assert "Pixels inside their error bars" in text
    assert "| images | method | ideal |\n| --- | --- | --- |\n| whole films | MDSR | 91 % [90, 93] |" in text
    assert "| images | number | method | noise (grey levels) | edge (pixels) | interpolated | warned |" in text
    assert "| whole films | 4 | Bicubic | 2.0 | 4.00 | 25 % | 0 % |" in text
    assert "| whole films | 4 | MDSR | 0.8 (0.38) | 4.00 (1.00) | 25 % | 0 % |" in text
    assert "whole films: 40 images of 30 patients." in text
    gains = results.fill_text("<!-- gains: films | 4 -->\n<!-- end -->", {name: run})
    assert "| whole films | ideal | 40.00 | +1.25 [+1.15, +1.35] |" in gains
    assert "inside" not in gains
    assert "`monai-sr benchmark quality --data DIR --out OUT --protocol films`; version 0.2.0" in text


def test_the_coverage_of_parts_has_a_table_of_its_own(results):
    def cells(*shares):
        return [["children", "box", 40.0, 1.0, 0.9, 1.1, 0.0, 0.912, *shares]]

    tenths = [0.5 + index / 20 for index in range(10)]
    recorded_by = {"label": "MDSR", "command": "monai-sr benchmark trust", "version": "0.2.0", "date": "2026-11-25"}
    rows = [
        {"method": "bicubic+scale=4", "cells": cells()},
        {**recorded_by, "method": "chest_xray_blind+scale=4", "cells": cells(0.88, *tenths, 0.93)},
        {**recorded_by, "method": "chest_xray_blind+scale=2", "cells": cells(0.77, *tenths)},
    ]
    text = results.fill_text("<!-- coverage: films | 4 -->\n<!-- end -->", {"films": {"rows": rows}})
    assert "| children | box | MDSR | 91.2 % | 88.0 % | 50, 55, 60, 65, 70, 75, 80, 85, 90, 95 % | 0.93 |" in text
    assert "77.0 %" not in text
    assert text.endswith("- `monai-sr benchmark trust`; version 0.2.0, 2026-11-25\n<!-- end -->")


def test_what_a_hospitals_calibration_covers_is_a_run_of_its_own(results):
    words = shlex.split("monai-sr benchmark trust --data /a --out /b --calibration /c/site.json --limit 4")
    assert results._run_name("films", words) == "films+limit=4+calibration"
    assert results.shown_command(words) == (
        "monai-sr benchmark trust --data DIR --out OUT --calibration FILE --limit 4"
    )


def test_a_benchmark_without_unmodified_images_has_no_table_of_them(results):
    runs = results.read_results()
    run = runs["chest_xray_films"]
    rows = [{key: value for key, value in row.items() if key != "unmodified"} for row in run["rows"]]
    assert "Unmodified images" not in results.film_tables({**run, "rows": rows}, 4)
    cell = ["whole films", 4, {"noise": 1.5}, {}]
    measured = [{**row, "unmodified": [cell]} if row["method"].endswith("blind+scale=4") else row for row in rows]
    lines = results.film_tables({**run, "rows": measured, "modality": "CXR"}, 4).splitlines()
    start = lines.index("| images | number | method | noise (grey levels) |")
    assert re.fullmatch(r"\| whole films \| 4 \| MDSR.* \| 1\.5 \|", lines[start + 2])
    assert lines[start + 3] == ""


def test_a_gain_that_is_lower_than_recorded_is_found(results):
    def row(*gains):
        cells = [["whole films", "ab"[index], 40.0, gain, 0.0, 1.0, 0.0, None] for index, gain in enumerate(gains)]
        return {"method": "chest_xray_blind+scale=4", "cells": cells}

    bicubic = {"method": "bicubic+scale=4", "cells": []}
    recorded = {"films": {"rows": [bicubic, row(1.0, 0.5)]}}
    assert results.find_losses(recorded, {"films": {"rows": [bicubic, row(0.96, 2.0)]}}) == []
    (sentence,) = results.find_losses(recorded, {"films": {"rows": [bicubic, row(1.0, 0.44)]}})
    assert sentence == ("films, chest_xray_blind+scale=4, whole films, b: +0.44 dB, expected +0.50 dB.")
    assert len(results.find_losses(recorded, {"films": {"rows": [row(float("nan"), 0.5)]}})) == 1
    assert len(results.find_losses(recorded, {"films": {"rows": [row(1.0)]}})) == 1  # a cell that was not measured
    assert results.find_losses(recorded, {}) == ["Nothing was measured."]
    with pytest.raises(SystemExit, match="has no row 'chest_ct_blind'"):
        results.find_losses(recorded, {"films": {"rows": [{"method": "chest_ct_blind", "cells": []}]}})
    mean = {"evaluated": {"rows": [{"method": "edsr", "differences": {"psnr": [3.2, 3.0, 3.4]}}]}}
    lower = {"evaluated": {"rows": [{"method": "edsr", "differences": {"psnr": [3.1, 3.0, 3.2]}}]}}
    assert results.find_losses(mean, mean) == []
    assert len(results.find_losses(mean, lower)) == 1


def test_a_text_that_evaluate_did_not_print_is_refused(results):
    with pytest.raises(SystemExit, match="does not begin as that of monai-sr evaluate"):
        results.evaluation("PSNR 36.21", ["monai-sr", "evaluate", "chest_xray_edsr_x4", "--data", "DIR"])


def test_a_row_that_is_measured_again_replaces_the_older_one(results):
    facts = {"sets": ["cxr_nih"], "images": 2, "operator": "bicubic_antialias_x4", "reference": "bicubic"}
    old = {
        **facts,
        "rows": [{"method": "bicubic", "means": {"psnr": 1.0, "ssim": 0.5}}, {"method": "a"}, {"method": "b"}],
    }
    new = {**facts, "rows": [{"method": "bicubic", "means": {"psnr": 1.0}}, {"method": "a", "date": "today"}]}
    merged = results.merge_runs(old, new)
    assert [row["method"] for row in merged["rows"]] == ["bicubic", "a", "b"]
    assert merged["rows"][0]["means"] == {"psnr": 1.0, "ssim": 0.5}
    assert merged["rows"][1]["date"] == "today"
    assert results.merge_runs(old, {**new, "images": 3}) == {**new, "images": 3}


def test_every_recorded_run_can_be_recorded_and_checked_again(results):
    runs = results.read_results()
    for name, run in runs.items():
        assert results.merge_runs(run, run) == run, name
        assert results.find_losses(runs, {name: run}) == [], name


def test_a_table_of_a_result_that_is_not_there_is_refused(results):
    with pytest.raises(SystemExit, match="has no run 'nothing'"):
        results.fill_text("<!-- table: nothing | psnr -->\n<!-- end -->", results.read_results())
    with pytest.raises(SystemExit, match="run 'chest_xray' has no row 'nothing'"):
        results.fill_text("<!-- table: chest_xray/nothing | psnr -->\n<!-- end -->", results.read_results())


HEADINGS = [
    "Intended use", "How to run", "Performance", "Data", "Training configuration", "Limitations",
    "Differences from the paper", "References", "Licence",
]  # fmt: skip


def test_every_card_follows_the_template():
    bundles = list(all_bundles())
    assert len(bundles) > 10
    for bundle in bundles:
        card = (bundle.folder / "card.md").read_text(encoding="utf-8")
        assert re.findall(r"^## (.+)$", card, flags=re.MULTILINE) == HEADINGS, bundle.name
        assert len(card.splitlines()) <= 80, bundle.name
        assert "not a medical device" in card, bundle.name
        if bundle.parameters:
            assert f"{bundle.parameters:,} weights" in card, bundle.name
            assert f"monai-sr train {bundle.name} " in card, bundle.name
            assert "| minutes of training |" in card, bundle.name
            if (bundle.folder / "calibration.json").is_file():
                assert f"monai-sr calibrate {bundle.name} " in card or "error bars were calibrated on" in card, (
                    bundle.name
                )
            assert re.search(rf"`monai-sr evaluate {bundle.name} |`monai-sr benchmark quality", card), bundle.name


def test_no_card_calls_small_nodules_unmeasured_that_were_measured(results):
    measured = {row["method"] for row in results.read_results()["chest_xray_trust+limit=80"]["rows"]}
    for bundle in (bundle for bundle in all_bundles() if bundle.name in measured):
        card = (bundle.folder / "card.md").read_text(encoding="utf-8")
        assert "nodule survives was not measured" not in " ".join(card.split()), bundle.name


def test_the_figures_of_the_metadata_were_measured(results):
    for bundle in (bundle for bundle in all_bundles() if bundle.parameters):
        row = results.released_row(results.read_results(), bundle.name)
        figures = bundle.metadata["eval_metrics"]
        gains = [figures["psnr_over_bicubic_db"], figures["ssim_over_bicubic"]]
        assert gains == pytest.approx([row["differences"]["psnr"][0], row["differences"]["ssim"][0]], abs=0.005)
        psnr = np.ravel(row["means"]["psnr"])[0]  # its interval follows, but in older records
        assert figures["psnr_db"] == pytest.approx(psnr, abs=0.005), bundle.name


def test_a_table_of_speed_is_filled_from_what_the_benchmark_wrote(results, tmp_path):
    row = {
        "method": "a@onnx", "label": "A", "backend": "onnx", "size": 64, "threads": 1, "runs": 5, "seconds": 0.0512345,
        "peak_mb": 123.4, "share_of_rate": 0.5, "times_onnx": None, "times_reference": 1234.5, "psnr": 35.678,
        "images_per_second": 19.5, "multiply_adds": 1e9,
    }  # fmt: skip
    protocol = {
        "name": "chest_xray_speed",
        "title": "T",
        "reference": "b",
        "sets": [],
        "split": "test",
        "operator": "o",
    }
    content = {
        "protocol": protocol, "rows": [row], "images": 4, "processor": "P", "cores": 2, "refused": {},
        "versions": {"monai_sr_bundle": "9"}, "convolution_rate": {"1": 1.3456e11},
    }  # fmt: skip
    (tmp_path / "chest_xray_speed").mkdir()
    (tmp_path / "chest_xray_speed" / "speed.json").write_text(json.dumps(content))
    words = ["monai-sr", "benchmark", "speed", "--data", "d", "--out", str(tmp_path)]
    runs = results.measure(words, tmp_path)
    (recorded,) = runs["chest_xray_speed"]["rows"]
    assert recorded["method"] == "a@onnx+size=64+threads=1"
    assert recorded["command"] == "monai-sr benchmark speed --data DIR --out OUT"
    assert "times_onnx" not in recorded
    text = "<!-- speed: chest_xray_speed -->\n<!-- end -->"
    filled = results.fill_text(text, runs)
    assert "| A | onnx | 64 x 64 | 1 | 0.0512 | 19.5 | 123 | 0.50 |  | 1,234 | 35.68 |" in filled
    assert (
        "P, 2 cores; a convolution of 64 channels in float32 does 135 G multiply-adds a second on 1 thread." in filled
    )
    # Speed is no loss of quality, whatever it is.
    assert results.find_losses(runs, runs) == []
    assert "Not measured yet: `python docs/results.py record monai-sr benchmark speed" in results.fill_text(text, {})


def test_a_privacy_curve_is_recorded_with_the_epsilon_of_the_site_that_spent_most(results, tmp_path):
    psnr = {"site-1": 30.0, "site-2": 29.0}
    content = {
        "study": "drawn", "title": "Drawn", "quick": False, "version": "1.0", "task": {"rounds": 2, "iterations": 30},
        "privacy": {"delta": 1e-5}, "images": {"site-1": 7, "site-2": 8},
        "training_patients": {"site-1": 20, "site-2": 21},
        "rows": {
            "bicubic": {"psnr": psnr, "epsilon": {}},
            "noise 1": {"psnr": psnr, "epsilon": {"site-1": 2.0, "site-2": 3.0}},
        },
    }  # fmt: skip
    (tmp_path / "privacy_curve.json").write_text(json.dumps(content))
    words = ["monai-sr", "federated", "privacy", "drawn", "--data", "/secret", "--out", str(tmp_path)]
    runs = results.measure(words, tmp_path)
    table = results.fill_text("<!-- privacy: drawn -->\n<!-- end -->", runs)
    assert "| noise 1 | 3 | 30.00 | 29.00 | 29.50 |" in table
    assert "PSNR in dB of 15 test images after 60 iterations a site, with 20, 21 patients to train on" in table
    assert "/secret" not in table
    (tmp_path / "privacy_curve.json").write_text(json.dumps(content | {"quick": True}))
    with pytest.raises(SystemExit, match="from which nothing follows"):
        results.measure(words, tmp_path)
