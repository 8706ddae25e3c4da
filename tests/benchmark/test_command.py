"""`monai-sr benchmark quality` as a user meets it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml
from monai_sr_bundle.__main__ import main

from tests.drawn_data import write_radiographs

TEXT = {
    "title": "Two methods", "about": "For tests.", "modality": "CXR", "sets": ["drawn"],
    "operator": "bicubic_antialias_x4", "window": [0, 255], "levels": 255,
    "rows": [
        {"method": "bilinear", "label": "Bilinear"}, {"method": "bicubic", "label": "Bicubic"},
        {"method": "chest_xray_edsr_x4", "label": "EDSR"},
    ],
}  # fmt: skip


@pytest.fixture
def root(tmp_path):
    write_radiographs(tmp_path / "data", size=96, counts=(("test", 2),))
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(TEXT))
    return tmp_path


def benchmark(root, *words):
    given = ("--data", root / "data", "--out", root / "out", "--protocol", root / "two.yaml", "--workers", 1, *words)
    return main(["benchmark", "quality", *map(str, given)])


def test_one_command_makes_tables_and_a_page_and_replaces_older_ones_only_when_asked(root, capsys):
    assert benchmark(root, "--limit", 1) == 0
    printed = capsys.readouterr()
    names = sorted(path.relative_to(root / "out").as_posix() for path in (root / "out").rglob("*") if path.is_file())
    assert names == ["index.html", "two/comparison.json", "two/figures.csv", "two/table.md"]
    assert (root / "out" / "two" / "table.md").read_text() in printed.out
    assert re.search(r"two: 100%.* 3/3 ", printed.err)
    page = (root / "out" / "index.html").read_text()
    assert "monai-sr benchmark quality --data" in page
    assert "Two methods" in page
    assert benchmark(root, "--limit", 1) == 5
    assert "out exists already. Choose another name, or pass --overwrite" in capsys.readouterr().err
    assert (root / "out" / "index.html").read_text() == page
    assert benchmark(root, "--bundles", "bilinear", "--overwrite") == 0
    content = json.loads((root / "out" / "two" / "comparison.json").read_text())
    assert [method["method"] for method in content["methods"]] == ["bilinear", "bicubic"]


@pytest.mark.parametrize("option", ["--limit", "--workers"])
def test_a_count_of_nothing_is_refused(root, option, capsys):
    with pytest.raises(SystemExit):
        benchmark(root, option, "0")
    assert f"{option}: '0': expected a whole number from 1." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--bundles", "magic"), 3, "no protocol asked for has magic; there is bicubic, bilinear, chest_xray_edsr_x4"),
        (("--bundles", "bicubic"), 3, "only the reference is left"),
        (("--protocol", "magic"), 3, "protocol 'magic' is unknown. Available: chest_ct"),
        (("--backbone", "none.npz"), 3, "none.npz"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(root, capsys, words, code, message):
    assert benchmark(root, *words) == code
    printed = capsys.readouterr()
    assert message in printed.err
    assert "result/s" not in printed.err
    assert not (root / "out").exists()


@pytest.mark.slow
def test_an_interrupted_benchmark_leaves_no_process_and_no_file(tmp_path):
    folder = write_radiographs(tmp_path / "data", size=96, counts=(("test", 1),)) / "drawn"
    with (folder / "manifest.csv").open("a") as manifest:
        for index in range(1, 200):
            shutil.copy(folder / "images" / "test0.png", folder / "images" / f"copy{index}.png")
            manifest.write(f"drawn/images/copy{index}.png,test,patient-0,PA,,96,96,drawn\n")
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(TEXT))
    words = ("--data", tmp_path / "data", "--out", tmp_path / "out", "--protocol", tmp_path / "two.yaml")
    command = [sys.executable, "-m", "monai_sr_bundle", "benchmark", "quality", *map(str, words), "--workers", "2"]

    def heed_interrupts():  # whoever started the tests in the background had them ignored, also for its children
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed_interrupts
    ) as process:
        assert process.stderr is not None
        printed = ""
        while not re.search(r"[1-9]/600 ", printed):
            more = process.stderr.read(1)
            assert more, f"ended before it was interrupted: {printed}"
            printed += more
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) >= 2
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        printed += process.stderr.read()
    assert process.returncode == 130, printed
    assert "Traceback" not in printed
    assert psutil.wait_procs(workers, timeout=600)[1] == []
    assert not (tmp_path / "out").exists()


def test_without_scipy_the_command_says_what_to_install(root):
    code = "import sys; sys.modules['scipy'] = None; from monai_sr_bundle.__main__ import main; sys.exit(main())"
    words = ("benchmark", "quality", "--data", root / "data", "--out", root / "out", "--protocol", root / "two.yaml")
    ended = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], cwd=Path(__file__).parents[2], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 4
    assert "needs scipy, not installed here. Install with `pip install -c constraints.txt '.[torch,b" in ended.stderr
