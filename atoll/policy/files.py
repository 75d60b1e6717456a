"""A policy from its file, and in words."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from atoll.config.json_schema import schema_of
from atoll.config.reading import mapping, read, refusal
from atoll.errors import ConfigError
from atoll.policy.schema import Policy

__all__ = ["describe", "fingerprint", "load_policy", "policy_schema"]


def load_policy(path: Path | None) -> Policy:
    """The policy of a file; without one, the default.

    Raises:
        ConfigError: all that is wrong with the file, at once.
    """
    if path is None:
        return Policy()
    source = read(path, needs="leave it out for the default policy, or name a rule")
    tree = mapping(source, expected=f"rules: {', '.join(list(Policy.model_fields)[:3])}, ...")
    try:
        policy = Policy.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise refusal(error, tree=tree, source=source, model=Policy) from None
    if source.problems:
        raise ConfigError("\n".join(source.problems))
    return policy


def policy_schema() -> dict[str, Any]:
    """The JSON schema of the policy file."""
    return schema_of(Policy)


def describe(policy: Policy) -> str:
    """Every rule in a line, which is a policy file, too."""
    values, fields = policy.model_dump(mode="json"), Policy.model_fields
    return "\n".join(
        f"{name}: {json.dumps(values[name], ensure_ascii=False)}  # {field.description}"
        for name, field in fields.items()
    )


def fingerprint(policy: Policy) -> str:
    """SHA-256 over every rule: the same for files that say the same."""
    rules = json.dumps(policy.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(rules.encode()).hexdigest()
