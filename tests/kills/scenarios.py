"""The commands that are killed: what lies there before, the words, and the words of the next run.

A folder of a case has `in/`, which no command may change, `out/`, and `tmp/` for temporary files.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.images.dicom_files import ct_series, phantom, zipped

SIDE = 40


@dataclass(frozen=True)
class Scenario:
    """A command that is killed.

    Attributes:
        name: name of the command, with what is special about it.
        words: words after `monai-sr`, which runs in the folder of the case.
        prepare: writes `in/`, and perhaps older results into `out/`.
        rerun: words of the second run, given the folder of the case. Default: the same words.
        exact: whether two whole runs write the same bytes.
    """

    name: str
    words: tuple[str, ...]
    prepare: Callable[[Path], object]
    rerun: Callable[[Path], tuple[str, ...]] | None = None
    exact: bool = False

    def next_words(self, case: Path) -> tuple[str, ...]:
        """Return the words of the next run."""
        return self.words if self.rerun is None else self.rerun(case)


def _films(case: Path, count: int = 3) -> None:
    from monai_sr_bundle.datasets.phantom import write_phantom_png

    for number in range(count):
        write_phantom_png(case / "in" / f"film{number}.png", size=SIDE, seed=number)


def _films_and_results(case: Path) -> None:
    """Older results are copies of the films, which no run of the command writes."""
    _films(case)
    for film in sorted((case / "in").iterdir()):
        shutil.copy(film, case / "out" / f"{film.stem}_sr.png")


def _series(case: Path) -> None:
    ct_series(case / "in" / "scan", phantom(SIDE, SIDE, slices=4))


def _series_and_result(case: Path) -> None:
    _series(case)
    ct_series(case / "out" / "result", phantom(SIDE, SIDE, slices=2))


def _zip(case: Path) -> None:
    files = ct_series(case / "unpacked", phantom(SIDE, SIDE, slices=4))
    zipped(case / "in" / "scan.zip", files)
    shutil.rmtree(case / "unpacked")


def _training(case: Path) -> None:
    from tests.tiny_bundle import tiny_bundle
    from tests.with_error_bars import write_windows

    write_windows(case / "in", "drawn", {"train": 3, "val": 2, "test": 1})
    tiny_bundle(case / "in", "chest_xray_edsr_x4", save_interval=1, batch_size=1, patch_size=8)


def _resume(case: Path) -> tuple[str, ...]:
    return (*_TRAIN, "--resume") if any((case / "out").glob("run/*.pt")) else _TRAIN


def _source(case: Path) -> None:
    import torch
    from monai_sr_bundle.backends.torch_backend import build_network
    from monai_sr_bundle.bundles import open_bundle

    from tests.tiny_bundle import tiny_bundle

    folder = Path(tiny_bundle(case / "out", "chest_xray_edsr_x4"))
    torch.manual_seed(0)
    network = build_network(open_bundle(folder))
    torch.save(network.state_dict(), case / "in" / "model.pt")
    (case / "in" / "training.json").write_text('{"minutes": 1.0, "stages": []}\n')
    (case / "in" / "training_curve.csv").write_text("minutes,gain\n1.0,2.0\n")


def _calibration(case: Path) -> None:
    from tests.with_error_bars import calibration_of, with_error_bars, write_windows

    write_windows(case / "in", "own", {"val": 50}, size=32)
    folder = with_error_bars(case / "in")
    calibration_of(folder).write(case / "out" / "calibration.json")


_ENHANCE = ("enhance", "--backend", "onnx", "--bundle", "bicubic", "--quiet")
_TRAIN = ("train", "in/chest_xray_edsr_x4", "--data", "in", "--out", "out/run", "--iterations", "9")

SCENARIOS = (
    Scenario("enhance: report", (*_ENHANCE, "in/film0.png", "out/film0_sr.png", "--report", "--preview", "--overwrite"),
             _films_and_results),
    Scenario("enhance: folder", (*_ENHANCE, "in", "out/", "--overwrite"), _films_and_results),
    Scenario("enhance: go on", (*_ENHANCE, "in", "out/", "--report", "--skip-existing"), _films),
    Scenario("enhance: jobs", (*_ENHANCE, "in", "out/", "--jobs", "2", "--skip-existing"), _films),
    Scenario("enhance: series", (*_ENHANCE, "in/scan", "out/result", "--overwrite"), _series_and_result),
    Scenario("enhance: zip", (*_ENHANCE, "in/scan.zip", "out/result.zip", "--overwrite"), _zip),
    Scenario("enhance: nifti", (*_ENHANCE, "in/scan", "out/result.nii.gz", "--output-format", "nifti", "--overwrite"),
             _series),
    Scenario("prepare", ("prepare", "folder", "in", "out/set"), lambda case: _films(case, 6), exact=True),
    Scenario("train", _TRAIN, _training, rerun=_resume),
    Scenario("pack", ("pack", "bicubic", "out", "--overwrite"), lambda case: None, exact=True),
    Scenario("calibrate", ("calibrate", "in/chest_xray_edsr_x4", "--data", "in", "--out", "out/calibration.json",
                           "--overwrite"), _calibration),
    Scenario("export", ("export", "out/chest_xray_edsr_x4", "--weights", "in/model.pt"), _source),
)  # fmt: skip
