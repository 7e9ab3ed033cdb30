"""A task family in plain English with independent parts: what people spend, what fits, what a form asks for.

Every problem is written twice, as a block of the ``multiverse`` dialect and line by line; the reasoning is the same.
The families:

======  =====================================================  ================================
kind    the user asks                                          a path
======  =====================================================  ================================
costs   who spends most, least, or what all spend              works out one person's bill
fits    which of several offers meet two conditions            compares one offer
form    to fill in fields from a message                       finds one field
one     the same about a single person, offer or field         no block: there is one part only
chain   how many things somebody has, by way of other people   no block: each step needs another
======  =====================================================  ================================

Only the standard library is used.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import Any, Literal, get_args

from multiverse.models.serialise import write_block

Kind = Literal["costs", "fits", "form", "one", "chain"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_MIX: dict[Kind, float] = {"costs": 4.0, "fits": 4.0, "form": 4.0, "one": 1.2, "chain": 0.8}
_WIDTHS = {3: 4, 4: 4, 5: 2}
_HELD_OUT_SHARE = 0.2

_NAMES = (
    "Mia", "Tom", "Ana", "Leo", "Eva", "Sam", "Ida", "Max", "Zoe", "Ben", "Lea", "Paul", "Nina",
    "Carl", "Rosa", "Jack", "Emma", "Noah", "Lucy", "Adam",
)  # fmt: skip
_SURNAMES = ["Stone", "Baker", "Miller", "Reed", "Cook", "Fox", "Young", "Hill", "Gray", "Wood"]
_GOODS = ["pens", "books", "cakes", "cups", "plants", "shirts", "lamps", "toys", "hats", "maps"]
_EXTRAS = ["bag", "card", "box", "ribbon"]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_CITIES = ["Rome", "Paris", "Berlin", "Madrid", "Vienna", "London", "Dublin", "Oslo", "Athens", "Lisbon"]
_COLORS = ["red", "blue", "green", "white", "black", "yellow"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem, its answer, and its solution in both forms.

    Attributes:
        question: what the user asks.
        parallel: the solution in the ``multiverse`` dialect; equal to `sequential` where no block is worth it.
        sequential: the same solution line by line.
        answer: what stands behind ``Answer:`` at its end.
        kind: the family.
        width: number of parts; 1 if there is no block.
    """

    question: str
    parallel: str
    sequential: str
    answer: str
    kind: Kind
    width: int

    @property
    def held_out(self) -> bool:
        """On which side of the split the problem is: decided by its question alone."""
        return zlib.crc32(self.question.encode()) % 1000 < 1000 * _HELD_OUT_SHARE

    def row(self, number: int) -> dict[str, Any]:
        """The problem as a row of the training schema."""
        return {
            "id": f"{self.kind}-{number}",
            "question": self.question,
            "parallel": self.parallel,
            "sequential": self.sequential,
            "answer": self.answer,
        }


@dataclass(frozen=True, slots=True)
class _Part:
    """One independent part: its name, its sentence in the question, how it is worked out, and the result."""

    name: str
    given: str
    work: str
    result: Any


def problems(seed: int, held_out: bool) -> Iterator[Problem]:
    """An endless stream of problems of one side of the split, none twice."""
    rng, seen = Random(seed), set()
    while True:
        kind = rng.choices(KINDS, [_MIX[k] for k in KINDS])[0]
        problem = _FAMILIES[kind](rng)
        if problem.held_out == held_out and problem.question not in seen:
            seen.add(problem.question)
            yield problem


def _solve(kind: Kind, question: str, parts: list[_Part], conclusion: str, answer: str) -> Problem:
    lines = "\n".join(part.work for part in parts)
    end = f"\nAnswer: {answer}"
    if len(parts) == 1:
        return Problem(question, lines + end, lines + end, answer, kind, 1)
    block = write_block([(part.name, part.work) for part in parts], conclusion)
    return Problem(question, block + end, f"{lines}\n{conclusion}{end}", answer, kind, len(parts))


def _width(rng: Random) -> int:
    return rng.choices(list(_WIDTHS), list(_WIDTHS.values()))[0]


