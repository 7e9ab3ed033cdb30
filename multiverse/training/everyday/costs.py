"""Who spends most, least, or what all spend: a path works out one person's bill."""

from __future__ import annotations

from random import Random

from multiverse.training.everyday.problem import GOODS, NAMES, Part, Problem, solve, width

_EXTRAS = ["bag", "card", "box", "ribbon"]


def bill(rng: Random, name: str) -> Part:
    """What one person buys."""
    count, price, extra = rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, 9)
    thing, also = rng.choice(GOODS), rng.choice(_EXTRAS)
    product = count * price
    bought = f"{name} buys {count} {thing} at {price} dollars each"
    if rng.random() < 0.5 and extra < product:
        given, total = f"{bought} and has a coupon for {extra} dollars off.", product - extra
        last = f"The coupon takes off {extra}: {product} - {extra} = {total}."
    else:
        given, total = f"{bought} and a {also} for {extra} dollars.", product + extra
        last = f"The {also} adds {extra}: {product} + {extra} = {total}."
    work = f"{bought}, that is {count} x {price} = {product} dollars. {last} So {name} spends {total} dollars."
    return Part(name, given, work, total)


def costs(rng: Random) -> Problem:
    """Draw a problem."""
    parts = [bill(rng, name) for name in rng.sample(NAMES, width(rng))]
    totals = [part.result for part in parts]
    if len(set(totals)) < len(totals):
        return costs(rng)
    given = " ".join(part.given for part in parts)
    if len(parts) == 3 and rng.random() < 0.4:
        a, b, c = totals
        conclusion = f"{a} + {b} = {a + b}, and {a + b} + {c} = {a + b + c}."
        return solve("costs", f"{given} How much do they spend together?", parts, conclusion, f"{sum(totals)} dollars")
    word, pick = rng.choice([("most", max), ("least", min)])
    best = pick(parts, key=lambda part: part.result)
    listed = ", ".join(f"{part.name} {part.result}" for part in parts)
    conclusion = f"{listed}. The {word} is {best.result}."
    return solve("costs", f"{given} Who spends the {word}?", parts, conclusion, best.name)
