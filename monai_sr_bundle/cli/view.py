"""`monai-sr view`: check what the page needs, and serve it on this machine.

The code of the page is that of the Slicer extension: `slicer_extension` of a checkout, which a wheel carries inside the
package. It is imported here alone, because it needs the extra [web].
"""

from __future__ import annotations

import argparse
import socket
import sys
from importlib import import_module
from pathlib import Path

from monai_sr_bundle.cli.exit_codes import Terminated
from monai_sr_bundle.errors import SuperResolutionError

HOST = "127.0.0.1"
"""This machine alone; a page for others would need more than a token."""


class PortError(SuperResolutionError):
    """A port at which the page cannot be served."""

    exit_code = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr view`."""
    parser.add_argument(
        "image", nargs="?", type=Path, metavar="IMAGE", help="DICOM file, folder or zip, NIfTI, PNG, JPEG, TIFF"
    )
    parser.add_argument("--port", type=int, default=0, metavar="N", help=f"port of {HOST} (default: any free one)")
    parser.add_argument("--no-browser", action="store_true", help="print the address and open no browser")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run `monai-sr view` and return its exit code."""
    try:
        view(options.image, port=options.port, browse=not options.no_browser)
    except Terminated:
        raise
    except KeyboardInterrupt:
        print("\nThe page is closed.")
    return 0


def extension_dir() -> Path:
    """Return the folder of the Slicer extension, whose library the page uses."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "slicer_extension"
    return installed if installed.is_dir() else package.parent / "slicer_extension"


def view(image: Path | None, *, port: int = 0, browse: bool = True) -> None:
    """Serve the page on this machine until the process is interrupted.

    Args:
        image: image to begin with; the user may open another.
        port: port to serve at; 0 for any free one. Default 0.
        browse: open the page in a browser. Default True.

    Raises:
        ModuleNotFoundError: the extra [web] is not installed.
        InputError: `image` does not exist, or cannot be read.
        PortError: the port is in use, or not allowed.
        KeyboardInterrupt: the process was interrupted.
    """
    from monai_sr_bundle.images import files

    check_port(port)
    if image is not None:
        with files.discover([image]):
            pass  # it exists; the page reads it
    import_module("trame_slicer")
    extension = extension_dir()
    sys.path[:0] = [str(extension / "web"), str(extension / "SuperResolution")]
    serve = import_module("SuperResolutionWeb.page_server").serve
    serve(image, HOST, port, browse)


def check_port(port: int) -> None:
    """Refuse a port at which the page cannot be served.

    Raises:
        PortError: the port is out of range, in use, or not allowed.
    """
    if not 0 <= port < 65536:
        raise PortError(f"--port {port}: expected a number from 1 to 65535, or 0 for any free one.")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            connection.bind((HOST, port))
        except OSError as error:
            raise PortError(
                f"--port {port} cannot be used on this machine ({error.strerror}). Choose another one, or leave it out "
                "for any free one."
            ) from error
