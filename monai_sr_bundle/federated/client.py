"""The trainer's process of a site: `python -m monai_sr_bundle.federated.client --task TASK --site FILE`.

`executor.TrainExecutor` starts it, and nothing else does. Each round, it takes the global weights, measures them,
trains, and sends the difference.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from monai_sr_bundle.errors import SuperResolutionError
from monai_sr_bundle.federated.messages import (
    BOX_FACTOR,
    BOXED_IMAGES,
    IMAGES,
    ITERATIONS,
    PROCESS_OF,
    SECONDS,
    TRAINER_ENDED,
)
from monai_sr_bundle.federated.site_settings import read_site_settings
from monai_sr_bundle.federated.training_task import TrainingTask
from nvflare import client as flare
from nvflare.apis.fl_constant import FLMetaKey
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Answer the server until the job is over, and end the process."""
    parser = argparse.ArgumentParser(description="the trainer of a site")
    parser.add_argument("--task", required=True, help="a TrainingTask in JSON")
    parser.add_argument("--site", type=Path, required=True, help="the site's settings")
    options = parser.parse_args(arguments)
    # First of all: a trainer that ends before it has reported ends the whole job, one that ends in a round only itself.
    flare.init()
    code = 0
    try:
        _answer_server(TrainingTask.from_text(options.task), options.site)
    except SuperResolutionError as error:
        logger.error("%s%s", TRAINER_ENDED, error)
        code = error.exit_code
    except Exception as error:
        logger.exception("%s%s: %s", TRAINER_ENDED, type(error).__name__, error)
        code = 1
    sys.stderr.flush()
    os._exit(code)  # NVFlare's threads would keep the process for seconds, or until its heartbeat is missed


def _answer_server(task: TrainingTask, settings_file: Path) -> None:
    from monai_sr_bundle.federated.site_training import SiteTraining  # seconds, in which the server prepares its model

    training = None
    while flare.is_running():
        global_model = flare.receive()
        if global_model is None:
            break
        rounds_before = global_model.current_round or 0
        if training is None:
            settings = read_site_settings(settings_file)
            output = settings.work / str(flare.get_job_id())
            training = SiteTraining(task, task.require_bundle(), settings, flare.get_site_name(), output, rounds_before)
        training.load(global_model.params, rounds_before)
        if flare.is_evaluate():
            flare.send(FLModel(metrics=training.validate(), meta={IMAGES: training.images}))
            continue
        result = training.run_round(rounds_before, (global_model.meta or {}).get(BOX_FACTOR, 1.0))
        meta = {
            FLMetaKey.NUM_STEPS_CURRENT_ROUND: result.images,  # what the server weighs by
            IMAGES: result.images,
            BOXED_IMAGES: result.boxed_images,
            ITERATIONS: result.iterations,
            SECONDS: result.seconds,
            PROCESS_OF: result.process,
            **result.privacy,
        }
        params = {key: value.numpy() for key, value in result.difference.items()}
        flare.send(FLModel(params_type=ParamsType.DIFF, params=params, metrics=result.metrics, meta=meta))


if __name__ == "__main__":
    main()
