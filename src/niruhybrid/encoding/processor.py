"""What the processor can do."""

from pathlib import Path

__all__ = ("processor_flags",)


def processor_flags() -> frozenset[str]:
    """Return the names of the processor's abilities, as Linux calls them; none where it does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(": ")[2].split() for line in lines if line.startswith("flags")), ()))
