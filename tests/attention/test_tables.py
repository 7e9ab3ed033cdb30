"""Rows that begin with the same pages are found, group within group, and nothing else is."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse.attention.shared_prefix import Group, kv_tokens, plan
from multiverse.attention.tables import groups


@st.composite
def tables(draw: st.DrawFn) -> list[tuple[int, ...]]:
    """Rows that share beginnings, some all of them; pages behind a fork are no other row's."""
    rows: list[tuple[int, ...]] = []
    fresh = iter(range(10**6))

    def grow(beginning: tuple[int, ...], level: int) -> None:
        for _ in range(draw(st.integers(1, 3))):
            own = beginning + tuple(next(fresh) for _ in range(draw(st.integers(0, 4))))
            if level and draw(st.booleans()):
                grow(own, level - 1)
            else:
                rows.append(own)

    grow((), 3)
    return draw(st.permutations(rows))


@settings(deadline=None)
@given(tables())
def test_groups_are_those_that_share_and_as_much_as_they_share(rows: list[tuple[int, ...]]) -> None:
    found = groups(rows, 16)
    shared: dict[tuple[int, ...], int] = {}  # by rows, how many pages all of them begin with, and no others
    for row in rows:
        for pages in range(1, len(row) + 1):
            among = tuple(at for at, other in enumerate(rows) if other[:pages] == row[:pages])
            if len(among) > 1:
                shared[among] = max(pages, shared.get(among, 0))
    assert sorted(found) == sorted(Group(among, pages * 16) for among, pages in shared.items())


@settings(deadline=None)
@given(tables())
def test_a_plan_of_them_reads_each_page_once(rows: list[tuple[int, ...]]) -> None:
    """Rows that end where they fork have nothing of their own."""
    passes = plan([len(row) * 16 for row in rows], groups(rows, 16))
    assert kv_tokens(passes) == 16 * len({page for row in rows for page in row})


def test_long_rows_are_compared_to_the_page() -> None:
    common = tuple(range(5000))
    rows = [(*common, *range(own, own + 3000)) for own in (10_000, 20_000, 30_000)]
    rows += [(*common[:4321], *range(40_000, 49_000)), (1, *common)]
    assert groups(rows, 2) == [Group((0, 1, 2, 3), 8642), Group((0, 1, 2), 10000)]
