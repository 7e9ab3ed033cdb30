"""What no block is worth: one part alone, and steps of which each needs another."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from multiverse.training.everyday.costs import bill
from multiverse.training.everyday.forms import FIELDS, message
from multiverse.training.everyday.offers import offers
from multiverse.training.everyday.problem import GOODS, NAMES, Part, Problem, solve


def one(rng: Random) -> Problem:
    """Draw a problem about a single person, offer or field."""
    kind = rng.randrange(3)
    if kind == 0:
        person = bill(rng, rng.choice(NAMES))
        question = f"{person.given} How much does {person.name} spend?"
        return solve("one", question, [person], "", f"{person.result} dollars")
    if kind == 1:
        question, parts = offers(rng, 1)
        return solve("one", question, parts, "", "yes" if parts[0].result else "no")
    text, (part,) = message(rng, rng.sample(list(FIELDS), 3), 1)
    return solve("one", f"Fill in the field {part.name}. Message: {text}", [part], "", part.result)


def chain(rng: Random) -> Problem:
    """Draw a problem about how many things somebody has, by way of other people."""
    names = rng.sample(NAMES, rng.randint(3, 4))
    thing, count = rng.choice(GOODS), rng.randint(2, 9)
    given = [f"{names[0]} has {count} {thing}."]
    lines = [f"{names[0]} has {count} {thing}."]
    for before, name in pairwise(names):
        step = rng.randint(1, 9)
        given.append(f"{name} has {step} more than {before}.")
        lines.append(f"{name} has {step} more than {before}: {count} + {step} = {count + step}.")
        count += step
    answer = f"{count} {thing}"
    question = f"{' '.join(given)} How many {thing} does {names[-1]} have?"
    part = Part("", "", "\n".join(lines), None)
    return solve("chain", question, [part], "", answer)
