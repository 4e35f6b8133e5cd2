"""A user's mistake: the one exception that stands for it, and what may have been meant."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can mend: what is wrong, where, and how to mend it, in one line.

    The command line prints the message alone and leaves with exit code 2; any other exception is a bug and
    shows its traceback. A notebook shows the message alone too.
    """

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return [f"error: {self}"]


def with_context(where: str, error: UserError) -> UserError:
    """The error with `where` before each of its lines."""
    return UserError("\n".join(f"{where}: {line}" for line in str(error).splitlines()))


def did_you_mean(word: str, there: Iterable[str]) -> str:
    """`; did you mean X?`, or nothing where no name is near."""
    near = difflib.get_close_matches(word, list(there), n=1)
    return f"; did you mean {near[0]}?" if near else ""
