from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from niruhybrid.encoding.hybrid_encoder import HybridEncoder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(60))]
CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "max_position_embeddings": 80,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
}
Weights = dict[str, NDArray[np.float32]]


def random_weights(config: dict[str, Any], seed: int = 7) -> Weights:
    rng = np.random.default_rng(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(WORDS), hidden),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": (2, hidden),
    }
    linears = {"attention.output.dense": (hidden, hidden), "intermediate.dense": (inner, hidden)}
    linears |= {"output.dense": (hidden, inner)}
    linears |= {f"attention.self.{part}": (hidden, hidden) for part in ("query", "key", "value")}
    norms = ["embeddings.LayerNorm"]
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
        for part, shape in linears.items():
            shapes |= {f"{name}.{part}.weight": shape, f"{name}.{part}.bias": shape[:1]}
    weights = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    for name in norms:
        weights[f"{name}.weight"] = rng.normal(1, 0.1, hidden).astype(np.float32)
        weights[f"{name}.bias"] = rng.normal(0, 0.1, hidden).astype(np.float32)
    return weights


def write_tokenizer(path: Path) -> None:
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=WORDS[1]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(5)  # as real files have it: not to be obeyed
    tokenizer.save(str(path))


MakeModel = Callable[..., Path]


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Write a tiny random model: `make_model(pooling="mean", window=None, **changes to config.json)`."""

    def make(*, pooling: str = "mean", window: int | None = None, prefix: str = "", **changes: Any) -> Path:
        config = CONFIG | changes
        weights = {prefix + name: tensor for name, tensor in random_weights(config).items()}
        save_file(weights, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_bytes(orjson.dumps(config))
        write_tokenizer(tmp_path / "tokenizer.json")
        modules = [
            {"type": "sentence_transformers.models.Transformer", "path": ""},
            {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
        ]
        (tmp_path / "modules.json").write_bytes(orjson.dumps(modules))
        (tmp_path / "1_Pooling").mkdir(exist_ok=True)
        modes = {
            "pooling_mode_cls_token": pooling == "cls",
            "pooling_mode_mean_tokens": pooling == "mean",
            "pooling_mode_max_tokens": pooling == "max",
        }
        (tmp_path / "1_Pooling" / "config.json").write_bytes(orjson.dumps(modes))
        if window is not None:
            (tmp_path / "sentence_bert_config.json").write_bytes(orjson.dumps({"max_seq_length": window}))
        return tmp_path

    return make


@pytest.fixture(scope="session")
def encoder() -> HybridEncoder:
    """The default model; it takes most of a second to load."""
    return HybridEncoder()
