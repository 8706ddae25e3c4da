"""Jobs from files to files: the companions of a result, and the files that remain after a failure."""

import gc
import json
import os
import pkgutil
import re
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import highdicom
import numpy as np
import pydicom
import pytest
from monai_sr_bundle import enhance
from monai_sr_bundle.cli import enlarging
from monai_sr_bundle.cli.console import Terminal
from monai_sr_bundle.cli.events import Failed, Finished, Found
from monai_sr_bundle.cli.jobs import Job, stems
from monai_sr_bundle.datasets.phantom import write_phantom_png
from monai_sr_bundle.engine.session import Session
from monai_sr_bundle.errors import OutOfMemoryError, OutputError
from monai_sr_bundle.images.from_array import image_from_array
from monai_sr_bundle.images.geometry import Region
from monai_sr_bundle.images.input_checks import InputComparison
from monai_sr_bundle.report.preview import format_number
from monai_sr_bundle.shipped_bundles import find_bundle
from PIL import Image

from tests.changed_bundles import copied, with_metadata
from tests.images.dicom_files import ct_series, phantom, radiograph
from tests.with_error_bars import calibration_of, chest, with_error_bars, without_error_bars


def job(film, out, **options):
    return Job([film], out, backend="onnx", bundle="bicubic", **options)


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_companions_are_named_after_the_result_without_its_suffix():
    targets = [Path("out/film_sr.png"), Path("out/ct_sr"), Path("out/v_sr.nii.gz"), Path("out/1.2.840_sr.dcm")]
    assert [str(stem) for stem in stems(targets)] == ["out/film_sr", "out/ct_sr", "out/v_sr", "out/1.2.840_sr"]


def test_results_that_differ_in_their_suffix_alone_have_companions_of_their_own(film, tmp_path):
    targets = [Path("a_sr.png"), Path("A_sr.jpg"), Path("b_sr.png"), Path("sub/a_sr.dcm")]
    assert [str(stem) for stem in stems(targets)] == ["a_sr.png", "A_sr.jpg", "b_sr", "sub/a_sr"]
    (tmp_path / "in").mkdir()
    film.rename(tmp_path / "in" / "film.png")
    write_phantom_png(tmp_path / "in" / "film", size=48)  # the same kind under another name
    (tmp_path / "in" / "film").rename(tmp_path / "in" / "film.tif")
    assert job(tmp_path / "in", f"{tmp_path}/out/", report=True, overwrite=True).run(Terminal(quiet=True)) == []
    reports = [name for name in files_in(tmp_path / "out") if name.endswith(".json")]
    assert len(reports) == 2


def test_dots_of_a_uid_stay_in_every_name(tmp_path):
    for number in (1, 2):
        ct_series(tmp_path / "in" / f"1.2.3.{number}", phantom(slices=2), np.eye(3), SeriesInstanceUID=f"2.25.{number}")
        (ct_slice,) = ct_series(tmp_path / "single", phantom(slices=1), np.eye(3), SeriesInstanceUID=f"2.25.9{number}")
        ct_slice.rename(tmp_path / "in" / f"1.2.4.{number}")
    options = {"report": True, "output_format": "nifti", "force": True}
    assert job(tmp_path / "in", f"{tmp_path}/out/", **options).run(Terminal(quiet=True)) == []
    stems = [f"1.2.{kind}.{number}_sr" for kind in (3, 4) for number in (1, 2)]
    assert files_in(tmp_path / "out") == sorted(
        f"{stem}.{ending}" for stem in stems for ending in ("nii.gz", "report.html", "report.json")
    )


def test_a_companion_never_takes_the_place_of_an_input(film, tmp_path):
    source = film.rename(tmp_path / "film.preview.png")
    before = source.read_bytes()
    with pytest.raises(OutputError, match=r"film.preview.png: is an input, and inputs are never changed"):
        job(source, tmp_path / "film.png", preview=True, overwrite=True).run(Terminal(quiet=True))
    assert source.read_bytes() == before
    assert not (tmp_path / "film.png").exists()


