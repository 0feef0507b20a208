"""A BERT encoder as an OpenVINO graph, from weights alone: token ids in, one unit vector per text out."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from niruhybrid.encoding.model_config import ModelConfig
from niruhybrid.encoding.openvino_quiet import import_openvino
from niruhybrid.encoding.weights import Tensors
from niruhybrid.errors import ModelCorruptError

if TYPE_CHECKING:
    from openvino import Model

__all__ = ("build",)

_ov = import_openvino()
_ops = _ov.opset13
_Node = Any  # a node or one output of it: OpenVINO's operators take and give either

_TOKEN_INPUTS = ("ids", "positions", "segments")
_APART = -1e4  # added to the score between tokens of different texts: the softmax is exactly 0, also in bfloat16


def build(config: ModelConfig, tensors: Tensors) -> "Model":
    """Return the graph of an encoder, with pooling and normalisation inside.

    Its inputs are the fields of a `packing.Feed`, in their order and with free dimensions; its output is
    `(texts, hidden)` float32, of unit length.

    Raises:
        ModelCorruptError: a tensor is missing, or its shape is not what `config` says.
    """
    return _Builder(config, tensors).model()


class _Builder:
    """Adds the parts of the graph, taking weights by name."""

    def __init__(self, config: ModelConfig, tensors: Tensors) -> None:
        self._config = config
        self._tensors = tensors

    def model(self) -> "Model":
        ids, positions, segments = (_ops.parameter([-1, -1], np.int32, name=name) for name in _TOKEN_INPUTS)
        pool = _ops.parameter([-1, -1], np.float32, name="pool")
        together = _ops.equal(_ops.unsqueeze(segments, _ints(1, 2)), _ops.unsqueeze(segments, _ints(1, 3)))
        bias = _ops.select(together, _floats(0.0), _floats(_APART))
        states = self._embedded(ids, positions)
        for layer in range(self._config.layers):
            states = self._layer(f"encoder.layer.{layer}", states, bias)
        flat = _ops.reshape(states, _ints(-1, self._config.hidden), special_zero=False)
        unit = _ops.normalize_l2(_ops.matmul(pool, flat, transpose_a=False, transpose_b=False), _ints(1), 1e-12, "max")
        return _ov.Model([unit], [ids, positions, segments, pool], "bert")

    def _embedded(self, ids: _Node, positions: _Node) -> _Node:
        hidden = self._config.hidden
        words = self._weight("embeddings.word_embeddings.weight", (self._config.vocabulary, hidden))
        places = self._weight("embeddings.position_embeddings.weight", (self._config.positions, hidden))
        kind = self._weight("embeddings.token_type_embeddings.weight", (None, hidden))[0]
        rows = _ops.constant(np.int64(0))
        tokens = _ops.gather(_floats(words), ids, rows)
        where = _ops.gather(_floats(places + kind), positions, rows)
        return self._normed("embeddings.LayerNorm", _ops.add(tokens, where))

    def _layer(self, name: str, states: _Node, bias: _Node) -> _Node:
        hidden = self._config.hidden
        attended = self._attention(f"{name}.attention.self", states, bias)
        mixed = self._linear(f"{name}.attention.output.dense", attended, hidden, hidden)
        states = self._normed(f"{name}.attention.output.LayerNorm", _ops.add(mixed, states))
        inner = self._tensor(f"{name}.intermediate.dense.weight").shape[0]
        active = self._activated(self._linear(f"{name}.intermediate.dense", states, inner, hidden))
        back = self._linear(f"{name}.output.dense", active, hidden, inner)
        return self._normed(f"{name}.output.LayerNorm", _ops.add(back, states))

    def _attention(self, name: str, states: _Node, bias: _Node) -> _Node:
        hidden, heads = self._config.hidden, self._config.heads
        split, order = _ints(0, 0, heads, hidden // heads), _ints(0, 2, 1, 3)
        query, key, value = (
            _ops.transpose(_reshaped(self._linear(f"{name}.{part}", states, hidden, hidden), split), order)
            for part in ("query", "key", "value")
        )
        attended = _ops.scaled_dot_product_attention(query, key, value, bias)
        return _reshaped(_ops.transpose(attended, order), _ints(0, 0, hidden))

    def _activated(self, inner: _Node) -> _Node:
        if self._config.activation == "relu":
            return _ops.relu(inner)
        return _ops.gelu(inner, self._config.activation)

    def _linear(self, name: str, states: _Node, rows: int, columns: int) -> _Node:
        weight = _floats(self._weight(f"{name}.weight", (rows, columns)))
        shift = _floats(self._weight(f"{name}.bias", (rows,)))
        return _ops.add(_ops.matmul(states, weight, transpose_a=False, transpose_b=True), shift)

    def _normed(self, name: str, states: _Node) -> _Node:
        hidden = self._config.hidden
        epsilon = self._config.epsilon
        centred = _ops.mvn(states, _ints(-1), normalize_variance=True, eps=epsilon, eps_mode="inside_sqrt")
        scaled = _ops.multiply(centred, _floats(self._weight(f"{name}.weight", (hidden,))))
        return _ops.add(scaled, _floats(self._weight(f"{name}.bias", (hidden,))))

    def _weight(self, name: str, shape: tuple[int | None, ...]) -> NDArray[np.float32]:
        """Return a tensor whose shape is `shape`, where None stands for any length."""
        tensor = self._tensor(name)
        fits = tensor.ndim == len(shape) and all(
            want in {None, have} for want, have in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            raise ModelCorruptError(f"tensor {name} has shape {tensor.shape}, not {shape}: fetch the model again")
        return tensor

    def _tensor(self, name: str) -> NDArray[np.float32]:
        try:
            return self._tensors[name]
        except KeyError as err:
            raise ModelCorruptError(f"the weights have no tensor {name}: use the files of one BERT model") from err


def _reshaped(states: _Node, shape: _Node) -> _Node:
    """Reshape; a zero in `shape` keeps the dimension in its place."""
    return _ops.reshape(states, shape, special_zero=True)


def _floats(value: float | NDArray[np.float32]) -> _Node:
    return _ops.constant(np.ascontiguousarray(value, dtype=np.float32), shared_memory=True)


def _ints(*values: int) -> _Node:
    return _ops.constant(np.array(values, dtype=np.int64))
