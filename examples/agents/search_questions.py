"""Questions that need at least two pages; the answers come from `inspect`, not from the text of the pages."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from search_engine import words_of
from search_pages import Class, Site

GENERIC_BASES = ("builtins.object", "builtins.Exception")


@dataclass(frozen=True, slots=True)
class Hop:
    """One round of the agent: its thought, its queries, the pages that it then visits, and the goal of the visit."""

    thought: str
    queries: tuple[str, ...]
    pages: tuple[str, ...]
    goal: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its short answer, a false answer, and the rounds that lead to the true answer."""

    text: str
    answer: str
    wrong: str
    hops: tuple[Hop, ...]
    conclusion: str  # the last thought, with the placeholder {answer}

    @property
    def pages(self) -> tuple[str, ...]:
        """The pages that contain the evidence."""
        return tuple(page for hop in self.hops for page in hop.pages)


def inherited_default(rng: random.Random, site: Site) -> Question | None:
    """Class -> base class -> default of a method's parameter."""
    child = site.draw_class(rng)
    base = site.classes.get(child.base or "")
    choices = [
        (method, name, value)
        for method, function in (base.methods.items() if base else ())
        for name, value in function.defaults.items()
        if method not in child.methods
    ]
    if base is None or not choices:
        return None
    method, name, value = rng.choice(choices)
    others = [other for _, _, other in choices if other != value] or ["None"]
    return Question(
        f"The class {child.name} inherits the method {method} from its direct base class. What is the default value "
        f"of the parameter {name} of that method?",
        value,
        rng.choice(others),
        (
            class_hop(child.name),
            next_class_hop(child.name, base.name, f"signature of {method}"),
        ),
        f"The signature of {base.name}.{method} shows the default value of {name}. It is {{answer}}.",
    )


def class_hop(name: str) -> Hop:
    """Find a class and read what it derives from."""
    return Hop(
        f"I have to find out which class {name} derives from.",
        (f"class {name}", f"{name} base class"),
        (name,),
        f"direct base class of {name}",
    )


def next_class_hop(child: str, base: str, goal: str) -> Hop:
    """Find the base class of a class."""
    return Hop(
        f"The page says that the direct base class of {child} is {base}. I need its page.",
        (f"class {base}", f"{base} methods"),
        (base,),
        goal,
    )


def grandparent(rng: random.Random, site: Site) -> Question | None:
    """Class -> base class -> its base class."""
    child = site.draw_class(rng)
    base = site.classes.get(child.base or "")
    if base is None or base.base is None or base.base in GENERIC_BASES:
        return None
    return Question(
        f"Which class is the direct base class of the class that {child.name} directly derives from? Give its full "
        "name.",
        base.base,
        base.name,
        (class_hop(child.name), next_class_hop(child.name, base.name, f"direct base class of {base.name}")),
        f"The page of {base.name} names its direct base class, and that is the answer: {{answer}}.",
    )


def shared_parameter(rng: random.Random, site: Site) -> Question | None:
    """Function -> the parameter with a given default -> the default of that parameter in another function."""
    first, second = site.draw_function_with_default(rng), site.draw_function_with_default(rng)
    here, there = first.defaults, second.defaults
    shared = [
        name
        for name, value in here.items()
        if there.get(name, value) != value and list(here.values()).count(value) == 1
    ]
    if not shared:
        return None
    name = rng.choice(shared)
    return Question(
        f"One parameter of the function {first.name} has the default value {here[name]}. A parameter of the same name "
        f"exists in the function {second.name}. What is its default value there?",
        there[name],
        here[name],
        (
            function_hop(f"I have to find out which parameter of {first.name} that is.", first.name),
            function_hop(f"The parameter is called {name}. Now I need the signature of {second.name}.", second.name),
        ),
        f"In the signature of {second.name} the parameter {name} has the default value {{answer}}.",
    )


def function_hop(thought: str, name: str) -> Hop:
    """Find a function and read its signature."""
    return Hop(thought, (f"function {name}", f"{name} parameters"), (name,), f"signature of {name}")