def test_an_older_report_does_not_outlast_the_result_that_it_is_about(film, tmp_path, monkeypatch):
    options = {"report": True, "preview": True}
    assert job(film, tmp_path / "out.png", scale=4, **options).run(Terminal(quiet=True)) == []
    monkeypatch.setattr("monai_sr_bundle.engine.result.Result.preview", fail_with(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        job(film, tmp_path / "out.png", scale=2, overwrite=True, **options).run(Terminal(quiet=True))
    assert not (tmp_path / "out.report.json").exists()


def fail_with(error):
    """Return a function that raises an error, whatever its arguments."""

    def fail(*_arguments, **_options):
        raise error

    return fail


class Events:
    """A listener that keeps the names of the images that went well or failed."""

    def __init__(self):
        self.done, self.failures = [], {}

    def __call__(self, event):
        if isinstance(event, Finished):
            self.done.append(event.name)
        elif isinstance(event, Failed):
            self.failures[event.name] = event.error


@pytest.mark.parametrize("step", ["recognised", "read", "enlarged", "written"])
def test_any_mistake_with_one_image_fails_that_image_alone(tmp_path, monkeypatch, step):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        write_phantom_png(tmp_path / "in" / name, size=32)
    failing = {
        "recognised": ("images.picture.picture_format", lambda path: path.name),
        "read": ("images.files.read", lambda source: source.name),
        "enlarged": ("engine.session.Session.enhance", lambda _session, image, *_: image.path.name),
        "written": ("engine.result.Result.save", lambda result, *_, **__: result.original.path.name),
    }
    target, name_of = failing[step]
    module, _, name = f"monai_sr_bundle.{target}".rpartition(".")
    holder = pkgutil.resolve_name(module)
    unharmed = getattr(holder, name)

    def fail_for_b(*arguments, **options):
        if name_of(*arguments, **options) == "b.png":
            raise ZeroDivisionError("Doe^Jane")
        return unharmed(*arguments, **options)

    monkeypatch.setattr(holder, name, fail_for_b)
    events = Events()
    (error,) = job(tmp_path / "in", f"{tmp_path}/out/").run(events)
    assert (events.done, events.failures) == (["a.png", "c.png"], {"b.png": error})
    assert error.exit_code == 1
    assert re.match(r"b\.png: a mistake of this program, ZeroDivisionError in \w+\.py, line \d+\.", str(error))
    assert "Doe" not in str(error)
    assert files_in(tmp_path / "out") == ["a_sr.png", "c_sr.png"]


def test_a_closed_pipe_ends_the_job(film, tmp_path):
    def closed(event):
        if isinstance(event, Found):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        job(film, tmp_path / "out.png").run(closed)


def test_the_same_command_twice_does_the_same(part, tmp_path, barred, caplog):
    ct_series(tmp_path / "in" / "ct", np.zeros((2, 16, 12), np.int16), axes=np.eye(3))
    part.rename(tmp_path / "in" / "film.png")
    radiograph(
        tmp_path / "in" / "dx.dcm", np.asarray(Image.open(tmp_path / "in" / "film.png")), BitsStored=8, HighBit=7
    )

    def run():
        """Results in the folder of the input, with all that may lie beside them."""
        events = Events()
        options = {"preview": True, "report": True, "error_bars": True, "tolerance": 3.0}
        words = {"bundle": str(barred), "force": True, "overwrite": True, "backend": "onnx"}
        assert Job([tmp_path / "in"], f"{tmp_path}/in/out", **words, **options).run(events) == []
        return events.done, files_in(tmp_path / "in" / "out")

    first = run()
    assert caplog.text == ""
    assert first[0] == ["ct", "dx.dcm", "film.png"]
    assert run() == first
    (line,) = [record.getMessage() for record in caplog.records if "earlier runs" in record.getMessage()]
    assert "out/film_sr.png" in line


def test_a_series_is_not_written_into_its_own_result(tmp_path):
    ct_series(tmp_path / "ct", np.zeros((2, 16, 12), np.int16), axes=np.eye(3))
    assert job(tmp_path / "ct", tmp_path / "out").run(Events()) == []
    (error,) = job(tmp_path / "ct", tmp_path / "out").run(Events())
    assert str(error).startswith(f"{tmp_path / 'out'} exists already")
    assert job(tmp_path / "ct", tmp_path / "out", overwrite=True).run(Events()) == []
    assert files_in(tmp_path / "out") == ["0001.dcm", "0002.dcm"]


@pytest.mark.parametrize("step", ["engine.result.draw_preview", "cli.enlarging.write_json", "cli.enlarging.write_html"])
@pytest.mark.parametrize("error", [OutputError("full"), KeyboardInterrupt(), MemoryError()])
def test_a_result_without_its_preview_or_report_is_not_left(film, tmp_path, monkeypatch, step, error):
    monkeypatch.setattr(f"monai_sr_bundle.{step}", fail_with(error))
    work = job(film, tmp_path / "new" / "here" / "out.png", preview=True, report=True)
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            work.run(Terminal(quiet=True))
    else:
        assert [each.exit_code for each in work.run(Terminal(quiet=True))] == [
            5 if isinstance(error, OutputError) else 6
        ]
    assert files_in(tmp_path) == ["film.png"]


def test_older_files_stay_when_a_report_fails(film, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    for name in ("out.png", "out.preview.png", "mine.txt"):
        (tmp_path / "out" / name).write_text("older")
    monkeypatch.setattr(enlarging, "write_json", fail_with(OutputError("full")))
    work = job(film, tmp_path / "out" / "out.png", preview=True, report=True, overwrite=True)
    assert len(work.run(Terminal(quiet=True))) == 1
    assert sorted(os.listdir(tmp_path / "out")) == ["mine.txt", "out.png", "out.preview.png"]


@pytest.mark.parametrize("name", ["out.png", "out.dcm", "out.nii.gz"])
def test_a_result_larger_than_the_free_space_is_refused_before_the_network_runs(film, tmp_path, monkeypatch, name):
    source = film
    if name != "out.png":
        (tmp_path / "in").mkdir()
        source = radiograph(tmp_path / "in" / "film.dcm", np.zeros((24, 24), np.uint16))
    monkeypatch.setattr(enlarging.shutil, "disk_usage", lambda _folder: SimpleNamespace(free=1000))
    monkeypatch.setattr(Session, "enhance", fail_with(AssertionError("the network ran")))
    as_nifti = {"output_format": "nifti"} if name.endswith(".gz") else {}
    (error,) = job(source, tmp_path / "new" / name, **as_nifti).run(Terminal(quiet=True))
    assert isinstance(error, OutputError)
    assert re.search(r"the result needs up to about [\d,]+ bytes, and .* has 1,000 free\. .*Nothing was", str(error))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_folder_that_cannot_be_written_is_found_before_the_image_is_read(film, monkeypatch, dry_run):
    monkeypatch.setattr(enlarging.files, "read", fail_with(AssertionError("the image was read")))
    (error,) = job(film, Path("/proc/new/out.png"), dry_run=dry_run).run(Terminal(quiet=True))
    assert isinstance(error, OutputError)
    assert "no file can be made in /proc" in str(error)


def test_the_name_of_a_nifti_is_judged_without_naming_a_file_that_is_not_there(tmp_path):
    source = radiograph(tmp_path / "film.dcm", np.zeros((24, 24), np.uint16))
    with pytest.raises(OutputError) as refused:
        job(source, tmp_path / "q" / "out.dcm", output_format="nifti").run(Terminal(quiet=True))
    assert str(refused.value) == (
        f"{tmp_path}/q/out.dcm: the result is a NIfTI file, expected a name ending in .nii or .nii.gz. For a folder of "
        "results, end the name with a slash."
    )


def test_a_picture_that_becomes_a_jpeg_says_that_it_loses_detail(film, tmp_path, caplog):
    def notes(source, out, **options):
        events = []
        options = {"overwrite": True} | options
        assert job(source, tmp_path / out, **options).run(events.append) == []
        return " ".join(events[-1].warnings)

    assert "JPEG" not in notes(film, "out.png")
    assert "Saved as JPEG at quality 98, which changes pixels" in notes(film, "dry.jpg", dry_run=True)
    assert "Saved as JPEG at quality 98, which changes pixels" in notes(film, "out.jpg", report=True)
    assert "Saved as JPEG" in json.dumps(json.loads((tmp_path / "out.report.json").read_text())["warnings"])
    assert "Saved as JPEG" not in notes(tmp_path / "out.jpg", "again.jpg")
    assert caplog.text == ""
    assert enhance(film, "bicubic", backend="onnx").save(f"{tmp_path}/python.jpeg") == tmp_path / "python.jpeg"
    assert "python.jpeg: Saved as JPEG at quality 98" in caplog.text


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("images.files.read", "film.png: not enough memory for the image itself. Choose a smaller region with --roi"),
        (
            "families.family.infer_tiled",
            "film.png: the result of 192 x 192 x 1 pixels does not fit into memory. Choo",
        ),
    ],
)
def test_lack_of_memory_names_the_image_or_the_size_of_the_result(film, tmp_path, monkeypatch, step, message):
    monkeypatch.setattr(f"monai_sr_bundle.{step}", fail_with(MemoryError()))
    (error,) = job(film, tmp_path / "out.png").run(Terminal(quiet=True))
    assert isinstance(error, OutOfMemoryError)
    assert str(error).startswith(message)


def test_an_image_that_failed_is_not_kept_in_memory(film, tmp_path, monkeypatch):
    references = []
    read = enlarging.files.read

    def read_and_refer(source):
        image = read(source)
        references.append(weakref.ref(image.pixels))
        return image

    def fail(*_arguments, **_options):
        raise OutputError("full") from OSError(28, "No space left on device")

    monkeypatch.setattr(enlarging.files, "read", read_and_refer)
    monkeypatch.setattr(enlarging.files, "write", fail)
    errors = job(film, tmp_path / "out.png").run(Terminal(quiet=True))
    gc.collect()
    assert len(errors) == 1
    assert references[0]() is None


@pytest.mark.parametrize(
    ("modality", "centre", "width", "window"),
    [
        ("CXR", "2048", "4096", (0.0, 4096.0)),
        ("CXR", ["40", "50"], ["100", "200"], (-10.0, 90.0)),
        ("CXR", "", "", (0.0, 255.0)),
        ("CXR", [], [], (0.0, 255.0)),
        ("CXR", None, "100", (0.0, 255.0)),
        ("CXR", "40", "1", (0.0, 255.0)),
        ("CT", "40", "400", (-1000.0, 400.0)),  # that of the model
    ],
)
def test_a_radiograph_is_shown_in_the_window_of_its_file_where_it_has_one(modality, centre, width, window):
    header = pydicom.Dataset()
    header.WindowCenter, header.WindowWidth = centre, width
    ct = modality == "CT"
    image = image_from_array(np.zeros((8, 8), np.int16 if ct else np.uint8), modality=modality)
    result = enhance(image, "chest_ct_edsr_x4" if ct else "bicubic")
    of_file = replace(image, format="dicom", header=[header])
    assert replace(result, original=of_file).display_window == window
    assert result.display_window == ((-1000.0, 400.0) if ct else (0.0, 255.0))


@pytest.fixture(scope="module")
def barred(tmp_path_factory):
    """A bundle with error bars and their calibration."""
    folder = with_error_bars(tmp_path_factory.mktemp("bundle"))
    calibration_of(folder).write(folder / "calibration.json")
    return folder


@pytest.fixture
def part(tmp_path):
    """A window of a drawn chest."""
    Image.fromarray(np.rint(255 * chest()[150:198, 100:164]).astype(np.uint8)).save(tmp_path / "part.png")
    return tmp_path / "part.png"


def reported(film, out, bundle, **options):
    """The error bars in report.json, and report.html."""
    work = Job([film], out, backend="onnx", bundle=str(bundle), report=True, **options)
    assert work.run(Terminal(quiet=True)) == []
    page = out.with_name(f"{out.stem}.report.html").read_text(encoding="utf-8")
    return json.loads(out.with_name(f"{out.stem}.report.json").read_text(encoding="utf-8"))["error_bars"], page


def test_a_report_has_error_bars_where_the_bundle_has_them(part, tmp_path, barred):
    bars, page = reported(part, tmp_path / "with.png", barred)
    assert bars["calibrated_on"]["data"] == "own"
    assert bars["tolerance"] == pytest.approx(0.05 * 255)  # a twentieth of the window
    assert page.count("data:image/png;base64,") == 2
    assert "How sure is each pixel?" in page
    bars, page = reported(part, tmp_path / "without.png", without_error_bars(tmp_path))
    assert bars is None
    assert "data:image/png" not in page
    without, with_them = ((tmp_path / name).read_bytes() for name in ("without.png", "with.png"))
    assert without == with_them


def test_a_site_brings_its_own_calibration_and_tolerance(part, tmp_path, barred):
    calibration_of(barred, alpha=0.2, data="our hospital").write(tmp_path / "ours.json")
    bars, page = reported(part, tmp_path / "out.png", barred, calibration=tmp_path / "ours.json", tolerance=2.5)
    assert (bars["percent"], bars["tolerance"], bars["calibrated_on"]["data"]) == (80, 2.5, "our hospital")
    assert "our hospital" in page


@pytest.mark.parametrize("options", [{"report": True, "tolerance": 3.0}, {"error_bars": True}])
def test_error_bars_of_a_bundle_without_them_are_refused(part, tmp_path, options):
    folder = without_error_bars(tmp_path / "bundles")
    (error,) = Job([part], tmp_path / "out.png", backend="onnx", bundle=str(folder), **options).run(Events())
    assert "bundle chest_xray_edsr_x4 has no error bars. Train them with" in str(error)
    assert error.exit_code == 4
    assert not (tmp_path / "out.png").exists()


@pytest.fixture
def radiograph_part(part, tmp_path):
    """The same window as a DX file."""
    return radiograph(tmp_path / "part.dcm", np.asarray(Image.open(part)), BitsStored=8, HighBit=7)


def enhanced(image, out, bundle, **options):
    work = Job([image], out, backend="onnx", bundle=str(bundle), **options)
    assert work.run(Terminal(quiet=True)) == []
    return pydicom.dcmread(out) if out.suffix == ".dcm" else None


def test_error_bars_are_files_beside_the_result(part, tmp_path, barred):
    enhanced(part, tmp_path / "out" / "a.png", barred, error_bars=True)
    assert files_in(tmp_path / "out") == ["a.png", "a_error_bar.tif"]
    enhanced(part, tmp_path / "out" / "b.png", barred, error_bars=True, tolerance=3.0)
    assert files_in(tmp_path / "out")[2:] == ["b.png", "b_error_bar.tif", "b_trust_mask.png"]
    bars = enhance(part, str(barred), backend="onnx", error_bars=True).error_bars
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "b_error_bar.tif")), bars.half_width[0])
    marked = np.asarray(Image.open(tmp_path / "out" / "b_trust_mask.png")) > 0
    assert 0.01 < marked.mean() < 0.99
    np.testing.assert_array_equal(marked, bars.half_width[0] > 3.0)


