"""Which of several offers meet two conditions: a path compares one offer."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from multiverse.training.everyday.problem import Part, Problem, solve, width


@dataclass(frozen=True, slots=True)
class _Theme:
    """Offers of one kind, with a price below a limit and a second figure above a bound."""

    noun: str
    names: tuple[str, ...]
    prices: range
    unit: str
    sizes: range
    quality: str


_THEMES = (
    _Theme("flats", ("Oak Street", "Hill Road", "Park Lane", "Mill Street", "Lake Road", "Rose Lane"),
           range(400, 1000, 50), "rooms", range(1, 7), "size"),
    _Theme("hotels", ("Sunset", "Royal", "Garden", "Harbor", "Castle", "Palace"),
           range(40, 200, 10), "stars", range(1, 6), "class"),
    _Theme("phones", ("Nova", "Pixel", "Orion", "Delta", "Comet", "Atlas"),
           range(100, 900, 50), "cameras", range(1, 5), "number of cameras"),
    _Theme("courses", ("Spanish", "Cooking", "Drawing", "Chess", "Guitar", "Yoga"),
           range(20, 150, 10), "lessons", range(2, 13), "number of lessons"),
)  # fmt: skip


def _offer(rng: Random, theme: _Theme, name: str, limit: int, bound: int) -> Part:
    price, size = rng.choice(theme.prices), rng.choice(theme.sizes)
    cheap, big = price <= limit, size >= bound
    unit = theme.unit if size != 1 else theme.unit[:-1]
    first = f"{name} costs {price} dollars and the limit is {limit}, so the price is {'fine' if cheap else 'too high'}."
    second = f"It has {size} {unit} and needs {bound}, so the {theme.quality} is {'fine' if big else 'too low'}."
    fits = cheap and big
    verdict = f"{name} {'fits' if fits else 'does not fit'}."
    return Part(name, f"{name}: {price} dollars, {size} {unit}.", f"{first} {second} {verdict}", fits)


def offers(rng: Random, number: int) -> tuple[str, list[Part]]:
    """A question about so many offers, and a part for each."""
    theme = rng.choice(_THEMES)
    limit, bound = rng.choice(theme.prices[2:-2]), rng.choice(theme.sizes[1:-1])
    parts = [_offer(rng, theme, name, limit, bound) for name in rng.sample(theme.names, number)]
    given = " ".join(part.given for part in parts)
    if number == 1:
        return f"{given} I can pay at most {limit} dollars and need at least {bound} {theme.unit}. Does it fit?", parts
    return (
        f"Which of these {theme.noun} cost at most {limit} dollars and have at least {bound} {theme.unit}? {given}",
        parts,
    )


def fits(rng: Random) -> Problem:
    """Draw a problem."""
    question, parts = offers(rng, width(rng))
    fitting = [part.name for part in parts if part.result]
    answer = ", ".join(fitting) or "none"
    conclusion = f"{len(fitting)} of {len(parts)} fit."
    return solve("fits", question, parts, conclusion, answer)
