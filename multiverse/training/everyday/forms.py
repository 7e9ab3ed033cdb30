"""Fields to fill in from a message: a path finds one field."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from multiverse.training.everyday.problem import NAMES, Part, Problem, solve, width

_SURNAMES = ["Stone", "Baker", "Miller", "Reed", "Cook", "Fox", "Young", "Hill", "Gray", "Wood"]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_CITIES = ["Rome", "Paris", "Berlin", "Madrid", "Vienna", "London", "Dublin", "Oslo", "Athens", "Lisbon"]
_COLORS = ["red", "blue", "green", "white", "black", "yellow"]

FIELDS: dict[str, tuple[Callable[[Random], str], str]] = {
    "name": (lambda rng: f"{rng.choice(NAMES)} {rng.choice(_SURNAMES)}", "My name is {}."),
    "day": (lambda rng: rng.choice(_DAYS), "We arrive on {}."),
    "city": (lambda rng: rng.choice(_CITIES), "We travel to {}."),
    "group size": (lambda rng: str(rng.randint(2, 9)), "There are {} of us."),
    "time": (lambda rng: f"{rng.randint(1, 11)} pm", "Please call us at {}."),
    "color": (lambda rng: rng.choice(_COLORS), "Our car is {}."),
    "room": (lambda rng: str(rng.randint(100, 499)), "We would like room {}."),
    "price": (lambda rng: f"{rng.randint(2, 19) * 10} dollars", "We agreed on {}."),
}


def _field(rng: Random, name: str) -> tuple[Part, str]:
    """A field, and a sentence further down that corrects it, or nothing."""
    draw, sentence = FIELDS[name]
    value = draw(rng)
    given = sentence.format(value)
    if name != "name" and rng.random() < 0.4:
        new = draw(rng)
        if new != value:
            work = f"For the {name} the message says {value} first, but later it changes the {name} to {new}. "
            return Part(name, given, f"{work}The change counts, so the {name} is {new}.", new), (
                f"Sorry, I must change the {name} to {new}."
            )
    work = (
        f'For the {name} the message says "{given}" and it does not change the {name} later. So the {name} is {value}.'
    )
    return Part(name, given, work, value), ""


def message(rng: Random, names: list[str], asked: int) -> tuple[str, list[Part]]:
    """A message about `names`, and the parts that are asked for, in the order asked."""
    fields = [_field(rng, name) for name in names]
    wanted = [part for part, _ in fields[:asked]]
    rng.shuffle(fields)
    corrections = [correction for _, correction in fields if correction]
    return " ".join([part.given for part, _ in fields] + corrections), wanted


def form(rng: Random) -> Problem:
    """Draw a problem."""
    asked = width(rng)
    text, parts = message(rng, rng.sample(list(FIELDS), asked), asked)
    names = ", ".join(part.name for part in parts)
    answer = "; ".join(part.result for part in parts)
    return solve("form", f"Fill in the fields {names}. Message: {text}", parts, "All fields are found.", answer)
