"""Policies of admission that both hosts are tested with."""

from __future__ import annotations

from random import Random

import pytest

from multiverse.serving.admission.step import Plan, Step

OFF, PAIRS = {"admission": "off"}, {"admission": "cap:2"}
SLACK = {"admission": "slack", "tpot_slo_ms": "0.001", "ttft_slo_ms": "0.001"}
"""Everybody is late, so branches are held whenever there is anybody else."""
POLICIES = [pytest.param(OFF, id="off"), pytest.param(PAIRS, id="cap:2"), pytest.param(SLACK, id="slack")]


class Erratic:
    """Holds others in each step, and so also branches that are about to fork or to close."""

    step_time = None

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def plan(self, step: Step) -> Plan:
        return Plan([self._random.randint(1, len(family.held_since)) for family in step.families])
