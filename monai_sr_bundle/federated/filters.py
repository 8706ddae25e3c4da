"""Filters of a site: nothing leaves but listed numbers, and a difference of weights only clipped and with noise.

They stand in the site's privacy.json, where no job can take them out:

    {"scopes": [{"name": "site", "task_result_filters": [{"path": "monai_sr_bundle.federated.filters.ClipAndNoise",
     "args": {"bundle": "chest_xray_srcnn_x4", "clip": 1.0, "noise_multiplier": 4.0}}]}], "default_scope": "site"}

It has one scope alone: of several, the job would choose. Ledger and budget stand in the site's settings.
"""

from __future__ import annotations

import math
import secrets
from numbers import Real
from typing import Any

import numpy as np
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.federated.image_statistics import list_statistics
from monai_sr_bundle.federated.ledger import Release, require_ledger
from monai_sr_bundle.federated.messages import (
    BOXED_IMAGES,
    CALIBRATION_CURVE,
    CALIBRATION_NUMBERS,
    DELTA,
    EPSILON,
    IMAGES,
    ITERATIONS,
    LEAST_PATIENTS_OF_SITE,
    METRICS,
    PROCESS_OF,
    SAMPLE_RATE,
    SECONDS,
    same_process,
)
from monai_sr_bundle.federated.site_settings import read_site_settings, site_settings_file
from monai_sr_bundle.federated.weight_arrays import read_arrays
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.uncertainty.conformal import FACTORS
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.filter import Filter
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_common.app_constant import AppConstants

HEADERS = (AppConstants.CURRENT_ROUND, AppConstants.NUM_ROUNDS)
"""Numbers of a message's header that may leave."""
META = (MetaKey.NUM_STEPS_CURRENT_ROUND, IMAGES, BOXED_IMAGES, ITERATIONS, SECONDS, EPSILON, DELTA, SAMPLE_RATE)
"""Numbers beside a difference that may leave."""


class RefusedMessageError(InputError):
    """A message that may not leave the site. The text says what is wrong with it, and never what it holds."""


class ListedOnly(Filter):
    """Lets a site's answer leave only if all of it is on a list of (kind, key, type, shape); else nothing leaves.

    What leaves is written anew from the list, so that nothing hides beside it: a difference of weights (WEIGHT_DIFF)
    with the bundle's names and shapes as float32; the figures `METRICS`; sums and counts of a calibration (ANALYTIC);
    histograms of a site's images (STATISTICS); `META` and `HEADERS`. Of a failure, its code alone.

    Where the site has a privacy budget, a difference leaves only if its training was paid for.

    Args:
        bundle: shipped bundle whose weights the site trains, or its folder.
    """

    def __init__(self, bundle: str) -> None:
        super().__init__()
        weights = read_arrays(find_bundle(bundle).weights("model.pt")[0])
        self._shapes = {key: value.shape for key, value in weights.items() if value.dtype.kind == "f"}
        self._fingerprint = [float(value) for value in weights[PROCESS_OF]] if PROCESS_OF in weights else []

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """Return the answer written anew.

        Raises:
            RefusedMessageError: something is not on the list. NVFlare then sends TASK_RESULT_FILTER_ERROR alone.
        """
        code = shareable.get_return_code()
        if code != ReturnCode.OK:
            return make_reply(code if code in vars(ReturnCode).values() else ReturnCode.ERROR)
        try:
            dxo = from_shareable(shareable)
        except ValueError as error:
            raise RefusedMessageError("the answer is no DXO; expected one.") from error
        listed = self.release(DXO(dxo.data_kind, self._listed_data(dxo), self._listed_meta(dxo)), fl_ctx)
        answer = listed.to_shareable()
        answer.set_return_code(ReturnCode.OK)
        for name in HEADERS:
            if shareable.get_header(name) is not None:
                answer.set_header(name, _number(name, shareable.get_header(name)))
        return answer

    def release(self, dxo: DXO, fl_ctx: FLContext) -> DXO:
        """Return the part that leaves of a message whose parts are all on the list.

        Raises:
            RefusedMessageError: a difference that was trained without noise, at a site with a privacy budget.
            InputError: the site's settings cannot be read.
        """
        is_free = dxo.data_kind == DataKind.WEIGHT_DIFF and EPSILON not in dxo.meta  # the trainer states what it paid
        if is_free and read_site_settings(site_settings_file(fl_ctx)).ledger is not None:
            raise RefusedMessageError(
                "this site has a privacy budget, and the study trains without noise. No difference leaves it."
            )
        return dxo

    def _listed_data(self, dxo: DXO) -> dict[str, Any]:
        if not isinstance(dxo.data, dict) or not dxo.data:
            raise RefusedMessageError("the answer is without content; expected names and numbers.")
        if dxo.data_kind == DataKind.WEIGHT_DIFF:
            return {key: _difference(key, value, self._shapes) for key, value in dxo.data.items()}
        if dxo.data_kind == DataKind.METRICS:
            return _numbers(dxo.data, METRICS)
        if dxo.data_kind == DataKind.ANALYTIC:
            return _calibration(dxo.data)
        if dxo.data_kind == DataKind.STATISTICS:
            try:
                return list_statistics(dxo.data)
            except (TypeError, ValueError, AttributeError) as error:
                raise RefusedMessageError("statistics hold something that is not listed.") from error
        kind = dxo.data_kind.value if isinstance(dxo.data_kind, DataKind) else "of an unknown kind"
        raise RefusedMessageError(
            f"the answer is {kind}, expected {DataKind.WEIGHT_DIFF.value}, {DataKind.METRICS.value} or "
            f"{DataKind.ANALYTIC.value}. Whole weights never leave the site: let the client send differences."
        )

    def _listed_meta(self, dxo: DXO) -> dict[str, Any]:
        meta = {key: value for key, value in dxo.meta.items() if key not in (MetaKey.INITIAL_METRICS, PROCESS_OF)}
        listed: dict[str, Any] = _numbers(meta, META)
        if dxo.meta.get(PROCESS_OF):
            untrained = [0.0] * len(self._fingerprint)
            matching = [each for each in (self._fingerprint, untrained) if same_process(dxo.meta[PROCESS_OF], each)]
            if not matching:
                raise RefusedMessageError("the fingerprint of a process is another one than the bundle's.")
            listed[PROCESS_OF] = matching[0]  # the bundle's own numbers leave, not the site's
        if dxo.meta.get(MetaKey.INITIAL_METRICS):
            listed[MetaKey.INITIAL_METRICS] = _numbers(dxo.meta[MetaKey.INITIAL_METRICS], METRICS)
        return listed


