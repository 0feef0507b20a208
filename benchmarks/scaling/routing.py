"""Which replica a query goes to: what balancers can be told to do."""

import random
from collections.abc import Callable, Sequence
from itertools import count

from .replica import Replica

__all__ = ("ROUTERS", "Route")

Route = Callable[[Sequence[Replica]], Replica]


def at_random(chance: random.Random) -> Route:
    """Any: what a Kubernetes Service does with new connections."""
    return lambda replicas: replicas[int(chance.random() * len(replicas))]


def in_turn(_chance: random.Random) -> Route:
    """Each in its turn: nginx as it comes."""
    turn = count()
    return lambda replicas: replicas[next(turn) % len(replicas)]


def least_loaded(_chance: random.Random) -> Route:
    """The one that holds the fewest queries: one balancer that knows all, nginx with `least_conn`."""
    return lambda replicas: min(replicas, key=_held)


def better_of_two(chance: random.Random) -> Route:
    """The less loaded of two at random: many balancers that each look at two; Ray Serve."""

    def route(replicas: Sequence[Replica]) -> Replica:
        many = len(replicas)
        one, other = replicas[int(chance.random() * many)], replicas[int(chance.random() * many)]
        return one if one.queries <= other.queries else other

    return route


def _held(replica: Replica) -> int:
    return replica.queries


ROUTERS: dict[str, Callable[[random.Random], Route]] = {
    "random": at_random,
    "round robin": in_turn,
    "least loaded": least_loaded,
    "better of two": better_of_two,
}
