"""The ledger of a site's privacy budget: all that has left it, over all rounds and jobs, and what may still leave.

Epsilon is that of Rényi differential privacy (Mironov, CSF 2017, https://arxiv.org/abs/1702.07476; with sampling,
Mironov, Talwar and Zhang, 2019, https://arxiv.org/abs/1908.10530), computed by Opacus.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock
from monai_sr_bundle.errors import InputError, OutputError, SuperResolutionError
from monai_sr_bundle.federated.site_settings import SiteSettings


class BudgetSpentError(SuperResolutionError):
    """The next release would exceed the site's privacy budget."""


@dataclass(frozen=True)
class Release:
    """A release of noisy numbers from a site, past or next.

    Attributes:
        noise_multiplier: standard deviation of the noise in units of how far one patient can move what is released.
        sample_rate: probability with which a patient takes part in a step; 1 for all patients.
        steps: number of such steps.
        job, time: job and time of the release, for a reader of the ledger; they change no number.
    """

    noise_multiplier: float
    sample_rate: float = 1.0
    steps: int = 1
    job: str = ""
    time: str = ""

    def __post_init__(self) -> None:
        if not (
            0 < self.noise_multiplier < math.inf
            and 0 < self.sample_rate <= 1
            and isinstance(self.steps, int)
            and self.steps > 0
        ):
            raise InputError(
                f"a release with noise multiplier {self.noise_multiplier}, sampling rate {self.sample_rate} and "
                f"{self.steps} steps has no epsilon; expected noise above 0, a rate up to 1 and at least one step."
            )


def compute_epsilon(releases: Iterable[Release], delta: float) -> float:
    """Return the epsilon of several releases together, at a delta."""
    from opacus.accountants import RDPAccountant  # takes seconds to import

    accountant = RDPAccountant()
    accountant.history = [(each.noise_multiplier, each.sample_rate, each.steps) for each in releases]
    return float(accountant.get_epsilon(delta))


def require_ledger(settings: SiteSettings) -> Ledger:
    """Return the ledger of a site.

    Raises:
        InputError: the site has no privacy budget, or an impossible one.
    """
    if settings.ledger is None or settings.epsilon is None or settings.delta is None:
        raise InputError(
            "this site has no privacy budget, and nothing that spends one may run here. Pass "
            "--budget EPSILON DELTA to `monai-sr federated join`, or leave the study."
        )
    return Ledger(settings.ledger, settings.epsilon, settings.delta)


class Ledger:
    """The releases of a site in a file, one JSON line each, and the budget that they may not exceed.

    Whoever releases something calls `spend` first; if that raises, nothing may leave. The file belongs to the patients
    of a site, not to a job: delete it and the promise to them is gone.

    Args:
        path: the file; made with the first release, in a folder that exists.
        epsilon, delta: the budget of each patient.
    """

    def __init__(self, path: Path, epsilon: float, delta: float) -> None:
        if not (0 < epsilon < math.inf and 0 < delta < 1):
            raise InputError(
                f"the privacy budget is epsilon {epsilon:g} and delta {delta:g}, expected epsilon above 0 and delta "
                "between 0 and 1, well below one in the number of patients."
            )
        self.path, self.epsilon, self.delta = path, epsilon, delta

    def read(self) -> list[Release]:
        """Return all releases so far.

        Raises:
            InputError: the file cannot be read as a ledger.
        """
        try:
            text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
            if text and not text.endswith("\n"):
                raise ValueError("its last line is cut off")
            return [Release(**json.loads(line)) for line in text.splitlines()]
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"{self.path}: cannot be read as a privacy ledger ({' '.join(str(error).split())}). Nothing leaves the "
                "site without it: restore it from the backup."
            ) from error

    def spend(self, release: Release) -> float:
        """Write down a release before it happens, and return the epsilon that is spent with it.

        Raises:
            BudgetSpentError: it would exceed the budget; nothing was written.
            InputError, OutputError: the ledger cannot be read or written.
        """
        try:
            if not self.path.parent.is_dir():
                raise FileNotFoundError(f"there is no folder {self.path.parent}")
            with FileLock(f"{self.path}.lock", timeout=60):
                epsilon = compute_epsilon([*self.read(), release], self.delta)
                if not epsilon <= self.epsilon:
                    raise BudgetSpentError(
                        f"{self.path}: epsilon would be {epsilon:.3g} with the next release, and the budget of this "
                        f"site is {self.epsilon:g} (delta {self.delta:g}). Nothing more leaves it."
                    )
                self._append({**asdict(release), "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
        except OSError as error:  # that of a lock that is taken, too
            raise OutputError(
                f"{self.path}: the privacy ledger cannot be written ({error}). Nothing leaves the site without it: "
                "make its folder writable."
            ) from error
        return epsilon

    def _append(self, line: dict[str, object]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(line)}\n")
            file.flush()
            os.fsync(file.fileno())