@pytest.mark.parametrize(("roi", "edges"), [((8, 4, 40, 36), (2, 2, 2, 2)), ((0, 6, 48, 48), (2, 0, 0, 0))])
def test_the_agreement_of_a_region_leaves_out_the_edges_that_were_cut(film, roi, edges):
    bicubic = find_bundle("bicubic")
    whole, part = (enhance(film, "bicubic", backend="onnx", roi=each) for each in (None, roi))
    error, error_at_the_cut = (
        np.abs(bicubic.degradation.reduce(result.image.pixels[0].astype(np.float32)) - result.source.pixels[0])
        for result in (whole, part)
    )
    top, bottom, left, right = edges
    inside = error[roi[1] + top : roi[3] - bottom, roi[0] + left : roi[2] - right]
    expected = np.sqrt(np.square(inside).mean()), inside.max()
    assert (part.consistency.rms, part.consistency.maximum) == pytest.approx(expected, rel=1e-4)
    assert np.abs(error_at_the_cut - error[roi[1] : roi[3], roi[0] : roi[2]]).max() > 1  # grey levels


def test_a_region_that_is_all_edge_has_no_figures_of_agreement(film):
    part = enhance(film, "bicubic", backend="onnx", roi=(20, 20, 24, 40))
    assert np.isnan(part.consistency.rms)
    assert part.described_provenance.findings == ""


