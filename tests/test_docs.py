"""The texts say what is there: links lead somewhere, commands exist, figures are those of the metadata."""

import importlib.util
import inspect
import re
import runpy
import shlex
from pathlib import Path

import monai_sr_bundle
import pytest
from monai_sr_bundle.__main__ import build_parser
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.uncertainty.error_bars import describe_undercoverage

from tests.drawn_data import write_radiographs, write_volumes

ROOT = Path(__file__).parents[1]
TEXTS = [
    *(ROOT / folder / "README.md" for folder in (".", "slicer_extension")),
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "configs").rglob("card.md")),
]


def test_the_pictures_of_the_cards_can_be_drawn_again(tmp_path):
    data = write_volumes(write_radiographs(tmp_path, size=512, counts=[("test", 1)]), size=256, slices=12)
    example = runpy.run_path(str(ROOT / "docs" / "example.py"))
    film, scan = example["EXAMPLES"]["CXR"], example["EXAMPLES"]["CT"]
    example["EXAMPLES"] |= {"CXR": ("drawn", 1, 0, *film[3:]), "CT": ("ct", 1, 0, *scan[3:])}
    for name in ("chest_xray_edsr_x4", "chest_ct_throughplane"):
        row = example["make_row"](data, find_bundle(name))
        assert len(row) == 4
        assert {picture.shape[1] for picture in row} == {example["SIDE"]}


def test_every_link_leads_to_a_file():
    links = [(text, link) for text in TEXTS for link in re.findall(r"\]\(([^)#]+)\)", text.read_text(encoding="utf-8"))]
    broken = [
        f"{text.relative_to(ROOT)}: {link}"
        for text, link in links
        if "://" not in link and not (text.parent / link).exists()
    ]
    assert len(links) > 20
    assert broken == []


def test_every_command_is_one_that_the_command_line_knows(capsys):
    # Commands in code blocks are complete; in running text and tables only those with real arguments are checked.
    refused = []
    for text in TEXTS:
        blocks = re.findall(r"```\n(.*?)```", text.read_text(encoding="utf-8"), flags=re.DOTALL)
        for line in (line for block in blocks for line in block.splitlines() if line.startswith("monai-sr ")):
            try:
                build_parser().parse_args(shlex.split(line, comments=True)[1:])
            except SystemExit:
                refused.append(f"{text.relative_to(ROOT)}: {line}\n{capsys.readouterr().err}")
    assert refused == []


def test_the_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_the_overhead_of_a_batch_is_not_measured_without_ray_and_says_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    script = runpy.run_path(str(ROOT / "docs" / "batch_overhead.py"))
    with pytest.raises(SystemExit, match=r"ray is not installed here\. Install .*batch_overhead\.py 100 one jobs$"):
        script["main"](["100"])


def test_the_messages_that_the_user_page_explains_are_those_of_the_panel():
    sources = [*(ROOT / "slicer_extension").rglob("SuperResolutionLib/*.py"), *(ROOT / "monai_sr_bundle").rglob("*.py")]
    messages = " ".join(path.read_text(encoding="utf-8") for path in sources)
    messages = re.sub(r'"\s*\n\s*f?"', "", messages)  # a message over several lines is one
    page = (ROOT / "docs" / "slicer.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \|", page[page.index("## Messages") :], flags=re.MULTILINE)[2:]
    explained = [part.strip(" :") for row in rows for message in row.split(";") for part in message.split("…")]
    explained = [part for part in explained if len(part) > 3]
    assert len(explained) > 20
    assert [part for part in explained if part not in messages] == []


def test_the_figures_of_the_intended_use_are_those_of_the_tables():
    figures = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    rows = figures.split("## Radiographs: how far to trust a result\n")[1].split("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row.startswith("|")]
    methods, table = cells[0], {row[0]: row for row in cells}
    page = (ROOT / "docs" / "intended_use.md").read_text(encoding="utf-8")
    detectability = "detectability d′ of a drawn nodule, sigma 1.5 pixels over bicubic"
    quoted = [
        (detectability, "MDSR, trained on films"),
        (detectability, "Residual flow, texture 1"),
        *(
            (measure, method)
            for measure in (
                "contrast of a drawn nodule that comes back, sigma 1.5 pixels",
                "distance to the input when reduced again (RMS, grey levels)",
            )
            for method in ("MDSR, trained on films", "Bicubic")
        ),
    ]
    missing = [
        (measure, method, figure)
        for measure, method in quoted
        if (figure := table[measure][methods.index(method)]) not in page
    ]
    assert missing == []
    unmodified = figures.split("<!-- unmodified: chest_xray_films")[1].split("<!-- end -->")[0].splitlines()
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in unmodified if row.startswith("|")]
    column = rows[0].index("distance to the input (grey levels)")
    for method in ("MDSR, trained on films", "Bicubic"):
        distances = sorted(float(row[column]) for row in rows[2:] if row[2] == method)
        assert f"{distances[0]} to {distances[-1]}" in page


def test_the_figures_in_sentences_are_those_of_the_tables():
    figures = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    readme, trust = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/trust.md"))

    def cells(marker, *beginning):
        table = figures.split(marker)[1].split("<!-- end -->")[0].splitlines()
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table if line.startswith("|")]
        (row,) = (row for row in rows if tuple(row[: len(beginning)]) == beginning)
        header = next(header for header in reversed(rows[: rows.index(row)]) if "Bicubic" in header or "loss" in header)
        return {name: cell.split(" ")[0] for name, cell in zip(header, row, strict=True)}

    gains = cells("<!-- gains: chest_xray_films | 4", "NIH, 256 pixels", "ideal")
    assert f"{gains['Residual flow']} against {gains['MDSR, trained on films']} dB" in readme
    bright = cells("<!-- table across: chest_xray_trust+limit=80", "sensitivity to bright blobs, sigma 1.5 pixels")
    assert f"({bright['Residual flow, texture 1']} against {bright['Bicubic']} of the" in trust
    shares = re.findall(r"^\| slices, (?:BONE|B60f) \| MDSR[^|]*(.*%.*)$", figures, flags=re.MULTILINE)
    sharp = [int(share) for row in shares for share in re.findall(r"\d+", row)]
    assert f"{min(sharp)} to {max(sharp)} %" in inspect.getsource(describe_undercoverage)
    assert f"{min(sharp)} % of one patient with a sharp" in trust.replace("\n", " ")


def test_the_citation_names_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {monai_sr_bundle.__version__}\n" in text


def test_no_advice_installs_a_name_that_no_index_has():
    texts = [*TEXTS, ROOT / "pyproject.toml", *(ROOT / "monai_sr_bundle").rglob("*.py")]
    advice = [str(text) for text in texts if re.search(r"pip install ['\"]?monai-sr", text.read_text(encoding="utf-8"))]
    assert advice == []
