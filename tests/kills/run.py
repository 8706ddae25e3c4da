"""`python -m tests.kills.run`: kill commands, run them again, and say what was lost or left behind.

A command is killed with SIGKILL at a step of its writing (before a file is opened to write, moved, made or removed) or
at a random moment. Then the inputs must be as they were, every file must be the older or the newer one and complete,
and the next run must end well, with the same files as a run that nobody killed and nothing else, temporary files
included.

The commands run in copies of this process, which has imported everything once.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from pathlib import Path
from random import Random
from typing import Any

# Before torch is imported: the copies of this process have no threads to wait for.
os.environ["OMP_NUM_THREADS"] = "1"

import onnx
import PIL.Image
import pydicom
import torch

from tests.kills.scenarios import SCENARIOS, Scenario

IMPORTED_ONCE = (
    "monai_sr_bundle.__main__", "monai_sr_bundle.cli.jobs", "monai_sr_bundle.images.dicom_write",
    "monai_sr_bundle.datasets.prepare", "monai_sr_bundle.training.training", "monai_sr_bundle.packing.pack",
    "monai_sr_bundle.packing.release", "monai_sr_bundle.calibrate.calibrate", "monai_sr_bundle.backends.torch_backend",
    "monai_sr_bundle.backends.onnx_backend", "onnxruntime", "onnxscript", "nibabel", "tests.with_error_bars",
)  # fmt: skip
"""What the commands would import each for itself."""
CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.link", "os.symlink")
"""Audit events of Python that change a folder, besides the opening of a file to write."""
PATIENCE_SECONDS = 900.0
"""After which a command counts as one that hangs."""
ENDED = "ended before the kill"
FORK = multiprocessing.get_context("fork")


READ: dict[str, Callable[[Path], object]] = {
    ".dcm": lambda path: pydicom.dcmread(path).pixel_array.tobytes(),
    ".png": lambda path: PIL.Image.open(path).tobytes(),
    ".gz": lambda path: gzip.decompress(path.read_bytes()),
    ".zip": lambda path: (zipfile.ZipFile(path).testzip(), sorted(zipfile.ZipFile(path).namelist())),
    ".json": lambda path: list(json.loads(path.read_bytes())),
    ".csv": lambda path: (path.read_bytes().split(b"\n")[0], path.read_bytes()[-1:]),
    ".html": lambda path: path.read_bytes().rstrip()[-7:],
    ".onnx": lambda path: [node.op_type for node in onnx.load(path).graph.node],
    ".pt": lambda path: list(torch.load(path, weights_only=True)),
}
"""Returns of a file what is the same for every run of a command, by its suffix; of others all is."""


@dataclass(frozen=True)
class Whole:
    """The files that a run of a scenario leaves if it is not killed, and those from before.

    Attributes:
        older, newer: contents of the files in `out/` by their names.
        inputs: contents of the files in `in/`.
        steps: number of steps of its writing.
        seconds: duration.
    """

    older: dict[str, str]
    newer: dict[str, str]
    inputs: dict[str, str]
    steps: int
    seconds: float


def start(words: tuple[str, ...], case: Path, at_step: Callable[[int], object] | None = None) -> ForkProcess:
    """Start a command in a copy of this process, in a group of its own."""
    process = FORK.Process(target=_run, args=(words, case, at_step))
    process.start()
    return process


def _run(words: tuple[str, ...], case: Path, at_step: Callable[[int], object] | None) -> None:
    os.setsid()
    os.chdir(case)
    log = os.open(case / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["TMPDIR"] = tempfile.tempdir = str(case / "tmp")  # which Python would try out with a file
    if at_step is not None:
        _count_steps(case, at_step)
    from monai_sr_bundle.__main__ import main

    sys.exit(main(list(words)))


def _count_steps(case: Path, at_step: Callable[[int], object]) -> None:
    """Call a function before every change in the folders of a case, with the number of the change from 0 on."""
    watched = tuple(f"{case / name}" for name in ("in", "out", "tmp"))
    count = 0

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            path, _, flags = arguments
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        if isinstance(path, (str, os.PathLike)) and os.path.abspath(path).startswith(watched):
            at_step(count)
            count += 1

    sys.addaudithook(audit)


def wait(process: ForkProcess, seconds: float = PATIENCE_SECONDS) -> int | None:
    """Return the exit code of a command, negative if a signal ended it; None if it has not ended after `seconds`."""
    process.join(seconds)
    return process.exitcode


def kill_group(process: ForkProcess) -> None:
    """Kill a command with all processes that it has started."""
    with suppress(ProcessLookupError):  # it has not yet made its group
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def group_ends(group: int, seconds: float = 60.0) -> bool:
    """Return whether all processes of a group end by themselves; kill those that do not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    os.killpg(group, signal.SIGKILL)
    return False


