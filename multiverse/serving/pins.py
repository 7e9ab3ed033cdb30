"""What the rows of a hook table look like in the releases that were tested, and what is otherwise where it runs.

Names that are relied upon and digests of code stand in a file of each adapter, which `tools/pin` writes. A digest that
differs is a hint, no refusal: somebody has patched the host, or it is another release.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from multiverse.serving.hooks import Hook, release
from multiverse.serving.source import Source

Pins = Mapping[str, Mapping[str, Any]]
"""By target, the `names` that are relied upon; of a function its `digest`; of a class of which no name is relied upon,
the functions that it `defines` itself."""


def pin(source: Source, rows: Iterable[Hook]) -> dict[str, dict[str, Any]]:
    """What a release has of the rows."""
    pins: dict[str, dict[str, Any]] = {}
    for hook in rows:
        found = source.find(hook.target)
        if found is None:
            continue
        pinned = pins.setdefault(hook.target, {"names": []})
        if found.defines is None:
            pinned |= {"names": sorted(found.names), "digest": found.digest}
        elif hook.parameters:
            pinned["names"] = sorted({*pinned["names"], *(found.names & set(hook.parameters))})
        else:
            pinned["defines"] = sorted(found.defines)
    return pins


def read(file: Path) -> dict[str, Pins]:
    """Of each release that was tested, its pins."""
    pins: dict[str, Pins] = json.loads(file.read_text())
    return pins


def hints(package: str, version: str, rows: Iterable[Hook], releases: Mapping[str, Pins]) -> list[str]:
    """What of the host's code that is replaced or wrapped is not that of the tested release nearest to it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return []
    older = [known for known in releases if release(known) <= release(version)]
    nearest = max(older or releases, key=release)
    source, pins = Source(Path(spec.origin).parents[1]), releases[nearest]
    wrapped = sorted((hook for hook in rows if hook.wrapped), key=lambda hook: not hook.replaced)
    return [
        f"{hook.target}, which is {'replaced' if hook.replaced else 'wrapped'}, is not that of {nearest}"
        for hook in wrapped
        if (found := source.find(hook.target)) is not None
        and hook.target in pins
        and found.digest != pins[hook.target].get("digest", found.digest)
    ]
