"""`python -m tests.kills.run`: kill commands, run them again, and say what was lost or left behind.

A command is killed with SIGKILL at a step of its writing (before a file is opened to write, moved, made or removed) or
at a random moment. Then the inputs must be as they were, every file must be the older or the newer one and complete,
and the next run must end well, with the same files as a run that nobody killed and nothing else, temporary files
included.

The commands run in copies of this process, which has imported everything once. Cases are numbered, what each has shown
is appended to a file, and a run goes on where the last one stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

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


def start(words: tuple[str, ...], case: Path, at_step: Callable[[int], object] | None = None) -> int:
    """Start a command in a copy of this process, in a group of its own, and return its number."""
    sys.stdout.flush()
    number = os.fork()
    if number:
        return number
    code = 99
    try:
        os.setsid()
        os.chdir(case)
        log = os.open(case / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["TMPDIR"] = tempfile.tempdir = str(case / "tmp")  # which Python would try out with a file
        if at_step is not None:
            _count_steps(case, at_step)
        from monai_sr_bundle.__main__ import main

        code = main(list(words))
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


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


def wait(number: int, seconds: float) -> int | None:
    """Return the exit code of a command, negative if a signal ended it; None if it has not ended after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(number, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            return None
        time.sleep(0.005)


def kill_group(process: int) -> None:
    """Kill a command with all processes that it has started."""
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:  # it has not yet made its group
        os.kill(process, signal.SIGKILL)


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
    number = os.fork()
    if not number:
        try:
            scenario.prepare(template)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert wait(number, PATIENCE_SECONDS) == 0, f"{scenario.name} cannot be prepared"


def run_whole(scenario: Scenario, template: Path, case: Path) -> Whole:
    """Run a scenario to its end, and count its steps."""
    shutil.copytree(template, case)
    steps = case / "steps"

    def count(step: int) -> None:
        os.pwrite(counted, f"{step + 1:8}".encode(), 0)

    counted = os.open(steps, os.O_WRONLY | os.O_CREAT)
    begin = time.monotonic()
    code = wait(start(scenario.words, case, count), PATIENCE_SECONDS)
    seconds = time.monotonic() - begin
    os.close(counted)
    assert code == 0, f"{scenario.name} ends with {code}:\n{(case / 'log').read_text()}"
    left = [path.name for path in (case / "tmp").iterdir()]
    assert not left, f"{scenario.name} leaves {left} even if nobody kills it"
    older, newer = (contents(folder / "out", scenario.exact) for folder in (template, case))
    whole = Whole(older, newer, contents(template / "in", True), int(steps.read_text() or 0), seconds)
    shutil.rmtree(case)
    return whole


def contents(folder: Path, exact: bool) -> dict[str, str]:
    """Return what each file holds, by its name below the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): content(path, exact) for path in files}


def content(path: Path, exact: bool) -> str:
    """Return a digest of what a file holds; unless `exact`, of that which is the same for every run of a command.

    A file that is cut off has no digest.
    """
    try:
        return _digest(path, exact)
    except Exception as error:  # of any reader
        return f"unreadable ({type(error).__name__})"


def _digest(path: Path, exact: bool) -> str:
    data = path.read_bytes()
    if exact or path.suffix in (".md", ".yaml", ".txt"):
        return hashlib.sha256(data).hexdigest()
    if path.suffix == ".dcm":
        import pydicom

        data = pydicom.dcmread(path).pixel_array.tobytes()
    elif path.suffix == ".png":
        import PIL.Image

        data = PIL.Image.open(path).tobytes()
    elif path.suffix == ".gz":
        import gzip

        data = gzip.decompress(data)
    elif path.suffix == ".zip":
        import zipfile

        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            data = " ".join(sorted(archive.namelist())).encode()
    elif path.suffix == ".json":
        data = " ".join(json.loads(data)).encode()
    elif path.suffix == ".csv":
        assert data.endswith(b"\n")
        data = data.split(b"\n")[0]
    elif path.suffix == ".html":
        assert data.rstrip().endswith(b"</html>")
        data = b"html"
    elif path.suffix == ".onnx":
        import onnx

        data = " ".join(node.op_type for node in onnx.load(path).graph.node).encode()
    elif path.suffix == ".pt":
        import torch

        data = " ".join(torch.load(path, weights_only=True)).encode()
    return hashlib.sha256(data).hexdigest()


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


class Killer:
    """Kill commands; what was shown lies in a folder.

    Args:
        state: folder of the results and of the files of failures.
        scenarios: commands to kill.
    """

    def __init__(self, state: Path, scenarios: list[Scenario]) -> None:
        self.state, self.scenarios = state, scenarios
        self.file = state / "cases.jsonl"
        (state / "failures").mkdir(parents=True, exist_ok=True)
        self.cases: list[dict[str, Any]] = []
        if self.file.exists():
            lines = self.file.read_text().split("\n")[:-1]  # the last one may have been cut off
            self.cases = [json.loads(line) for line in lines]
            self.file.write_text("".join(f"{line}\n" for line in lines))

    def run(self, points: int) -> None:
        """Go on until so many processes have been killed."""
        with tempfile.TemporaryDirectory(prefix="kills-") as folder:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/cache"  # torch keeps it on purpose
            for module in IMPORTED_ONCE:
                importlib.import_module(module)
            wholes: dict[str, Whole] = {}
            while self.killed < points:
                number = len(self.cases)
                scenario = self.scenarios[number % len(self.scenarios)]
                template = Path(folder, "templates", scenario.name.replace(": ", "_").replace(" ", "_"))
                if scenario.name not in wholes:
                    prepare(scenario, template)
                    wholes[scenario.name] = run_whole(scenario, template, Path(folder, "whole"))
                case = Path(folder, "case")
                entry = self._run_case(number // len(self.scenarios), scenario, wholes[scenario.name], template, case)
                self.cases.append(entry)
                with self.file.open("a") as file:
                    file.write(json.dumps(entry) + "\n")
                if entry["faults"]:
                    failure = self.state / "failures" / f"{number}"
                    shutil.copytree(case, failure, symlinks=True, dirs_exist_ok=True)
                    faults = "; ".join(entry["faults"])
                    print(f"{scenario.name}, {entry['kill']}: {faults}\n    kept as {failure}", flush=True)
                shutil.rmtree(case)

    def _run_case(self, turn: int, scenario: Scenario, whole: Whole, template: Path, case: Path) -> dict[str, Any]:
        shutil.copytree(template, case)
        random = Random(f"{scenario.name} {turn}")
        faults = []
        if turn % 2 == 0 and whole.steps:  # workers of `--jobs` write in processes of their own
            steps = Random(scenario.name).sample(range(whole.steps), whole.steps)  # each once, then again
            step = steps[turn // 2 % whole.steps]
            kill = f"step {step + 1} of {whole.steps}"
            process = start(scenario.words, case, lambda now: now == step and os.kill(os.getpid(), signal.SIGKILL))
            code = wait(process, PATIENCE_SECONDS)
        else:
            moment = random.random()
            kill = f"after {moment:.2f} of {whole.seconds:.1f} s"
            process = start(scenario.words, case)
            code = wait(process, moment * whole.seconds)
            if code is None:
                kill_group(process)
                code = wait(process, PATIENCE_SECONDS)
        if not group_ends(process):
            faults.append("processes of the command went on")
        if code != -signal.SIGKILL:
            kill = ENDED if code == 0 else f"{kill}, exit code {code}"
            faults += [] if code == 0 else ["the command failed by itself"]
        else:
            faults += find_losses(scenario, whole, case)
        code = wait(process := start(scenario.next_words(case), case), PATIENCE_SECONDS)
        if code is None:
            kill_group(process)
            wait(process, PATIENCE_SECONDS)
        if code != 0:
            faults.append(f"the next run ends with {code}")
        faults += find_remains(scenario, whole, case)
        return {"scenario": scenario.name, "kill": kill, "faults": faults}

    @property
    def killed(self) -> int:
        """Number of processes that were killed."""
        return sum(case["kill"] != ENDED for case in self.cases)

    @property
    def failures(self) -> int:
        """Number of cases with a fault."""
        return sum(bool(case["faults"]) for case in self.cases)

    def table(self) -> str:
        """Return a table of what has been done so far."""
        lines = [f"{'command':16} {'kills':>6} {'at steps':>9} {'at moments':>11} {'ended before':>13} {'failures':>9}"]
        names = [*(scenario.name for scenario in SCENARIOS), "all"]
        for name in names:
            cases = [case for case in self.cases if name in (case["scenario"], "all")]
            kinds = Counter(case["kill"].partition(" ")[0] for case in cases if case["kill"] != ENDED)
            faults, ended = sum(bool(case["faults"]) for case in cases), len(cases) - sum(kinds.values())
            lines.append(
                f"{name:16} {sum(kinds.values()):6,} {kinds['step']:9,} {kinds['after']:11,} {ended:13,} {faults:9,}"
            )
        return "\n".join(lines)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kills.run", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--points", type=int, default=300, help="kills in all; 0 prints what was done so far")
    parser.add_argument("--state", type=Path, default=Path("build/kills"), help="folder of results and failures")
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, help="these commands, in a state of their own"
    )
    options = parser.parse_args(words)
    os.environ["OMP_NUM_THREADS"] = "1"  # the copies of this process have no threads to wait for
    killer = Killer(options.state.resolve(), [each for each in SCENARIOS if each.name in options.only])
    killer.run(options.points)
    print(killer.table())
    return 1 if killer.failures else 0


if __name__ == "__main__":
    sys.exit(main())