def most_parameters(rng: random.Random, site: Site) -> Question | None:
    """Three functions compared by the number of their parameters."""
    functions = [site.draw_function(rng) for _ in range(3)]
    return comparison(
        rng,
        {function.name: function.num_parameters for function in functions},
        "Which of the functions {names} takes the most parameters, counting every parameter of its signature?",
        "signature and number of parameters",
    )


def most_methods(rng: random.Random, site: Site) -> Question | None:
    """Two classes compared by the number of public methods that they define."""
    classes = [site.draw_class(rng) for _ in range(2)]
    if min(len(cls.methods) for cls in classes) < 2:
        return None
    return comparison(
        rng,
        {cls.name: len(cls.methods) for cls in classes},
        "Which of the classes {names} itself defines more public methods, inherited ones not counted?",
        "methods defined by the class",
    )


def comparison(rng: random.Random, counts: dict[str, int], text: str, goal: str) -> Question | None:
    """A question for the name with the largest count, or None if several names have it."""
    ranked = sorted(counts, key=lambda name: -counts[name])
    if len(ranked) < 2 or counts[ranked[0]] == counts[ranked[1]]:
        return None
    names = list(counts)
    listed = ", ".join(names[:-1]) + f" and {names[-1]}"
    found = "; ".join(f"{name}: {count}" for name, count in counts.items())
    half = (len(names) + 1) // 2
    thoughts = (f"I need the pages of {listed} to compare them.", "Now the rest of them.")
    groups = (names[:half], names[half:])
    hops = tuple(
        Hop(thought, tuple(group), tuple(group), goal) for thought, group in zip(thoughts, groups, strict=True)
    )
    conclusion = f"I count ({found}). The largest number belongs to {{answer}}."
    return Question(text.format(names=listed), ranked[0], rng.choice(ranked[1:]), hops, conclusion)


def described_class(rng: random.Random, site: Site) -> Question | None:
    """Module page -> the class with a given summary -> its base class."""
    cls = site.draw_class(rng)
    module = cls.name.rpartition(".")[0]
    usable = (
        cls.base is not None
        and cls.base not in GENERIC_BASES
        and cls.summary.endswith(".")
        and cls.summary.count(" ") >= 4
    )
    if not usable or cls.base is None or module not in site.pages or summaries(site, cls.summary) != [cls]:
        return None
    return Question(
        f'In the module {module} there is a class whose documentation begins: "{cls.summary}" Which class is its '
        "direct base class? Give its full name.",
        cls.base,
        cls.name,
        (
            Hop(
                f"The module's page should list its classes; I look for it in {module}.",
                (f"module {module}", cls.summary),
                (module,),
                f"class described as: {cls.summary}",
            ),
            Hop(
                f"The class is {cls.name}. Its own page names its base.",
                (f"class {cls.name}", f"{cls.name} base class"),
                (cls.name,),
                f"direct base class of {cls.name}",
            ),
        ),
        f"The page of {cls.name} gives the direct base class: {{answer}}.",
    )


def summaries(site: Site, summary: str) -> list[Class]:
    """The classes with this summary."""
    return [cls for cls in site.classes.values() if cls.summary == summary]


TEMPLATES: tuple[Callable[[random.Random, Site], Question | None], ...] = (
    inherited_default,
    grandparent,
    shared_parameter,
    most_parameters,
    most_methods,
    described_class,
)


def candidates(rng: random.Random, site: Site, start: int) -> Iterator[Question]:
    """Endless valid questions, from each template in turn; a template without one in 5,000 draws is skipped."""
    turn = start
    while True:
        make = TEMPLATES[turn % len(TEMPLATES)]
        turn += 1
        drawn = (make(rng, site) for _ in range(5_000))
        question = next((question for question in drawn if question is not None and is_valid(site, question)), None)
        if question is not None:
            yield question


def is_valid(site: Site, question: Question) -> bool:
    """Whether all pages exist and contain the answer, and neither the question nor the wrong answer reveals it."""
    named = question.answer in question.text.replace("?", " ").replace(",", " ").split()
    asked_for_name = question.text.startswith("Which of the")
    return (
        len(set(question.pages)) >= 2
        and all(page in site.pages for page in question.pages)
        and any(question.answer in site.pages[page] for page in question.pages)
        and named == asked_for_name
        and not set(words_of(question.answer)) <= set(words_of(question.wrong))
    )
