"""Pages about the standard library, made from docstrings and signatures, and facts for questions about them."""

import inspect
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import FunctionType, ModuleType

from common import import_library

URL = "https://docs.example/python/"
FORBIDDEN = ("<think", "<tool", "<answer", "<|", "\nSummary:", "Evidence in page", "User:")  # parts of the log format


@dataclass(frozen=True, slots=True)
class Function:
    """A function or method: full name, number of parameters, and defaults that a question can ask for."""

    name: str
    num_parameters: int
    defaults: dict[str, str]


@dataclass(frozen=True, slots=True)
class Class:
    """A class: full name, base class if there is only one, public methods that it defines, and first sentence."""

    name: str
    base: str | None
    methods: dict[str, Function]
    summary: str


@dataclass(slots=True)
class Site:
    """All pages and facts by full name."""

    pages: dict[str, str] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    classes: dict[str, Class] = field(default_factory=dict)
    groups: dict[str, list[list[str]]] = field(default_factory=dict)  # names by module, computed on first use

    def draw_class(self, rng: random.Random) -> Class:
        """A random class of a random module, so that large modules do not dominate."""
        return self.classes[rng.choice(rng.choice(self._groups("classes", self.classes)))]

    def draw_function(self, rng: random.Random) -> Function:
        """A random function of a random module."""
        return self.functions[rng.choice(rng.choice(self._groups("functions", self.functions)))]

    def draw_function_with_default(self, rng: random.Random) -> Function:
        """A random function with a default that a question can ask for."""
        with_default = (name for name, function in self.functions.items() if function.defaults)
        return self.functions[rng.choice(rng.choice(self._groups("functions with default", with_default)))]

    def _groups(self, kind: str, facts: Iterable[str]) -> list[list[str]]:
        if kind not in self.groups:
            found: dict[str, list[str]] = {}
            for name in facts:
                found.setdefault(name.rpartition(".")[0], []).append(name)
            self.groups[kind] = list(found.values())
        return self.groups[kind]


def url_of(name: str) -> str:
    """The URL of a page."""
    return URL + name


def signature_text(function: Callable[..., object]) -> str:
    """The signature without memory addresses; empty if Python cannot determine it."""
    try:
        return re.sub(r" at 0x[0-9a-fA-F]+", "", str(inspect.signature(function)))
    except (TypeError, ValueError):
        return ""


def doc_text(item: object) -> str:
    """The docstring; lines of equal signs become dashes, because such lines separate results in the logs."""
    doc = inspect.getdoc(item) if not inspect.isclass(item) else inspect.cleandoc(item.__doc__ or "")
    return re.sub(r"^\s*=+\s*$", lambda line: line[0].replace("=", "-"), doc or "", flags=re.MULTILINE)


def first_sentence(text: str) -> str:
    """The first sentence of the first paragraph, on one line."""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s", paragraph)[0]


def shown_default(value: object) -> str | None:
    """The text of a default that a question can ask for, or None for values that are easily guessed."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w.-]{2,}", value):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) >= 3:
        return repr(value)
    return None


def describe_function(name: str, function: FunctionType) -> Function:
    """The facts of a function."""
    parameters = inspect.signature(function).parameters
    shown = {key: shown_default(parameter.default) for key, parameter in parameters.items()}
    return Function(name, len(parameters), {key: value for key, value in shown.items() if value is not None})


def function_text(name: str, function: Callable[..., object]) -> str:
    """The text of a function, as a page or a part of a page."""
    return f"{name}{signature_text(function)}\n\n{doc_text(function)}".strip()


def describe_class(name: str, cls: type) -> tuple[Class, str]:
    """The facts and the page of a class."""
    public = {
        key: member for key, member in vars(cls).items() if isinstance(member, FunctionType) and not key.startswith("_")
    }
    bases = [f"{base.__module__}.{base.__qualname__}" for base in cls.__bases__]
    methods = {key: describe_function(f"{name}.{key}", member) for key, member in public.items()}
    fact = Class(name, bases[0] if len(bases) == 1 else None, methods, first_sentence(doc_text(cls)))
    parts = [f"class {name}{signature_text(cls)}", f"Direct base classes: {', '.join(bases)}", doc_text(cls)]
    parts += [f"Methods defined here: {', '.join(public) or 'none'}"]
    parts += [function_text(key, member) for key, member in public.items()]
    return fact, "\n\n".join(part for part in parts if part)


def add_module(site: Site, name: str, module: ModuleType) -> None:
    """Add the pages of a module and of its classes and functions."""
    functions: list[str] = []
    classes: list[str] = []
    for key, member in sorted(vars(module).items()):
        full = f"{name}.{key}"
        if key.startswith("_") or getattr(member, "__module__", None) != name:
            continue
        if inspect.isclass(member) and member.__qualname__ == key:
            fact, text = describe_class(full, member)
            site.classes[full] = fact
            classes.append(f"class {full}\n    {fact.summary}".rstrip())
        elif isinstance(member, FunctionType) and member.__qualname__ == key:
            site.functions[full] = describe_function(full, member)
            text = f"{function_text(full, member)}\n\nFunction of the module {name}."
            functions.append(function_text(key, member))
        else:
            continue
        add_page(site, full, text)
    parts = [f"module {name}", doc_text(module), "Classes", *classes, "Functions", *functions]
    add_page(site, name, "\n\n".join(part for part in parts if part))


def add_page(site: Site, name: str, text: str) -> None:
    """Add a page, unless its text contains a part of the log format."""
    if not any(word in text for word in FORBIDDEN):
        site.pages[name] = text


def build_site() -> Site:
    """Build the pages and facts of the standard library."""
    site = Site()
    modules = import_library()
    for name, module in modules.items():
        add_module(site, name, module)
    site.functions = {name: fact for name, fact in site.functions.items() if name in site.pages}
    site.classes = {name: fact for name, fact in site.classes.items() if name in site.pages}
    return site
