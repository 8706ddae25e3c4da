"""Films measured in several conditions, compared with figures that are computed by hand."""

import csv
import io
import json
import re
import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
from monai_sr_bundle import enhance
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.benchmark import originals
from monai_sr_bundle.benchmark.comparison_page import page
from monai_sr_bundle.benchmark.film_comparison import Film, FilmComparison, MethodFacts
from monai_sr_bundle.benchmark.film_measurement import list_films, measure_films, require_films
from monai_sr_bundle.benchmark.film_protocol import FilmLoss, FilmProtocol, FilmSet
from monai_sr_bundle.benchmark.film_tables import as_json, figures_csv, film_markdown
from monai_sr_bundle.benchmark.originals import ORIGINALS
from monai_sr_bundle.benchmark.protocol import Row
from monai_sr_bundle.benchmark.training_curve import TrainingTime
from monai_sr_bundle.benchmark.workers import Workers
from monai_sr_bundle.errors import BundleError, InputError
from monai_sr_bundle.images.nifti import read_nifti
from monai_sr_bundle.shipped_bundles import find_bundle
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from torch.nn.functional import interpolate

from tests.benchmark.test_film_protocol import write_text
from tests.changed_bundles import copied, with_metadata
from tests.drawn_data import write_radiographs, write_volumes

