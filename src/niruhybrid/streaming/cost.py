"""What a batch will cost, learned from what batches have cost. Pure: no clock, no lock."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ("CostModel", "estimate_tokens")

_WEIGHT = 0.25  # of a new observation in its class: the last dozen count
_OUTLIER = 4.0  # times the mean; a pause of the machine is not the price of a batch
_TRUSTED = 4  # observations after which an outlier can be told
_SURE = 2.0  # times their spread that two classes must differ before a slope is seen in it
_STEP = 1.5  # times the cheapest batch that any batch may cost: below that, cutting it short wins next to nothing


def estimate_tokens(text: str, window: int | None = None) -> int:
    """Return about how many tokens a text has, without tokenising it: four characters each, and two markers.

    Args:
        text: any text.
        window: tokens the encoder reads at the most; None for no bound.
    """
    tokens = len(text) // 4 + 3
    return tokens if window is None else min(tokens, window)


@dataclass(slots=True)
class _SizeClass:
    """Batches of about one size: their mean tokens and seconds, and the mean distance from the latter."""

    tokens: float
    seconds: float
    spread: float
    seen: int = 1

    def learn(self, tokens: int, seconds: float) -> None:
        self.seen += 1
        if self.seen > _TRUSTED:
            seconds = min(seconds, _OUTLIER * self.seconds)
        self.tokens += _WEIGHT * (tokens - self.tokens)
        self.spread += _WEIGHT * (abs(seconds - self.seconds) - self.spread)
        self.seconds += _WEIGHT * (seconds - self.seconds)


class CostModel:
    """Seconds per batch as a function of its tokens.

    Observations are kept by size class (powers of two), each with its own moving average. So a long spell of lone
    queries says nothing about full batches, and does not wash out what is known of them. Between classes the cost is
    interpolated. Beyond the largest it follows the slope from a class of at most half its tokens, as far as that
    stands out from the noise: drawn out to a full batch, a slope seen in the noise of lone queries would refuse
    everything. Where there is none it stays flat: then the model is hopeful, and the first full batch corrects it.
    """

    __slots__ = ("_classes", "_known", "_sizes")

    def __init__(self) -> None:
        self._classes: dict[int, _SizeClass] = {}
        self._known: list[_SizeClass] = []  # the same, by size
        self._sizes: list[float] = []

    def observe(self, tokens: int, seconds: float) -> None:
        """Learn that a batch of `tokens` padded tokens took `seconds`."""
        key = max(1, tokens).bit_length()
        known = self._classes.get(key)
        if known is None:
            self._classes[key] = _SizeClass(float(tokens), seconds, seconds / 2)
            self._known = [each for _, each in sorted(self._classes.items())]
        else:
            known.learn(tokens, seconds)
        self._sizes = [each.tokens for each in self._known]

    def seconds(self, tokens: float) -> float:
        """Return what a batch of `tokens` padded tokens should take; 0 before the first observation."""
        known = self._known
        if not known:
            return 0.0
        place = bisect_left(self._sizes, tokens)
        if place == 0:
            return known[0].seconds
        if place == len(known):
            return _beyond(known, tokens)
        low, high = known[place - 1], known[place]
        span = high.tokens - low.tokens
        slope = max(0.0, (high.seconds - low.seconds) / span) if span > 0 else 0.0
        return low.seconds + slope * (tokens - low.tokens)

    def at_least(self, tokens: float) -> float:
        """Return what a batch of `tokens` padded tokens takes almost certainly: little is certain after one batch."""
        if not self._known:
            return 0.0
        near = self._known[min(bisect_left(self._sizes, tokens), len(self._known) - 1)]
        return max(0.0, self.seconds(tokens) - _SURE * near.spread)

    def tokens_within(self, seconds: float, most: int) -> int:
        """Return the largest number of tokens, 1 to `most`, that should take no longer than `seconds`.

        Where the cheapest batch takes about as long or longer, it is those that should take little more than that one.
        """
        seconds = max(seconds, _STEP * self.seconds(1))
        if self.seconds(most) <= seconds:
            return most
        low, high = 1, most
        while high - low > 1:
            middle = (low + high) // 2
            if self.seconds(middle) <= seconds:
                low = middle
            else:
                high = middle
        return low


def _beyond(known: Sequence[_SizeClass], tokens: float) -> float:
    """Return what a batch larger than any before should take."""
    last = known[-1]
    low = next((each for each in reversed(known) if 2 * each.tokens <= last.tokens), last)
    rise = last.seconds - low.seconds - _SURE * (last.spread + low.spread)
    slope = rise / (last.tokens - low.tokens) if rise > 0 else 0.0
    return last.seconds + slope * (tokens - last.tokens)
