"""Which kinds of RoPE a configuration names, and which of them a splice can't have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from multiverse.serving.rope import EXACT, refusals_of_rope, unsupported_rope

LONG = {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}
CONFIGS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "none": ({}, []),
    "none said": ({"rope_parameters": None, "rope_scaling": None}, []),
    "without a kind": ({"rope_parameters": {"rope_theta": 10000.0}}, []),
    "transformers 4": ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, ["dynamic"]),
    "transformers 5": ({"rope_parameters": LONG}, ["longrope"]),
    "by kind of layer": (
        {"rope_parameters": {"full_attention": LONG, "sliding_attention": {"rope_type": "default"}}},
        ["longrope"],
    ),
    "two names": ({"rope_parameters": {"rope_type": "longrope", "type": "su"}}, ["longrope"]),
    "a kind that nobody compared": ({"rope_parameters": {"rope_type": "spiral"}}, ["spiral"]),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_kinds_that_are_not_exact_are_found_wherever_a_configuration_has_them(case: str) -> None:
    given, expected = CONFIGS[case]
    assert unsupported_rope(SimpleNamespace(**given)) == expected


@pytest.mark.parametrize("kind", sorted(EXACT))
def test_exact_kinds_are_taken_everywhere(kind: str) -> None:
    assert refusals_of_rope(SimpleNamespace(rope_parameters={"rope_type": kind})) == []


def test_a_host_takes_what_it_computes_per_position_and_refuses_the_rest_by_name() -> None:
    dynamic, long = (SimpleNamespace(rope_parameters={"rope_type": kind}) for kind in ("dynamic", "longrope"))
    assert refusals_of_rope(dynamic, ["dynamic"]) == []
    (reason,) = refusals_of_rope(long, ["dynamic"])
    assert reason.startswith("RoPE of the kind 'longrope', whose keys may depend on more than token and position")
    assert reason.endswith("(known not to: default, dynamic, linear, llama3, yarn)")
