"""A pipeline's parts, made of settings; what is heavy is loaded when it is asked for."""

import os

from niruhybrid.config import GenerationConfig, StoreConfig
from niruhybrid.errors import InvalidSettingError
from niruhybrid.ports import Encoder, Generator, Store
from niruhybrid.settings import Settings

__all__ = ("Parts", "open_generator", "open_parts", "open_store")

Parts = tuple[Encoder, Store, Generator]
"""What a pipeline is made of."""


def open_parts(settings: Settings, encoder: Encoder | None, store: Store | None, generator: Generator | None) -> Parts:
    """Make the parts that are missing; blocks for as long as a model takes to load.

    Raises:
        ModelError: the model can't be loaded.
        StoreError: the store can't be opened.
        InvalidSettingError: a generator is asked for whose key or package is not there.
    """
    store = store or open_store(settings.store)
    try:
        return encoder or _load_encoder(settings.model), store, generator or open_generator(settings.generation)
    except BaseException:
        store.close()
        raise


def _load_encoder(model: str | None) -> Encoder:
    from niruhybrid.encoding.hybrid_encoder import HybridEncoder  # noqa: PLC0415  # loads OpenVINO

    return HybridEncoder(model)


def open_store(config: StoreConfig) -> Store:
    """Return the store that the settings name: on a PostgreSQL server, in a file, or in memory.

    Raises:
        InvalidSettingError: it is on a server, and the extra `postgres` is not installed; or its URL is not one.
        StoreError: it can't be opened.
    """
    if config.on_server:
        try:
            from niruhybrid.retrieval.postgres import PostgresStore  # noqa: PLC0415  # an extra
        except ImportError as err:
            raise InvalidSettingError(
                f"the store is {config.name!r}, and its client is not installed: pip install 'niruhybrid[postgres]'"
            ) from err
        return PostgresStore(config=config)
    from niruhybrid.retrieval.store import EmbeddedStore  # noqa: PLC0415  # loads SQLite

    return EmbeddedStore(config.path, config=config)


def open_generator(config: GenerationConfig) -> Generator:
    """Return what writes answers, as the settings have it.

    Raises:
        InvalidSettingError: the endpoint's key is not set, or the extra `openai` not installed.
    """
    if config.base_url is not None:
        from niruhybrid.generation.openai import OpenAIGenerator  # noqa: PLC0415  # loads the endpoint's client

        return OpenAIGenerator(config, api_key=_secret(config.api_key_env))
    from niruhybrid.generation.extractive import ExtractiveGenerator  # noqa: PLC0415  # only where it is used

    return ExtractiveGenerator()


def _secret(variable: str | None) -> str | None:
    if variable is not None and not os.environ.get(variable):
        raise InvalidSettingError(f"`api_key_env` is {variable!r}, which is not set: set it, or take the setting away")
    return None if variable is None else os.environ[variable]
