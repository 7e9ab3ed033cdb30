"""Where figures were measured: written beside each of them."""

from multiverse.evaluation.bench.facts import facts

__all__ = ["facts"]
