"""SIGUSR1 and SIGTERM end the command line with the code by which batch scripts requeue."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from project.cli import main as command
from project.runtime.signals import EXIT_CODE, SIGNALS, handle_stop_signals


@pytest.mark.parametrize("number", SIGNALS)
def test_a_verb_that_is_asked_to_stop_leaves_with_the_code_for_going_on(number, monkeypatch, capsys):
    monkeypatch.setattr(command, "_dispatch", lambda argv: os.kill(os.getpid(), number))
    assert command.main(["prepare"]) == EXIT_CODE == 75
    assert "stopped on request; run the same command to resume" in capsys.readouterr().err


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with handle_stop_signals(print):
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_another_thread_leaves_signals_alone():
    before, seen = signal.getsignal(signal.SIGUSR1), []

    def inside():
        with handle_stop_signals(print):
            seen.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]


def test_the_command_line_reads_no_heavy_library_to_heed_signals():
    code = "import sys, project.__main__; print('torch' in sys.modules or 'lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
