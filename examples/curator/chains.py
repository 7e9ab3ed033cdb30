"""Synthetic reasoning chains whose structure is known: the corpus of the example, the tests and the benchmark.

    python examples/curator/chains.py 40 > examples/curator/chains.jsonl

Five families: independent orders, warehouses with orders (nested), two rounds of orders (two blocks), candidates of
which one fits (selective), and days that build on each other (nothing is independent). As in real chains some
sentences lean on what was said before ("As with order A, ..."), and the text is full of LaTeX.
"""

from __future__ import annotations

import json
import sys
from random import Random

NAMES = "ABCDEFGH"


def chain(seed: int) -> dict[str, str]:
    """One record of the corpus."""
    rng = Random(seed)
    family = rng.choice((_orders, _orders, _warehouses, _rounds, _candidates, _days))
    question, sentences, answer = family(rng)
    sentences.append(f"The final answer is $\\boxed{{{answer}}}$.")
    return {
        "id": f"{family.__name__[1:]}-{seed}",
        "question": question,
        "reasoning": _joined(rng, sentences),
        "answer": str(answer),
    }


def _joined(rng: Random, sentences: list[str]) -> str:
    """Sentences into paragraphs."""
    text = sentences[0]
    for sentence in sentences[1:]:
        text += ("\n\n" if rng.random() < 0.2 else " ") + sentence
    return text


def _order(rng: Random, name: str, first: bool) -> tuple[str, list[str], int]:
    """An order as the question tells it, how it is worked out, and its pieces."""
    crates, per_crate, loose = rng.randint(11, 49), rng.randint(11, 39), rng.randint(11, 99)
    packed = crates * per_crate
    total = packed + loose
    told = f"order {name} has {crates} crates of {per_crate} and {loose} loose pieces"
    lean = (
        "" if first or rng.random() < 0.4 else rng.choice(("Similarly, ", "As before, ", "As in the previous case, "))
    )
    product = f"$\\text{{packed}} = {crates} \\times {per_crate} = {packed}$"
    sentences = [
        f"Now for order {name}.",
        f"{lean}{'the' if lean else 'The'} crates hold {product} pieces.",
        f"With the loose ones that makes ${packed} + {loose} = {total}$.",
    ]
    if rng.random() < 0.6:
        sentences.append(f"Since $0 < {loose} < {total}$ & the sum is exact, nothing is lost: "
                         f"$\\frac{{{total}}}{{{total}}} = 1$.")  # fmt: skip
    sentences.append(f"So order {name} comes to {total} pieces.")
    return told, sentences, total


def _several(rng: Random, names: str) -> tuple[list[str], list[str], list[int]]:
    told, sentences, totals = [], [], []
    for i, name in enumerate(names):
        words, work, total = _order(rng, name, i == 0)
        told.append(words)
        sentences += work
        totals.append(total)
    return told, sentences, totals


def _opening(rng: Random) -> list[str]:
    lines = [
        "Okay, let me see what is asked.",
        "I should go through it one thing at a time, e.g. by keeping notes.",
        "Nothing here is given twice.",
    ]
    return lines[: rng.randint(1, 3)]


def _sum(totals: list[int]) -> str:
    return f"${' + '.join(map(str, totals))} = {sum(totals)}$"


def _orders(rng: Random) -> tuple[str, list[str], int]:
    told, work, totals = _several(rng, NAMES[: rng.randint(2, 5)])
    question = f"Of several orders, {'; '.join(told)}. How many pieces are that in all?"
    closing = ["Let me put the orders together.", f"In all it is {_sum(totals)}."]
    return question, [*_opening(rng), *work, *closing], sum(totals)


def _warehouses(rng: Random) -> tuple[str, list[str], int]:
    told, work, sums, names = [], [], [], iter(NAMES)
    for number in range(1, rng.randint(2, 3) + 1):
        own = "".join(next(names) for _ in range(2))
        words, sentences, totals = _several(rng, own)
        told.append(f"In warehouse {number}, {' and '.join(words)}")
        work += [f"Turning to warehouse {number}.", *sentences]
        work.append(f"Hence warehouse {number} ships {_sum(totals)} pieces.")
        sums.append(sum(totals))
    question = f"{'. '.join(told)}. How many pieces do all warehouses ship?"
    closing = ["Let me put the warehouses together.", f"In all it is {_sum(sums)}."]
    return question, [*_opening(rng), *work, *closing], sum(sums)


def _rounds(rng: Random) -> tuple[str, list[str], int]:
    first, first_work, first_totals = _several(rng, "AB")
    second, second_work, second_totals = _several(rng, "CDE")
    question = f"In spring, {'; '.join(first)}. In autumn, {'; '.join(second)}. How many more pieces does autumn have?"
    spring, autumn = sum(first_totals), sum(second_totals)
    sentences = [
        *_opening(rng),
        *first_work,
        "Let me put the spring orders together.",
        f"Spring has {_sum(first_totals)}.",
        *second_work,
        "Let me put the autumn orders together.",
        f"Autumn has {_sum(second_totals)}, so the difference is ${autumn} - {spring} = {autumn - spring}$.",
    ]
    return question, sentences, autumn - spring


def _candidates(rng: Random) -> tuple[str, list[str], int]:
    values = sorted(rng.sample(range(12, 40), rng.randint(2, 4)))
    right = rng.choice(values)
    target = right * right + right
    question = f"Which of {', '.join(f'n = {value}' for value in values)} satisfies $n^2 + n = {target}$?"
    work = []
    for value in values:
        found = value * value + value
        sign, verdict = ("=", "fits") if value == right else ("<" if found < target else ">", "does not fit")
        work += [
            f"Suppose the number were n = {value}.",
            f"Then $n^2 + n = {value * value} + {value} = {found} {sign} {target}$.",
            f"So n = {value} {verdict}.",
        ]
    return question, [*_opening(rng), *work, "Let me pick the one that fits.", f"It is {right}."], right


def _days(rng: Random) -> tuple[str, list[str], int]:
    stock = rng.randint(20, 60)
    changes = [rng.randint(11, 40) for _ in range(rng.randint(3, 4))]
    question = f"A shop begins with {stock} pieces and buys {', then '.join(map(str, changes))}. How many has it then?"
    work = []
    for number, change in enumerate(changes, 1):
        work.append(f"On day {number} the stock of {stock} grows by {change}.")
        work.append(f"That leaves ${stock} + {change} = {stock + change}$ pieces at the end of it.")
        stock += change
    return question, [*_opening(rng), *work], stock


if __name__ == "__main__":
    for number in range(int(sys.argv[1])):
        print(json.dumps(chain(number), ensure_ascii=False))
