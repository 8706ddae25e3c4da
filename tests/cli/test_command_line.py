"""`monai-sr enhance` as a user meets it: what it says, what it writes, how it ends."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from monai_sr_bundle.__main__ import main
from monai_sr_bundle.bundles import find_bundle
from monai_sr_bundle.datasets.phantom import draw_phantom, write_phantom_dicom, write_phantom_png
from tests.images.dicom_files import ct_series, phantom, radiograph


@pytest.fixture
def film(tmp_path):
    write_phantom_png(tmp_path / "film.png", size=64)
    return tmp_path / "film.png"


@pytest.fixture
def volume(tmp_path):
    hu = np.rint(np.stack([draw_phantom(32)] * 3, axis=2) * 1400 - 1000).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(hu, np.diag([-0.8, -0.8, 5.0, 1.0])), tmp_path / "volume.nii.gz")
    return tmp_path / "volume.nii.gz"


def enhance(*words):
    return main(["enhance", "--backend", "onnx", *map(str, words)])


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def process(*words, **options):
    command = [sys.executable, "-m", "monai_sr_bundle", *map(str, words)]
    return subprocess.Popen(
        command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_one_picture_to_one_picture(film, tmp_path, capsys):
    assert enhance(film, tmp_path / "out.png") == 0
    assert Image.open(tmp_path / "out.png").size == (256, 256)
    shown = capsys.readouterr().out
    assert "film.png: 64 x 64 pixels, 8 bit, spacing unknown | chest_xray_residual_flow_x4 0.2.0 | onnx on cpu" in shown
    assert "256 x 256 pixels in" in shown


def test_a_dicom_says_its_spacing_and_where_it_came_from(tmp_path, capsys):
    write_phantom_dicom(tmp_path / "film.dcm", size=64, spacing_mm=0.6)
    assert enhance(tmp_path / "film.dcm", tmp_path / "out.dcm") == 0
    assert "CXR, 64 x 64 pixels, 12 bit, 0.6 x 0.6 mm (ImagerPixelSpacing" in capsys.readouterr().out


def test_a_volume_keeps_its_slices(volume, tmp_path, capsys):
    assert enhance(volume, tmp_path / "out.nii.gz") == 0
    found = nibabel.load(tmp_path / "out.nii.gz")
    assert found.shape == (128, 128, 3)
    np.testing.assert_allclose(found.header.get_zooms(), (0.2, 0.2, 5.0), atol=1e-6)
    assert "CT, 32 x 32 x 3 pixels, 16 bit, 0.8 x 0.8 x 5 mm" in capsys.readouterr().out


def test_a_series_folder_becomes_a_series_folder_and_a_zip_a_zip(tmp_path):
    files = ct_series(tmp_path / "series", phantom(slices=3))
    with zipfile.ZipFile(tmp_path / "series.zip", "w") as archive:
        for file in files:
            archive.write(file, file.name)
    assert enhance(tmp_path / "series", tmp_path / "out") == 0
    assert enhance(tmp_path / "series.zip", tmp_path / "out.zip") == 0
    written = sorted((tmp_path / "out").glob("*.dcm"))
    assert len(written) == len(files)
    first, source = pydicom.dcmread(written[0]), pydicom.dcmread(files[0])
    assert (first.Rows, first.Columns) == (4 * source.Rows, 4 * source.Columns)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert len(archive.namelist()) == len(files)


def test_a_folder_of_all_kinds_is_done_one_by_one(film, volume, tmp_path):
    (tmp_path / "in").mkdir()
    film.rename(tmp_path / "in" / "film.png")
    volume.rename(tmp_path / "in" / "volume.nii.gz")
    write_phantom_dicom(tmp_path / "in" / "film.dcm", size=32)
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    assert enhance(tmp_path / "in", f"{tmp_path}/out/") == 0
    assert names(tmp_path / "out") == ["film_sr.dcm", "film_sr.png", "volume_sr.nii.gz"]


def test_one_bad_image_does_not_stop_the_others_and_decides_the_exit_code(film, tmp_path, capsys):
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(tmp_path / "dot.png")
    assert enhance(tmp_path / "dot.png", film, f"{tmp_path}/out/") == 3
    assert names(tmp_path / "out") == ["film_sr.png"]
    assert "dot.png: 1x1 pixels, expected at least 8x8" in capsys.readouterr().err


def test_a_region_in_the_words_of_the_command(film, tmp_path):
    assert enhance(film, tmp_path / "out.png", "--roi", 8, 16, 40, 32) == 0
    assert Image.open(tmp_path / "out.png").size == (128, 64)


def test_a_spacing_the_user_states_is_written(tmp_path):
    pixels = np.rint(draw_phantom(32) * 4095).astype(np.uint16)
    source = radiograph(tmp_path / "film.dcm", pixels, ImagerPixelSpacing=None)
    assert enhance(source, tmp_path / "out.dcm", "--spacing-mm", 0.8, 0.4) == 0
    assert [float(value) for value in pydicom.dcmread(tmp_path / "out.dcm").PixelSpacing] == [0.2, 0.1]


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(film, tmp_path, capsys):
    assert enhance(film, tmp_path / "new" / "out.png", "--dry-run", "--report") == 0
    assert "would write" in capsys.readouterr().out
    assert names(tmp_path) == ["film.png"]


def test_quiet_says_nothing(film, tmp_path, capsys):
    assert enhance(film, tmp_path / "out.png", "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_json_lines_tell_a_program_how_far_it_is(film, tmp_path, capsys):
    assert enhance(film, tmp_path / "out.png", "--progress", "json") == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[0]["event"] == "found"
    assert events[-1]["event"] == "finished"
    assert events[-1]["written"] == [str(tmp_path / "out.png")]
    assert [event["fraction"] for event in events if event["event"] == "progress"][-1] == 1.0


def test_json_lines_tell_an_error_too(tmp_path, capsys):
    (tmp_path / "film.png").write_bytes(b"no picture")
    assert enhance(tmp_path / "film.png", tmp_path / "out.png", "--progress", "json") == 3
    event = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (event["event"], event["exit_code"]) == ("failed", 3)
    assert "film.png" in event["message"]


def test_preview_and_report_lie_beside_the_result(film, tmp_path):
    assert enhance(film, tmp_path / "out.png", "--preview", "--report") == 0
    assert names(tmp_path) == ["film.png", "out.png", "out.preview.png", "out.report.html", "out.report.json"]
    report = json.loads((tmp_path / "out.report.json").read_text())
    assert report["consistency"]["result"]["rms"] < report["consistency"]["bicubic"]["rms"]


def test_error_bars_of_a_bundle_without_them_are_refused(film, tmp_path, capsys):
    assert enhance(film, tmp_path / "out.png", "--bundle", "bicubic", "--error-bars") == 4
    assert "bundle bicubic has no error bars. Train them with" in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()


def test_an_older_result_is_replaced_only_when_asked(film, tmp_path, capsys):
    (tmp_path / "out.png").write_bytes(b"older")
    assert enhance(film, tmp_path / "out.png") == 5
    assert (tmp_path / "out.png").read_bytes() == b"older"
    assert "out.png exists already. Choose another name, or pass --overwrite" in capsys.readouterr().err
    assert enhance(film, tmp_path / "out.png", "--overwrite") == 0
    assert Image.open(tmp_path / "out.png").size == (256, 256)


def test_an_older_report_is_not_replaced_either(film, tmp_path):
    (tmp_path / "out.report.json").write_text("older")
    assert enhance(film, tmp_path / "out.png", "--report") == 5
    assert names(tmp_path) == ["film.png", "out.report.json"]


def test_the_baseline_goes_through_the_same_interface(film, tmp_path):
    assert enhance(film, tmp_path / "out.png", "--bundle", "bicubic") == 0
    assert Image.open(tmp_path / "out.png").size == (256, 256)


def _colour(folder):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(folder / "bad.png")
    return folder / "bad.png"


def _text(folder):
    (folder / "bad.png").write_text("not an image")
    return folder / "bad.png"


def _truncated(folder):
    write_phantom_dicom(folder / "whole.dcm", size=32)
    data = (folder / "whole.dcm").read_bytes()
    (folder / "whole.dcm").unlink()
    (folder / "bad.dcm").write_bytes(data[: len(data) - 500])
    return folder / "bad.dcm"


def _without_pixels(folder):
    write_phantom_dicom(folder / "bad.dcm", size=32)
    dataset = pydicom.dcmread(folder / "bad.dcm")
    del dataset.PixelData
    dataset.save_as(folder / "bad.dcm")
    return folder / "bad.dcm"


def _unknown_syntax(folder):
    write_phantom_dicom(folder / "bad.dcm", size=32)
    dataset = pydicom.dcmread(folder / "bad.dcm")
    dataset.PixelData = pydicom.encaps.encapsulate([b"\x00" * 64])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    dataset.save_as(folder / "bad.dcm", enforce_file_format=True)
    return folder / "bad.dcm"


def _not_finite(folder):
    data = np.zeros((16, 16), np.float32)
    data[0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), folder / "bad.nii")
    return folder / "bad.nii"


def _missing_slice(folder):
    files = ct_series(folder / "bad", phantom(slices=5))
    next(file for file in files if file.stem.endswith("_2")).unlink()
    return folder / "bad"


def _duplicate_position(folder):
    files = ct_series(folder / "bad", phantom(slices=4))
    dataset = pydicom.dcmread(files[1])
    dataset.ImagePositionPatient = pydicom.dcmread(files[2]).ImagePositionPatient
    dataset.save_as(files[1])
    return folder / "bad"


def _mixed_sizes(folder):
    files = ct_series(folder / "bad", phantom(slices=4))
    dataset = pydicom.dcmread(files[1])
    dataset.Rows -= 1
    dataset.PixelData = dataset.PixelData[: 2 * dataset.Rows * dataset.Columns]
    dataset.save_as(files[1])
    return folder / "bad"


def _dot(folder):
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(folder / "bad.png")
    return folder / "bad.png"


BAD = [_colour, _text, _truncated, _without_pixels, _unknown_syntax, _not_finite, _missing_slice, _duplicate_position]


@pytest.mark.parametrize("make", [*BAD, _mixed_sizes, _dot], ids=lambda make: make.__name__.strip("_"))
def test_a_bad_input_gets_one_clear_line_and_nothing_is_written(make, tmp_path, capsys):
    bad = make(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert enhance(bad, f"{tmp_path}/out/") == 3
    told = capsys.readouterr().err
    assert told.startswith("monai-sr: error: ")
    assert told.count("\n") == 1
    assert "bad" in told
    assert "Traceback" not in told
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_missing_file_is_named(tmp_path, capsys):
    assert enhance(tmp_path / "nowhere.png", tmp_path / "out.png") == 3
    assert "nowhere.png: does not exist" in capsys.readouterr().err


def test_ct_does_not_go_into_the_radiograph_bundle_unless_forced(volume, tmp_path, capsys):
    words = (volume, tmp_path / "out.nii.gz", "--bundle", "chest_xray_edsr_x4")
    assert enhance(*words) == 3
    assert "this is CT, but bundle chest_xray_edsr_x4 is made for CXR" in capsys.readouterr().err
    assert not (tmp_path / "out.nii.gz").exists()
    assert enhance(*words, "--force") == 0


def test_an_unknown_bundle_ends_with_its_own_code(film, tmp_path, capsys):
    assert enhance(film, tmp_path / "out.png", "--bundle", "nothing") == 4
    assert "Available: bicubic" in capsys.readouterr().err


def test_damaged_weights_are_not_loaded(film, tmp_path, capsys):
    bundle = shutil.copytree(find_bundle("chest_xray_edsr_x4").folder, tmp_path / "bundle")
    (bundle / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes()[:-1] + b"?")
    assert enhance(film, tmp_path / "out.png", "--bundle", bundle) == 4
    assert "is damaged or was replaced; it was not loaded" in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()


def test_no_memory_for_the_smallest_tile_ends_with_its_own_code(film, tmp_path, capsys, monkeypatch):
    class Full:
        name, device, weights_sha256, threads, has_error_bars = "onnx", "cpu", "", 1, False

        def run(self, part, *inputs):
            raise MemoryError("no room")

        def free_bytes(self):
            return 10**9

    monkeypatch.setattr("monai_sr_bundle.engine.session.open_backend", lambda *arguments: Full())
    assert enhance(film, tmp_path / "out.png", "--quiet") == 6
    told = capsys.readouterr().err.splitlines()[-1]
    assert "film.png: a tile of 64x64 pixels does not fit into memory. Close other programs" in told
    assert not (tmp_path / "out.png").exists()


def test_a_place_that_cannot_be_written_ends_with_its_own_code(film, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert enhance(film, tmp_path / "file" / "out.png") == 5
    assert "is not a folder" in capsys.readouterr().err


def test_wrong_usage_ends_with_two(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["enhance", "only_one.png"])
    assert ended.value.code == 2


def test_the_exit_codes_stand_in_the_help(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        "0 all done",
        "2 wrong usage",
        "3 an input",
        "4 a bundle",
        "5 a result",
        "6 not enough memory",
        "130",
    ):
        assert words in shown


def test_a_full_disk_leaves_nothing(tmp_path):
    write_phantom_png(tmp_path / "film.png", size=96)

    def small_files_only():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    running = process(
        "enhance", tmp_path / "film.png", tmp_path / "out.png", "--backend", "onnx", preexec_fn=small_files_only
    )
    _, told = running.communicate(timeout=600)
    assert running.returncode == 5, told
    assert "out.png" in told
    assert names(tmp_path) == ["film.png"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_leaves_nothing_half_written(tmp_path, number, code):
    # Too many slices to be done before the signal comes: their lines of progress fill the pipe, which nobody reads.
    hu = np.rint(np.stack([draw_phantom(32)] * 4000, axis=2) * 1400 - 1000).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(hu, np.diag([-0.8, -0.8, 1.0, 1.0])), tmp_path / "volume.nii")
    # In a group of its own: a shell may have told this one to ignore interrupts.
    words = (
        "enhance",
        tmp_path / "volume.nii",
        tmp_path / "out" / "result.nii",
        "--backend",
        "onnx",
        "--progress",
        "json",
    )
    running = process(*words, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    for line in running.stdout:
        if json.loads(line)["event"] == "progress":
            break
    running.send_signal(number)
    _, told = running.communicate(timeout=600)
    assert running.returncode == code
    assert "Traceback" not in told
    assert names(tmp_path) == ["volume.nii"]
    assert not (tmp_path / "out").exists()


def test_importing_the_command_line_imports_no_pytorch():
    code = "import sys, monai_sr_bundle.__main__; print([name for name in ('torch', 'monai') if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert told.stdout.strip() == "[]"
