"""Batches of `monai-sr enhance`: several processes, what becomes of every file, and how a batch is continued."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import nibabel
import numpy as np
import psutil
import pydicom
import pytest
import SimpleITK
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.cli.console import Terminal
from monai_sr_bundle.cli.enlarging import Task
from monai_sr_bundle.cli.events import Checked, Failed, Finished, Found, Listed, Skipped
from monai_sr_bundle.cli.jobs import Job
from monai_sr_bundle.cli.parallel import LostProcess, run_tasks
from monai_sr_bundle.datasets.phantom import draw_phantom, write_phantom_dicom, write_phantom_png
from monai_sr_bundle.errors import OutOfMemoryError
from monai_sr_bundle.images import files, working_folders
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file

from tests.images.dicom_files import capture, ct_series, phantom, radiograph, zipped

ROOT = Path(__file__).parents[2]


@pytest.fixture
def films(tmp_path):
    """A folder with three drawn radiographs."""
    (tmp_path / "in").mkdir()
    for index, name in enumerate(("a.png", "b.png", "c.png")):
        write_phantom_png(tmp_path / "in" / name, size=32 + 8 * index)
    return tmp_path / "in"


def batch(inputs, out, **options):
    """Run a job of bicubic interpolation; return its events and errors."""
    events = []
    inputs = inputs if isinstance(inputs, list) else [inputs]
    errors = Job(inputs, out, backend="onnx", bundle="bicubic", **options).run(events.append)
    return events, errors


def enhance(*words):
    return main(["enhance", "--backend", "onnx", *map(str, words)])


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def untimed(events, folder):
    """The events in an order of their own, without seconds and folders."""
    texts = []
    for event in events:
        facts = {name: value for name, value in asdict(event).items() if not name.startswith("seconds")}
        texts.append(re.sub(re.escape(str(folder)), "", f"{type(event).__name__} {facts}"))
    return sorted(texts)


def test_several_processes_give_the_same_files_and_events_as_one(films, tmp_path):
    (films / "bad.png").write_bytes((films / "a.png").read_bytes()[:60])
    (films / "worse.png").write_bytes(b"no picture")
    runs = {}
    for jobs in (1, 2):
        events, errors = batch(films, f"{tmp_path}/out{jobs}/", jobs=jobs, preview=True)
        listed, *others = events
        assert (listed.images, listed.processes) == (4, jobs)
        runs[jobs] = untimed(others, tmp_path / f"out{jobs}"), list(map(str, errors)), contents(tmp_path / f"out{jobs}")
    assert runs[1] == runs[2]
    assert [error.split(":")[0] for error in runs[2][1]] == ["worse.png", "bad.png"]
    assert len(runs[2][2]) == 6


@pytest.mark.slow
def test_images_whose_process_is_killed_are_done_by_another(films, tmp_path):
    events, killed = [], []

    def kill_once(event):
        events.append(event)
        if isinstance(event, Found) and not killed:
            children = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
            killed.extend(child for child in children if "spawn_main" in " ".join(child.cmdline()))
            for process in killed:
                process.kill()

    job = Job([films], f"{tmp_path}/out/", backend="onnx", bundle="bicubic", jobs=2)
    assert job.run(kill_once) == []
    assert killed
    assert sorted(event.name for event in events if isinstance(event, Finished)) == ["a.png", "b.png", "c.png"]
    batch(films, f"{tmp_path}/alone/")
    visible = {name: data for name, data in contents(tmp_path / "out").items() if not name.startswith(".")}
    assert visible == contents(tmp_path / "alone")


class Dying:
    """Workers that write the preview of an image and die of it."""

    capacity, attempts = 2, 2

    def __init__(self):
        self.tried = []

    def submit(self, task):
        self.tried.append(task)
        task.preview.write_text("half done")

    def wait(self):
        return [(self.tried[-1], LostProcess(OutOfMemoryError, "its process was killed."))]


def test_an_image_that_kills_its_process_again_and_again_fails_and_leaves_nothing(tmp_path):
    (tmp_path / "out.png").write_text("older")
    source = files.Source("png", (tmp_path / "in.png",), tmp_path / "in.png", "in.png")
    task = Task(0, source, tmp_path / "out.png", tmp_path / "out.preview.png", (), (), True)
    workers, events = Dying(), []
    run_tasks(workers, [task], lambda _task, event: events.append(event))
    assert workers.tried == [task, task]
    (event,) = events
    assert isinstance(event, Failed)
    assert isinstance(event.error, OutOfMemoryError)
    assert str(event.error) == "in.png: its process was killed. It was tried 2 times."
    assert os.listdir(tmp_path) == ["out.png"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_processes_and_leaves_nothing_half_written(tmp_path, number, code):
    # Too many slices to be done before the signal comes.
    hu = np.rint(np.stack([draw_phantom(32)] * 4000, axis=2) * 1400 - 1000).astype(np.int16)
    for name in ("a.nii", "b.nii"):
        nibabel.save(nibabel.Nifti1Image(hu, np.diag([-0.8, -0.8, 1.0, 1.0])), tmp_path / name)
    words = ("enhance", tmp_path / "a.nii", tmp_path / "b.nii", f"{tmp_path}/out/", "--jobs", "2", "--progress", "json")
    command = [sys.executable, "-m", "monai_sr_bundle", *map(str, words), "--backend", "onnx"]
    running = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    begun = set()
    for line in running.stdout:
        if (event := json.loads(line))["event"] == "progress":
            begun.add(event["name"])
        if len(begun) == 2:
            break
    processes = psutil.Process(running.pid).children(recursive=True)
    running.send_signal(number)
    _, message = running.communicate(timeout=600)
    assert running.returncode == code
    assert "Traceback" not in message
    assert psutil.wait_procs(processes, timeout=60)[1] == []
    assert sorted(os.listdir(tmp_path)) == ["a.nii", "b.nii"]


def test_no_process_imports_a_module_that_lies_beside_the_images(films, tmp_path):
    compressed = pydicom.dcmread(get_testdata_file("MR_small_jpeg_ls_lossless.dcm", download=False))
    compressed.SOPClassUID, compressed.Modality = uid.CTImageStorage, "CT"
    compressed.RescaleSlope, compressed.RescaleIntercept = 1, 0
    compressed.save_as(films / "compressed.dcm")
    for name in ("json", "multiprocessing", "numpy"):
        (films / f"{name}.py").write_text("raise SystemExit('it was run')")
    script = tmp_path / "monai-sr"  # as pip installs it: not even this process looks in the current folder
    script.write_text("if __name__ == '__main__':\n    from monai_sr_bundle.__main__ import main\n    exit(main())")
    words = [sys.executable, script, "enhance", ".", tmp_path / "out/", "--backend", "onnx", "--bundle", "bicubic"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for jobs in ("1", "2"):
        command = [*words, "--jobs", jobs, "--overwrite", "--progress", "none"]
        done = subprocess.run(command, cwd=films, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_every_file_of_a_folder_has_an_event(films, tmp_path):
    (films / "notes.txt").write_text("no image")
    (films / "bad.dcm").write_text("no image either")
    zipped(films / "empty.zip", [])
    batch(films / "a.png", films / "a_sr.png")  # a result of an earlier run
    events, errors = batch([films, tmp_path / "nowhere.png"], f"{tmp_path}/out/")
    fates = {event.name: type(event) for event in events[1:] if isinstance(event, Finished | Skipped | Failed)}
    assert fates == {
        **dict.fromkeys(("a.png", "b.png", "c.png"), Finished),
        **dict.fromkeys(("notes.txt", "empty.zip", "a_sr.png"), Skipped),
        **dict.fromkeys(("bad.dcm", "nowhere.png"), Failed),
    }
    assert [error.exit_code for error in errors] == [3, 3]
    assert str(errors[0]).startswith("bad.dcm: not an image that can be read (it starts with b'no image'), expected")


def test_a_named_file_that_is_no_image_does_not_stop_the_others(films, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no image")
    words = (tmp_path / "text.png", films / "a.png", f"{tmp_path}/out/", "--bundle", "bicubic")
    assert enhance(*words) == 3
    out, err = capsys.readouterr()
    assert "text.png: not an image that can be read" in err
    assert "2 files: 1 done, 0 (0.0 %) of them interpolated, 0 with a note; 0 skipped, 1 failed;" in out
    assert "      1  failed: an input cannot be used (3)" in out
    assert os.listdir(tmp_path / "out") == ["a_sr.png"]


def test_an_image_of_another_modality_fails_alone_and_force_enlarges_it(films, tmp_path, capsys):
    capture(films / "d.dcm", np.rint(255 * draw_phantom(32)).astype(np.uint8), Modality="US")
    assert enhance(films, f"{tmp_path}/out/") == 3
    out, err = capsys.readouterr()
    assert "monai-sr: error: d.dcm: this is US, but bundle chest_xray_blind is made for CXR" in err
    assert "4 files: 3 done," in out
    assert sorted(os.listdir(tmp_path / "out")) == ["a_sr.png", "b_sr.png", "c_sr.png"]
    assert enhance(films / "d.dcm", tmp_path / "d_sr.dcm", "--force") == 0


def test_what_a_killed_batch_has_left_is_removed_or_put_back_though_all_its_results_are_there(films, tmp_path):
    out = tmp_path / "out"
    words = (films, f"{out}/", "--bundle", "bicubic", "--skip-existing")
    assert enhance(*words) == 0
    before = contents(out)
    code = """
