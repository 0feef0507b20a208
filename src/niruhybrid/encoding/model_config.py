"""What a model folder says about itself: architecture, pooling, and how many tokens it reads."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from niruhybrid.errors import ModelCorruptError, ModelUnsupportedError

__all__ = ("Activation", "ModelConfig", "Pooling", "read_config")

Activation = Literal["erf", "tanh", "relu"]
Pooling = Literal["mean", "cls"]

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "erf",
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "relu": "relu",
}
_MODULES = frozenset({"Transformer", "Pooling", "Normalize"})
_MODULES_FILE = "modules.json"
_WINDOW_FILE = "sentence_bert_config.json"
_PROMPTS_FILE = "config_sentence_transformers.json"
_FEWEST_TOKENS = 3  # two marks and one of a text


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A BERT encoder and what is done with its last layer.

    Attributes:
        layers: transformer layers.
        heads: attention heads; a divisor of `hidden`.
        hidden: length of a token's vector, and of a text's.
        vocabulary: token ids that the model knows.
        positions: places in a text that have a vector.
        activation: of the feed-forward halves; `erf` and `tanh` are the exact and the approximated GELU.
        epsilon: added to the variance in layer normalisation.
        max_tokens: tokens of a text that are read, special tokens included.
        pooling: how token vectors become one: the mean of all, or the first.
        unsaid: files that the folder lacks, so that pooling or `max_tokens` are assumed.
        prompts: names of the prompts that the model was trained with, such as `query`; they are not put before texts.
    """

    layers: int
    heads: int
    hidden: int
    vocabulary: int
    positions: int
    activation: Activation
    epsilon: float
    max_tokens: int
    pooling: Pooling
    unsaid: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()


def read_config(folder: Path) -> ModelConfig:
    """Read a model folder's configuration files.

    Raises:
        ModelCorruptError: a file is missing or damaged.
        ModelUnsupportedError: the model is of a kind that is not supported.
    """
    config = _object(folder / "config.json")
    _refuse_classifier(folder, config)
    _expect(folder, "model_type", config.get("model_type"), {"bert"})
    _expect(folder, "position_embedding_type", config.get("position_embedding_type", "absolute"), {"absolute"})
    _expect(folder, "hidden_act", config.get("hidden_act", "gelu"), set(_ACTIVATIONS))
    positions = _whole(folder, config, "max_position_embeddings")
    hidden, heads = _whole(folder, config, "hidden_size"), _whole(folder, config, "num_attention_heads")
    if hidden % heads:
        raise ModelCorruptError(f"{folder}: {heads} heads do not divide {hidden} dimensions: fetch the model again")
    return ModelConfig(
        layers=_whole(folder, config, "num_hidden_layers"),
        heads=heads,
        hidden=hidden,
        vocabulary=_whole(folder, config, "vocab_size"),
        positions=positions,
        activation=_ACTIVATIONS[config.get("hidden_act", "gelu")],
        epsilon=_epsilon(folder, config),
        max_tokens=min(positions, _window(folder, positions)),
        pooling=_pooling(folder),
        unsaid=tuple(name for name in (_MODULES_FILE, _WINDOW_FILE) if not (folder / name).exists()),
        prompts=_prompts(folder),
    )


def _refuse_classifier(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a cross-encoder, or another model with a head for classes: its vectors were never trained as such."""
    named = config.get("architectures")
    heads = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    head = next((name for name in heads if name.endswith("Classification")), None)
    if head is not None and not (folder / _MODULES_FILE).exists():
        raise ModelUnsupportedError(
            f"{folder} is a {head}, such as a cross-encoder, which gives no embeddings: use an embedding model"
        )


def _epsilon(folder: Path, config: dict[str, Any]) -> float:
    value = config.get("layer_norm_eps", 1e-12)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise ModelCorruptError(
            f"{folder}: `layer_norm_eps` is {value!r}, not a number between 0 and 1: fetch the model again"
        )
    return float(value)


def _prompts(folder: Path) -> tuple[str, ...]:
    """Return the names of the prompts that say something."""
    path = folder / _PROMPTS_FILE
    prompts = _object(path).get("prompts") if path.exists() else None
    if not isinstance(prompts, dict):
        return ()
    return tuple(str(name) for name, prompt in prompts.items() if isinstance(prompt, str) and prompt)


def _window(folder: Path, positions: int) -> int:
    """Return how many tokens the model was trained to read, where the folder says so."""
    path = folder / _WINDOW_FILE
    said = _object(path).get("max_seq_length") if path.exists() else None
    tokens = positions if said is None else _whole(folder, {"max_seq_length": said}, "max_seq_length")
    if tokens < _FEWEST_TOKENS:
        raise ModelCorruptError(
            f"{folder}: the model reads {tokens} tokens, of which two are marks: correct `max_seq_length`"
        )
    return tokens


def _pooling(folder: Path) -> Pooling:
    """Return the pooling named by the folder's modules; the mean where it names none."""
    path = folder / _MODULES_FILE
    if not path.exists():
        return "mean"
    modules = _json(path)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelCorruptError(f"{path} is not a list of modules: fetch the model again")
    kinds = {str(module.get("type")).rpartition(".")[2]: module for module in modules}
    for kind in kinds:
        _expect(folder, "module", kind, _MODULES)
    if "Pooling" not in kinds:
        return "mean"
    return _pooling_mode(_object(folder / str(kinds["Pooling"].get("path")) / "config.json"), folder)


def _pooling_mode(config: dict[str, Any], folder: Path) -> Pooling:
    """Read either spelling of a pooling file: one flag per mode, or the mode's name."""
    flags = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    named = config.get("pooling_mode")
    on = [named] if named is not None else [flags.get(key, key) for key, value in config.items() if value is True]
    modes = [mode for mode in on if mode != "include_prompt"]
    shown = modes[0] if len(modes) == 1 else "+".join(map(str, modes))
    _expect(folder, "pooling", shown, set(get_args(Pooling)))
    return cast("Pooling", shown)


def _expect(folder: Path, name: str, value: object, allowed: set[str] | frozenset[str]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ModelUnsupportedError(f"{folder}: `{name}` is {value!r}: use a model with {' or '.join(sorted(allowed))}")


def _whole(folder: Path, config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ModelCorruptError(f"{folder}: `{key}` is {value!r}, not a positive whole number: fetch the model again")
    return value


def _object(path: Path) -> dict[str, Any]:
    value = _json(path)
    if not isinstance(value, dict):
        raise ModelCorruptError(f"{path} is not a JSON object: fetch the model again")
    return value


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as err:
        raise ModelCorruptError(f"{path} is missing: give the folder of a BERT model, or fetch it again") from err
    except (OSError, ValueError) as err:
        raise ModelCorruptError(f"{path} can't be read as JSON ({err}): fetch the model again") from err