def prepare(scenario: Scenario, template: Path) -> None:
    """Write the folder that every case of a scenario begins with."""
    for name in ("in", "out", "tmp"):
        (template / name).mkdir(parents=True)
    process = FORK.Process(target=scenario.prepare, args=(template,))
    process.start()
    assert wait(process) == 0, f"{scenario.name} cannot be prepared"


def run_whole(scenario: Scenario, template: Path, case: Path) -> Whole:
    """Run a scenario to its end, and count its steps."""
    shutil.copytree(template, case)
    steps = FORK.Value("i", 0)

    def count(step: int) -> None:
        steps.value = step + 1

    begin = time.monotonic()
    code = wait(start(scenario.words, case, count))
    seconds = time.monotonic() - begin
    assert code == 0, f"{scenario.name} ends with {code}:\n{(case / 'log').read_text()}"
    left = [path.name for path in (case / "tmp").iterdir()]
    assert not left, f"{scenario.name} leaves {left} even if nobody kills it"
    older, newer = (contents(folder / "out", scenario.exact) for folder in (template, case))
    whole = Whole(older, newer, contents(template / "in", True), steps.value, seconds)
    shutil.rmtree(case)
    return whole


def contents(folder: Path, exact: bool) -> dict[str, str]:
    """Return what each file holds, by its name below the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): content(path, exact) for path in files}


def content(path: Path, exact: bool) -> str:
    """Return a digest of what a file holds; unless `exact`, of that which is the same for every run of a command.

    A file that is cut off has another digest, or none.
    """
    try:
        read = Path.read_bytes if exact else READ.get(path.suffix, Path.read_bytes)
        return hashlib.sha256(repr(read(path)).encode()).hexdigest()
    except Exception as error:  # of any reader
        return f"unreadable ({type(error).__name__})"


def find_losses(scenario: Scenario, whole: Whole, case: Path) -> list[str]:
    """Return what a kill has lost: changed inputs, older results that are nowhere, half files under a final name."""
    losses = []
    if contents(case / "in", True) != whole.inputs:
        losses.append("an input changed")
    there = contents(case / "out", scenario.exact)
    visible = {name: text for name, text in there.items() if not _is_hidden(name)}
    set_aside = {(Path(name).name, text) for name, text in there.items() if _is_hidden(name)}
    for name, text in whole.older.items():
        if name in whole.newer and name not in visible and (Path(name).name, text) not in set_aside:
            losses.append(f"{name} is lost")
    for name, text in visible.items():
        # A checkpoint has the number of its epoch.
        expected = whole.newer.get(name, whole.newer.get("run/last.pt") if "checkpoint_" in name else None)
        if text not in (whole.older.get(name), expected) and not _grows(scenario, name):
            losses.append(f"{name} is neither the older nor the newer one: {text}")
    return losses


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".monai-sr-") for part in Path(name).parts)


def _grows(scenario: Scenario, name: str) -> bool:
    """Return whether a file is one that a command adds to."""
    return (scenario.name, name) in {("prepare", "set/prepare.jsonl"), ("train", "run/validation.csv")}


def find_remains(scenario: Scenario, whole: Whole, case: Path) -> list[str]:
    """Return how the files after the next run differ from those of a run that nobody killed."""
    faults = []
    if contents(case / "in", True) != whole.inputs:
        faults.append("an input changed")
    there = contents(case / "out", scenario.exact)
    for name in sorted(there.keys() | whole.newer.keys()):
        if there.get(name) != whole.newer.get(name) and not (name in there and _grows(scenario, name)):
            faults.append(f"{name}: {there.get(name, 'missing')}, expected {whole.newer.get(name, 'nothing')}")
    folders = [path for path in (case / "out").rglob(".monai-sr-*") if path.is_dir()]
    left = [*folders, *(case / "tmp").iterdir()]
    return [*faults, *(f"left behind: {path.relative_to(case)}" for path in left)]


def run_case(scenario: Scenario, whole: Whole, case: Path, step: int | None, moment: float) -> tuple[str, list[str]]:
    """Kill a command at a step of its writing, or else at a moment from 0 to 1 of its duration, and run it again.

    Returns:
        When it was killed, or `ENDED`; and what was lost, or is not as after a run that nobody killed.
    """
    faults = []
    if step is not None:
        kill = f"step {step + 1} of {whole.steps}"
        process = start(scenario.words, case, lambda now: now == step and os.kill(os.getpid(), signal.SIGKILL))
        code = wait(process)
    else:
        kill = f"after {moment:.2f} of {whole.seconds:.1f} s"
        process = start(scenario.words, case)
        code = wait(process, moment * whole.seconds)
        if code is None:
            kill_group(process)
            code = wait(process)
    if not group_ends(process.pid):
        faults.append("processes of the command went on")
    if code == -signal.SIGKILL:
        faults += find_losses(scenario, whole, case)
    elif code == 0:
        kill = ENDED
    else:
        faults.append(f"the command failed by itself with exit code {code}")
    process = start(scenario.next_words(case), case)
    code = wait(process)
    if code is None:
        kill_group(process)
        wait(process)
    if code != 0:
        faults.append(f"the next run ends with {code}")
    return kill, faults + find_remains(scenario, whole, case)


def kill_commands(points: int, scenarios: list[Scenario], random: Random, failures: Path) -> Counter[str]:
    """Kill commands in turn, until so many have been killed.

    Args:
        points: number of kills.
        scenarios: commands to kill.
        random: chooses steps and moments.
        failures: folder that keeps the files of the cases with faults.

    Returns:
        Numbers of kills at steps ("step") and moments ("after"), of commands that `ENDED`, and of "faults".
    """
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/cache"  # torch keeps it on purpose
        for module in IMPORTED_ONCE:
            importlib.import_module(module)
        wholes: dict[str, Whole] = {}
        steps: dict[str, list[int]] = {}
        number = 0
        while counts["step"] + counts["after"] < points:
            scenario, turn = scenarios[number % len(scenarios)], number // len(scenarios)
            template, case = Path(folder, "templates", re.sub(r"\W", "_", scenario.name)), Path(folder, "case")
            if scenario.name not in wholes:
                prepare(scenario, template)
                whole = wholes[scenario.name] = run_whole(scenario, template, Path(folder, "whole"))
                steps[scenario.name] = random.sample(range(whole.steps), whole.steps)
            whole = wholes[scenario.name]
            at_step = turn % 2 == 0 and whole.steps  # workers of `--jobs` write in processes of their own
            step = steps[scenario.name][turn // 2 % whole.steps] if at_step else None
            shutil.copytree(template, case)
            kill, faults = run_case(scenario, whole, case, step, random.random())
            counts[kill if kill == ENDED else kill.partition(" ")[0]] += 1
            if faults:
                counts["faults"] += 1
                shutil.copytree(case, failures / f"{number}", symlinks=True, dirs_exist_ok=True)
                print(f"{scenario.name}, {kill}: {'; '.join(faults)}\n    kept as {failures / f'{number}'}", flush=True)
            shutil.rmtree(case)
            number += 1
    return counts


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kills.run", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--points", type=int, default=300, help="number of kills")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="chooses steps and moments")
    parser.add_argument("--kept", type=Path, default=Path("build/kills"), help="folder of the files of failures")
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="these commands")
    options = parser.parse_args(words)
    scenarios = [each for each in SCENARIOS if each.name in options.only]
    counts = kill_commands(options.points, scenarios, Random(options.seed), options.kept.resolve())
    print(
        f"Seed {options.seed}: {options.points} kills, {counts['step']} at steps and {counts['after']} at moments, "
        f"{counts['faults']} with faults; {counts[ENDED]} more commands had ended before their kill."
    )
    return 1 if counts["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
