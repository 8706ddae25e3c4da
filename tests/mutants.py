"""`python -m tests.mutants`: do the tests notice if one place of the code is another? Needs `pip install mutmut`.

mutmut makes the mutants of functions and runs, for each, the tests that come through its function. This takes a sample
of them: a quarter of geometry, half of DICOM, a quarter of the writing of files. It works in a copy, `build/mutants`;
there `mutmut show NAME` prints a mutant, and `mutmut run NAME` tests one again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    "geometry": (1, ("geometry", "dicom_geometry")),
    "DICOM": (2, ("dicom_file", "dicom_pixels", "dicom_read", "dicom_write", "decoder_process")),
    "writing": (1, ("staging", "working_folders", "file_state")),
}
"""Shares of the sample, and modules of `monai_sr_bundle.images`."""
TESTS = (
    "dicom_landmarks", "dicom_read", "dicom_write", "slice_checks", "damage", "staging", "working_folders",
    "file_state", "files", "nifti", "unit", "padding", "geometry",
)  # fmt: skip
"""Files of `tests/images`."""
OUTCOMES = {0: "survived", 1: "killed", 3: "killed", 5: "without a test", 33: "without a test", None: "not tested"}
"""By mutmut's exit codes; others are tests that did not end in time, or whose process was ended."""
SETTINGS = """\
[mutmut]
source_paths=monai_sr_bundle
only_mutate=
    {modules}
also_copy=
    configs
    docs
    conftest.py
pytest_add_cli_args=
    -m
    not slow
    -p
    no:cacheprovider
    -p
    no:xdist
pytest_add_cli_args_test_selection=
    {tests}
"""


def copy_sources(folder: Path) -> None:
    """Copy the files of the repository, and say what mutmut shall do with them."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for path in filter(None, listing.split("\0")):
        with suppress(FileNotFoundError):  # deleted, and not committed yet
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, folder / path)
    modules = [f"monai_sr_bundle/images/{name}.py" for _, names in MODULES.values() for name in names]
    tests = [f"tests/images/test_{name}.py" for name in TESTS]
    settings = SETTINGS.format(modules="\n    ".join(modules), tests="\n    ".join(tests))
    (folder / "setup.cfg").write_text(settings, encoding="utf-8")


def read_outcomes(folder: Path, module: str) -> dict[str, str]:
    """Return the outcome of each mutant of a module, by its name."""
    file = folder / "mutants" / "monai_sr_bundle" / "images" / f"{module}.py.meta"
    codes = json.loads(file.read_text(encoding="utf-8"))["exit_code_by_key"]
    return {name: OUTCOMES.get(code, "ended") for name, code in codes.items()}


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--sample", type=int, default=200, help="number of mutants (default 200)")
    parser.add_argument("--seed", type=int, default=22)
    options = parser.parse_args(words)
    folder = ROOT / "build" / "mutants"
    copy_sources(folder)
    mutmut = [sys.executable, "-m", "mutmut"]
    run = [*mutmut, "run", "--max-children", "1"]
    subprocess.run([*run, "monai_sr_bundle.images.file_state.x_file_states__mutmut_1"], cwd=folder, check=True)
    random, sample = Random(options.seed), []
    for share, modules in MODULES.values():
        names = [name for module in modules for name in read_outcomes(folder, module)]
        sample += random.sample(names, options.sample * share // 4)
    subprocess.run([*run, *sample], cwd=folder, check=True)
    for part, (_, modules) in MODULES.items():
        recorded = {name: text for module in modules for name, text in read_outcomes(folder, module).items()}
        outcomes = {name: recorded[name] for name in sample if name in recorded}
        for name, outcome in outcomes.items():
            if outcome != "killed":
                print(f"\n{name}: {outcome}", flush=True)
                subprocess.run([*mutmut, "show", name], cwd=folder, check=True)
        counts = {text: list(outcomes.values()).count(text) for text in dict.fromkeys(outcomes.values())}
        print(f"\n{part}: {len(outcomes)} mutants of {len(recorded)}: {counts}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
