"""Run single steps of a training or a validation, with MONAI's engines around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai_sr_bundle.training.step import Objective, TrainingStep


def run_training_steps(
    network: torch.nn.Module,
    batches: Sequence[Any],
    step: Callable[..., Any] | Objective | None,
    optimizer: torch.optim.Optimizer | None = None,
    loss_function: Callable[..., Any] | None = None,
) -> list[Any]:
    """Take one step for each batch and return the outputs.

    Args:
        step: step that replaces MONAI's, if any, or the objective of one.
        optimizer: optimizer of the network. Default: one of learning rate 0.
    """
    optimizer = optimizer or torch.optim.SGD(network.parameters(), lr=0.0)
    step = TrainingStep(step) if isinstance(step, Objective) else step
    torch.manual_seed(5)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=1, train_data_loader=batches, network=network, optimizer=optimizer,
        loss_function=loss_function, iteration_update=step, decollate=False,
    )  # fmt: skip
    return run_engine(trainer)


def run_validation_steps(
    network: torch.nn.Module, batches: Sequence[Any], step: Callable[..., Any], inferer: Any = None
) -> list[Any]:
    """Validate each batch and return the outputs."""
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"), val_data_loader=batches, network=network, inferer=inferer, iteration_update=step,
        decollate=False,
    )  # fmt: skip
    return run_engine(evaluator)


def run_engine(engine: Engine) -> list[Any]:
    outputs: list[Any] = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: outputs.append(engine.state.output))
    engine.run()
    return outputs