class ClipAndNoise(ListedOnly):
    """Clips the whole difference of weights to an L2 norm and adds Gaussian noise, within the site's privacy budget.

    The Gaussian mechanism on what a round gives away (McMahan et al., ICLR 2018, https://arxiv.org/abs/1710.06963), at
    the site, so that the server need not be trusted. Two clipped differences lie at most ``2 * clip`` apart, whatever
    changes in the site's data: so far one patient can move the release. That, and not `clip`, is what the ledger counts
    with.

    Args:
        bundle: see `ListedOnly`.
        clip: largest L2 norm of a difference over all its weights.
        noise_multiplier: standard deviation of the noise of every weight, in units of `clip`.

    Raises:
        InputError: a clip or noise that is not above 0.
    """

    def __init__(self, bundle: str, clip: float, noise_multiplier: float) -> None:
        super().__init__(bundle)
        if not (0 < clip < math.inf and 0 < noise_multiplier < math.inf):
            raise InputError(f"clip is {clip:g} and noise_multiplier {noise_multiplier:g}, expected numbers above 0.")
        self._clip, self._noise_multiplier = clip, noise_multiplier

    def release(self, dxo: DXO, fl_ctx: FLContext) -> DXO:
        """Clip a difference and add noise to it; other messages hold no weights and leave as they are.

        Raises:
            BudgetSpentError, InputError, OutputError: see `require_ledger` and `Ledger.spend`.
        """
        if dxo.data_kind != DataKind.WEIGHT_DIFF:
            return dxo
        norm = math.sqrt(sum(float(np.square(value, dtype=np.float64).sum()) for value in dxo.data.values()))
        ledger = require_ledger(read_site_settings(site_settings_file(fl_ctx)))
        epsilon = ledger.spend(Release(self._noise_multiplier / 2, job=str(fl_ctx.get_job_id())))
        generator = np.random.default_rng(secrets.randbits(128))  # a seed that the study knows would undo the noise
        factor, deviation = min(1.0, self._clip / norm) if norm else 1.0, self._noise_multiplier * self._clip
        data = {
            key: (factor * value.astype(np.float64) + deviation * generator.standard_normal(value.shape)).astype(
                np.float32
            )
            for key, value in dxo.data.items()
        }
        self.log_info(fl_ctx, f"clipped by {factor:.3g}, noise {deviation:.3g}; epsilon so far: {epsilon:.3g}")
        return DXO(dxo.data_kind, data, {**dxo.meta, EPSILON: epsilon, DELTA: ledger.delta})


def _difference(key: str, value: Any, shapes: dict[str, tuple[int, ...]]) -> np.ndarray:
    if key not in shapes:
        raise RefusedMessageError(f"a difference holds an unlisted name among its {len(shapes)} weights.")
    kind = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else "no array"
    if kind != f"float32 {shapes[key]}":
        raise RefusedMessageError(f"{key} is {kind}, expected float32 {shapes[key]}.")
    if not np.isfinite(value).all():
        raise RefusedMessageError(f"{key} holds values that are not finite.")
    return value


def _number(name: str, value: Any) -> float | int:
    number = value.item() if isinstance(value, np.generic) else value
    if isinstance(number, bool) or not isinstance(number, Real) or not math.isfinite(number):
        raise RefusedMessageError(f"{name} is no finite number.")
    return int(number) if isinstance(number, int) else float(number)


def _numbers(values: Any, names: tuple[str, ...]) -> dict[str, float | int]:
    if not isinstance(values, dict) or not set(values) <= set(names):
        raise RefusedMessageError(f"an answer holds an unlisted name, expected {', '.join(names)}.")
    return {name: _number(name, value) for name, value in values.items()}


def _calibration(strata: dict[str, Any]) -> dict[str, Any]:
    listed: dict[str, Any] = {}
    for number, (stratum, values) in enumerate(strata.items()):
        if (
            stratum != str(number)
            or not isinstance(values, dict)
            or set(values) != {*CALIBRATION_NUMBERS, CALIBRATION_CURVE}
        ):
            raise RefusedMessageError("a calibration holds unlisted names.")
        numbers = {name: _number(name, values[name]) for name in CALIBRATION_NUMBERS}
        if numbers["patients"] < LEAST_PATIENTS_OF_SITE:
            raise RefusedMessageError(
                f"a calibration is of {numbers['patients']} patients, expected at least {LEAST_PATIENTS_OF_SITE}: the "
                "curve of fewer says too much about each."
            )
        curve = values[CALIBRATION_CURVE]
        if not isinstance(curve, np.ndarray) or curve.dtype != np.float64 or curve.shape != FACTORS.shape:
            raise RefusedMessageError(f"{CALIBRATION_CURVE} is no float64 {FACTORS.shape}.")
        listed[stratum] = {**numbers, CALIBRATION_CURVE: curve}
    return listed