import os, sys
from pathlib import Path
from monai_sr_bundle.images.working_folders import OLDER, working_folder
out = Path(sys.argv[1])
with working_folder(out) as folder:
    (folder / OLDER).mkdir()
    os.rename(out / "a_sr.png", folder / OLDER / "a_sr.png")
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code, str(out)], check=False)
    assert len(os.listdir(out)) == 3
    working_folders.remove_abandoned.cache_clear()  # as in a new process
    assert enhance(*words, "--dry-run") == 0
    assert contents(out) == before
    assert len(os.listdir(out)) == 3


def test_a_batch_goes_on_where_it_was_ended(films, tmp_path, capsys):
    words = (films, f"{tmp_path}/out/", "--bundle", "bicubic", "--report")
    assert enhance(*words) == 0
    (tmp_path / "out" / "a_sr.png").unlink()  # never written
    (tmp_path / "out" / "a_sr.report.json").unlink()
    (tmp_path / "out" / "a_sr.report.html").unlink()
    (tmp_path / "out" / "b_sr.report.html").unlink()  # ended between the result and its report
    before = contents(tmp_path / "out")
    capsys.readouterr()
    assert enhance(*words, "--skip-existing") == 0
    out = capsys.readouterr().out
    assert "3 files: 2 done" in out
    assert "      1  skipped: its result exists already" in out
    after = contents(tmp_path / "out")
    assert len(after) == 9
    assert {name: after[name] for name in before if name.startswith("c_")} == {
        name: data for name, data in before.items() if name.startswith("c_")
    }


