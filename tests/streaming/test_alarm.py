import logging
import threading
import time
from math import inf

import pytest

from niruhybrid.streaming.alarm import Alarm

_SOON = 20.0  # seconds within which a thread that lives has done something


def ended(alarm: Alarm, thread: threading.Thread) -> bool:
    alarm.look_now()
    thread.join(_SOON)
    return not thread.is_alive()


@pytest.mark.parametrize("due", [1e300, 1e12, -1e300], ids=["never", "in many years", "long ago"])
def test_the_thread_survives_any_due_time(due: float) -> None:
    last = threading.Event()
    alarm = Alarm(lambda: None if last.is_set() else due)
    thread = alarm.start("alarm")
    asked = threading.Event()
    alarm.ask(asked.set)
    assert asked.wait(_SOON)
    last.set()
    assert ended(alarm, thread)


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(1)], ids=["error", "exit"])
def test_the_thread_survives_a_call_that_raises(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise error

    last = threading.Event()
    alarm = Alarm(lambda: None if last.is_set() else inf)
    thread = alarm.start("alarm")
    alarm.ask(fail)
    asked = threading.Event()
    alarm.ask(asked.set)
    assert asked.wait(_SOON)
    last.set()
    assert ended(alarm, thread)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == "alarm_call_failed"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_a_look_that_raises_is_tried_again_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    looks = 0
    enough = threading.Event()

    def look() -> float | None:
        nonlocal looks
        looks += 1
        if looks < 4:
            raise RuntimeError("broken")
        enough.set()
        return None

    alarm = Alarm(look)
    thread = alarm.start("alarm")
    for _ in range(4):
        alarm.look_now()
    assert enough.wait(_SOON)
    assert ended(alarm, thread)
    assert [record.getMessage() for record in caplog.records] == ["alarm_look_failed"]


@pytest.mark.slow
def test_a_look_that_raised_is_tried_again_unasked() -> None:
    looked: list[float] = []

    def look() -> float | None:
        looked.append(time.monotonic())
        if len(looked) == 1:
            raise RuntimeError("broken")
        return None

    thread = Alarm(look).start("alarm")
    thread.join(_SOON)
    assert not thread.is_alive()
    assert len(looked) == 2
