"""One timer for all streams that are silent."""

import asyncio
from collections.abc import Callable
from itertools import count

__all__ = ("Pulse",)

_PHASES = 16


class Pulse:
    """Calls each of its listeners twice within `seconds`, a sixteenth of them at a time; runs only while it has any.

    Args:
        seconds: above 0.
    """

    def __init__(self, seconds: float) -> None:
        self._step = seconds / 2 / _PHASES
        self._phases: list[set[Callable[[], None]]] = [set() for _ in range(_PHASES)]
        self._listeners: dict[Callable[[], None], int] = {}
        self._next = count()
        self._now = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, beat: Callable[[], None]) -> None:
        """Call `beat` from now on; it must not block or raise."""
        phase = next(self._next) % _PHASES
        self._listeners[beat] = phase
        self._phases[phase].add(beat)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._step, self._tick)

    def remove(self, beat: Callable[[], None]) -> None:
        """Call `beat` no more."""
        self._phases[self._listeners.pop(beat)].discard(beat)
        if not self._listeners and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._now = (self._now + 1) % _PHASES
        self._timer = asyncio.get_running_loop().call_later(self._step, self._tick)
        for beat in tuple(self._phases[self._now]):
            beat()
