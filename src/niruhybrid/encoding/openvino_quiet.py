"""Import OpenVINO without its telemetry, which otherwise reports each import of the package over the network."""

import sys
import threading
from types import ModuleType

__all__ = ("import_openvino",)

_TELEMETRY = "openvino_telemetry"
_importing = threading.Lock()


def import_openvino() -> ModuleType:
    """Return the `openvino` package, imported with its telemetry replaced by OpenVINO's own silent stub.

    A program that has imported `openvino` before keeps what it has.
    """
    with _importing:
        hidden = "openvino" not in sys.modules and _TELEMETRY not in sys.modules
        if hidden:
            sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # the documented way to make an import fail
        try:
            import openvino  # noqa: PLC0415  # a quarter of a second, and the mark above must come first
        finally:
            if hidden:
                del sys.modules[_TELEMETRY]
        package: ModuleType = openvino
        return package