def _bill(rng: Random, name: str) -> _Part:
    count, price, extra = rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, 9)
    thing, also = rng.choice(_GOODS), rng.choice(_EXTRAS)
    product = count * price
    bought = f"{name} buys {count} {thing} at {price} dollars each"
    if rng.random() < 0.5 and extra < product:
        given, total = f"{bought} and has a coupon for {extra} dollars off.", product - extra
        last = f"The coupon takes off {extra}: {product} - {extra} = {total}."
    else:
        given, total = f"{bought} and a {also} for {extra} dollars.", product + extra
        last = f"The {also} adds {extra}: {product} + {extra} = {total}."
    work = f"{bought}, that is {count} x {price} = {product} dollars. {last} So {name} spends {total} dollars."
    return _Part(name, given, work, total)


def _costs(rng: Random) -> Problem:
    parts = [_bill(rng, name) for name in rng.sample(_NAMES, _width(rng))]
    totals = [part.result for part in parts]
    if len(set(totals)) < len(totals):
        return _costs(rng)
    given = " ".join(part.given for part in parts)
    if len(parts) == 3 and rng.random() < 0.4:
        a, b, c = totals
        conclusion = f"{a} + {b} = {a + b}, and {a + b} + {c} = {a + b + c}."
        return _solve("costs", f"{given} How much do they spend together?", parts, conclusion, f"{sum(totals)} dollars")
    word, pick = rng.choice([("most", max), ("least", min)])
    best = pick(parts, key=lambda part: part.result)
    listed = ", ".join(f"{part.name} {part.result}" for part in parts)
    conclusion = f"{listed}. The {word} is {best.result}."
    return _solve("costs", f"{given} Who spends the {word}?", parts, conclusion, best.name)


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


def _offer(rng: Random, theme: _Theme, name: str, limit: int, bound: int) -> _Part:
    price, size = rng.choice(theme.prices), rng.choice(theme.sizes)
    cheap, big = price <= limit, size >= bound
    unit = theme.unit if size != 1 else theme.unit[:-1]
    first = f"{name} costs {price} dollars and the limit is {limit}, so the price is {'fine' if cheap else 'too high'}."
    second = f"It has {size} {unit} and needs {bound}, so the {theme.quality} is {'fine' if big else 'too low'}."
    fits = cheap and big
    verdict = f"{name} {'fits' if fits else 'does not fit'}."
    return _Part(name, f"{name}: {price} dollars, {size} {unit}.", f"{first} {second} {verdict}", fits)


def _offers(rng: Random, width: int) -> tuple[str, list[_Part]]:
    theme = rng.choice(_THEMES)
    limit, bound = rng.choice(theme.prices[2:-2]), rng.choice(theme.sizes[1:-1])
    parts = [_offer(rng, theme, name, limit, bound) for name in rng.sample(theme.names, width)]
    given = " ".join(part.given for part in parts)
    if width == 1:
        return f"{given} I can pay at most {limit} dollars and need at least {bound} {theme.unit}. Does it fit?", parts
    return (
        f"Which of these {theme.noun} cost at most {limit} dollars and have at least {bound} {theme.unit}? {given}",
        parts,
    )


def _fits(rng: Random) -> Problem:
    question, parts = _offers(rng, _width(rng))
    fitting = [part.name for part in parts if part.result]
    answer = ", ".join(fitting) or "none"
    conclusion = f"{len(fitting)} of {len(parts)} fit."
    return _solve("fits", question, parts, conclusion, answer)


_FIELDS: dict[str, tuple[Callable[[Random], str], str]] = {
    "name": (lambda rng: f"{rng.choice(_NAMES)} {rng.choice(_SURNAMES)}", "My name is {}."),
    "day": (lambda rng: rng.choice(_DAYS), "We arrive on {}."),
    "city": (lambda rng: rng.choice(_CITIES), "We travel to {}."),
    "group size": (lambda rng: str(rng.randint(2, 9)), "There are {} of us."),
    "time": (lambda rng: f"{rng.randint(1, 11)} pm", "Please call us at {}."),
    "color": (lambda rng: rng.choice(_COLORS), "Our car is {}."),
    "room": (lambda rng: str(rng.randint(100, 499)), "We would like room {}."),
    "price": (lambda rng: f"{rng.randint(2, 19) * 10} dollars", "We agreed on {}."),
}