def test_a_file_of_somebody_else_is_not_replaced_when_a_batch_goes_on(films, tmp_path):
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "mine.png")
    before = (tmp_path / "mine.png").read_bytes()
    _, errors = batch(films / "a.png", tmp_path / "mine.png", report=True, skip_existing=True)
    assert [error.exit_code for error in errors] == [5]
    assert (tmp_path / "mine.png").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--texture", "5"), "--texture 5: expected a number from 0"),
        (("--strength", "-1"), "--strength -1: expected a number from 0"),
        (("--samples", "0"), "--samples 0: expected at least 1"),
        (("--seed", "-1"), "--seed -1: expected a whole number from 0"),
        (("--report", "--tolerance", "0"), "--tolerance 0: expected a number above 0"),
        (("--report", "--tolerance", "nan"), "--tolerance nan: expected a number above 0"),
        (("--report", "--tolerance", "inf"), "--tolerance inf: expected a number above 0"),
        (("--tolerance", "3"), "--tolerance 3.0: needs a report or files of error bars"),
        (("--calibration", "ours.json"), "--calibration ours.json: needs a report or files of error bars"),
        (("--spacing-mm", "0", "1"), "--spacing-mm 0 1: expected two numbers above 0"),
        (("--address", "auto"), "--address: is that of a Ray cluster"),
        (("--progress", "json", "--quiet"), "--quiet: --progress json is for a program"),
        (("--engine", "ray", "--jobs", "2"), "--jobs: Ray decides how many"),
    ],
)
def test_a_value_that_no_image_allows_is_wrong_usage(films, tmp_path, capsys, words, message):
    assert enhance(films / "a.png", tmp_path / "out.png", *words) == 2
    assert message in "".join(capsys.readouterr())
    assert not (tmp_path / "out.png").exists()


