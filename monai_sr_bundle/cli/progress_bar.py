"""A progress bar for commands that count images or results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(
    description: str, unit: str = "image", *, enabled: bool = True
) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar while the block runs.

    Args:
        description: word in front of the bar.
        unit: name of the counted items. Default "image".
        enabled: show the bar. Default True.

    Yields:
        A function of the number that is done and the total, which moves the bar.
    """
    from tqdm import tqdm

    with tqdm(desc=description, unit=unit, disable=not enabled) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update
