"""How long a query waits for one of several cores of the store: a formula, and the simulation it is held to."""

import heapq
import math
import random

import numpy as np

__all__ = ("erlang_c", "mean_wait", "simulated_waits")


def erlang_c(servers: int, offered: float) -> float:
    """Return the chance of having to wait for one of `servers`, that are offered work for `offered` of them."""
    blocked = 1.0
    for many in range(1, servers + 1):
        blocked = offered * blocked / (many + offered * blocked)
    return blocked / (1.0 - offered / servers * (1.0 - blocked))


def mean_wait(servers: int, share: float, service: float, variation: float) -> float:
    """Return the mean seconds in the queue of M/G/c, after Allen and Cunneen.

    Args:
        servers: cores.
        share: of their time that is asked for, below 1.
        service: mean seconds of one search.
        variation: standard deviation over mean of these seconds.
    """
    chance = erlang_c(servers, servers * share)
    return chance * service / (servers * (1.0 - share)) * (1.0 + variation**2) / 2.0


def simulated_waits(
    servers: int, share: float, service: float, spread: float, customers: int, seed: int
) -> tuple[float, float, float]:
    """Return mean and 99th percentile of the seconds in the queue, and the variation of the service drawn.

    Args:
        servers: cores.
        share: of their time that is asked for.
        service: mean seconds of one search; they are drawn from a lognormal distribution.
        spread: its parameter sigma.
        customers: how many come; the first tenth is not counted.
        seed: of the chance.
    """
    chance = random.Random(seed)
    free = [0.0] * servers
    now, waits, services = 0.0, [], []
    for _ in range(customers):
        now += chance.expovariate(servers * share / service)
        start = max(now, free[0])
        seconds = service * chance.lognormvariate(-(spread**2) / 2, spread)
        heapq.heapreplace(free, start + seconds)
        waits.append(start - now)
        services.append(seconds)
    counted = np.array(waits[customers // 10 :])
    variation = float(np.std(services) / np.mean(services))
    return float(counted.mean()), float(np.percentile(counted, 99)), variation


def spread_of(p50: float, p99: float) -> float:
    """Return the sigma of the lognormal distribution with this median and 99th percentile."""
    return math.log(p99 / p50) / 2.326