def test_error_bars_of_a_region_are_those_of_the_region(part, tmp_path, barred):
    roi = (8, 4, 40, 36)
    enhanced(part, tmp_path / "out.png", barred, error_bars=True, region=Region.from_xyxy(roi))
    whole = enhance(part, str(barred), backend="onnx", error_bars=True).error_bars.half_width[0]
    half_width = np.asarray(Image.open(tmp_path / "out_error_bar.tif"))
    np.testing.assert_allclose(half_width, whole[16:144, 32:160], rtol=1e-4)


def test_error_bars_of_a_ct_series_lie_where_its_slices_do(tmp_path):
    bundle = with_error_bars(tmp_path / "bundle", copied(tmp_path / "bundle", "chest_ct_edsr_x4"))
    calibration_of(bundle).write(bundle / "calibration.json")
    volume = np.random.default_rng(3).integers(0, 1400, (2, 16, 12)).astype(np.int16)
    ct_series(tmp_path / "ct", volume, axes=np.eye(3))
    enhanced(tmp_path / "ct", tmp_path / "out", bundle, error_bars=True)
    half_width = enhance(tmp_path / "ct", str(bundle), backend="onnx", error_bars=True).error_bars.half_width
    written = highdicom.imread(tmp_path / "out_error_bar.dcm")
    for name, values in zip(("0001.dcm", "0002.dcm"), half_width, strict=True):
        result = pydicom.dcmread(tmp_path / "out" / name)
        frame = written.get_pixels_by_source_instance([result.SOPInstanceUID])
        np.testing.assert_array_equal(np.squeeze(frame), values)
        assert "Error bars: half-width" in result.DerivationDescription
        assert " HU RMS" in result.DerivationDescription


