"""What all tests share: the tier, and this directory on the path, so that `toy`, `strategies` and `slow` are found."""

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

import tiers


def pytest_configure(config: pytest.Config) -> None:
    examples = tiers.choose(config.option.markexpr).examples
    settings.register_profile(
        "multiverse",
        deadline=None,
        max_examples=examples,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("multiverse")


@pytest.fixture(scope="session")
def sizes() -> tiers.Sizes:
    """How much of the same the tier that runs does."""
    return tiers.sizes()
