"""Unmodified images, enlarged as a user enlarges them, in the tables of a protocol of real conditions."""

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from monai_sr_bundle import enhance
from monai_sr_bundle.benchmark.comparison_page import page
from monai_sr_bundle.benchmark.film_comparison import Film, FilmComparison, MethodFacts
from monai_sr_bundle.benchmark.film_measurement import measure_films
from monai_sr_bundle.benchmark.film_protocol import FilmSet
from monai_sr_bundle.benchmark.film_tables import as_json, film_markdown
from monai_sr_bundle.benchmark.protocol import Row
from monai_sr_bundle.benchmark.unmodified import (
    find_blocks,
    find_edges,
    find_flat_blocks,
    measure_disagreement,
    measure_edges,
    measure_near_padding,
    measure_spread,
)
from monai_sr_bundle.benchmark.unmodified_measurement import FIGURES
from monai_sr_bundle.engine import session
from monai_sr_bundle.images.unit import largest_around
from PIL import Image

from tests.benchmark.test_film_measurement import BOX, PROTOCOL, SCANS
from tests.drawn_data import write_radiographs, write_volumes

ROWS = Row("bicubic", "Bicubic"), Row("chest_ct_blind", "MDSR")
UNMODIFIED_SCANS = replace(SCANS, losses=SCANS.losses[:1], rows=ROWS, scales=(2,), unmodified=1)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A volume of noisy rings, with padding in a corner."""
    root = write_volumes(tmp_path_factory.mktemp("scans"), size=96, slices=6)
    path = root / "ct" / "test.nii.gz"
    rows, columns = np.indices((96, 96)) - 47.5
    rng, radius = np.random.default_rng(0), np.hypot(rows, columns)
    rings = np.where(radius < 14, -850, np.where(radius < 40, 40, -1000))
    volume = np.stack([rings + rng.normal(0, 12, (96, 96)) for _ in range(6)], axis=-1)
    volume[:10, :10] = -2000
    image = nibabel.Nifti1Image(np.rint(volume).astype(np.int16), np.diag([-0.8, -0.8, 5.0, 1.0]))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return root


def figures_of(comparison, row):
    return {name: comparison.unmodified[name][0, 0, row] for name in FIGURES}


def figures_by_hand(path, bundle):
    """The figures of the first slice of what `enhance` makes of the whole volume."""
    result = enhance(path, bundle, scale=2)
    (image, following), padding = result.source.pixels[:2].astype(float), result.padding[0]
    enlarged, enlarged_following = result.image.pixels[:2].astype(float)
    usable = ~largest_around(padding, 4)
    width, overshoot = measure_edges(enlarged, image, find_edges(image, usable, 200))
    body = find_blocks(image, usable, (-950, 3071)) & find_blocks(following, usable, (-950, 3071))
    return {
        "noise": measure_spread(enlarged, 2, find_flat_blocks(image, usable, (-200, 200))),
        "edge_width": width,
        "edge_width_mm": 0.8 * width,
        "overshoot": overshoot,
        "near_padding": measure_near_padding(enlarged, image, padding),
        "disagreement": measure_disagreement(enlarged, image, usable),
        "flicker": measure_spread(enlarged_following - enlarged, 2, body),
        "interpolated": float(bool(result.provenance.instead_of)),
        "warned": float(bool(result.warnings) and not result.provenance.instead_of),
    }


def test_the_figures_are_those_of_what_the_user_gets(scan, monkeypatch):
    monkeypatch.setattr(session, "describe_outside", lambda measured, limits: "")
    comparison = measure_films(UNMODIFIED_SCANS, scan)
    assert [film.name for film in comparison.unmodified_films] == ["test_000"]
    for row, bundle in enumerate(("bicubic", "chest_ct_blind")):
        by_hand = figures_by_hand(scan / "ct" / "test.nii.gz", bundle)
        assert figures_of(comparison, row) == pytest.approx(by_hand, rel=1e-4)
    bicubic, network = figures_of(comparison, 0), figures_of(comparison, 1)
    assert all(np.isfinite([*bicubic.values(), *network.values()]))
    assert 6 < bicubic["noise"] < 12  # of the source
    assert all(network[name] != bicubic[name] for name in FIGURES if name not in ("interpolated", "warned"))
    assert (bicubic["warned"], network["interpolated"]) == (0, 0)


def test_an_image_outside_the_limits_of_a_bundle_has_the_figures_of_bicubic(scan, monkeypatch):
    monkeypatch.setattr(session, "describe_outside", lambda measured, limits: "it is far away" if limits else "")
    comparison = measure_films(UNMODIFIED_SCANS, scan)
    assert figures_of(comparison, 1) == {**figures_of(comparison, 0), "interpolated": 1}
    (cell,) = comparison.unmodified_cells(1, 2)
    assert (cell.figures["interpolated"], cell.figures["warned"]) == (1, 0)
    assert cell.ratios == {"noise": 1, "edge_width": 1, "flicker": 1}


def test_a_result_with_a_warning_counts_as_warned(scan, monkeypatch):
    monkeypatch.setattr(session, "describe_outside", lambda measured, limits: "")
    monkeypatch.setattr(session, "describe_differences", lambda comparison: ["It is noisy."] if comparison else [])
    comparison = measure_films(UNMODIFIED_SCANS, scan)
    assert [figures_of(comparison, row)["warned"] for row in (0, 1)] == [0, 1]


def test_radiographs_have_no_padding_and_no_next_slice(tmp_path):
    data = write_radiographs(tmp_path, size=96, counts=(("test", 3),))
    rows = (ROWS[0], Row("bilinear", "Bilinear"), Row("chest_xray_edsr_x4", "EDSR"))
    protocol = replace(PROTOCOL, rows=rows, losses=(BOX,), unmodified=2)
    calls = []
    comparison = measure_films(protocol, data, limit=3, progress=lambda done, total: calls.append((done, total)))
    assert [film.name for film in comparison.unmodified_films] == ["test0", "test2"]
    assert calls[-1] == (2 * 3 * (3 + 2), 2 * 3 * (3 + 2))  # factors, rows; images with a loss and without
    assert np.isfinite(comparison.unmodified["noise"][:, :, 0]).all()
    assert np.isfinite(comparison.unmodified["noise"][:, 0, 2]).all()
    assert np.isnan(comparison.unmodified["noise"][:, 1, 2]).all()  # EDSR enlarges by 4 alone
    for name in ("near_padding", "flicker", "edge_width_mm"):
        assert np.isnan(comparison.unmodified[name]).all()
    assert list(comparison.unmodified_cells(1, 4)) == []  # nobody gets bilinear interpolation
    text = film_markdown(comparison)
    assert "near padding (" not in text
    assert "noise (grey levels)" in text
    assert len(measure_films(protocol, data, limit=1).unmodified_films) == 1


def test_images_that_are_reduced_first_are_not_unmodified(tmp_path):
    data = write_radiographs(tmp_path, size=96, counts=(("test", 1),))
    sets = (FilmSet("half", "drawn", reduce=2), FilmSet("whole", "drawn"))
    protocol = replace(PROTOCOL, sets=sets, losses=(BOX,), scales=(2,))
    assert measure_films(protocol, data).unmodified == {}
    comparison = measure_films(replace(protocol, unmodified=1), data)
    assert [film.set for film in comparison.unmodified_films] == ["whole"]
    comparison = measure_films(replace(protocol, unmodified=1, sets=sets[:1]), data)
    assert (comparison.unmodified_films, comparison.unmodified) == ([], {})


def test_a_large_image_is_enlarged_in_its_middle(tmp_path):
    (tmp_path / "drawn").mkdir()
    film = np.random.default_rng(0).normal(120, 2, (40, 700))
    film[:, :90] = film[:, -90:] = np.random.default_rng(1).normal(120, 9, (40, 90))
    Image.fromarray(np.rint(film).astype(np.uint8)).save(tmp_path / "drawn" / "film.jpg", quality=95)
    (tmp_path / "drawn" / "manifest.csv").write_text(
        "file,split,patient_id,width,height,license\ndrawn/film.jpg,test,one,700,40,drawn\n"
    )
    comparison = measure_films(replace(PROTOCOL, losses=(BOX,), rows=ROWS[:1], scales=(2,), unmodified=1), tmp_path)
    assert comparison.unmodified["disagreement"][0, 0, 0] < 2
    assert enhance(tmp_path / "drawn" / "film.jpg", "bicubic", scale=2).warnings  # on JPEG
    assert comparison.unmodified["warned"][0, 0, 0] == 0


def test_the_tables_hold_a_line_for_each_set_and_method():
    figures = {name: np.full((3, 1, 2), np.nan) for name in FIGURES}
    figures["noise"][:, 0] = [[10, 5], [20, 15], [10, 12]]
    figures["edge_width"][:, 0] = [[2, 1], [4, 4], [np.nan, np.nan]]
    figures["near_padding"][:, 0] = [[10, 60], [np.nan, np.nan], [5, 5]]
    figures["warned"][:, 0] = [[0, 0], [0, 1], [0, 0]]
    sets = (FilmSet("soft <b>", "ct"), FilmSet("sharp", "ct"))
    protocol = replace(UNMODIFIED_SCANS, sets=sets, scales=(4,))
    films = [Film(each.label, f"image{index}", "one") for index, each in enumerate((sets[0], sets[0], sets[1]))]
    psnr = np.full((3, 1, 1, 2), 30.0)
    comparison = FilmComparison(
        protocol,
        films=films,
        psnr=psnr,
        coverage=np.full(psnr.shape, np.nan),
        interpolated=np.zeros(psnr.shape),
        unmodified_interpolated=np.zeros((3, 2)),
        methods=[MethodFacts()] * 2,
        unmodified_films=films,
        unmodified=figures,
    )
    text = film_markdown(comparison)
    table = text.split("### Unmodified images, enlarged by 4\n\n")[1].splitlines()
    assert table[0] == "| set | images | method | noise (HU) | edge (pixels) | near padding (HU) | warned |"
    assert table[2] == "| soft <b> | 2 | Bicubic | 15.0 | 3.00 | 10.0 | 0 % |"
    assert table[3] == "| soft <b> | 2 | MDSR | 10.0 (0.62) | 2.50 (0.75) | 60.0 | 50 % |"
    assert table[5] == "| sharp | 1 | MDSR | 12.0 (1.20) |  | 5.0 | 0 % |"
    assert "Noise: spread in flat blocks" in text
    html = page([comparison], "monai-sr benchmark")
    assert '<th scope="row">soft &lt;b&gt;</th><td>2</td><td>MDSR</td><td>10.0 (0.62)</td>' in html
    cells = json.loads(as_json(comparison))["methods"][1]["scales"][0]["unmodified"]
    assert cells[0]["figures"]["near_padding"] == 60
    assert cells[0]["ratios"]["noise"] == pytest.approx(0.625)
    assert cells[1]["figures"]["edge_width"] is None