def test_the_report_names_the_files_of_its_error_bars(part, tmp_path, barred):
    bars, page = reported(part, tmp_path / "my film.png", barred, error_bars=True, tolerance=3.0)
    assert bars["files"] == ["my film_error_bar.tif", "my film_trust_mask.png"]
    assert 'href="my%20film_error_bar.tif"' in page
    assert 'href="my%20film_trust_mask.png"' in page
    bars, page = reported(part, tmp_path / "without.png", barred)
    assert bars["files"] == []
    assert "href" not in page


def test_error_bars_replace_older_files_only_with_overwrite(part, tmp_path, barred):
    (tmp_path / "out_error_bar.tif").write_text("older")
    (error,) = Job([part], tmp_path / "out.png", bundle=str(barred), error_bars=True).run(Terminal(quiet=True))
    assert str(error).startswith(f"{tmp_path / 'out_error_bar.tif'} exists already")
    assert files_in(tmp_path) == ["out_error_bar.tif", "part.png"]
    enhanced(part, tmp_path / "out.png", barred, error_bars=True, overwrite=True)
    assert np.asarray(Image.open(tmp_path / "out_error_bar.tif")).shape == (192, 256)


@pytest.mark.parametrize("step", ["picture.write_picture", "dicom_maps.write_trust_mask"])
def test_a_result_without_all_of_its_maps_is_not_left(radiograph_part, part, tmp_path, barred, monkeypatch, step):
    before = files_in(tmp_path)
    monkeypatch.setattr(f"monai_sr_bundle.images.maps.{step}", fail_with(OSError(28, "No space left on device")))
    image = part if "picture" in step else radiograph_part
    work = Job([image], tmp_path / "new" / f"out{image.suffix}", bundle=str(barred), error_bars=True, tolerance=3.0)
    assert [error.exit_code for error in work.run(Terminal(quiet=True))] == [5]
    assert files_in(tmp_path) == before


