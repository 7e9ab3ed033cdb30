"""Do tree, groups and plan belong together?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from multiverse.curator.artefacts import Grouping, Item, Plan, SummaryTree
from multiverse.curator.plan import depth, forks, labels


def check_grouping(tree: SummaryTree, grouping: Grouping) -> list[str]:
    """Groups name existing neighbours of one level, and no step is in two groups."""
    titles = tree.titles()
    found: list[str] = []
    seen: set[str] = set()
    for group in grouping.groups:
        name = ", ".join(group.steps)
        if unknown := [step for step in group.steps if step not in titles]:
            found.append(f"group {name}: there is no step {', '.join(unknown)}")
        elif not _neighbours(group.steps):
            found.append(f"group {name}: must be steps in a row, in order, all main steps or all of the same step")
        if twice := seen.intersection(group.steps):
            found.append(f"group {name}: step {', '.join(sorted(twice))} is in another group already")
        seen.update(group.steps)
    return found


def _neighbours(steps: Sequence[str]) -> bool:
    parents = {step.rpartition(".")[0] for step in steps}
    numbers = [int(step.rpartition(".")[2]) for step in steps]
    return len(parents) == 1 and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def check_plan(tree: SummaryTree, grouping: Grouping, plan: Plan, max_depth: int) -> list[str]:
    """Every step once and in order, only independent ones in different paths, nested no deeper than allowed."""
    titles = tree.titles()
    named = labels(plan.plan)
    if unknown := [label for label in named if label not in titles]:
        return [f"the plan names {', '.join(unknown)}, which is no step"]
    covered = [leaf for label in named for leaf in tree.leaves(label)]
    wanted = [leaf for number in range(1, len(tree.steps) + 1) for leaf in tree.leaves(str(number))]
    found = []
    if missing := [leaf for leaf in wanted if leaf not in covered]:
        found.append(f"the plan leaves out {', '.join(missing)}")
    if twice := sorted({leaf for leaf in covered if covered.count(leaf) > 1}):
        found.append(f"the plan has {', '.join(twice)} more than once")
    if not found and covered != wanted:
        found.append(f"the plan changes the order of the steps: it must be {', '.join(wanted)}")
    if (reached := depth(plan.plan)) > max_depth:
        found.append(f"blocks are nested {reached} deep, allowed is {max_depth}")
    if any(not labels(path) for fork in forks(plan.plan) for path in fork.parallel):
        found.append("a path of a block is empty")
    return found + _check_independence(grouping, plan)


def _check_independence(grouping: Grouping, plan: Plan) -> list[str]:
    group_of = {step: index for index, group in enumerate(grouping.groups) for step in group.steps}
    found = []
    for fork in forks(plan.plan):
        for left, right in combinations(fork.parallel, 2):
            pair = next(_dependent(left, right, group_of), None)
            if pair:
                found.append(f"steps {pair[0]} and {pair[1]} are in different paths but in no common group")
    return found


def _dependent(left: Sequence[Item], right: Sequence[Item], group_of: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Pairs of steps, one of each path, that no group allows to be apart. Substeps are in the group of their step."""
    for a in labels(left):
        for b in labels(right):
            levels = ((a, b), (a.split(".")[0], b.split(".")[0]))
            common = any(x != y and x in group_of and group_of[x] == group_of.get(y) for x, y in levels)
            if not common:
                yield a, b
