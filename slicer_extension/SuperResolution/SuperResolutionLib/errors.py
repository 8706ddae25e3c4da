"""The error whose message the panel shows."""


class InputError(ValueError):
    """Something the user can change. The message says what was found, what was expected and what to do."""
