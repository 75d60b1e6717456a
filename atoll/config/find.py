"""From a name in the experiment file to a function: a built-in, or the user's own."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from atoll.config.call import Call
from atoll.config.words import did_you_mean
from atoll.errors import ConfigError

__all__ = ["Function", "find"]

Function = Callable[..., object]


def find(call: Call, *, package: ModuleType | str, place: str) -> Function:
    """The function that `call` names in `package`, or `my_package.module:function`.

    A package that lists names in `__all__` offers those functions; any other offers one file
    per function, both of the same name.
    """
    if ":" in call.name:
        return _own(call, place=place)
    module = importlib.import_module(package) if isinstance(package, str) else package
    listed = _listed(module)
    if call.name in listed:
        return listed[call.name]
    files = [] if listed else _files(module)
    if call.name in files:
        own_file = _own_file(call.name, package=module, call=call, place=place)
        if own_file is not None:
            return own_file
    # A helper among the files has no function of its name, and is not offered.
    valid = sorted(listed) or [
        name for name in files if _own_file(name, package=module, call=call, place=place)
    ]
    near = did_you_mean(call.name, among=valid) or "."
    raise ConfigError(
        f'{place}: unknown {_kind(call)} "{call.name}"{near} Valid: {", ".join(valid)}; or your '
        "own, as my_package.module:function"
    )


def _own_file(name: str, *, package: ModuleType, call: Call, place: str) -> Function | None:
    """The function that has a file of its name to itself."""
    found = vars(_imported(f"{package.__name__}.{name}", call=call, place=place)).get(name)
    return _function(found) if inspect.isroutine(found) else None


def _own(call: Call, *, place: str) -> Function:
    module_name, _, name = call.name.partition(":")
    # At the end of the path, so that a user's file never hides an installed module.
    for folder in _folders(call):
        if folder not in sys.path:
            sys.path.append(folder)
    names = vars(_imported(module_name, call=call, place=place))
    if name in names and callable(names[name]):
        return _function(names[name])
    public = sorted(key for key, value in names.items() if inspect.isfunction(value))
    what = f"{name} in {module_name} is no function" if name in names else f'no "{name}" in it'
    raise ConfigError(
        f'{place}: {_kind(call)} "{call.name}": {what}{did_you_mean(name, among=public)}'
    )


def _imported(module_name: str, *, call: Call, place: str) -> ModuleType:
    subject = f'{place}: {_kind(call)} "{call.name}"'
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise ConfigError(f"{subject}: write it as my_package.module:function")
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ConfigError(
                f"{subject}: there is no module {error.name} in {' or '.join(_folders(call))} or "
                "among the installed packages"
            ) from None
        raise ConfigError(
            f"{subject} needs the package {error.name}, which is not installed"
        ) from None
    except Exception as error:  # Whatever a user's module does while it is imported.
        raise ConfigError(
            f"{subject}: importing {module_name} failed: {type(error).__name__}: {error}"
        ) from error


def _folders(call: Call) -> list[str]:
    """Where a user's own modules may stand: here, or beside the experiment file."""
    return list(dict.fromkeys(filter(None, (str(Path.cwd()), call.folder))))


def _listed(module: ModuleType) -> dict[str, Function]:
    names = vars(module)
    return {
        name: _function(names[name])
        for name in names.get("__all__", ())
        if inspect.isroutine(names.get(name))
    }


def _files(module: ModuleType) -> list[str]:
    folders = vars(module).get("__path__", ())
    return sorted(
        info.name for info in pkgutil.iter_modules(folders) if not info.name.startswith("_")
    )


def _function(value: object) -> Function:
    assert callable(value)
    return value


def _kind(call: Call) -> str:
    """`algorithm`, `partition`, `stage`, ...: the key that names it."""
    section, _, last = call.path.rpartition(".")
    return section.rpartition(".")[2].removesuffix("s") if last.isdecimal() else last or "function"
