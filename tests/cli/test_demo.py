import io
import json
from contextlib import redirect_stdout

import pydicom
import pytest
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.datasets.phantom import write_phantom_png


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder of the results, of which one was there before, and the lines that were printed."""
    out = tmp_path_factory.mktemp("demo") / "results"
    out.mkdir()
    (out / "CT_small_sr.dcm").write_text("older")
    with redirect_stdout(io.StringIO()) as stdout:
        assert main(["demo", "--backend", "onnx", str(out)]) == 0
    return out, stdout.getvalue()


def test_a_ct_slice_and_a_radiograph_get_four_times_the_size(demo):
    ct, film = (pydicom.dcmread(demo[0] / name) for name in ("CT_small_sr.dcm", "drawn_radiograph_sr.dcm"))
    assert (ct.Modality, ct.Rows, ct.Columns) == ("CT", 512, 512)
    assert (film.Modality, film.Rows, film.Columns) == ("DX", 1024, 1024)
    assert float(film.ImagerPixelSpacing[0]) == pytest.approx(0.4)


@pytest.mark.parametrize("name", ["CT_small_sr", "drawn_radiograph_sr"])
def test_each_has_a_picture_and_a_report_which_the_lines_name(demo, name):
    results, lines = demo
    assert (results / f"{name}.preview.png").stat().st_size > 50_000
    assert "data:image/png;base64," in (results / f"{name}.report.html").read_text(encoding="utf-8")
    report = json.loads((results / f"{name}.report.json").read_text(encoding="utf-8"))
    assert report["run"]["backend"] == "onnx"
    assert 0 < report["consistency"]["result"]["rms"] < 100  # HU, or grey levels of 0 to 4095
    assert all(str(results / f"{name}.{suffix}") in lines for suffix in ("preview.png", "report.html"))


def test_the_visitors_own_image_is_the_only_one_enlarged(tmp_path):
    write_phantom_png(tmp_path / "mine.png", size=64)
    assert main(["demo", "--backend", "onnx", "--image", str(tmp_path / "mine.png"), str(tmp_path / "out")]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["mine_sr.png", "mine_sr.preview.png", "mine_sr.report.html", "mine_sr.report.json"]


def test_a_file_where_the_result_of_ones_own_image_belongs_is_not_replaced_and_an_older_result_is(tmp_path):
    write_phantom_png(tmp_path / "mine.png", size=64)
    (tmp_path / "mine_sr.png").write_text("a file of the visitor")
    words = ["demo", "--backend", "onnx", "--image", str(tmp_path / "mine.png"), str(tmp_path)]
    assert main(words) == 5
    assert (tmp_path / "mine_sr.png").read_text() == "a file of the visitor"
    (tmp_path / "mine_sr.png").unlink()
    assert [main(words), main(words)] == [0, 0]


def test_an_image_that_cannot_be_read_ends_with_its_exit_code(tmp_path, capsys):
    (tmp_path / "mine.png").write_bytes(b"not a picture")
    assert main(["demo", "--image", str(tmp_path / "mine.png"), str(tmp_path / "out")]) == 3
    assert "mine.png" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
