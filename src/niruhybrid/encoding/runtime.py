"""One compiled graph on one core: bfloat16 where the processor has it, else float32."""

import threading
from pathlib import Path

import numpy as np

from niruhybrid.encoding import bert
from niruhybrid.encoding.model_config import ModelConfig
from niruhybrid.encoding.openvino_quiet import import_openvino
from niruhybrid.encoding.packing import Feed
from niruhybrid.encoding.processor import processor_flags
from niruhybrid.encoding.weights import read_tensors
from niruhybrid.forks import forked_error, watch
from niruhybrid.types import Vector

__all__ = ("Runtime",)

_AMX_ROWS = 16  # of a tile: Intel 64 and IA-32 Architectures Software Developer's Manual, "Advanced Matrix Extensions"


class Runtime:
    """Runs one batch at a time; calls from several threads take turns.

    Args:
        folder: the model's.
        config: what the folder says.

    Attributes:
        precision: of the matrix products: `bf16` or `f32`. Layer normalisation is always float32.
        tile: rows of a matrix that the processor multiplies at once; 1 where it has no such unit.

    Raises:
        ModelCorruptError: the weights are missing or damaged, or are not those of `config`.
        ModelUnsupportedError: they are in files of another kind, or of a type that NumPy lacks.
    """

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        core = import_openvino().Core()
        self.precision = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
        self.tile = _AMX_ROWS if self.precision == "bf16" and "amx_bf16" in processor_flags() else 1
        settings = {
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self.precision,
            "ENABLE_CPU_PINNING": False,  # several processes would otherwise all choose the first core
        }
        model = bert.build(config, read_tensors(folder))
        self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        self._turn = threading.Lock()
        self._running = False
        self._broken = False
        watch(self)

    def after_fork(self) -> None:
        """Take note, in the child, that the process has forked: amid a run, which nothing can end here."""
        self._broken = self._broken or self._running
        self._turn = threading.Lock()  # another thread may have taken the old one without having begun

    def run(self, feed: Feed) -> Vector:
        """Return `(texts, hidden)` float32 unit vectors, the caller's own.

        Raises:
            ClosedError: the process was forked during a run of another thread, and this is the child.
        """
        if self._broken:
            raise forked_error("this encoder, which was encoding in another thread,")
        inputs = [feed.ids, feed.positions, feed.segments, feed.pool]
        with self._turn:
            self._running = True
            try:
                result = self._request.infer(inputs, share_inputs=True, share_outputs=True)
                vectors: Vector = np.array(result[0], dtype=np.float32)  # a copy: the next run overwrites the original
            finally:
                self._running = False
        return vectors
