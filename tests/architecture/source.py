"""Reading our own source: the modules, what they import, and rules on their syntax trees.

Every checker takes source text, so that a test can show it a violation.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "atoll"

# Bottom to top; a floor imports floors below it, and names of one floor do not see each other.
FLOORS: tuple[frozenset[str], ...] = tuple(
    frozenset(floor.split())
    for floor in (
        "asgi errors rng tree words",
        "frames",
        "config core disk",
        "accounting matrix noise secagg",
        "ckks stages aggregators servers models data certs policy egress flower status",
        "adapters ledger tasks",
        "local",
        "round",
        "algorithms protection recipes runtimes",
        "experiment",
        "artifacts",
        "runs",
        "trained plan",
        "audit report worker site coordinator ui",
        "api",
        "cli",
        "__main__",
    )
)


def modules() -> dict[str, str]:
    """Every module of the package by its dotted name, as source."""
    found: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path.read_text(encoding="utf-8")
    return found


def imports(source: str, known: Mapping[str, str] | None = None) -> set[str]:
    """Modules of ours that a source imports, also inside functions and under TYPE_CHECKING.

    `from atoll.core import check` is an import of atoll.core.check where `known` has that module,
    and always one of atoll.core.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            base = node.module or ""
            inside = {f"{base}.{alias.name}" for alias in node.names}
            found |= {base} | (inside & set(known or {}))
            # `from atoll import rng` sees the package's file, which imports nothing.
            if base == "atoll":
                found |= {name for name in inside if not name.endswith("__")}
    return {name for name in found if name.startswith("atoll.")}


def climbing(name: str, source: str) -> list[str]:
    """Imports of a module that go up, or sideways to another name of its floor."""
    own = _floor_of(name)
    return [
        f"{name} imports {target}"
        for target in sorted(imports(source))
        if target.split(".")[1] != name.split(".")[1] and _floor_of(target) >= own
    ]


def _floor_of(name: str) -> int:
    part = name.split(".")[1]
    for level, floor in enumerate(FLOORS):
        if part in floor:
            return level
    raise AssertionError(f"atoll.{part} stands on no floor; put it into FLOORS")


def cycles(sources: Mapping[str, str]) -> list[str]:
    """Modules that import themselves, directly or through others; a package is its __init__."""
    graph = {
        name: {target for target in imports(source, sources) if target in sources} - {name}
        for name, source in sources.items()
    }
    # A package that re-exports its own modules is no cycle unless they import the package.
    while True:
        free = {name for name, targets in graph.items() if not targets & graph.keys()}
        if not free:
            return sorted(graph)
        graph = {name: targets for name, targets in graph.items() if name not in free}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def wrong_all(name: str, source: str) -> list[str]:
    """`__all__` that is missing, unsorted, or not exactly the public names defined there."""
    tree = ast.parse(source)
    listed = _listed(tree)
    defined = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
    }
    if listed is None:
        return [f"{name} has no __all__"] if defined else []
    wrong = [f"{name}: {missing} is not in __all__" for missing in sorted(defined - set(listed))]
    if listed != sorted(listed, key=_case_then_name):
        wrong.append(f"{name}: __all__ is not sorted")
    unknown = set(listed) - defined - _names(tree)
    return wrong + [f"{name}: __all__ holds {each}, which is not there" for each in sorted(unknown)]


def _listed(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def _names(tree: ast.Module) -> set[str]:
    """Names that are assigned or imported at the top of a module."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                found |= {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def _case_then_name(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions: the order that ruff keeps."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return kind, name


def wide_signatures(source: str) -> list[str]:
    """`**kwargs`, and functions with more than 6 parameters beside self.

    Options of a command (their annotation names typer's, or an option of ours that several
    commands have) are the user's, not ours.
    """
    wrong: list[str] = []
    for node in functions(ast.parse(source)):
        given = node.args
        names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs) if not
                 (a.annotation and _is_option(ast.unparse(a.annotation)))]  # fmt: skip
        if given.kwarg:
            wrong.append(f"{node.name} takes **{given.kwarg.arg}")
        if len([name for name in names if name not in ("self", "cls")]) > 6:
            wrong.append(f"{node.name} takes {len(names)} parameters")
    return wrong


def _is_option(annotation: str) -> bool:
    return "typer." in annotation or annotation.endswith("Option")


def long_functions(source: str, limit: int = 40) -> list[str]:
    """Functions whose own lines (no docstring, no functions inside) reach the limit."""
    return [
        f"{node.name} has {own} lines"
        for node in functions(ast.parse(source))
        if (own := _own_lines(node)) >= limit
    ]


def _own_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    lines = _span(node)
    for inner in ast.walk(node):
        if inner is not node and isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
            lines -= _span(inner)
    if ast.get_docstring(node) is not None:
        lines -= _span(node.body[0])
    return len(lines)


def _span(node: ast.stmt) -> set[int]:
    assert node.end_lineno is not None
    return set(range(node.lineno, node.end_lineno + 1))


REFLECTION = {"getattr", "hasattr", "setattr", "delattr"}
DANGER = {
    "eval", "exec", "pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib",
    "torch.load", "torch.save", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
}  # fmt: skip
SWITCHES = {"trust_remote_code=True", "shell=True"}


GUESSABLE = {"random", "numpy.random", "np.random", "torch.random", "atoll.rng"}
DRAWS = re.compile(r"torch\.(rand\w*|normal|bernoulli|poisson|multinomial|Generator|manual_seed)$")
IN_PLACE = {"normal_", "uniform_", "random_", "bernoulli_", "exponential_", "rvs"}


def reflections(source: str) -> list[str]:
    """getattr and its kin, as they stand in the source."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in REFLECTION
    ]


def dangers(source: str) -> list[str]:
    """What runs code that came from a file or the network."""
    tree = ast.parse(source)
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in DANGER:
            found.append(ast.unparse(node.func))
        elif isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in DANGER]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {node.module.split(".")[0], *(f"{node.module}.{a.name}" for a in node.names)}
            found += sorted(names & DANGER)
        elif isinstance(node, ast.keyword) and ast.unparse(node) in SWITCHES:
            found.append(ast.unparse(node))
    return found


def guessable(source: str) -> list[str]:
    """Generators that a seed, or a few hundred outputs, give away: all but the system's."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [each.name for each in node.names if each.name in GUESSABLE]
        elif isinstance(node, ast.ImportFrom):
            named = (f"{node.module}.{each.name}" for each in node.names)
            found += [each for each in named if {each, each.rpartition(".")[0]} & GUESSABLE]
        elif isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            if text in GUESSABLE or DRAWS.match(text) or node.attr in IN_PLACE:
                found.append(text)
    return found


def prints(source: str) -> list[str]:
    """Calls of print."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    ]


def children(sources: Mapping[str, str]) -> list[str]:
    """Classes that inherit from a class of ours, exceptions apart."""
    classes = {
        node.name: [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases]
        for source in sources.values()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
    }
    return [
        f"{name} inherits from {base}"
        for name, bases in sorted(classes.items())
        for base in bases
        if base in classes and not _is_exception(name, classes)
    ]


def _is_exception(name: str, classes: Mapping[str, list[str]]) -> bool:
    if name not in classes:
        return re.fullmatch(r"\w*(Error|Exception|Warning)", name) is not None
    return any(_is_exception(base, classes) for base in classes[name])
