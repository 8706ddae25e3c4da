from pathlib import Path

import pytest
import yaml
from monai_sr_bundle.benchmark.film_protocol import read_film_protocol
from monai_sr_bundle.benchmark.protocol_choice import choose_protocols, read_any_protocol
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.transforms.random_degradation import FilmDegradation, ScanDegradation

BICUBIC = {"method": "bicubic", "label": "Bicubic"}
EDSR = {"method": "chest_xray_edsr_x4", "label": "EDSR"}
SET = {"label": "drawn", "folder": "drawn"}
TEXT = {
    "title": "Drawn films", "about": "For tests.", "scales": [4], "rows": [BICUBIC, EDSR], "sets": [SET],
    "losses": [{"label": "ideal"}, {"label": "soft", "blur": 1.5, "noise": 2, "jpeg_quality": 85}],
}  # fmt: skip


def write_text(folder: Path, **changes) -> Path:
    content = {key: value for key, value in {**TEXT, **changes}.items() if value is not None}
    path = folder / "films.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_text_with_losses_says_which_films_are_reduced_how(tmp_path):
    half = {"label": "half", "folder": "drawn", "files": "a*", "reduce": 2}
    protocol = read_any_protocol(write_text(tmp_path, sets=[SET, half], scales=[4, 2]))
    assert (protocol.name, protocol.split, protocol.scales) == ("films", "test", (4, 2))
    assert [(each.folder, each.files, each.reduce) for each in protocol.sets] == [("drawn", "*", 1), ("drawn", "a*", 2)]
    ideal, soft = protocol.losses
    assert ideal.degradation(2) == FilmDegradation(2)
    assert soft.degradation(4) == FilmDegradation(4, blur=1.5, noise=2, jpeg_quality=85)


def test_the_shipped_one_has_five_sets_eight_losses_and_two_factors():
    protocol = read_film_protocol("chest_xray_films")
    assert (len(protocol.sets), len(protocol.losses), protocol.scales) == (5, 8, (4, 2))
    assert [each.label for each in protocol.unmodified_sets] == ["NIH, native", "children, native", "whole films"]
    degradations = [loss.degradation(4) for loss in protocol.losses]
    assert len(set(degradations)) == 8
    assert degradations[0] == FilmDegradation(4)
    assert [row.key for row in protocol.rows][:1] == ["bicubic"]


def test_the_shipped_one_of_ct_reduces_slices():
    protocol = read_film_protocol("chest_ct_scans")
    assert (len(protocol.sets), protocol.scales, protocol.modality) == (6, (4, 2), "CT")
    assert [loss.degradation(4) for loss in protocol.losses] == [
        ScanDegradation(4),
        ScanDegradation(4, kernel="area"),
        ScanDegradation(4, noise=30, noise_growth=0.5, noise_cutoff=0.4),
    ]


def test_the_shipped_one_along_the_slices_has_both_factors_and_cubic_interpolation_with_its_means_set():
    protocol = read_any_protocol("chest_ct_throughplane")
    assert protocol.along_slices
    assert ([each.label for each in protocol.sets], protocol.scales) == (["LIDC-0314", "LIDC-0002"], (4, 2))
    assert {"bicubic", "bicubic_means"} < {row.key for row in protocol.rows}


def test_some_methods_keep_bicubic(tmp_path):
    path = write_text(tmp_path, rows=[BICUBIC, EDSR, {"method": "bilinear", "label": "Bilinear"}])
    assert [row.key for row in choose_protocols([path], ["bilinear"])[0].rows] == ["bicubic", "bilinear"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sets": None}, "films.yaml: lacks sets; a protocol states title, about, sets, losses, scales, rows, split"),
        ({"operator": "area_x4"}, "films.yaml: has the unknown operator; a protocol states"),
        ({"losses": []}, "films.yaml: losses is empty, expected at least one"),
        ({"losses": "ideal"}, "films.yaml: losses is 'ideal', expected list"),
        ({"scales": [1]}, r"films.yaml: scales is \[1\], expected whole numbers of at least 2"),
        ({"scales": [4, 4]}, "films.yaml: the scale 4 stands there twice. Keep one"),
        ({"modality": "MR"}, "films.yaml: modality is 'MR', expected one of CXR, CT"),
        ({"modality": "CT"}, "films.yaml, loss 2: has the unknown blur, jpeg_quality; a loss states label, kernel"),
        ({"unmodified": -1}, "films.yaml: unmodified is -1, expected at least 0"),
        ({"split": "sample"}, "films.yaml: split is 'sample', expected one of train, val, test"),
        ({"sets": ["drawn"]}, "films.yaml, set 1: is 'drawn', expected keys with values"),
        (
            {"sets": [{"label": "drawn"}]},
            "films.yaml, set 1: lacks folder; a set states label, folder, files, kernels, reduce",
        ),
        ({"sets": [SET, SET]}, "films.yaml: the set drawn stands there twice"),
        ({"sets": [{**SET, "reduce": 0}]}, "films.yaml, set 1: reduce is 0, expected at least 1"),
        ({"losses": [{"blur": 2}]}, "films.yaml, loss 1: lacks label; a loss states label, kernel, blur"),
        ({"losses": [{"label": "a", "haze": 1}]}, "films.yaml, loss 1: has the unknown haze; a loss states"),
        ({"losses": [{"label": "a"}, {"label": "a", "blur": 2}]}, "films.yaml: the loss a stands there twice"),
        ({"losses": [{"label": "a", "kernel": "magic"}]}, "loss 1: kernel is 'magic', expected one of bicubic_antial"),
        ({"losses": [{"label": "a", "noise": "much"}]}, "loss 1: noise is 'much', expected int or float"),
        ({"losses": [{"label": "a", "noise": -1}]}, "loss 1: noise is -1, expected at least 0"),
        ({"losses": [{"label": "a", "jpeg_quality": 100}]}, "jpeg_quality is 100, expected at least 0 and at most 97"),
        ({"losses": [{"label": "a", "sharpening_radius": 0}]}, "sharpening_radius is 0, expected at least 0.1"),
        *(
            (
                {"losses": [{"label": "means"}], "modality": "CT", "along_slices": True, **wrong},
                "films.yaml: averages sli",
            )
            for wrong in (
                {"modality": "CXR"},
                {"losses": [{"label": "a", "noise": 3}]},
                {"sets": [{**SET, "reduce": 2}]},
            )
        ),
        (
            {"rows": [BICUBIC, {"method": "bicubic_means", "label": "m"}]},
            "films.yaml: bicubic_means sets the means of th",
        ),
        ({"rows": [EDSR]}, "films.yaml: has no row bicubic, which every method is compared with"),
        ({"rows": [BICUBIC, EDSR, EDSR]}, "films.yaml: chest_xray_edsr_x4 stands in more than one row"),
        (
            {"rows": [BICUBIC, {**EDSR, "ceiling": True}]},
            "has seeds, ceiling or recalibrated_on, which a protocol with",
        ),
    ],
)
def test_a_wrong_text_is_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read_film_protocol(write_text(tmp_path, **changes))
