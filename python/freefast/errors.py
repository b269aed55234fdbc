class UserError(ValueError):
    """Bad input by the user: the message is one line that says what is wrong and what is wanted."""


class StoppedError(Exception):
    """Work that was asked to stop has stopped, and can be gone on with."""
