"""A function's signature is its configuration: a named call becomes a checked, bound function."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import partial
from inspect import Parameter
from types import ModuleType
from typing import Any

from pydantic import JsonValue, PydanticUserError, TypeAdapter, ValidationError

from atoll.config.call import Call, placed
from atoll.config.find import Function, find
from atoll.config.messages import misfit
from atoll.config.words import did_you_mean, expected
from atoll.errors import ConfigError

__all__ = ["Where", "resolve"]

Where = Callable[[str], str]


def resolve(call: Call, *, package: ModuleType | str, where: Where) -> partial[object]:
    """The function that `call` names, with its keyword-only arguments bound to checked values.

    The positional parameters are what Atoll passes; the file sets the keyword-only ones.
    """
    place = where(call.path)
    named = where(f"{call.path}.name")
    function = find(call, package=package, place=place if named == "default" else named)
    settable = _settable(function, call=call, place=place)
    found = [
        f"{where(f'{call.path}.{name}')}: {_unknown(name, call=call, settable=settable)}"
        for name in call.arguments
        if name not in settable
    ]
    bound: dict[str, object] = {}
    for name, parameter in settable.items():
        path = f"{call.path}.{name}"
        try:
            if name in call.arguments:
                bound[name] = _checked(call.arguments[name], parameter=parameter, path=path)
            elif parameter.default is parameter.empty:
                found.append(f"{place}: {_missing(parameter, call=call)}")
        except ConfigError as error:
            found.append(f"{where(path)}: {error}")
    if found:
        raise ConfigError("\n".join(found))
    return partial(function, **bound)


def _settable(function: Function, *, call: Call, place: str) -> Mapping[str, Parameter]:
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{place}: the signature of {call.name} cannot be read ({error}); its annotations "
            "must be importable at run time"
        ) from None
    return {
        name: parameter
        for name, parameter in signature.parameters.items()
        if parameter.kind is Parameter.KEYWORD_ONLY
    }


def _unknown(name: str, *, call: Call, settable: Mapping[str, Parameter]) -> str:
    if not settable:
        return f'unknown argument "{name}" of {call.name}, which takes none'
    near = did_you_mean(name, among=settable) or "."
    return f'unknown argument "{name}" of {call.name}{near} Valid: {", ".join(settable)}'


def _missing(parameter: Parameter, *, call: Call) -> str:
    schema = _schema(_adapter(parameter))
    wanted = f" ({expected(schema)})" if schema else ""
    return (
        f"{call.name} needs {parameter.name}{wanted}; write "
        f"{{name: {call.name}, {parameter.name}: ...}}"
    )


def _checked(value: JsonValue, *, parameter: Parameter, path: str) -> object:
    if parameter.annotation is parameter.empty:
        return value
    adapter = _adapter(parameter)
    if adapter is None:
        kind = inspect.formatannotation(parameter.annotation)
        raise ConfigError(f"{path} cannot be set in a file (its type is {kind}); remove it")
    try:
        # As JSON, a list may become a tuple and a string a path, but "5" never a number.
        checked: object = adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError:
        raise ConfigError(misfit(path, value=value, schema=_schema(adapter))) from None
    return placed(checked, path)


def _adapter(parameter: Parameter) -> TypeAdapter[Any] | None:
    """None for a type that no file can express, as a tensor."""
    try:
        return TypeAdapter(Any if parameter.annotation is parameter.empty else parameter.annotation)
    except PydanticUserError:
        return None


def _schema(adapter: TypeAdapter[Any] | None) -> Mapping[str, Any]:
    try:
        return adapter.json_schema() if adapter else {}
    except PydanticUserError:
        return {}