def test_unwritable_error_bars_are_refused_before_the_network_runs(radiograph_part, tmp_path, barred, monkeypatch):
    shapes = []

    def refuse(_image, shape_zyx):
        shapes.append(shape_zyx)
        raise OutputError("no highdicom")

    monkeypatch.setattr(enlarging, "check_maps", refuse)
    monkeypatch.setattr(Session, "enhance", None)
    options = {"error_bars": True, "region": Region(4, 36, 8, 40)}
    (error,) = Job([radiograph_part], tmp_path / "out.dcm", bundle=str(barred), **options).run(Terminal(quiet=True))
    assert (str(error), shapes) == ("no highdicom", [(1, 128, 128)])


def test_dicom_states_the_consistency_and_the_promise_of_its_error_bars(radiograph_part, tmp_path, barred):
    written = enhanced(radiograph_part, tmp_path / "a.dcm", barred, report=True)
    measured = json.loads((tmp_path / "a.report.json").read_text(encoding="utf-8"))
    agreement, bars = measured["consistency"]["result"], measured["error_bars"]
    consistency = (
        f"Not for diagnosis. Reduced again by bicubic_antialias_x4, it differs from the input by "
        f"{format_number(agreement['rms'])} grey levels RMS, {format_number(agreement['maximum'])} at most."
    )
    promise = (
        f" Error bars: half-width {format_number(bars['mean'])} grey levels on average, made to hold 90 % of the "
        "pixels, on average over images like those the makers of the bundle calibrated them on: 80 images of 70 "
        "patients (own, 2025-01-02). Whether this image is like those the model was trained on cannot be told: they "
        "may not hold."
    )
    assert written.DerivationDescription.endswith(consistency + promise)
    assert written.ContributingEquipmentSequence[-1].ContributionDescription == written.DerivationDescription
    plain = enhanced(radiograph_part, tmp_path / "b.dcm", barred)  # without error bars
    assert plain.DerivationDescription.endswith(consistency)