def test_a_warning_of_a_batch_is_told_once_and_counted(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for index in range(3):
        static = np.random.default_rng(index).integers(0, 256, (64, 64)).astype(np.uint8)
        Image.fromarray(static).save(tmp_path / "in" / f"{index}.png")
    assert enhance(tmp_path / "in", f"{tmp_path}/out/") == 0
    lines = capsys.readouterr().out.splitlines()
    notes = [line for line in lines if line.startswith("  note: Interpolated, not enlarged by chest_xray_blind")]
    assert len(notes) == 1
    (counted,) = [line for line in lines if line.startswith("      3  note: Interpolated, not enlarged by chest_")]
    assert re.sub(r"[\d.]+", "#", counted[7:]) == re.sub(r"[\d.]+", "#", notes[0])
    # The note is that of the first image; each says that it was interpolated.
    assert [line.startswith("  256 x 256 pixels, interpolated, in ") for line in lines if " -> " in line] == [True] * 3
    assert [line for line in lines if line.startswith("3 files: 3 done, 3 (100.0 %) of them interpolated, 3 with a")]
    assert enhance(tmp_path / "in", f"{tmp_path}/out/", "--overwrite", "--dry-run") == 0
    assert capsys.readouterr().out.count("\n  interpolated; estimate: ") == 3
    # A program gets those of every image.
    assert enhance(tmp_path / "in", f"{tmp_path}/out/", "--overwrite", "--progress", "json") == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [len(event["warnings"]) > 0 for event in events if event["event"] == "finished"] == [True] * 3
    assert events[-1]["warnings"][0]["count"] == 3


def test_numbers_of_one_image_are_not_told_of_others(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    film = np.rint(4095 * draw_phantom(64)).astype(np.uint16)
    for index, spacing in enumerate((0.01, 0.01, 40)):
        attributes = {"ImagerPixelSpacing": [spacing, spacing], "PhotometricInterpretation": "MONOCHROME2"}
        radiograph(tmp_path / "in" / f"{index}.dcm", film, SOPInstanceUID=f"2.25.{index + 7}", **attributes)
    assert enhance(tmp_path / "in", f"{tmp_path}/out/", "--bundle", "bicubic", "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    words = "note: The pixel spacing cannot be right: {0} x {0} mm make an image of {1} x {1} mm. Measure nothing"
    assert [line.split("Measure")[0] for line in lines if line.startswith("  note: The pixel")] == [
        "  " + words.format("0.01", "0.64").split("Measure")[0]
    ]
    assert [line for line in lines if line.startswith("      3  " + words.format("...", "..."))]
    assert enhance(tmp_path / "in" / "0.dcm", tmp_path / "in" / "1.dcm", f"{tmp_path}/out/", "--bundle", "bicubic") == 0
    # Numbers of all images stay.
    assert "      2  " + words.format("0.01", "0.64") in capsys.readouterr().out


def ct_of_smooth_noise(file, hu, seed):
    """Write a CT slice of soft tissue with noise of a soft kernel; weak noise `chest_ct_blind` makes stronger."""
    frequency = np.hypot(np.fft.fftfreq(96)[:, None], np.fft.fftfreq(96))
    white = np.fft.fft2(np.random.default_rng(seed).normal(size=(96, 96)))
    noise = np.fft.ifft2(white * frequency**0.5 * np.exp(-((frequency / 0.1) ** 2))).real
    pixels = np.rint(40 + hu * noise / noise.std()).astype(np.int16)
    pixels[:, :10] = -1000
    nibabel.save(nibabel.Nifti1Image(pixels[..., None], np.diag([0.7, 0.7, 5.0, 1.0])), file)


def test_a_ct_result_that_is_noisier_than_interpolation_is_told_once_a_batch(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for index, hu in enumerate((5, 5, 20)):
        ct_of_smooth_noise(tmp_path / "in" / f"{index}.nii.gz", hu, seed=index)
    words = ("--bundle", "chest_ct_blind", "--scale", "2")
    assert enhance(tmp_path / "in", f"{tmp_path}/out/", *words) == 0
    lines = capsys.readouterr().out.splitlines()
    notes = [line for line in lines if "note: In the evenest parts the result varies 1." in line]
    assert len(notes) == 1
    # The table at the end leaves out the numbers, which differ.
    words = "      2  note: In the evenest parts the result varies ... times as much"
    assert any(line.startswith(words) for line in lines)
    assert notes[0].endswith(
        " times as much as bicubic interpolation does: grain of the input may have become structure that looks like "
        "tissue."
    )


def test_a_dry_run_estimates_the_batch(films, tmp_path, capsys):
    events, _ = batch(films, f"{tmp_path}/out/", dry_run=True)
    sizes = [event.disk_bytes for event in events if type(event).__name__ == "Checked"]
    assert sizes == [16 * side**2 for side in (32, 40, 48)]
    assert not (tmp_path / "out").exists()
    checked = Checked("in", "a.png", False, (), seconds=60.0, memory_bytes=1_500_000_000, disk_bytes=2_000_000)
    terminal = Terminal(dry_run=True)
    for event in (Listed(2, 2), checked, replace(checked, name="b.png")):
        if isinstance(event, Checked):
            terminal(Found("in", event.name, "o.png", (1, 9, 9), 8, "CXR", None, "unknown", "b", "1", 4, "onnx", "cpu"))
        terminal(event)
    terminal.conclude()
    assert capsys.readouterr().out.splitlines()[-1] == (
        "estimate: 60 s in the networks with 2 processes, 3.0 GB of memory, 4.0 MB on disk before compression"
    )


# DICOM to NIfTI


def as_nifti(source, out):
    _, errors = batch(source, out, output_format="nifti")
    assert errors == []
    return nibabel.load(out)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_ct_becomes_nifti_with_the_same_hu_at_the_same_places(tmp_path, kind):
    oblique, _ = np.linalg.qr(np.array([[0.98, 0.1, 0.05], [-0.1, 0.99, 0.02], [0.0, -0.05, 1.0]]))
    slices = ct_series(tmp_path / "ct", phantom(slices=3), axes=oblique)
    source = zipped(tmp_path / "ct.zip", slices) if kind == "zip" else tmp_path / "ct"
    written = as_nifti(source, tmp_path / "out.nii.gz")
    batch(tmp_path / "ct", tmp_path / "as_dicom")
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "as_dicom")))
    expected, itk = reader.Execute(), SimpleITK.ReadImage(str(tmp_path / "out.nii.gz"))
    hu = SimpleITK.GetArrayFromImage(expected)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(itk), hu)
    np.testing.assert_array_equal(np.asarray(written.dataobj), hu.T)
    np.testing.assert_allclose(itk.GetSpacing(), expected.GetSpacing(), rtol=1e-6)
    for index in ((0, 0, 0), tuple(side - 1 for side in itk.GetSize())):
        point = expected.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(itk.TransformIndexToPhysicalPoint(index), point, atol=1e-3)
        x, y, z, _ = written.affine @ [*index, 1]
        np.testing.assert_allclose((-x, -y, z), point, atol=1e-3)
    assert written.get_data_dtype() == np.int16
    assert (written.header["qform_code"], written.header["sform_code"]) == (1, 1)


