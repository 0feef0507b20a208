"""Which of several writes of one id is the last: the one handed in last, whichever is encoded first. Pure: no lock."""

from weakref import WeakValueDictionary

__all__ = ("Arrival", "WriteOrder")


class _Id:
    """What was written of one id while anything of it is under way: the newest arrival, and its watermark."""

    __slots__ = ("__weakref__", "newest", "watermark")

    def __init__(self) -> None:
        self.newest = 0
        self.watermark = 0


class Arrival:
    """The place of one write in the order in which writes of its id were handed in; kept as long as it is under way."""

    __slots__ = ("_id", "number")

    def __init__(self, number: int, known: _Id) -> None:
        self.number = number
        self._id = known

    @property
    def superseded(self) -> int | None:
        """The watermark of a write of the same id that was handed in later and is written already, or None.

        This write is then complete without being written: as if it had been written just before that one.
        """
        return self._id.watermark if self._id.newest > self.number else None

    def written(self, watermark: int) -> None:
        """Take note that this write, which was not superseded, is written."""
        self._id.newest = self.number
        self._id.watermark = watermark


class WriteOrder:
    """Numbers writes as they are handed in, and remembers for each id the newest that was written.

    An id is remembered as long as an arrival of it is referred to, and then forgotten by itself. Arrivals are made and
    used under the caller's locks.
    """

    def __init__(self) -> None:
        self._ids: WeakValueDictionary[str, _Id] = WeakValueDictionary()
        self._last = 0

    def __len__(self) -> int:
        """How many ids are remembered."""
        return len(self._ids)

    def arrive(self, written_id: str) -> Arrival:
        """Return the place of a write of this id that is handed in now."""
        self._last += 1
        known = self._ids.get(written_id)
        if known is None:
            known = self._ids[written_id] = _Id()
        return Arrival(self._last, known)
