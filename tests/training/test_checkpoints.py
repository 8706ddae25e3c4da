import os

import pytest
import torch
from ignite.engine import Engine, Events
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.training.progress import AtomicCheckpointSaver, BestWeights
from monai_sr_bundle.training.weights import latest_checkpoint


class _Budget:
    spent_seconds, iterations = 60.0, 10


def validated(folder, values, *, resume=False, lower=False):
    """Validate weights of 1, 2, ... that reach `values`; what is kept."""
    from monai_sr_bundle.training.progress import ValidationLog

    weights = torch.nn.Linear(1, 1, bias=False)
    engine = Engine(lambda engine, batch: None)
    BestWeights(str(folder), {"model": weights}, resume, lower).attach(engine)
    ValidationLog(str(folder / "validation.csv"), _Budget()).attach(engine)
    engine.state.key_metric_name = "figure"
    for number, value in enumerate(values, start=1):
        torch.nn.init.constant_(weights.weight, number + (100 if resume else 0))

        def measured(engine, value=value):
            engine.state.metrics = {"other": -value, "figure": value}

        with engine.add_event_handler(Events.EPOCH_STARTED, measured):
            engine.run([0], max_epochs=1)
    return float(torch.load(folder / "model.pt", weights_only=True)["weight"])


@pytest.mark.parametrize(("lower", "best"), [(False, 2), (True, 3)])
def test_the_best_weights_of_a_run_are_kept(tmp_path, lower, best):
    assert validated(tmp_path, [3.0, 5.0, 1.0], lower=lower) == best


@pytest.mark.parametrize(
    ("lower", "later", "best"), [(False, 4.9, 2), (False, 5.1, 101), (True, 1.1, 3), (True, 0.9, 101)]
)
def test_a_resumed_run_replaces_them_only_by_better_ones(tmp_path, lower, later, best):
    validated(tmp_path, [3.0, 5.0, 1.0], lower=lower)
    assert validated(tmp_path, [later], resume=True, lower=lower) == best


@pytest.mark.parametrize("lower", [False, True])
def test_a_validation_without_a_number_is_replaced_by_any_other(tmp_path, lower):
    assert validated(tmp_path, [float("nan"), 3.0, 2.9 if not lower else 3.1], lower=lower) == 2
    assert validated(tmp_path, [3.5 if not lower else 2.5], resume=True, lower=lower) == 101


def test_a_run_that_is_not_resumed_knows_nothing_of_an_older_one(tmp_path):
    validated(tmp_path, [3.0])
    assert validated(tmp_path, [1.0]) == 1
    assert validated(tmp_path / "empty", [1.0], resume=True) == 101


@pytest.mark.parametrize(("iterations", "is_left"), [(0, False), (10, True)])
def test_a_training_from_its_beginning_drops_the_log_of_an_earlier_one(tmp_path, iterations, is_left):
    (tmp_path / "validation.csv").write_text("minutes,iteration,metric,value\n1,10,figure,99\n")
    budget = torch.nn.Linear(1, 1)
    budget.iterations = iterations
    engine = Engine(lambda engine, batch: None)
    options = {"save_final": True, "final_filename": "last.pt"}
    AtomicCheckpointSaver(str(tmp_path), {"budget": budget}, **options).attach(engine)
    engine.run([0], max_epochs=1)
    assert (tmp_path / "validation.csv").is_file() == is_left


def test_the_checkpoint_of_the_most_iterations_is_resumed_whatever_its_time(tmp_path):
    for iterations, name in ((10, "checkpoint_epoch=10.pt"), (7, "last.pt"), (5, "checkpoint_epoch=5.pt")):
        torch.save({"budget": {"iterations": iterations}}, tmp_path / name)
        os.utime(tmp_path / name, (1000 - iterations, 1000 - iterations))
    assert latest_checkpoint(str(tmp_path)).endswith("checkpoint_epoch=10.pt")


def test_nothing_to_resume_says_what_was_expected(tmp_path):
    with pytest.raises(InputError, match=r"expected last.pt or checkpoint_\*.pt. Train without --resume first"):
        latest_checkpoint(str(tmp_path))


def checkpointed(folder, engine, what):
    """Have an engine save `what` in every epoch and at its end."""
    both = {"what": what, "other": torch.nn.Linear(1, 1)}
    options = {"save_interval": 1, "n_saved": 1, "save_final": True, "final_filename": "last.pt"}
    AtomicCheckpointSaver(str(folder), both, **options).attach(engine)


def saved(path):
    return float(torch.load(path, weights_only=True)["what"]["weight"])


def test_a_checkpoint_goes_only_when_the_next_one_is_complete(tmp_path):
    weights = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(weights.weight)
    engine = Engine(lambda engine, batch: None)
    checkpointed(tmp_path, engine, weights)

    @engine.on(Events.EPOCH_STARTED)
    def count(engine):
        torch.nn.init.constant_(weights.weight, engine.state.epoch)
        if engine.state.epoch == 3:
            weights.register_state_dict_post_hook(lambda module, state, *_: state.update(of_no_file=lambda: None))

    with pytest.raises(AttributeError, match="pickle"):
        engine.run([0], max_epochs=3)
    assert {path.name: saved(path) for path in tmp_path.iterdir()} == {"checkpoint_epoch=2.pt": 2.0, "last.pt": 0.0}


def test_the_checkpoint_of_a_killed_run_goes_when_the_next_one_is_complete(tmp_path):
    (tmp_path / "checkpoint_epoch=7.pt").touch()
    engine = Engine(lambda engine, batch: None)
    checkpointed(tmp_path, engine, torch.nn.Linear(1, 1, bias=False))
    engine.run([0], max_epochs=2)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint_epoch=2.pt", "last.pt"}


def test_a_run_can_be_resumed_from_its_start_on(tmp_path):
    engine = Engine(lambda engine, batch: latest_checkpoint(str(tmp_path)))
    checkpointed(tmp_path, engine, torch.nn.Linear(1, 1, bias=False))
    engine.run([0], max_epochs=1)
    assert engine.state.output == str(tmp_path / "last.pt")


def test_the_checkpoint_of_another_run_is_not_taken_for_the_first_of_this_one(tmp_path):
    weights = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(weights.weight, 5)
    torch.save({"what": {"weight": torch.tensor([[9.0]])}}, tmp_path / "last.pt")
    engine = Engine(lambda engine, batch: saved(tmp_path / "last.pt"))
    checkpointed(tmp_path, engine, weights)
    engine.run([0], max_epochs=1)
    assert engine.state.output == 5.0


def test_the_best_weights_leave_the_numbered_checkpoints_alone(tmp_path):
    (tmp_path / "checkpoint_epoch=7.pt").touch()
    engine = Engine(lambda engine, batch: None)
    options = {"save_key_metric": True, "key_metric_name": "figure"}
    AtomicCheckpointSaver(str(tmp_path), {"what": torch.nn.Linear(1, 1)}, **options).attach(engine)
    engine.state.metrics = {"figure": 1.0}
    engine.run([0], max_epochs=1)
    assert {path.name for path in tmp_path.iterdir()} > {"checkpoint_epoch=7.pt"}
