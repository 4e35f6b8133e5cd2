"""The one exception that stands for a user's mistake."""


class UserError(Exception):
    """A mistake that the user can mend: what is wrong, where, and how to mend it, in one line.

    The command line prints the message alone and leaves with exit code 2; any other exception is a bug and
    shows its traceback.
    """
