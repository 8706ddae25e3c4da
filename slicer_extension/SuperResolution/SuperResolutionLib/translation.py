"""The translation of texts by Slicer; a Python without Slicer shows them as they are.

A text is a whole sentence with named placeholders: ``_("'{name}' holds no image.").format(name=name)``.
"""

try:
    from slicer.i18n import tr as _
except ImportError:

    def _(text: str) -> str:
        return text


__all__ = ["_"]
