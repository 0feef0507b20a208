"""The graph against a plain NumPy forward pass of the same random weights, in float32."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from niruhybrid.encoding.model_config import ModelConfig, read_config
from niruhybrid.encoding.openvino_quiet import import_openvino
from niruhybrid.encoding.packing import Row, lay_out, plan
from niruhybrid.encoding.weights import read_tensors
from niruhybrid.errors import ModelCorruptError

MakeModel = Callable[..., Path]
Array = NDArray[np.float32]
TEXTS = [[2, 9, 11, 3], [2, 40, 3], [2, *range(5, 45), 3], [2, 17, 17, 30, 8, 3], [2, *range(20, 60), 12, 3]]


def graph_vectors(folder: Path) -> Array:
    from niruhybrid.encoding import bert

    config = read_config(folder)
    core = import_openvino().Core()
    compiled = core.compile_model(bert.build(config, read_tensors(folder)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    vectors = np.empty((len(TEXTS), config.hidden), np.float32)
    for run in plan([len(text) for text in TEXTS]):
        feed = lay_out(run, [Row(text, (0, len(text))) for text in TEXTS], config.pooling)
        vectors[run.texts] = compiled([feed.ids, feed.positions, feed.segments, feed.pool])[0]
    return vectors


def reference_vectors(folder: Path) -> Array:
    config, weights = read_config(folder), load_file(folder / "model.safetensors")
    return np.array([reference_vector(config, weights, text) for text in TEXTS])


def reference_vector(config: ModelConfig, weights: dict[str, Array], ids: list[int]) -> Array:
    def linear(name: str, states: Array) -> Array:
        result: Array = states @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        return result

    def norm(name: str, states: Array) -> Array:
        centred = states - states.mean(axis=1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + config.epsilon)
        scaled = centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]
        result: Array = scaled.astype(np.float32, copy=False)
        return result

    words, places, kinds = (
        weights[f"embeddings.{part}_embeddings.weight"] for part in ("word", "position", "token_type")
    )
    states = norm("embeddings.LayerNorm", words[ids] + places[: len(ids)] + kinds[0])
    for layer in range(config.layers):
        name = f"encoder.layer.{layer}"
        query, key, value = (linear(f"{name}.attention.self.{part}", states) for part in ("query", "key", "value"))
        heads = []
        for head in np.split(np.arange(config.hidden), config.heads):
            scores = query[:, head] @ key[:, head].T / math.sqrt(len(head))
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            heads.append(shares / shares.sum(axis=1, keepdims=True) @ value[:, head])
        mixed = linear(f"{name}.attention.output.dense", np.concatenate(heads, axis=1))
        states = norm(f"{name}.attention.output.LayerNorm", mixed + states)
        inner = activated(config, linear(f"{name}.intermediate.dense", states))
        states = norm(f"{name}.output.LayerNorm", linear(f"{name}.output.dense", inner) + states)
    pooled = states.mean(axis=0) if config.pooling == "mean" else states[0]
    unit: Array = pooled / np.linalg.norm(pooled)
    return unit


def activated(config: ModelConfig, x: Array) -> Array:
    if config.activation == "relu":
        return np.maximum(x, 0)
    if config.activation == "tanh":
        result: Array = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        return result
    exact: Array = 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return exact


@pytest.mark.parametrize(
    "change",
    [{}, {"pooling": "cls"}, {"hidden_act": "gelu_new"}, {"hidden_act": "relu"}, {"prefix": "bert."}],
    ids=["mean", "cls", "tanh gelu", "relu", "prefixed names"],
)
def test_graph_equals_a_plain_forward_pass(make_model: MakeModel, change: dict[str, Any]) -> None:
    folder = make_model(**change)
    expected = (
        reference_vectors(make_model(**change | {"prefix": ""})) if "prefix" in change else reference_vectors(folder)
    )
    make_model(**change)
    np.testing.assert_allclose(graph_vectors(folder), expected, atol=2e-5)


def test_half_precision_weights_are_read(make_model: MakeModel) -> None:
    folder = make_model()
    expected = reference_vectors(folder)
    halved = {name: tensor.astype(np.float16) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(halved, folder / "model.safetensors")
    np.testing.assert_allclose(graph_vectors(folder), expected, atol=5e-3)


def test_missing_tensor_is_named(make_model: MakeModel) -> None:
    folder = make_model()
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.bias"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ModelCorruptError, match=r"no tensor encoder\.layer\.1\.output\.dense\.bias"):
        graph_vectors(folder)


def test_tensor_of_another_shape_is_named(make_model: MakeModel) -> None:
    folder = make_model()
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.0.attention.self.key.weight"] = np.zeros((16, 15), np.float32)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ModelCorruptError, match=r"key\.weight has shape \(16, 15\), not \(16, 16\)"):
        graph_vectors(folder)
