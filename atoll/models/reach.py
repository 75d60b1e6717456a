"""Whether the hub answers, asked once and quickly before anything is loaded from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from atoll.errors import ModelError
from atoll.models.locate import Source

__all__ = ["reached"]

TIMEOUT = 10.0  # seconds; transformers retries an unreachable hub for most of a minute


def reached(source: Source) -> Source:
    """The source; the folder of its copy in the cache where the hub does not answer.

    Raises:
        ModelError: when the hub has no such model, or does not answer and nothing is cached.
    """
    import httpx
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    if source.folder is not None or constants.HF_HUB_OFFLINE:
        return source
    try:
        HfApi().model_info(source.path, timeout=TIMEOUT)
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise ModelError(_nowhere(source)) from error
    except (OSError, httpx.HTTPError) as error:
        found = try_to_load_from_cache(
            source.path, "config.json", revision=source.revision or "main"
        )
        if not isinstance(found, str):
            raise ModelError(
                f"model {source.path} is no folder here, and the hub cannot be reached to look for "
                f"a model of that name ({error}); check the path or the connection, or use "
                "builtin:minilm, which needs no network"
            ) from error
        return replace(source, path=str(Path(found).parent))
    return source


def _nowhere(source: Source) -> str:
    return (
        f"model {source.path} is neither a folder here nor a model on the hub; check the name "
        "(for a private or gated model, log in with `hf auth login`), or use builtin:minilm"
    )
