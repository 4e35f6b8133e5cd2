"""SIGUSR1 and SIGTERM end a command with the exit code on which batch scripts requeue."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from project.cli import main as command
from project.runtime.signals import EXIT_CODE, SIGNALS, handle_stop_signals


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stopped_verb_exits_with_the_code_for_resuming(number, monkeypatch, capsys):
    monkeypatch.setattr(command, "_dispatch", lambda argv: os.kill(os.getpid(), number))
    assert command.main(["prepare"]) == EXIT_CODE == 75
    assert "stopped on request; run the same command to resume" in capsys.readouterr().err


def test_the_previous_handlers_are_restored():
    previous = [signal.getsignal(number) for number in SIGNALS]
    with handle_stop_signals(print):
        assert [signal.getsignal(number) for number in SIGNALS] != previous
    assert [signal.getsignal(number) for number in SIGNALS] == previous


def test_other_threads_leave_the_handlers_unchanged():
    previous, handlers = signal.getsignal(signal.SIGUSR1), []

    def record_handler():
        with handle_stop_signals(print):
            handlers.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=record_handler)
    thread.start()
    thread.join()
    assert handlers == [previous]


def test_signal_handling_imports_no_heavy_library():
    code = "import sys, project.__main__; print('torch' in sys.modules or 'lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
