import io
import json
from contextlib import redirect_stdout

import pydicom
import pytest

from monai_sr_bundle.__main__ import main
from monai_sr_bundle.datasets.phantom import write_phantom_png


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder of the results, of which one was there before, and what was shown."""
    out = tmp_path_factory.mktemp("demo") / "results"
    out.mkdir()
    (out / "CT_small_sr.dcm").write_text("older")
    with redirect_stdout(io.StringIO()) as shown:
        assert main(["demo", "--backend", "onnx", str(out)]) == 0
    return out, shown.getvalue()


@pytest.fixture
def results(demo):
    return demo[0]


def test_a_ct_slice_and_a_radiograph_get_four_times_the_size(results):
    ct, film = (pydicom.dcmread(results / name) for name in ("CT_small_sr.dcm", "drawn_radiograph_sr.dcm"))
    assert (ct.Modality, ct.Rows, ct.Columns) == ("CT", 512, 512)
    assert (film.Modality, film.Rows, film.Columns) == ("DX", 1024, 1024)
    assert float(film.ImagerPixelSpacing[0]) == pytest.approx(0.4)


@pytest.mark.parametrize("name", ["CT_small_sr", "drawn_radiograph_sr"])
def test_each_has_a_picture_and_a_report(results, name):
    assert (results / f"{name}.preview.png").stat().st_size > 50_000
    assert "data:image/png;base64," in (results / f"{name}.report.html").read_text(encoding="utf-8")
    report = json.loads((results / f"{name}.report.json").read_text(encoding="utf-8"))
    assert report["run"]["backend"] == "onnx"


def test_the_visitor_is_told_where_to_look(demo):
    results, shown = demo
    for name in ("CT_small_sr.preview.png", "drawn_radiograph_sr.report.html"):
        assert str(results / name) in shown


def test_the_visitors_own_image_is_the_only_one_enlarged(tmp_path):
    write_phantom_png(tmp_path / "mine.png", size=64)
    assert main(["demo", "--backend", "onnx", "--image", str(tmp_path / "mine.png"), str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "mine_sr.png",
        "mine_sr.preview.png",
        "mine_sr.report.html",
        "mine_sr.report.json",
    ]


def test_an_image_that_cannot_be_read_ends_with_its_exit_code(tmp_path, capsys):
    (tmp_path / "mine.png").write_bytes(b"not a picture")
    assert main(["demo", "--image", str(tmp_path / "mine.png"), str(tmp_path / "out")]) == 3
    assert "mine.png" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
