"""Readings whose image has changed, or is gone, since they were drawn: they are left out, and a sentence says so.

The name of an image follows its path, and in a folder with several series their number. Another file under the same
name is another image, and boxes must never appear on it.
"""

from __future__ import annotations

from collections.abc import Sequence

from monai_sr_bundle.boxes.readings import ImageIdentity
from monai_sr_bundle.errors import InputError, OutOfMemoryError

from labelling.box_store import BoxStore, Version
from labelling.catalogue import Catalogue, check_identity
from labelling.errors import NotFoundError, RefusedError
from labelling.guard import without_paths

UNREADABLE = InputError, OutOfMemoryError
"""What an image raises that cannot be read; the second if its header asks for too much."""
MOST_SENTENCES = 20
"""Sentences that an answer holds, as its headers must not grow without end."""


def leave_out_changed(catalogue: Catalogue, image: str, versions: Sequence[Version]) -> tuple[list[Version], list[str]]:
    """Return the versions that were drawn on an image as it is now, and a sentence if others are left out.

    Raises:
        PacsError: the PACS does not answer.
    """
    if not versions:
        return [], []
    try:
        identity = catalogue.identity(image)
    except NotFoundError:
        return [], [say_missing(image)]
    except UNREADABLE as error:
        reason = without_paths(str(error))
        return [], [f"{image}: the image cannot be read now, so its readings are left out. {reason}"]
    same = [version for version in versions if is_drawn_on(version, identity)]
    changed = len(versions) - len(same)
    if not changed:
        return same, []
    return same, [
        f"{image}: the files of this image are not those that its readings were drawn on, so {changed} of "
        f"{len(versions)} readings are left out. Put the former files back, and give the new ones another name."
    ]


def is_drawn_on(version: Version, identity: ImageIdentity) -> bool:
    """Return whether a version was drawn on the image of this identity; True of one whose content was deleted."""
    if version.reading is None:
        return True
    try:
        check_identity(version.reading.image, identity)
    except RefusedError:
        return False
    return True


def say_missing(image: str) -> str:
    """Return the sentence on an image that has readings and is not on the server."""
    return (
        f"{image}: this image is not on the server any more, so its readings are left out. Put its files back as they "
        "were: another name or folder, or a second series in its folder, changes the name of an image."
    )


def find_problem(catalogue: Catalogue, store: BoxStore, image: str) -> str:
    """Return why an image is not to be read now: it cannot be read, or has readings of other files; else nothing.

    Raises:
        NotFoundError, PacsError: see `Catalogue.identity`.
    """
    try:
        catalogue.identity(image)
    except UNREADABLE as error:
        return f"{image}: the image cannot be read. {without_paths(str(error))}"
    return " ".join(leave_out_changed(catalogue, image, store.current(image))[1])


def shortened(sentences: Sequence[str]) -> list[str]:
    """Return the first `MOST_SENTENCES` different sentences, and how many more there are."""
    different = list(dict.fromkeys(sentences))
    more = len(different) - MOST_SENTENCES
    return [*different[:MOST_SENTENCES], *([f"{more} more sentences like these are not listed."] if more > 0 else [])]
