"""The exception for a user's mistake, and the guess at the name that the user meant."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can mend. The message says in one line what is wrong, where, and how to mend it.

    The command line prints only the message and exits with code 2. A notebook shows only the message too. Any other
    exception is a bug and shows its traceback.
    """

    def _render_traceback_(self) -> list[str]:  # IPython calls it
        return [f"error: {self}"]


def with_context(where: str, error: UserError) -> UserError:
    """Return a copy of the error that has `where` before each line."""
    return UserError("\n".join(f"{where}: {line}" for line in str(error).splitlines()))


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return `; did you mean X?` with the name closest to `word`, or an empty string if no name is close."""
    close = difflib.get_close_matches(word, list(names), n=1)
    return f"; did you mean {close[0]}?" if close else ""