def test_dicom_says_when_the_site_made_the_promise(radiograph_part, tmp_path, barred):
    calibration_of(barred, alpha=0.2, data="x" * 2000).write(tmp_path / "ours.json")
    options = {"calibration": tmp_path / "ours.json", "error_bars": True}
    description = enhanced(radiograph_part, tmp_path / "a.dcm", barred, **options).DerivationDescription
    assert (
        "made to hold 80 % of the pixels, on average over images like those the site calibrated them on" in description
    )
    assert len(description) <= 1024
    assert f"({'x' * 64}, 2025-01-02)." in description


@pytest.mark.parametrize(
    ("comparison", "end"),
    [
        ({"sharpness_db": InputComparison(-12.0, -18.0, -11.0)}, "(own, 2025-01-02)."),
        ({}, "Whether this image is like those the model was trained on cannot be told: they may not hold."),
        (
            {"sharpness_db": InputComparison(-1.0, -18.0, -11.0)},
            "(own, 2025-01-02). This image is unlike those the model was trained on: they may not hold.",
        ),
        (
            {"slice_spacing_mm": InputComparison(None, 3.0, 5.0)},
            "Whether this image is like those the model was trained on cannot be told: they may not hold.",
        ),
    ],
)
def test_dicom_says_when_its_error_bars_may_not_hold(radiograph_part, tmp_path, barred, monkeypatch, comparison, end):
    barred = with_metadata(shutil.copytree(barred, tmp_path / barred.name), input_range={"sharpness_db": [-18, -11]})
    monkeypatch.setattr("monai_sr_bundle.engine.session.compare_input", lambda *_arguments: comparison)
    description = enhanced(radiograph_part, tmp_path / "a.dcm", barred, error_bars=True).DerivationDescription
    assert description.endswith(end)
    without = enhanced(radiograph_part, tmp_path / "b.dcm", barred).DerivationDescription
    assert "Error bars" not in without
    assert "may not hold" not in without
