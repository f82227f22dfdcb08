"""Signals end a block by an exception, and only in the process that asked for it."""

import os
import signal
import threading
import time

import pytest

from medpixcl.cli.signals import Stopped, stopping


@pytest.mark.parametrize(("which", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_an_exception(which: signal.Signals, status: int) -> None:
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]

    def work() -> None:
        with stopping():
            try:
                os.kill(os.getpid(), which)
                time.sleep(5)
            except Exception:
                pytest.fail("no error of the work")
            except BaseException as stop:
                stop.add_note("after 3 of 5 images")
                raise

    with pytest.raises(Stopped) as stopped:
        work()
    assert (str(stopped.value), stopped.value.status) == ("stopped after 3 of 5 images", status)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with stopping():
            os.kill(os.getpid(), signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_forked_process_ends_as_without_a_handler() -> None:
    with stopping():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM


def test_another_thread_handles_no_signals() -> None:
    entered = []

    def work() -> None:
        with stopping():
            entered.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered == [signal.getsignal(signal.SIGTERM)]
