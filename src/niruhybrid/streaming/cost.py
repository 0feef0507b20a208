"""What a batch will cost, learned from what batches have cost. Pure: no clock, no lock."""

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate

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

    A class is never held to cost more for each token than a smaller one: batches exist because larger ones don't. So
    one that was disturbed when it was last seen, and is avoided since, is tried again.
    """

    __slots__ = ("_classes", "_costs", "_known", "_sizes")

    def __init__(self) -> None:
        self._classes: dict[int, _SizeClass] = {}
        self._known: list[_SizeClass] = []  # the same, by size
        self._sizes: list[float] = []
        self._costs: list[float] = []  # seconds of each, no more for a token than those before

    def observe(self, tokens: int, seconds: float) -> None:
        """Learn that a batch of `tokens` padded tokens took `seconds`."""
        tokens = max(1, tokens)
        key = tokens.bit_length()
        known = self._classes.get(key)
        if known is None:
            self._classes[key] = _SizeClass(float(tokens), seconds, seconds / 2)
            self._known = [each for _, each in sorted(self._classes.items())]
        else:
            known.learn(tokens, seconds)
        self._sizes = [each.tokens for each in self._known]
        rates = accumulate((each.seconds / each.tokens for each in self._known), min)
        self._costs = [size * rate for size, rate in zip(self._sizes, rates, strict=True)]

    def seconds(self, tokens: float) -> float:
        """Return what a batch of `tokens` padded tokens should take; 0 before the first observation."""
        if not self._known:
            return 0.0
        sizes, costs = self._sizes, self._costs
        place = bisect_left(sizes, tokens)
        if place == 0:
            return costs[0]
        low = place - 1
        if place == len(sizes):
            return costs[low] + self._slope_at_the_end() * (tokens - sizes[low])
        span = sizes[place] - sizes[low]
        slope = max(0.0, (costs[place] - costs[low]) / span) if span > 0 else 0.0
        return costs[low] + slope * (tokens - sizes[low])

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

    def _slope_at_the_end(self) -> float:
        """Return the seconds that each token more should take in a batch larger than any before."""
        sizes, last = self._sizes, len(self._sizes) - 1
        low = next((place for place in range(last, -1, -1) if 2 * sizes[place] <= sizes[last]), last)
        noise = _SURE * (self._known[last].spread + self._known[low].spread)
        rise = self._costs[last] - self._costs[low] - noise
        return rise / (sizes[last] - sizes[low]) if rise > 0 else 0.0
