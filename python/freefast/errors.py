class UserError(ValueError):
    """Bad input by the user: the message is one line that says what is wrong and what is wanted."""
