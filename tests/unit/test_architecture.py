"""The architecture of flow.md, read from the source: levels, cycles, who may import what, file sizes, façades."""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "broker", "workers")
MAX_LINES = 400

LEVELS = {
    "schemas": 0,
    "broker": 1,  # the package's own docstring
    "broker.clock": 1,
    "broker.config": 1,
    "broker.errors": 1,
    "broker.logs": 1,
    "broker.metrics": 1,
    "broker.records": 1,
    "broker.series": 1,
    "broker.topics": 1,
    "broker.asyncapi": 2,
    "broker.delivery": 2,
    "broker.envelope": 2,
    "broker.keys": 2,
    "broker.ledger": 2,
    "broker.limits": 2,
    "broker.routing": 2,
    "broker.ports": 3,
    "broker.topic_plan": 3,
    "broker.adapters": 4,
    "broker.client": 4,
    "broker.edge": 4,
    "broker.embedded": 4,
    "broker.simulate": 4,
    "workers.providers": 4,
    "workers.sinks": 4,
    "workers": 5,
    "broker.cli": 6,
    "broker.__main__": 6,
}
"""Longest matching prefix decides. A module that no prefix but `broker` fits fails a test: it has to be placed."""

PASSES_THE_ENVIRONMENT_ON = "broker.embedded.process"
"""Gives its own environment to the servers it starts and reads nothing in it."""
APPLICATION_ROOT = "broker.client.connect"
"""Where applications that import `broker.client` get their Kafka from: `BrokerClient("host:port")` needs no more."""
COMPOSITION_ROOTS = ("broker.cli", "broker.__main__", "workers.pool", APPLICATION_ROOT, "tests")

CORE = 2
CORE_LIBRARIES = {"genai_prices", "orjson", "prometheus_client", "pydantic", "pydantic_core", "yaml"}
"""What the levels up to `CORE` may import beside the standard library: data formats and data, no client."""
CORE_FORBIDS = {
    "asyncio",
    "concurrent",
    "http",
    "multiprocessing",
    "select",
    "socket",
    "ssl",
    "subprocess",
    "threading",
}


@dataclass
class Module:
    """One source file: what it imports at import time, and inside its functions."""

    name: str
    path: Path
    tree: ast.Module
    at_import: set[str] = field(default_factory=set)
    inside: set[str] = field(default_factory=set)

    @property
    def imports(self) -> set[str]:
        return self.at_import | self.inside


def is_under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def placed(name: str) -> str:
    """The longest prefix in `LEVELS` that fits a module."""
    return max((prefix for prefix in LEVELS if is_under(name, prefix)), key=len)


def level(name: str) -> int:
    return LEVELS[placed(name)]


def imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        # `from package import module` imports the module, `from module import name` the module it names.
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def walk(node: ast.AST, module: Module, *, inside: bool) -> None:
    for child in ast.iter_child_nodes(node):
        (module.inside if inside else module.at_import).update(imported(child))
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or for_types_only(child)
        walk(child, module, inside=inside or later)


def for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def sources() -> dict[str, Module]:
    """Every module of the product by name."""
    modules: dict[str, Module] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            module = Module(name_of(path), path, ast.parse(path.read_text(), str(path)))
            walk(module.tree, module, inside=False)
            modules[module.name] = module
    for module in modules.values():
        module.at_import = {resolve(name, modules) for name in module.at_import}
        module.inside = {resolve(name, modules) for name in module.inside}
    return modules


def resolve(name: str, modules: dict[str, Module]) -> str:
    """The module a dotted import leads to: `broker.errors.BrokerError` is `broker.errors`."""
    head, _, _ = name.partition(".")
    if head not in PACKAGES:
        return head if head != "tests" else name
    while name not in modules and "." in name:
        name = name.rpartition(".")[0]
    return name


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.partition(".")[0] in PACKAGES}


def pairs() -> list[tuple[str, str]]:
    return [(module.name, target) for module in sources().values() for target in ours(module.imports)]


def test_every_module_of_the_core_has_a_place() -> None:
    assert [name for name in sources() if name != "broker" and placed(name) == "broker"] == []


def test_imports_go_down_the_levels() -> None:
    assert [(source, target) for source, target in pairs() if level(target) > level(source)] == []


def test_the_folders_of_level_4_do_not_import_each_other() -> None:
    crossing = [
        (source, target)
        for source, target in pairs()
        if level(source) == level(target) == 4 and placed(source) != placed(target) and source != APPLICATION_ROOT
    ]
    assert crossing == []


