"""Super-resolution of chest X-ray and chest CT, as MONAI bundles and everything around them.

`enhance` is the engine's one function; importing this package imports neither torch nor MONAI.
"""

import os
from typing import TYPE_CHECKING, Any

# Since 1.29 ONNX Runtime tells its makers of itself as soon as it is imported, unless this is set before. Nothing
# leaves a machine unless its user asks for it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.2.0"
__all__ = ["__version__", "enhance"]

if TYPE_CHECKING:
    from monai_sr_bundle.engine.session import enhance


def __getattr__(name: str) -> Any:
    """Import the engine when `enhance` is first asked for (PEP 562); a packed bundle carries none of it."""
    if name == "enhance":
        try:
            from monai_sr_bundle.engine.session import enhance
        except ModuleNotFoundError as error:
            if error.name != "monai_sr_bundle.engine.session":
                raise
            raise ImportError(
                "monai_sr_bundle.enhance needs the package monai-sr-bundle; a packed bundle carries only what MONAI's "
                "workflows need. Install it beside MONAI: `pip install .` in its folder."
            ) from error
        return enhance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
