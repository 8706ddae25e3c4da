"""Find the checkpoint a stopped training run goes on from."""

from __future__ import annotations

from pathlib import Path

from monai_sr_bundle.errors import InputError


def latest_checkpoint(output_dir: str) -> str:
    """The newest checkpoint with everything needed to go on: written at the end, at an interrupt, or at an interval.

    Raises:
        InputError: the folder holds none.
    """
    folder = Path(output_dir)
    found = sorted([*folder.glob("last.pt"), *folder.glob("checkpoint_*.pt")], key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError(
            f"{folder}: no checkpoint to resume from, expected last.pt or checkpoint_*.pt. "
            "Train without --resume first, or pass the folder of the run to go on with."
        )
    return str(found[-1])
