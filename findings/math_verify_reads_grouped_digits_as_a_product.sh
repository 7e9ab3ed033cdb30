#!/usr/bin/env bash
# math-verify 0.9.0 (with antlr4-python3-runtime 4.13.2, sympy 1.14.0), which grades answers in LaTeX.
#
# One would guess: digits that LaTeX groups by a thin space, `10\,000`, are read as `10{,}000` is: ten thousand.
# What happens: `\,` parts two numbers. `10\,000` is the product 10 * 000, which is 0, and `12\,345` the mixed number
#   12 + 345, which is 357. So a right answer is graded wrong, and a wrong one right: 0 for ten thousand, 357 for 12345.
#   Nothing is raised or logged. Commas in braces are read as one would guess.
# Whom it meets: whoever grades by it, or trains on its verdicts as rewards, where teachers write numbers as books do.
# What this project does: multiverse/harness/answers.py takes such spaces out before it parses; the package pins the release.
# Seen 2026-11-29; the README of math-verify says nothing of spaces inside numbers.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
env/bin/python -m pip install -q --disable-pip-version-check math-verify==0.9.0 antlr4-python3-runtime==4.13.2 sympy==1.14.0
cat >look.py <<'PYTHON'
from importlib.metadata import version

from math_verify import parse, verify

print("math-verify", version("math-verify"), "sympy", version("sympy"))
read = {text: parse(f"${text}$") for text in (r"10\,000", r"12\,345", r"10{,}000", r"12{,}345")}
for text, found in read.items():
    print(f"{text:10} is read as {found[0]} = {found[0].doit()}")
wrong_is_right = verify(parse("$0$"), read[r"10\,000"]), verify(parse("$357$"), read[r"12\,345"])
right_is_right = verify(parse("$10000$"), read[r"10\,000"]), verify(parse("$12345$"), read[r"12\,345"])
grouped_by_commas = verify(parse("$10000$"), read[r"10{,}000"]), verify(parse("$12345$"), read[r"12{,}345"])
print("graded right: 0 and 357", wrong_is_right, "10000 and 12345", right_is_right, "with commas", grouped_by_commas)
assert (wrong_is_right, right_is_right, grouped_by_commas) == ((True, True), (False, False), (True, True))
PYTHON
env/bin/python look.py
