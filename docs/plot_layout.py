"""Draws docs/images/layout.png: the mask and the positions of a small transcript, from the layout that is used."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from multiverse import Layout, Transcript, layout, parse_text

TEXT = """Look: <Parallel>
<Goal>
<Outline>
1: a
</Outline>
<Outline>
2: b
</Outline>
</Goal>
<Path>
1: three short words
</Path>
<Path>
2: <Parallel>
<Goal>
<Outline>
2.1: c
</Outline>
<Outline>
2.2: d
</Outline>
</Goal>
<Path>
2.1: yes
</Path>
<Path>
2.2: no and no
</Path>
<Conclusion>
both
</Conclusion>
</Parallel>
</Path>
<Conclusion>
done
</Conclusion>
</Parallel> So."""

COLOURS = ["#ffffff", "#5b6770", "#2a9d8f", "#e9a23b", "#d1603d", "#7b5ea7"]
NAMES = ["hidden", "outside of paths", "path 1", "path 2", "path 2.1", "path 2.2"]


def owners(transcript: Transcript) -> list[int]:
    """For every token the index in `NAMES` of the innermost path that owns it."""
    owner = [1] * len(transcript)
    for block in transcript.walk():
        for path in block.paths:
            owner[path.start : path.end] = [NAMES.index(f"path {path.label}")] * (path.end - path.start)
    return owner


def draw_mask(axes: Axes, laid: Layout, owner: list[int]) -> None:
    """Which token sees which: a row per query, coloured by the path of the key."""
    grid = [[0] * laid.length for _ in range(laid.length)]
    for segment in laid.segments:
        for query in range(segment.start, segment.end):
            for start, end in [*segment.visible(), (segment.start, query + 1)]:
                grid[query][start:end] = owner[start:end]
    axes.imshow(grid, cmap=ListedColormap(COLOURS), vmin=0, vmax=len(COLOURS) - 1, interpolation="nearest")
    axes.set(title="Visibility: a token (row) attends to the coloured ones", xlabel="key", ylabel="query")


def draw_positions(axes: Axes, laid: Layout, owner: list[int]) -> None:
    """Position ids along the linear order."""
    axes.plot([0, laid.length], [0, laid.length], color="#cccccc", linewidth=1, linestyle="--")
    axes.scatter(range(laid.length), laid.positions, c=[COLOURS[i] for i in owner], s=14)
    for index in range(1, len(NAMES)):
        axes.scatter([], [], c=COLOURS[index], label=NAMES[index])
    axes.set(title="Positions: each path starts again after the goal", xlabel="index of the token", ylabel="position")
    axes.legend(frameon=False, loc="upper left")
    note = f"critical path: {laid.critical_path()} positions for {laid.length} tokens"
    axes.text(0.98, 0.03, note, ha="right", transform=axes.transAxes)


def main() -> None:
    """Write the picture."""
    transcript = parse_text(TEXT)
    laid = layout(transcript)
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5.6), layout="constrained")
    draw_mask(left, laid, owners(transcript))
    draw_positions(right, laid, owners(transcript))
    target = Path(__file__).parent / "images" / "layout.png"
    figure.savefig(target, dpi=110)
    print(f"wrote {target}: {len(transcript)} tokens, well formed: {transcript.well_formed}")


if __name__ == "__main__":
    main()
