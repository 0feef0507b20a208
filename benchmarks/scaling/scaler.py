"""The horizontal autoscaler of Kubernetes over a simulated fleet: its formula, its period, its limits, and start-up."""

import math
from dataclasses import dataclass
from typing import Literal

from .fleet import Fleet
from .replica import Replica

__all__ = ("Autoscaler", "ScalerConfig")


@dataclass(frozen=True, slots=True)
class ScalerConfig:
    """What an autoscaler goes by.

    Attributes:
        metric: `waiting`, the queries that wait (`niru_waiting`), or `busy`, the share of time in the encoder (the
            rate of `niru_encode_seconds_sum`); each the mean over the replicas.
        target: what it should be.
        period: seconds from one decision to the next.
        starts: seconds until a new replica serves: a machine, an image, a model.
        most: replicas.
    """

    metric: Literal["waiting", "busy"]
    target: float
    period: float = 15.0
    starts: float = 20.0
    most: int = 100


class Autoscaler:
    """Adds replicas to a fleet; it never takes one away, which Kubernetes does after five quiet minutes.

    Args:
        fleet: to be scaled.
        config: what it goes by.

    Attributes:
        wanted: replicas, those that start included.
    """

    def __init__(self, fleet: Fleet, config: ScalerConfig) -> None:
        self.wanted = len(fleet.replicas)
        self._fleet = fleet
        self._config = config
        self._busy: dict[Replica, float] = {}
        fleet.clock.at(fleet.clock.now + config.period, self._decide)

    def _decide(self) -> None:
        fleet, config = self._fleet, self._config
        ready = list(fleet.replicas)
        value = sum(self._value(replica) for replica in ready) / len(ready)
        if abs(value / config.target - 1.0) > 0.1:  # Kubernetes' tolerance
            asked = math.ceil(len(ready) * value / config.target)
            doubled = max(2 * self.wanted, self.wanted + 4)  # its default policy for a rise
            more = min(asked, doubled, config.most) - self.wanted
            for _ in range(max(0, more)):
                self.wanted += 1
                fleet.clock.at(fleet.clock.now + config.starts, fleet.add)
        fleet.clock.at(fleet.clock.now + config.period, self._decide)

    def _value(self, replica: Replica) -> float:
        if self._config.metric == "waiting":
            return float(replica.waiting)
        before = self._busy.get(replica, 0.0)
        now = self._busy[replica] = sum(replica.busy.values())
        return (now - before) / self._config.period