def test_a_radiograph_becomes_nifti_with_the_same_grey_values(tmp_path):
    write_phantom_dicom(tmp_path / "film.dcm", size=32, spacing_mm=0.6)
    written = as_nifti(tmp_path / "film.dcm", tmp_path / "out.nii")
    batch(tmp_path / "film.dcm", tmp_path / "out.dcm")
    expected, itk = (SimpleITK.ReadImage(str(tmp_path / name)) for name in ("out.dcm", "out.nii"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(itk), SimpleITK.GetArrayFromImage(expected))
    np.testing.assert_allclose(itk.GetSpacing()[:2], (0.15, 0.15), rtol=1e-6)
    np.testing.assert_allclose(written.header.get_zooms()[:2], (0.15, 0.15), rtol=1e-6)


def test_nifti_says_nothing_of_a_spacing_that_is_unknown_and_turns_monochrome1_over(tmp_path):
    pixels = np.rint(draw_phantom(32) * 4095).astype(np.uint16)
    source = radiograph(tmp_path / "film.dcm", pixels, ImagerPixelSpacing=None, PhotometricInterpretation="MONOCHROME1")
    events, errors = batch(source, tmp_path / "out.nii", output_format="nifti")
    assert errors == []
    assert [warning for warning in events[-1].warnings if warning.startswith("MONOCHROME1: its high values are dark.")]
    written = nibabel.load(tmp_path / "out.nii")
    assert (written.header["qform_code"], written.header["sform_code"]) == (0, 0)
    batch(source, tmp_path / "out.dcm")
    stored = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "out.dcm")))
    np.testing.assert_array_equal(np.asarray(written.dataobj).T, stored)


