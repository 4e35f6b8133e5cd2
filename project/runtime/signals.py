"""Handle SIGUSR1 and SIGTERM, which a scheduler sends before it ends a job."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
EXIT_CODE = 75
"""Exit code of a command that can resume: "temporary failure" in sysexits.h. Batch scripts requeue the job on it."""


class Interrupted(BaseException):
    """The process stopped on request; finished work is saved. Like KeyboardInterrupt, it is not an Exception."""


@contextmanager
def handle_stop_signals(handler: Callable[[], None]) -> Iterator[None]:
    """Install `handler` for SIGUSR1 and SIGTERM, and restore the previous handlers at the end.

    Python allows signal handlers in the main thread only; in other threads this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, lambda *_: handler()) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous_handler in previous.items():
            signal.signal(number, previous_handler)


def raise_interrupted() -> None:
    """Raise Interrupted: the stop handler of commands that save each finished item themselves."""
    raise Interrupted
