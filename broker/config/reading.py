"""Reads sections of the file: names, references to the environment, types. Collects problems instead of stopping."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

from broker.config.problems import kind, nearest

REFERENCE: Final = "os.environ/"
"""LiteLLM's mark of a value that stands in the environment."""

Yaml: TypeAlias = Any
"""A value as the file writes it: nothing, text, number, date, list or mapping."""

ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass
class Reading:
    """One pass over one configuration: the environment it may refer to, and what was found on the way."""

    environ: Mapping[str, str]
    problems: list[str] = field(default_factory=list)
    unacted: dict[str, None] = field(default_factory=dict)
    """Paths of known LiteLLM keys we do not act on; a dict for its order."""

    def problem(self, path: str, text: str) -> None:
        """Note that the value at `path` cannot be used."""
        self.problems.append(f"{path}: {text}")

    def ignore(self, path: str) -> None:
        """Note that a known key is not acted on."""
        self.unacted[path] = None

    def resolve(self, value: object, path: str) -> Yaml:
        """Return `value` with every `os.environ/NAME` in it replaced; a name that is not set is a problem."""
        match value:
            case str() if value.startswith(REFERENCE):
                name = value.removeprefix(REFERENCE)
                if name not in self.environ:
                    self.problem(path, f"environment variable {name} is not set")
                return self.environ.get(name)
            case list():
                return [self.resolve(item, f"{path}[{index}]") for index, item in enumerate(value)]
            case dict():
                return {key: self.resolve(item, f"{path}.{key}") for key, item in value.items()}
        return value

    def mapping(self, value: object, path: str) -> dict[str, Any]:
        """Return a mapping with text keys; nothing stands for an empty one, anything else is a problem."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.problem(path, f"a mapping is needed, not {kind(value)}")
            return {}
        return {str(key): item for key, item in value.items()}

    def items(self, value: object, path: str) -> list[Any]:
        """Return a list; nothing stands for an empty one, anything else is a problem."""
        if value is None:
            return []
        if not isinstance(value, list):
            self.problem(path, f"a list is needed, not {kind(value)}")
            return []
        return value

    def section(  # noqa: PLR0913 - the optional two are named at every call
        self,
        value: object,
        path: str,
        acted: Collection[str],
        known: Collection[str] = (),
        *,
        general: str | None = None,
        nested: Collection[str] = (),
    ) -> dict[str, Any]:
        """Return the keys of a section we act on, references resolved.

        Keys in `known` only are noted as not acted on, under `general` where one entry should stand for all items of a
        list; their references are left alone, so that a variable nobody reads need not be set. So are those in the
        sections under `nested`, which are read by a call of their own.
        """
        kept = {}
        for key, item in self.mapping(value, path).items():
            if key in acted:
                kept[key] = item if key in nested else self.resolve(item, f"{path}.{key}" if path else key)
            elif key in known:
                self.ignore(f"{general or path}.{key}" if general or path else key)
            else:
                self.unknown(f"{path}.{key}" if path else key, key, {*acted, *known})
        return kept

    def unknown(self, path: str, key: str, known: Collection[str]) -> None:
        """Note an unknown key with the nearest known one."""
        hint = nearest(key, sorted(known))
        self.problem(path, "unknown key" + (f"; the nearest known one is {hint}" if hint else ""))

    def build(
        self, model: type[ModelT], values: Mapping[str, Any], path: str, names: Mapping[str, str] | None = None
    ) -> ModelT | None:
        """Return `model` of `values`, leaving out what is None; None when they do not fit, each misfit a problem.

        `names` says what the file calls a field where that differs, as a path below `path`.
        """
        try:
            return model.model_validate({key: value for key, value in values.items() if value is not None})
        except ValidationError as error:
            for misfit in error.errors(include_url=False, include_context=False):
                head, *rest = [str(part) for part in misfit["loc"]]
                place = ".".join([path, (names or {}).get(head, head), *rest]).lstrip(".")
                self.problem(place, f"{misfit['msg'].removeprefix('Value error, ')}; it is {kind(misfit['input'])}")
            return None
