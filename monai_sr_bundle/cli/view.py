"""The page of `monai-sr view`: what must hold before it begins, and where its code lies.

The code is that of the Slicer extension: `slicer_extension` of a checkout, which a wheel carries inside the package.
It is imported here alone, because it needs the extra [web].
"""

from __future__ import annotations

import socket
import sys
from importlib import import_module
from pathlib import Path

from monai_sr_bundle.errors import SuperResolutionError
from monai_sr_bundle.images import files

HOST = "127.0.0.1"
"""This machine alone; a page for others would need more than a token."""


class PortError(SuperResolutionError):
    """The page cannot be served at the port that was asked for."""

    exit_code = 2


def extension_dir() -> Path:
    """The folder of the Slicer extension, whose library the page is a shell on."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "slicer_extension"
    return installed if installed.is_dir() else package.parent / "slicer_extension"


def view(image: Path | None, *, port: int = 0, browse: bool = True) -> None:
    """Serve the page on this machine until the process is interrupted.

    Args:
        image: to begin with; the person may open another.
        port: 0 for any that is free.
        browse: open the page in a browser.

    Raises:
        ModuleNotFoundError: the extra [web] is not installed.
        InputError: there is no image at that place.
        PortError: the port is in use, or not to be had.
        KeyboardInterrupt: the end.
    """
    check_port(port)
    if image is not None:
        with files.discover([image]):
            pass  # it is there; the page reads it
    import_module("trame_slicer")
    extension = extension_dir()
    sys.path[:0] = [str(extension / "web"), str(extension / "SuperResolution")]
    serve = import_module("SuperResolutionWeb.page_server").serve
    serve(image, HOST, port, browse)


def check_port(port: int) -> None:
    """Whether the page can be served at a port.

    Raises:
        PortError: it cannot.
    """
    if not 0 <= port < 65536:
        raise PortError(f"--port {port}: expected a number from 1 to 65535, or 0 for any that is free.")
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            tried.bind((HOST, port))
        except OSError as error:
            raise PortError(
                f"--port {port} cannot be had on this machine ({error.strerror}). Choose another one, or leave it out "
                "for any that is free."
            ) from error