def test_only_composition_roots_import_the_adapters() -> None:
    allowed = (*COMPOSITION_ROOTS, "broker.adapters")
    offenders = [
        (source, target)
        for source, target in pairs()
        if is_under(target, "broker.adapters") and not any(is_under(source, prefix) for prefix in allowed)
    ]
    assert offenders == []


def test_the_broker_imports_workers_only_inside_its_commands() -> None:
    offenders = [
        (module.name, target)
        for module in sources().values()
        for target in (module.imports if not is_under(module.name, "broker.cli") else module.at_import)
        if is_under(module.name, "broker") and is_under(target, "workers")
    ]
    assert offenders == []


def test_nothing_imports_the_tests() -> None:
    assert [
        name for name, module in sources().items() if any(is_under(target, "tests") for target in module.imports)
    ] == []


def test_the_core_imports_no_client_library_and_no_event_loop() -> None:
    offenders = [
        (module.name, target)
        for module in sources().values()
        if level(module.name) <= CORE
        for target in module.imports - ours(module.imports)
        if target in CORE_FORBIDS or (target not in sys.stdlib_module_names and target not in CORE_LIBRARIES)
    ]
    assert offenders == []


def test_the_core_is_told_the_time() -> None:
    def asks(module: Module) -> bool:
        now = {"now", "utcnow", "today"}
        calls = (node.func for node in ast.walk(module.tree) if isinstance(node, ast.Call))
        return "time" in module.imports or any(isinstance(call, ast.Attribute) and call.attr in now for call in calls)

    core = [module for module in sources().values() if level(module.name) <= CORE and module.name != "broker.clock"]
    assert [module.name for module in core if asks(module)] == []


def test_only_the_configuration_reads_the_environment() -> None:
    def reads(module: Module) -> bool:
        names = {"environ", "environb", "getenv"}
        attributes = any(isinstance(node, ast.Attribute) and node.attr in names for node in ast.walk(module.tree))
        imports = {f"os.{name}" for name in names} & {name for node in ast.walk(module.tree) for name in imported(node)}
        return attributes or bool(imports)

    allowed = ("broker.config", PASSES_THE_ENVIRONMENT_ON)
    readers = [name for name, module in sources().items() if reads(module)]
    assert [name for name in readers if not any(is_under(name, prefix) for prefix in allowed)] == []


def test_there_is_no_import_cycle() -> None:
    graph = {name: ours(module.at_import) - {name} for name, module in sources().items()}
    assert list(cycles(graph)) == []


def cycles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """What is left when every module that imports nothing left is taken away again and again."""
    left = {name: set(targets) for name, targets in graph.items()}
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    if left:
        yield sorted(left)


def python_files() -> list[Path]:
    return [path for top in (*PACKAGES, "tests") for path in sorted((ROOT / top).rglob("*.py"))]


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_has_at_most_400_lines_or_says_why_first(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= MAX_LINES or "lines because" in lines[0]


def test_no_file_is_named_like_a_library_the_project_uses() -> None:
    libraries = {target for module in sources().values() for target in module.imports} - set(PACKAGES)
    libraries &= packages_distributions().keys()
    assert [str(path.relative_to(ROOT)) for path in python_files() if path.stem in libraries] == []


MACHINE = re.compile(
    r"(?:^|[\s\"'=(])/(?:root|home|Users|work)/|pypi\.org|pythonhosted|registry\.npmjs|index-url|crates\.io",
    re.MULTILINE,
)


def test_no_file_names_a_machine_s_path_or_a_registry() -> None:
    tops = (*PACKAGES, "tests", "compose", "Makefile", "README.md", "pyproject.toml", ".ci", ".constraints.txt")
    found = [path for top in tops for path in ([ROOT / top] if (ROOT / top).is_file() else (ROOT / top).rglob("*"))]
    texts = [
        path for path in found if path.is_file() and path.suffix not in {".pyc", ".gguf"} and path != Path(__file__)
    ]
    assert [str(path.relative_to(ROOT)) for path in texts if MACHINE.search(path.read_text(errors="replace"))] == []


def exported(module: Module) -> list[str] | None:
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


def public_names(module: Module) -> Iterator[str]:
    """Names a façade's module holds that a user could import."""
    for node in module.tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (ast.unparse(target) for target in targets)


def facades() -> list[str]:
    return [name for name, module in sources().items() if module.path.stem == "__init__" and list(public_names(module))]


@pytest.mark.parametrize("name", facades())
def test_a_facade_lists_exactly_what_it_shows(name: str) -> None:
    module = sources()[name]
    shown = {shown for shown in public_names(module) if not shown.startswith("_")}
    assert sorted(exported(module) or []) == sorted(shown)
