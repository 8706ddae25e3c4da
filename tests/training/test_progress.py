import csv

import pytest
import torch
from ignite.engine import Engine
from monai_sr_bundle.training.budget import Budget
from monai_sr_bundle.training.progress import ProgressBar, ValidationLog


@pytest.fixture
def budget():
    return Budget(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), minutes=0.5)


def test_the_bar_shows_loss_and_images_per_second(budget, capsys):
    def step(engine, batch):
        budget.spent_seconds += 1.0
        return {"image": torch.zeros(8, 1, 4, 4), "loss": torch.tensor(0.125)}

    engine = Engine(step)
    ProgressBar(budget).attach(engine)
    engine.run(range(30))
    line = capsys.readouterr().err
    assert "loss=0.1250" in line
    assert "images=8/s" in line
    assert "100%" in line


def test_the_bar_does_not_swallow_an_error(budget):
    def step(engine, batch):
        raise KeyError("lost")

    engine = Engine(step)
    ProgressBar(budget).attach(engine)
    with pytest.raises(KeyError, match="lost"):
        engine.run(range(3))


def test_each_validation_is_a_line_of_the_log(budget, tmp_path):
    path = tmp_path / "run" / "validation.csv"
    for psnr in (31.5, 32.25):
        engine = Engine(lambda engine, batch: None)
        ValidationLog(str(path), budget).attach(engine)
        engine.state.metrics["psnr"] = psnr
        budget.spent_seconds += 90
        budget.iterations += 100
        engine.run(range(1))
    with path.open() as file:
        assert list(csv.reader(file)) == [
            ["minutes", "iteration", "metric", "value"],
            ["1.50", "100", "psnr", "31.50000"],
            ["3.00", "200", "psnr", "32.25000"],
        ]
