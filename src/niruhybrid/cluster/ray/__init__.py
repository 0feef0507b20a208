"""Replicas on Ray Serve: HTTP servers in front, and in each replica behind them a pipeline with its two lanes.

`serve run niruhybrid.cluster.ray:app` runs it as the settings in the environment have it; `niru deploy ray` does so,
too, and `application` is for programs.
"""

from typing import Any

from niruhybrid.cluster.ray.serving import APPLICATION, application

__all__ = ("APPLICATION", "application")


def __getattr__(name: str) -> Any:
    if name == "app":  # made when it is asked for: it loads Ray, and reads the settings
        return application()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
