"""The training task of every site of a study: the only values that a job may bring to a site, each within bounds."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass

from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.federated.check_bundle import check_bundle
from monai_sr_bundle.shipped_bundles import find_bundle

ALGORITHMS = ("fedavg", "fedprox")
_BOUNDS: dict[str, tuple[float, float]] = {
    "rounds": (1, 200), "iterations": (1, 100_000), "epochs": (0.01, 1000), "mu": (0, 10), "seed": (0, 2**31 - 1),
    "batch_size": (1, 256), "patch_size": (8, 512), "learning_rate": (1e-7, 1e-1), "box_weight": (0, 100),
    "private_noise": (0.1, 1000), "private_clip": (1e-6, 1e6),
}  # fmt: skip


@dataclass(frozen=True)
class TrainingTask:
    """The training of a site in a study.

    Attributes:
        bundle: name of a bundle that is installed at the sites.
        bundle_sha256: `bundle_sha256` of it and the stage; a site that has another one refuses.
        rounds: rounds of the whole study; the learning rate rises and falls over all of them.
        stage: stage of the bundle's training. Default: the first.
        iterations, epochs: length of a round at a site, one of them.
        algorithm: "fedavg", or "fedprox", which holds a site's weights near those that arrived.
        mu: strength of that, above 0 for "fedprox".
        local_normalisation: sites keep their layers of batch normalisation for themselves. Default False.
        batch_size, patch_size, learning_rate, box_weight: keys of the bundle's training. Default: the bundle's.
        seed: seed of patches; every site has its own in every job, made of this one, its name and the rounds that the
            study has done. Default 0.
        private_noise, private_clip: noise multiplier and clip of DP-SGD, both or none. Every site pays for it from its
            own privacy budget. A site that has one lets no difference leave without noise. Default: none.

    Raises:
        InputError: a value of another kind or out of bounds, named with its bounds.
    """

    bundle: str
    bundle_sha256: str
    rounds: int
    stage: str | None = None
    iterations: int | None = None
    epochs: float | None = None
    algorithm: str = "fedavg"
    mu: float = 0.0
    local_normalisation: bool = False
    batch_size: int | None = None
    patch_size: int | None = None
    learning_rate: float | None = None
    box_weight: float | None = None
    seed: int = 0
    private_noise: float | None = None
    private_clip: float | None = None

    def __post_init__(self) -> None:
        # A name and not a folder: a job chooses among what a site has installed.
        if not isinstance(self.bundle, str) or not re.fullmatch(r"[a-z0-9_]+(:[a-z0-9_]+)?", self.bundle):
            raise InputError(f"bundle is {self.bundle!r}, expected the name of an installed bundle. Correct the study.")
        if not isinstance(self.bundle_sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", self.bundle_sha256):
            raise InputError(f"bundle_sha256 is {self.bundle_sha256!r}, expected 64 hexadecimal digits in quotes.")
        if self.stage is not None and not (isinstance(self.stage, str) and re.fullmatch(r"[a-z_]+", self.stage)):
            raise InputError(f"stage is {self.stage!r}, expected the name of a stage. Correct the study.")
        if self.algorithm not in ALGORITHMS:
            raise InputError(f"algorithm is {self.algorithm!r}, expected {' or '.join(ALGORITHMS)}.")
        if type(self.local_normalisation) is not bool:
            raise InputError(f"local_normalisation is {self.local_normalisation!r}, expected true or false.")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in _BOUNDS or (value is None and field.default is None):
                continue
            least, greatest = _BOUNDS[field.name]
            is_whole = str(field.type).startswith("int")
            kinds = (int,) if is_whole else (int, float)
            if type(value) not in kinds or not math.isfinite(value) or not least <= value <= greatest:
                kind = "a whole number" if is_whole else "a number"
                raise InputError(f"{field.name} is {value!r}, expected {kind} from {least:g} to {greatest:g}.")
        if (self.private_noise is None) != (self.private_clip is None):
            raise InputError("DP-SGD needs both private_noise and private_clip; state both, or none.")
        if (self.iterations is None) == (self.epochs is None):
            raise InputError("a round's length is given by iterations or by epochs; state exactly one of them.")
        if (self.algorithm == "fedprox") != (self.mu > 0):
            raise InputError(
                f"mu is {self.mu:g} with algorithm {self.algorithm}, expected a number above 0 for fedprox and 0 for "
                "fedavg."
            )

    def as_text(self) -> str:
        """Return the task as one line of JSON, as the trainer's process gets it."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> TrainingTask:
        """Read what `as_text` wrote.

        Raises:
            InputError: no such text, or see the class.
        """
        try:
            return cls(**json.loads(text))
        except (TypeError, json.JSONDecodeError) as error:
            raise InputError(f"the training task cannot be read ({error}).") from error

    def require_bundle(self) -> Bundle:
        """Return the installed bundle.

        Raises:
            BundleError: no such bundle or stage, another one than the study's, or one with code in its texts.
        """
        bundle = find_bundle(self.bundle)
        check_bundle(bundle, self.stage, self.bundle_sha256)
        return bundle
