"""The errors a user can meet, one class per exit code of `monai-sr`.

A message names the file, what was found, what was expected and what to do next.
"""


class SuperResolutionError(Exception):
    """Anything the user can act on; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(SuperResolutionError, ValueError):
    """The input cannot be read, or reading it on would be dishonest."""

    exit_code = 3


class BundleError(SuperResolutionError):
    """The bundle is unknown, broken, or made for something else."""

    exit_code = 4


class OutputError(SuperResolutionError, OSError):
    """The result cannot be written; nothing half-written is left behind."""

    exit_code = 5


class OutOfMemoryError(SuperResolutionError, MemoryError):
    """Even the smallest tile does not fit into memory."""

    exit_code = 6
