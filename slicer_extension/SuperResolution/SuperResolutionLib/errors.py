"""The error whose message the panel shows, and the translation of texts by Slicer, without which they stay as they are.

A text is a whole sentence with named placeholders: ``_("'{name}' holds no image.").format(name=name)``.
"""

try:
    from slicer.i18n import tr as _
except ImportError:

    def _(text: str) -> str:
        return text


class InputError(ValueError):
    """Something the user can change. The message says what was found, what was expected and what to do.

    Args:
        text: translated sentences.
        values: values of their named placeholders. Default none: the text is shown as it is.
    """

    def __init__(self, text: str, /, **values: object) -> None:
        super().__init__(text.format(**values) if values else text)
