"""What a batch will cost, learned from what batches have cost. Pure: no clock, no lock."""

from bisect import bisect_left
from dataclasses import dataclass

__all__ = ("CostModel", "estimate_tokens")

_WEIGHT = 0.25  # of a new observation in its class: the last dozen count
_OUTLIER = 4.0  # times the mean; a pause of the machine is not the price of a batch
_FIXED = 1.5  # times the smallest batch's price
_TRUSTED = 4  # observations after which an outlier can be told


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
    """Batches of about one size: their mean tokens and seconds."""

    tokens: float
    seconds: float
    seen: int = 1


class CostModel:
    """Seconds per batch as a function of its tokens.

    Observations are kept by size class (powers of two), each with its own moving average. So a long spell of lone
    queries says nothing about full batches, and does not wash out what is known of them. Between classes the cost is
    interpolated; beyond the largest it follows the last slope, or stays flat where there is only one class: then the
    model is hopeful, and the first full batch corrects it.
    """

    __slots__ = ("_classes",)

    def __init__(self) -> None:
        self._classes: dict[int, _SizeClass] = {}

    def observe(self, tokens: int, seconds: float) -> None:
        """Learn that a batch of `tokens` padded tokens took `seconds`."""
        key = max(1, tokens).bit_length()
        known = self._classes.get(key)
        if known is None:
            self._classes[key] = _SizeClass(float(tokens), seconds)
            self._classes = dict(sorted(self._classes.items()))
            return
        known.seen += 1
        if known.seen > _TRUSTED:
            seconds = min(seconds, _OUTLIER * known.seconds)
        known.tokens += _WEIGHT * (tokens - known.tokens)
        known.seconds += _WEIGHT * (seconds - known.seconds)

    def seconds(self, tokens: float) -> float:
        """Return what a batch of `tokens` padded tokens should take; 0 before the first observation."""
        known = list(self._classes.values())
        if not known:
            return 0.0
        place = bisect_left([each.tokens for each in known], tokens)
        if place == 0:
            return known[0].seconds
        if place == len(known) and len(known) == 1:
            return known[0].seconds
        low, high = known[min(place, len(known) - 1) - 1], known[min(place, len(known) - 1)]
        span = high.tokens - low.tokens
        slope = max(0.0, (high.seconds - low.seconds) / span) if span > 0 else 0.0
        return (
            low.seconds + slope * (tokens - low.tokens)
            if place < len(known)
            else high.seconds + slope * (tokens - high.tokens)
        )

    def tokens_within(self, seconds: float, most: int) -> int:
        """Return the largest number of tokens, 1 to `most`, that should take no longer than `seconds`.

        Where even the smallest batch takes about as long, half as long again as that is allowed: to cut such batches
        short would cost much and gain nothing.
        """
        limit = max(seconds, _FIXED * self.seconds(1))
        if self.seconds(most) <= limit:
            return most
        low, high = 1, most
        while high - low > 1:
            middle = (low + high) // 2
            if self.seconds(middle) <= limit:
                low = middle
            else:
                high = middle
        return low