def _field(rng: Random, name: str) -> tuple[_Part, str]:
    """A field, and a sentence further down that corrects it, or nothing."""
    draw, sentence = _FIELDS[name]
    value = draw(rng)
    given = sentence.format(value)
    if name != "name" and rng.random() < 0.4:
        new = draw(rng)
        if new != value:
            work = f"For the {name} the message says {value} first, but later it changes the {name} to {new}. "
            return _Part(name, given, f"{work}The change counts, so the {name} is {new}.", new), (
                f"Sorry, I must change the {name} to {new}."
            )
    work = (
        f'For the {name} the message says "{given}" and it does not change the {name} later. So the {name} is {value}.'
    )
    return _Part(name, given, work, value), ""


def _message(rng: Random, names: list[str], asked: int) -> tuple[str, list[_Part]]:
    """A message about `names`, and the parts that are asked for, in the order asked."""
    fields = [_field(rng, name) for name in names]
    wanted = [part for part, _ in fields[:asked]]
    rng.shuffle(fields)
    corrections = [correction for _, correction in fields if correction]
    return " ".join([part.given for part, _ in fields] + corrections), wanted


def _form(rng: Random) -> Problem:
    width = _width(rng)
    text, parts = _message(rng, rng.sample(list(_FIELDS), width), width)
    names = ", ".join(part.name for part in parts)
    answer = "; ".join(part.result for part in parts)
    return _solve("form", f"Fill in the fields {names}. Message: {text}", parts, "All fields are found.", answer)


def _one(rng: Random) -> Problem:
    kind = rng.randrange(3)
    if kind == 0:
        bill = _bill(rng, rng.choice(_NAMES))
        question = f"{bill.given} How much does {bill.name} spend?"
        return _solve("one", question, [bill], "", f"{bill.result} dollars")
    if kind == 1:
        question, parts = _offers(rng, 1)
        return _solve("one", question, parts, "", "yes" if parts[0].result else "no")
    text, (part,) = _message(rng, rng.sample(list(_FIELDS), 3), 1)
    return _solve("one", f"Fill in the field {part.name}. Message: {text}", [part], "", part.result)


def _chain(rng: Random) -> Problem:
    names = rng.sample(_NAMES, rng.randint(3, 4))
    thing, count = rng.choice(_GOODS), rng.randint(2, 9)
    given = [f"{names[0]} has {count} {thing}."]
    lines = [f"{names[0]} has {count} {thing}."]
    for before, name in pairwise(names):
        step = rng.randint(1, 9)
        given.append(f"{name} has {step} more than {before}.")
        lines.append(f"{name} has {step} more than {before}: {count} + {step} = {count + step}.")
        count += step
    answer = f"{count} {thing}"
    question = f"{' '.join(given)} How many {thing} does {names[-1]} have?"
    part = _Part("", "", "\n".join(lines), None)
    return _solve("chain", question, [part], "", answer)


_FAMILIES: dict[Kind, Callable[[Random], Problem]] = {
    "costs": _costs,
    "fits": _fits,
    "form": _form,
    "one": _one,
    "chain": _chain,
}


def main() -> None:
    """Command line: write both sides of the split."""
    parser = argparse.ArgumentParser(prog="python -m multiverse.training.everyday", description=__doc__)
    parser.add_argument("out", type=Path, help="directory of train.jsonl and held_out.jsonl")
    parser.add_argument("--train", type=int, default=1000, help="problems to learn from (default: %(default)s)")
    parser.add_argument("--held-out", type=int, default=200, help="problems to measure on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, count, held_out in (("train", options.train, False), ("held_out", options.held_out, True)):
        drawn = islice(problems(options.seed, held_out), count)
        rows = (json.dumps(problem.row(i), ensure_ascii=False) for i, problem in enumerate(drawn))
        (options.out / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
