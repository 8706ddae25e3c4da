"""The error whose message the panel shows."""


class InputError(ValueError):
    """Something the user can change. The message says what was found, what was expected and what to do.

    Args:
        text: translated sentences.
        values: values of their named placeholders. Default none: the text is shown as it is.
    """

    def __init__(self, text: str, /, **values: object) -> None:
        super().__init__(text.format(**values) if values else text)
