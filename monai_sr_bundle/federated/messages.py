"""Names of the values that travel between server and sites. No others may leave a site: see `filters`."""

from __future__ import annotations

from typing import Any

import numpy as np

GLOBAL_MODEL = "FL_global_model.pt"
"""The global model, as NVFlare names it, in the result of a job."""
ROUNDS_FILE = "rounds.json"
"""File beside it with what happened in every round."""
IMAGES = "images"
"""Number of a site's training images."""
BOXED_IMAGES = "boxed_images"
"""Number of a site's training images with boxes."""
ITERATIONS = "iterations"
"""Steps of the optimizer in a round."""
SECONDS = "seconds"
"""Length of a round."""
PROCESS_OF = "process"
"""Fingerprint of the process of a diffusion model or flow."""
BOX_FACTOR = "box_factor"
"""Factor of the loss inside boxes at a site that has some."""
EPSILON, DELTA, SAMPLE_RATE = "epsilon", "delta", "sample_rate"
"""Privacy that a site has spent in all, and the probability with which a patient took part in a step of this round."""

METRICS = (
    "val_psnr",
    "val_psnr_box",
    "val_loss",
    "val_feature_distance",
    "val_log_spectral_distance",
    "val_texture_psnr",
)
"""Figures of the weights that arrived: means over all validation images of a site."""
CALIBRATION_NUMBERS, CALIBRATION_CURVE = ("images", "patients", "cases", "scale_sum"), "loss_sum"
"""Values of a calibration: numbers, and a sum over the patients for every candidate factor."""
LEAST_PATIENTS_OF_SITE = 5
"""Least number of patients in such a sum."""
TRAINER_ENDED = "the trainer has ended: "
"""Words before the reason in a site's own log, which is not sent."""


def same_process(first: Any, second: Any) -> bool:
    """Return whether two fingerprints are of one process, whose numbers processors round in different ways."""
    try:
        one, other = (np.asarray(each, dtype=np.float64) for each in (first, second))
    except (TypeError, ValueError):  # a message may hold anything
        return False
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=1e-4, atol=1e-7))
