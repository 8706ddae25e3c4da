"""`monai-sr enhance` as a user meets it: its lines, its files and its exit codes."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from monai_sr_bundle.__main__ import build_parser, main
from monai_sr_bundle.datasets.phantom import draw_phantom, write_phantom_dicom, write_phantom_png
from monai_sr_bundle.images.provenance import describes_result
from PIL import Image

from tests.images.dicom_files import ct_series, ct_slice, phantom, radiograph, zipped


@pytest.fixture
def volume(tmp_path):
    hu = np.rint(np.stack([draw_phantom(32)] * 3, axis=2) * 1400 - 1000).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(hu, np.diag([-0.8, -0.8, 5.0, 1.0])), tmp_path / "volume.nii.gz")
    return tmp_path / "volume.nii.gz"


def enhance(*words):
    return main(["enhance", "--backend", "onnx", *map(str, words)])


def words_of(page):
    """The words of a report, without its tags."""
    return " ".join(re.sub("<[^>]+>", "", page.read_text()).split())


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def process(*words, **options):
    command = [sys.executable, "-m", "monai_sr_bundle", *map(str, words)]
    return subprocess.Popen(
        command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "film.png",
            "film.png: 48 x 48 pixels, 8 bit, spacing unknown | chest_xray_blind 0.2.0 | x4 | onnx on cpu",
        ),
        ("film.png", "192 x 192 pixels in"),
        ("film.dcm", "CXR, 64 x 64 pixels, 12 bit, 0.6 x 0.6 mm (ImagerPixelSpacing"),
        ("volume.nii.gz", "CT, 32 x 32 x 3 pixels, 16 bit, 0.8 x 0.8 x 5 mm"),
    ],
)
def test_the_lines_say_the_size_the_spacing_and_its_source(film, volume, tmp_path, capsys, name, lines):
    write_phantom_dicom(tmp_path / "film.dcm", size=64, spacing_mm=0.6)
    assert enhance(tmp_path / name, tmp_path / f"out.{name.partition('.')[2]}") == 0
    assert lines in capsys.readouterr().out


@pytest.mark.parametrize(("words", "scale"), [((), 4), (("--scale", "auto"), 4), (("--scale", 2), 2)])
def test_a_bundle_of_several_scales_says_by_which_it_enlarges(tmp_path, capsys, words, scale):
    write_phantom_dicom(tmp_path / "film.dcm", size=48, spacing_mm=0.6)
    options = ["--bundle", "chest_xray_blind", "--backend", "torch", "--report", *words]
    assert enhance(tmp_path / "film.dcm", tmp_path / "out.dcm", *options) == 0
    assert f"| chest_xray_blind 0.2.0 | x{scale} | torch on cpu" in capsys.readouterr().out
    report = json.loads((tmp_path / "out.report.json").read_text())
    assert report["model"]["scale_zyx"] == [1, scale, scale]
    assert report["model"]["operator"] == f"bicubic_antialias_x{scale}"
    written = pydicom.dcmread(tmp_path / "out.dcm")
    assert (written.Rows, written.Columns) == (48 * scale, 48 * scale)
    np.testing.assert_allclose(np.float64(written.ImagerPixelSpacing), 0.6 / scale, rtol=1e-9)
    assert f"Super-resolution x{scale} by chest_xray_blind" in written.DerivationDescription


@pytest.mark.parametrize("backend", ["onnx", "torch"])
@pytest.mark.parametrize("make", [radiograph, ct_slice])
@pytest.mark.parametrize("bundle", ["bicubic", None])
def test_dicom_of_an_interpolated_image_says_so_and_never_ai(tmp_path, make, bundle, backend):
    pixels = np.random.default_rng(0).integers(0, 4096, (48, 48)).astype("uint16" if make is radiograph else "int16")
    source = make(tmp_path / "noise.dcm", pixels, SeriesDescription="Chest")
    words = ["--bundle", bundle] if bundle else []  # the defaults know no image of noise alone
    assert enhance(source, tmp_path / "out.dcm", "--backend", backend, *words) == 0
    written = pydicom.dcmread(tmp_path / "out.dcm")
    assert written.SeriesDescription == "Interpolated x4 Chest"
    assert written.DerivationDescription.startswith("Interpolation x4 by bicubic 0.2.0, seed 0.")
    assert " Nothing was predicted: there is no more detail than in the source." in written.DerivationDescription
    default = "chest_xray_blind" if make is radiograph else "chest_ct_blind"
    outside = f" The image is outside the limits of {default}." in written.DerivationDescription
    assert outside == (bundle is None)
    assert not re.search("AI|predicted, not|sha256|Super-resolution", written.DerivationDescription)
    equipment = written.ContributingEquipmentSequence[-1]
    assert (equipment.ManufacturerModelName, equipment.Manufacturer) == ("bicubic", "The monai-sr-bundle authors")
    assert describes_result(written.DerivationDescription)  # so that a batch leaves it out


@pytest.mark.parametrize(("make", "default"), [(radiograph, "chest_xray_blind"), (ct_slice, "chest_ct_blind")])
def test_the_report_of_an_image_outside_the_limits_says_that_nothing_was_predicted_and_why(tmp_path, make, default):
    pixels = np.random.default_rng(0).integers(0, 4096, (48, 48)).astype("uint16" if make is radiograph else "int16")
    source = make(tmp_path / "noise.dcm", pixels)
    assert enhance(source, tmp_path / "out.dcm", "--report") == 0
    report = json.loads((tmp_path / "out.report.json").read_text())
    assert (report["model"]["weights_sha256"], report["model"]["instead_of"]) == (None, default)
    assert report["input_range"]["noise_percent"]["value"] > report["input_range"]["noise_percent"]["high"]
    assert "Nothing was predicted: there is no more detail than in the source." in report["statement"]
    page = words_of(tmp_path / "out.report.html")
    assert "Interpolation x4 of noise.dcm" in page
    assert (
        f"by interpolation (bicubic 0.2.0), because it is outside the limits of the model {default}. Nothing was "
        "predicted, and no detail was added." in page
    )
    assert re.search(f"No: its [a-z ,]+ outside the limits of {default}, so the image was interpolated.", page)
    assert "No: a formula drew smooth lines between what was measured." in page
    assert "other images of the same kind" not in page
    assert "what the model" not in page
    assert "is predicted, not measured" not in page
    assert "Not judged" not in page


@pytest.mark.parametrize(
    "typed",
    [
        "film.png out.png",
        "--backend auto --report film.png out.png --scale auto",
        "--device cpu -- film.png out.png",
    ],
)
def test_the_command_in_a_report_names_what_another_machine_might_choose_otherwise(film, tmp_path, monkeypatch, typed):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("monai_sr_bundle.engine.session.choose_backend", lambda name: "onnx")
    assert main(["enhance", "--report", "--quiet", *typed.split()]) == 0
    command = json.loads((tmp_path / "out.report.json").read_text())["run"]["command"].split()
    options = build_parser().parse_args(command[1:])
    assert (options.backend, options.scale, options.device) == ("onnx", 4, "cpu")
    assert command[:4] == ["monai-sr", "enhance", "--report", "--quiet"]
    assert [*map(str, options.inputs), options.out] == ["film.png", "out.png"]


def test_the_report_of_a_chosen_interpolation_names_no_model_that_refused(film, tmp_path):
    assert enhance(film, tmp_path / "out.png", "--report", "--bundle", "bicubic") == 0
    report = json.loads((tmp_path / "out.report.json").read_text())
    assert (report["model"]["weights_sha256"], report["model"]["instead_of"]) == (None, None)
    page = words_of(tmp_path / "out.report.html")
    assert "by interpolation (bicubic 0.2.0). Nothing was predicted, and no detail was added." in page
    assert "Any image is: nothing was learnt" in page


def test_a_scale_that_a_bundle_does_not_have_is_refused_before_an_image_is_read(tmp_path, capsys):
    for bundle, scales in (("chest_xray_blind", "2 or 3 or 4"), ("chest_xray_edsr_x4", "4")):
        assert enhance(tmp_path / "none.png", tmp_path / "out.png", "--bundle", bundle, "--scale", 5) == 3
        expected = f"--scale 5: bundle {bundle} enlarges by {scales}. Choose such a scale, or name another bundle."
        assert capsys.readouterr().err == f"monai-sr: error: {expected}\n"


@pytest.mark.parametrize(("option", "value"), [("--scale", "large"), ("--scale", "0"), ("--steps", "0")])
def test_a_number_that_no_bundle_has_is_wrong_usage(tmp_path, capsys, option, value):
    for words in (["enhance", "none.png", str(tmp_path)], ["evaluate", "bicubic", "--data", str(tmp_path)]):
        with pytest.raises(SystemExit) as stopped:
            main([*words, option, value])
        assert stopped.value.code == 2
        assert f"argument {option}: '{value}': expected a whole number from 1" in capsys.readouterr().err


def test_a_folder_of_all_kinds_is_done_one_by_one(film, volume, tmp_path):
    (tmp_path / "in").mkdir()
    film.rename(tmp_path / "in" / "film.png")
    volume.rename(tmp_path / "in" / "volume.nii.gz")
    write_phantom_dicom(tmp_path / "in" / "film.dcm", size=32)
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    zipped(tmp_path / "in" / "series.zip", ct_series(tmp_path / "series", phantom(slices=3)))
    assert enhance(tmp_path / "in", f"{tmp_path}/out/") == 0
    assert names(tmp_path / "out") == ["film_sr.dcm", "film_sr.png", "series_sr.zip", "volume_sr.nii.gz"]
    written = nibabel.load(tmp_path / "out" / "volume_sr.nii.gz")
    assert written.shape == (128, 128, 3)
    np.testing.assert_allclose(written.header.get_zooms(), (0.2, 0.2, 5.0), atol=1e-6)
    with zipfile.ZipFile(tmp_path / "out" / "series_sr.zip") as archive:
        assert archive.namelist() == ["0001.dcm", "0002.dcm", "0003.dcm"]


def test_a_spacing_the_user_states_is_written(tmp_path, capsys):
    pixels = np.rint(draw_phantom(32) * 4095).astype(np.uint16)
    source = radiograph(tmp_path / "film.dcm", pixels, ImagerPixelSpacing=None)
    assert enhance(source, tmp_path / "out.dcm", "--spacing-mm", 0.8, 0.4) == 0
    assert "0.4 x 0.8 mm (between columns x rows, given by the user)" in capsys.readouterr().out
    assert [float(value) for value in pydicom.dcmread(tmp_path / "out.dcm").PixelSpacing] == [0.2, 0.1]


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(film, tmp_path, capsys):
    assert enhance(film, tmp_path / "new" / "out.png", "--dry-run", "--report") == 0
    assert re.search(r"estimate: [\d.]+ s, [\d.]+ [MG]B of memory, 0.1 MB on disk", capsys.readouterr().out)
    assert names(tmp_path) == ["film.png"]


def test_a_dry_run_says_which_images_would_be_interpolated_and_how_many(film, tmp_path, capsys):
    static = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    Image.fromarray(static).save(tmp_path / "static.png")
    assert enhance(film, tmp_path / "static.png", tmp_path / "out/", "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("  note: Interpolated, not enlarged by chest_xray_blind")]
    summary = "2 files: 2 would be done, 1 (50.0 %) of them interpolated, 1 with a note; 0 skipped, 0 failed; "
    assert [line for line in lines if line.startswith(summary)]
    assert enhance(film, tmp_path / "static.png", tmp_path / "out/", "--dry-run", "--progress", "json") == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["interpolated"] for event in events if event["event"] == "checked"] == [False, True]
    assert not (tmp_path / "out").exists()


def test_quiet_says_nothing(film, tmp_path, capsys):
    assert enhance(film, tmp_path / "out.png", "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_json_lines_tell_a_program_how_far_it_is(film, tmp_path, capsys):
    assert enhance(film, tmp_path / "out.png", "--progress", "json") == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (events[1]["event"], events[1]["scale"]) == ("found", 4)
    assert (events[-2]["event"], events[-1]["event"]) == ("finished", "summary")
    assert events[-2]["written"] == [str(tmp_path / "out.png")]
    assert [event["fraction"] for event in events if event["event"] == "progress"][-1] == 1.0


def test_an_older_result_is_replaced_only_when_asked(film, tmp_path, capsys):
    (tmp_path / "out.png").write_bytes(b"older")
    assert enhance(film, tmp_path / "out.png") == 5
    assert (tmp_path / "out.png").read_bytes() == b"older"
    assert "out.png exists already. Choose another name, or pass --overwrite" in capsys.readouterr().err
    assert enhance(film, tmp_path / "out.png", "--overwrite") == 0
    assert Image.open(tmp_path / "out.png").size == (192, 192)
    (tmp_path / "other.report.json").write_text("older")
    assert enhance(film, tmp_path / "other.png", "--report") == 5
    assert names(tmp_path) == ["film.png", "other.report.json", "out.png"]


@pytest.mark.parametrize("kind", ["text", "truncated", "missing slice"])  # the readers' tests have all the others
def test_a_bad_input_gets_one_clear_line_and_nothing_is_written(kind, tmp_path, capsys):
    if kind == "missing slice":
        next(file for file in ct_series(tmp_path / "bad", phantom(slices=5)) if file.stem.endswith("_2")).unlink()
    else:
        write_phantom_dicom(tmp_path / "bad", size=32)
        content = (tmp_path / "bad").read_bytes()
        (tmp_path / "bad").write_bytes(b"not an image" if kind == "text" else content[:-500])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert enhance(tmp_path / "bad", f"{tmp_path}/out/") == 3
    message = capsys.readouterr().err
    assert message.startswith("monai-sr: error: ")
    assert message.count("\n") == 1
    assert "bad" in message
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("words", [["enhance", "", "out/"], ["enhance", "film.png", ""]])
def test_an_empty_name_is_not_the_working_folder(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert "is empty, expected a file or a folder. Is a variable not set?" in capsys.readouterr().err


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_name_that_the_console_cannot_show_stops_nothing(tmp_path, jobs):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "胸部.png", "z.png"):
        write_phantom_png(tmp_path / "in" / name, size=32)
    command = [sys.executable, "-m", "monai_sr_bundle", "enhance", str(tmp_path / "in"), f"{tmp_path}/out/"]
    done = subprocess.run(
        [*command, "--bundle", "bicubic", "--backend", "onnx", "--jobs", jobs],
        env=os.environ | {"PYTHONIOENCODING": "cp1252"}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert b"3 done, 0" in done.stdout


def test_the_exit_codes_stand_in_the_help(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    help_text = " ".join(capsys.readouterr().out.split())
    codes = "0 all done", "2 wrong usage", "3 an input", "4 a bundle", "5 a result", "6 not enough memory", "130"
    assert [code for code in codes if code not in help_text] == []


def test_a_full_disk_leaves_nothing(tmp_path):
    write_phantom_png(tmp_path / "film.png", size=96)

    def small_files_only():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    words = ("enhance", tmp_path / "film.png", tmp_path / "new" / "out.png", "--backend", "onnx")
    running = process(*words, preexec_fn=small_files_only)
    _, message = running.communicate(timeout=600)
    assert running.returncode == 5, message
    assert re.search(r"out\.png .* larger than this file system or your limit allows \(about [\d,]+ bytes are", message)
    assert os.listdir(tmp_path) == ["film.png"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_leaves_nothing_half_written(tmp_path, number, code):
    # Too many slices to be done before the signal comes: their lines of progress fill the pipe, which nobody reads.
    hu = np.rint(np.stack([draw_phantom(32)] * 4000, axis=2) * 1400 - 1000).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(hu, np.diag([-0.8, -0.8, 1.0, 1.0])), tmp_path / "volume.nii")
    out = tmp_path / "out" / "result.nii"
    words = ("enhance", tmp_path / "volume.nii", out, "--backend", "onnx", "--progress", "json")
    # In a group of its own: a shell may have told this one to ignore interrupts.
    running = process(*words, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    for line in running.stdout:
        if json.loads(line)["event"] == "progress":
            break
    running.send_signal(number)
    _, message = running.communicate(timeout=600)
    assert running.returncode == code
    assert "Traceback" not in message
    assert os.listdir(tmp_path) == ["volume.nii"]


def test_a_second_sigterm_does_not_interrupt_the_removal_of_unfinished_files():
    code = """
import signal
from monai_sr_bundle.cli.exit_codes import Terminated, raise_terminated
signal.signal(signal.SIGTERM, raise_terminated)
try:
    signal.raise_signal(signal.SIGTERM)
except Terminated:
    signal.raise_signal(signal.SIGTERM)
    print("removed")
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "removed\n"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("__main__", {"torch", "monai"}),
        ("report.build", {"torch", "monai", "matplotlib", "pydicom"}),
        ("boxes.box_files", {"highdicom"}),
    ],
)
def test_an_import_brings_no_large_library_that_it_does_not_need(module, absent):
    code = f"import monai_sr_bundle.{module}, sys; print(sorted({absent} & set(sys.modules)))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"