def test_results_as_nifti_are_named_after_the_source_and_pictures_are_refused(films, tmp_path):
    ct_series(films / "ct", phantom(slices=3))
    write_phantom_dicom(films / "film.dcm", size=32)
    events, errors = batch(films, f"{tmp_path}/out/", output_format="nifti", error_bars=False)
    assert Counter(type(event) for event in events if isinstance(event, Finished | Failed)) == {Finished: 2, Failed: 3}
    assert sorted(os.listdir(tmp_path / "out")) == ["ct_sr.nii.gz", "film_sr.nii.gz"]
    assert "a.png: a PNG file has no position in the patient, which a NIfTI needs." in str(errors[0])
    with pytest.raises(OSError, match="lies in the folder of a source series"):
        batch(films / "ct", films / "ct" / "out.nii.gz", output_format="nifti")


def test_the_report_of_a_nifti_names_the_dicom_source(tmp_path):
    write_phantom_dicom(tmp_path / "film.dcm", size=32)
    _, errors = batch(tmp_path / "film.dcm", tmp_path / "out.nii.gz", output_format="nifti", report=True)
    assert errors == []
    report = json.loads((tmp_path / "out.report.json").read_text())
    assert (report["source"]["format"], report["output"]["name"]) == ("dicom", "out.nii.gz")
    assert report["source"]["dicom"]["sop_instance_uids"]