BOX, NOISE = FilmLoss("box", {"kernel": "area"}), FilmLoss("noise 2", {"noise": 2.0})
ROWS = Row("bicubic", "Bicubic"), Row("bilinear", "Bilinear")
PROTOCOL = FilmProtocol(
    "films", "Drawn films", "For tests.", (FilmSet("drawn", "drawn"),), (BOX, NOISE), (4, 2), ROWS
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_radiographs(tmp_path_factory.mktemp("films"), size=96, counts=(("test", 3),))


def psnr_by_hand(path, scale, mode):
    """Means of blocks, stored in 8 bits, enlarged by PyTorch, stored in 8 bits again, measured by scikit-image."""
    stored = np.asarray(Image.open(path))
    rows, columns = (side // scale for side in stored.shape)
    blocks = stored.astype(np.float64).reshape(rows, scale, columns, scale).mean(axis=(1, 3))
    low_res = torch.from_numpy(np.rint(blocks).astype(np.float32) / 255)[None, None]
    enlarged = interpolate(low_res, scale_factor=float(scale), mode=mode, align_corners=False)[0, 0].numpy()
    return peak_signal_noise_ratio(stored, np.rint(np.clip(enlarged, 0, 1) * 255).astype(np.uint8), data_range=255)


def test_every_film_is_measured_in_every_cell_as_by_hand(data):
    calls = []
    comparison = measure_films(PROTOCOL, data, progress=lambda done, total: calls.append((done, total)))
    assert comparison.psnr.shape == (3, 2, 2, 2)  # films, scales, losses, rows
    assert calls == [(8, 24), (16, 24), (24, 24)]
    for index, film in enumerate(comparison.films):
        path = data / "drawn" / "images" / f"{film.name}.png"
        expected = [[psnr_by_hand(path, scale, mode) for mode in ("bicubic", "bilinear")] for scale in (4, 2)]
        np.testing.assert_allclose(comparison.psnr[index, :, 0], expected, atol=0.02)


def test_a_method_that_is_worse_than_bicubic_is_counted_as_worse(data):
    comparison = measure_films(PROTOCOL, data)
    cell = next(comparison.cells(1, 4))
    by_hand = [
        psnr_by_hand(path, 4, "bilinear") - psnr_by_hand(path, 4, "bicubic")
        for path in sorted((data / "drawn" / "images").glob("test*"))
    ]
    assert max(by_hand) < -0.05
    assert (cell.worse, cell.gain.count) == (1.0, 3)
    assert cell.gain.mean == pytest.approx(np.mean(by_hand), abs=0.02)
    assert cell.lowest.gain == pytest.approx(min(by_hand), abs=0.02)
    assert cell.lowest.image == f"test{int(np.argmin(by_hand))}"


def test_noise_belongs_to_the_image_the_loss_and_the_factor(tmp_path):
    def noise_of(name, loss, scale, size=64):
        path = tmp_path / f"{name}{size}.png"
        Image.fromarray(np.full((size, size), 128, np.uint8)).save(path)
        item = {"path": str(path), "modality": "CXR", "slice_index": 0, "name": name}
        return originals.Film(item, 1, 4).degrade(loss, scale)[0]

    first = noise_of("a", NOISE, 4)
    assert first.std() == pytest.approx(2 / 255, rel=0.2)
    np.testing.assert_array_equal(noise_of("a", NOISE, 4), first)
    for other in (
        noise_of("b", NOISE, 4),
        noise_of("a", replace(NOISE, label="other"), 4),
        noise_of("a", NOISE, 2, 32),
    ):
        assert abs(np.corrcoef(other.ravel(), first.ravel())[0, 1]) < 0.3


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    root = write_volumes(tmp_path_factory.mktemp("scans"), size=48, slices=5)
    path = root / "ct" / "test.nii.gz"
    volume = nibabel.load(path)
    padded = np.asarray(volume.dataobj).copy()
    padded[:12, :12] = -2000  # a corner that was not reconstructed
    nibabel.save(nibabel.Nifti1Image(padded, volume.affine), path)
    return root


SCANS = replace(
    PROTOCOL,
    sets=(FilmSet("drawn", "ct"),),
    losses=(FilmLoss("box", {"kernel": "area"}, "CT"), FilmLoss("noise", {"noise": 30.0}, "CT")),
    modality="CT",
)


def test_every_slice_is_measured_with_air_for_padding(volumes):
    comparison = measure_films(SCANS, volumes)
    assert [film.name for film in comparison.films] == [f"test_{index:03d}" for index in range(5)]
    hu = read_nifti(volumes / "ct" / "test.nii.gz").pixels
    assert (hu == -2000).sum() == 5 * 12 * 12
    for index, stored in enumerate(np.where(hu == -2000, -1000, hu)):
        blocks = np.rint(stored.astype(float).reshape(12, 4, 12, 4).mean(axis=(1, 3))).astype(np.float32)
        enlarged = interpolate(torch.from_numpy(blocks)[None, None], scale_factor=4.0, mode="bicubic")[0, 0].numpy()
        in_window = (np.clip(np.rint(enlarged), -1000, 400), np.clip(stored, -1000, 400))
        expected = peak_signal_noise_ratio(*(one.astype(float) for one in in_window), data_range=1400)
        assert comparison.psnr[index, 0, 0, 0] == pytest.approx(expected, abs=0.02)
    text = film_markdown(comparison)
    assert "drawn: 5 images of 1 patient." in text
    assert "on whole HU of -1000 to 400" in text
    assert "[" not in text.split("### Enlarged by 4")[1].split("### ")[0]  # no interval over a single patient


def test_slices_are_chosen_by_their_kernel(volumes, tmp_path):
    manifest = volumes / "ct" / "manifest.csv"
    lines = manifest.read_text().splitlines()
    kernels = ["kernel", "B30f", "BONE"]  # of the header, the training and the test volume
    other = tmp_path / "ct"
    other.mkdir()
    (other / "manifest.csv").write_text(
        "".join(f"{line},{kernel}\n" for line, kernel in zip(lines, kernels, strict=True))
    )
    shutil.copy(volumes / "ct" / "test.nii.gz", other / "test.nii.gz")
    shutil.copy(volumes / "ct" / "train.nii.gz", other / "train.nii.gz")
    require_films(replace(SCANS, sets=(FilmSet("sharp", "ct", kernels="BO*"),)), tmp_path)
    with pytest.raises(InputError, match=r"none of the 5 files .* and a kernel like B\[23\]\*"):
        require_films(replace(SCANS, sets=(FilmSet("soft", "ct", kernels="B[23]*"),)), tmp_path)


@pytest.mark.slow
def test_processes_share_the_films(data):
    with Workers(2, threads=1) as workers:
        shared = measure_films(PROTOCOL, data, workers=workers)
    np.testing.assert_allclose(shared.psnr, measure_films(PROTOCOL, data).psnr, atol=1e-6)


def test_sets_are_chosen_by_the_names_of_files_and_reduced_first(data):
    sets = (FilmSet("one", "drawn", files="test1*"), FilmSet("half", "drawn", reduce=2))
    comparison = measure_films(replace(PROTOCOL, sets=sets, losses=(BOX,)), data)
    assert [(film.set, film.name) for film in comparison.films] == [
        ("one", "test1"), ("half", "test0"), ("half", "test1"), ("half", "test2"),
    ]  # fmt: skip
    assert comparison.psnr[0, 0, 0, 0] != comparison.psnr[2, 0, 0, 0]
    with pytest.raises(InputError, match="drawn: none of the 3 files of the test split has a name like x.*Correct `fi"):
        require_films(replace(PROTOCOL, sets=(FilmSet("one", "drawn", files="x*"),)), data)


def test_a_bundle_has_no_figures_where_it_does_not_enlarge_by_the_factor(data):
    rows = (ROWS[0], Row("chest_xray_edsr_x4", "EDSR"))
    comparison = measure_films(replace(PROTOCOL, rows=rows, losses=(BOX,)), data, limit=1)
    assert np.isfinite(comparison.psnr[:, 0]).all()
    assert np.isnan(comparison.psnr[:, 1, :, 1]).all()
    assert comparison.methods[1] == MethodFacts(360_736, TrainingTime(92.0))
    assert np.isnan(comparison.coverage[:, :, :, 0]).all()
    text = film_markdown(comparison)
    assert "No method but bicubic enlarges by 2." in text
    assert figures_csv(comparison).decode().count("chest_xray_edsr_x4,") == 1


def test_the_coverage_is_that_of_the_error_bars_the_user_gets(data):
    bundle = find_bundle("chest_xray_edsr_x4")
    item = list_films(PROTOCOL, data, limit=1)[0][1]
    original = ORIGINALS["CXR"](item, 1, 4)
    film, low_res = original.high_res, original.degrade(BOX, 4)[0]
    result = enhance(np.rint(low_res * 255).astype(np.uint8), bundle.name, error_bars=True)
    inside = np.abs(film * 255 - result.image.pixels[0]) <= result.error_bars.half_width[0]
    rows = (ROWS[0], Row(bundle.name, "EDSR"))
    comparison = measure_films(replace(PROTOCOL, rows=rows, losses=(BOX,), scales=(4,)), data, limit=1)
    assert comparison.coverage[0, 0, 0, 1] == pytest.approx(inside.mean(), abs=1e-3)
    assert 0.1 < inside.mean() < 1


def test_a_hospitals_calibration_takes_the_place_of_the_bundles_own(data, tmp_path):
    bundle = find_bundle("chest_xray_edsr_x4")
    calibration = json.loads((bundle.folder / "calibration.json").read_text())
    factors = [{**entry, "factor": 1000.0} for entry in calibration["entries"]]
    site = tmp_path / "site.json"
    site.write_text(json.dumps({**calibration, "entries": factors}))
    protocol = replace(PROTOCOL, rows=(ROWS[0], Row(bundle.name, "EDSR")), losses=(BOX,), scales=(4,))
    comparison = measure_films(protocol, data, limit=1, trust=True, calibration=site)
    (cell,) = comparison.cells(1, 4)
    assert (cell.coverage.mean, cell.structure_coverage.mean, cell.tenths_coverage) == (1.0, 1.0, (1.0,) * 10)
    assert next(comparison.cells(0, 4)).tenths_coverage == ()
    assert "| drawn | box | EDSR | 100.0 % | 100.0 % | 100 100 100 100 100 100 100 100 100 100 % | " in film_markdown(
        comparison
    )
    site.write_text(json.dumps({**calibration, "weights_sha256": "0" * 64}))
    with pytest.raises(BundleError, match="was made for chest_xray_edsr_x4"):
        require_films(protocol, data, calibration=site)


def test_padding_does_not_count_as_inside_its_error_bars(volumes, monkeypatch):
    def half_width(self, super_res, low_res):
        assert np.isfinite(super_res).all()
        return np.where(np.arange(48)[:, None] < 12, 1.0, 0.0) + np.zeros((48, 48))

    monkeypatch.setattr("monai_sr_bundle.benchmark.methods.BundleMethod.half_width", half_width)
    rows = (ROWS[0], Row("chest_ct_blind", "MDSR"))
    comparison = measure_films(replace(SCANS, rows=rows, losses=SCANS.losses[1:], scales=(4,)), volumes, limit=1)
    # Of 48 rows the first 12 are inside, without the 12 columns of padding; the others hardly ever are.
    assert comparison.coverage[0, 0, 0, 1] == pytest.approx(12 * 36 / (48 * 48 - 12 * 12), abs=0.03)


def test_a_bundle_that_does_not_fit_films_is_refused(data):
    for method, scales, message in (
        ("chest_xray_edsr_x4", (2,), "films reduces by 2, but bundle chest_xray_edsr_x4 enlarges by none of these"),
        ("chest_ct_edsr_x4", (4,), "bundle chest_ct_edsr_x4 is made for CT with window .* but the images are CXR"),
    ):
        rows = (ROWS[0], Row(method, "Network"))
        with pytest.raises(BundleError, match=message):
            require_films(replace(PROTOCOL, rows=rows, scales=scales), data)


def test_an_image_outside_the_limits_is_measured_as_the_engine_makes_it(tmp_path):
    data = write_radiographs(tmp_path / "films", size=160, counts=(("test", 2),))
    folder = copied(tmp_path, "chest_xray_edsr_x4")
    limits = {"noise_percent": [0, 2.5]}
    rows = (ROWS[0], Row(str(with_metadata(folder, input_limits=limits)), "EDSR"))
    noisy = FilmLoss("noise 9", {"noise": 9.0})
    comparison = measure_films(replace(PROTOCOL, rows=rows, losses=(BOX, noisy), scales=(4,)), data)
    np.testing.assert_array_equal(comparison.interpolated[:, 0, :, 1], [[0, 1], [0, 1]])
    np.testing.assert_array_equal(comparison.psnr[:, 0, 1, 1], comparison.psnr[:, 0, 1, 0])
    assert (comparison.psnr[:, 0, 0, 1] != comparison.psnr[:, 0, 0, 0]).all()
    assert np.isnan(comparison.coverage[:, 0, 1, 1]).all()
    assert np.isfinite(comparison.coverage[:, 0, 0, 1]).all()
    item = list_films(PROTOCOL, data, limit=1)[0][1]
    low_res = ORIGINALS["CXR"](item, 1, 4).degrade(noisy, 4)[0]
    result = enhance(np.rint(low_res * 255).astype(np.uint8), str(folder))
    assert result.provenance.instead_of == folder.name
    assert comparison.summary(1, 4).interpolated == 0.5
    assert "| 50 %, 0 % |" in film_markdown(comparison)
    assert "50 %<small>of the pairs</small><small>0 % of the images as they are" in page([comparison], "benchmark")
    assert figures_csv(comparison).decode().count(",yes") == 2


def comparison_of(gains, coverage=np.nan):
    """Return a comparison with bicubic at 30 dB and one method, of gains ``[films, losses]`` at factor 4."""
    gains = np.asarray(gains)
    psnr = np.stack([np.full(gains.shape, 30.0), 30.0 + gains], axis=-1)[:, None]
    films = [Film("drawn", f"film{index}", f"patient{index // 2}") for index in range(len(gains))]
    protocol = replace(PROTOCOL, scales=(4,), rows=(ROWS[0], Row("net_x4", "Net <b>")))
    covered = np.full(psnr.shape, np.nan)
    covered[..., 1] = coverage
    facts = [MethodFacts(), MethodFacts(1000, TrainingTime(45.0, on_gpu=5.0))]
    never = np.zeros(psnr.shape), np.zeros((len(films), 2), dtype=bool)
    return FilmComparison(protocol, films, psnr, covered, *never, facts, {"drawn": "0123456789abcdef"})


def test_cells_and_their_summary_are_those_of_the_gains():
    comparison = comparison_of([[1.0, -0.5], [2.0, 0.25], [3.0, -0.04], [4.0, -0.25]])
    box, noise = comparison.cells(1, 4)
    # Patients 0 and 1 have two films each, so a resample holds one of them or both.
    assert (box.gain.mean, box.gain.low, box.gain.high, box.worse) == (2.5, 1.5, 3.5, 0.0)
    assert noise.gain.mean == pytest.approx(-0.135)
    assert (noise.worse, noise.lowest.gain, noise.lowest.image) == (0.5, -0.5, "film0")
    summary = comparison.summary(1, 4)
    assert summary.mean == pytest.approx((2.5 - 0.135) / 2)
    assert (summary.least.loss, summary.pairs, summary.worse) == ("noise 2", 8, 0.25)
    assert (summary.lowest.loss, summary.lowest.image) == ("noise 2", "film0")


def test_the_tables_hold_every_cell():
    comparison = comparison_of([[1.0, -0.5], [2.0, 0.25], [3.0, -0.04], [4.0, -0.25]])
    text = film_markdown(comparison)
    assert "drawn: 4 images of 2 patients" in text
    assert "| drawn | 4 | box | 30.00 | +2.50 [+1.50, +3.50]; 0 %; +1.00 |" in text
    assert re.search(r"\| drawn \| 4 \| noise 2 \| 30.00 \| -0.1[34] \[.*\]; 50 %; -0.50 \|", text)
    assert "| -0.50 (drawn; noise 2; film0) | 0 %, 0 % | 1,000 | 40 + 5 on a GPU |" in text
    net = json.loads(as_json(comparison))["methods"][1]
    assert [cell["loss"] for cell in net["scales"][0]["cells"]] == ["box", "noise 2"]
    assert net["scales"][0]["cells"][1]["worse"] == 0.5
    rows = list(csv.DictReader(io.StringIO(figures_csv(comparison).decode())))
    assert len(rows) == 2 * 2 * 4  # methods, cells, images
    assert {"method": "net_x4", "scale": "4", "image": "film3", "gain": "-0.250000"}.items() <= rows[-1].items()


def test_the_coverage_of_error_bars_stands_in_every_cell():
    comparison = comparison_of([[1.0, 2.0], [2.0, 2.0]], coverage=0.876)
    box, _ = comparison.cells(1, 4)
    assert box.coverage.mean == pytest.approx(0.876)
    assert next(comparison.cells(0, 4)).coverage is None
    assert "| +1.50; 0 %; +1.00; 88 % inside |" in film_markdown(comparison)
    assert "<small>88 % of the pixels inside</small>" in page([comparison], "monai-sr benchmark")
    cells = json.loads(as_json(comparison))["methods"]
    assert cells[0]["scales"][0]["cells"][0]["coverage"] is None
    assert cells[1]["scales"][0]["cells"][0]["coverage"]["mean"] == pytest.approx(0.876)
    rows = list(csv.DictReader(io.StringIO(figures_csv(comparison).decode())))
    assert {row["method"]: row["coverage"] for row in rows} == {"bicubic": "", "net_x4": "0.876000"}


def test_the_page_marks_cells_that_lose():
    text = page(
        [comparison_of([[1.0, -0.5], [2.0, 0.25], [3.0, -0.04], [4.0, -0.25]])],
        "monai-sr benchmark",
    )
    assert re.search(r'<td class="bad">−0.1[34]', text)
    assert re.search(r"<td>\+2.50<small>", text)
    assert "Net &lt;b&gt;" in text
    # A cell that gains on average, with one image that loses.
    assert '<td class="caution">+1.90' in page([comparison_of([[4.0, 1.0], [-0.2, 1.0]])], "monai-sr benchmark")


def test_the_command_writes_the_tables_and_replaces_them_only_when_asked(data, tmp_path, capsys):
    films = write_text(tmp_path, rows=[{"method": row.method, "label": row.label} for row in ROWS])
    words = ["benchmark", "quality", "--data", data, "--out", tmp_path / "out", "--protocol", films, "--workers", 1]
    assert main([str(word) for word in (*words, "--limit", 2)]) == 0
    out = tmp_path / "out"
    assert (out / "films" / "table.md").read_text() in capsys.readouterr().out
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert names == {"index.html", "films/conditions.json", "films/figures.csv", "films/table.md"}
    assert "Drawn films" in (out / "index.html").read_text()
    assert main([str(word) for word in words]) == 5
    assert main([str(word) for word in (*words, "--overwrite")]) == 0
    assert json.loads((out / "films" / "conditions.json").read_text())["sets"][0]["images"] == 3
