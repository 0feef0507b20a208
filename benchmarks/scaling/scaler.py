"""The horizontal autoscaler of Kubernetes over a simulated fleet: its formula, its period, its limits, and start-up."""

import math
from dataclasses import dataclass
from typing import Literal

from .fleet import Fleet
from .replica import Replica

__all__ = ("Autoscaler", "Metric", "ScalerConfig")

Metric = Literal["waiting", "busy"]
TOLERANCE = 0.1  # share that a metric may be off before anything is done, as Kubernetes has it


@dataclass(frozen=True, slots=True)
class ScalerConfig:
    """What an autoscaler goes by.

    Attributes:
        targets: what the mean over the replicas should be: `waiting`, of the queries that wait (`niru_waiting`), and
            `busy`, of the share of time in the encoder (the rate of `niru_encode_seconds_sum`). Of several metrics the
            one that asks for most replicas decides.
        period: seconds from one decision to the next.
        starts: seconds until a new replica serves: a machine, an image, a model.
        most: replicas.
    """

    targets: dict[Metric, float]
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
        asked = max(self._asked(metric, target) for metric, target in config.targets.items())
        most = min(max(2 * self.wanted, self.wanted + 4), config.most)  # Kubernetes' default policy for a rise
        for _ in range(min(asked, most) - self.wanted):
            self.wanted += 1
            fleet.clock.at(fleet.clock.now + config.starts, fleet.add)
        fleet.clock.at(fleet.clock.now + config.period, self._decide)

    def _asked(self, metric: Metric, target: float) -> int:
        """Return how many replicas a metric asks for; those that start yet count as having nothing to do."""
        total = sum(self._value(metric, replica) for replica in self._fleet.replicas)
        now = total / len(self._fleet.replicas) / target
        return self.wanted if abs(now - 1.0) <= TOLERANCE else math.ceil(total / target)

    def _value(self, metric: Metric, replica: Replica) -> float:
        if metric == "waiting":
            return float(replica.waiting)
        before = self._busy.get(replica, 0.0)
        now = self._busy[replica] = sum(replica.busy.values())
        return (now - before) / self._config.period
