"""Being asked to stop: by SIGUSR1 or SIGTERM, as a scheduler sends them before it takes the machine away."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
EXIT_CODE = 75
"""What the command line leaves with where the same command goes on: "temporary failure" in sysexits.h. Batch scripts
requeue the job then."""


class Interrupted(BaseException):
    """The process was asked to stop, and nothing that it had done is lost. As Ctrl-C it is no Exception."""


@contextmanager
def handle_stop_signals(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` where one of the SIGNALS comes, in the main thread alone, as Python allows."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: act()) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_interrupted() -> None:
    """Give up wherever the process is: for what keeps every finished piece of work by itself."""
    raise Interrupted
