"""The exceptions of the package, and how they tell of a wrong value.

All derive from `MultiverseError`, so a host can catch one type.
"""

from __future__ import annotations

import reprlib

LONGEST = 80
"""Characters of a wrong value that an error tells."""
_beginning = reprlib.Repr()
_beginning.maxstring = _beginning.maxother = _beginning.maxlong = LONGEST
_beginning.maxlevel = 3


def shown(value: object) -> str:
    """A wrong value as an error tells it: at most `LONGEST` characters, whatever its size, depth or characters."""
    try:
        text = _beginning.repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "an integer of thousands of digits"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


class MultiverseError(Exception):
    """Base of every error this package raises on purpose."""


class DialectError(MultiverseError, ValueError):
    """A dialect's definition is incomplete, contradictory or unknown."""


class BindingError(MultiverseError, ValueError):
    """A dialect does not fit a tokenizer."""


class LimitError(MultiverseError, ValueError):
    """A limit has a value that makes no sense."""


class TranscriptError(MultiverseError, ValueError):
    """A file or record does not hold a transcript that can be read."""


class CheckError(MultiverseError, ValueError):
    """A finished tree and the log-probabilities reported for it do not belong together."""


class UnsupportedModelError(MultiverseError, ValueError):
    """A model has layers whose KV can't be shared and spliced: only full attention can."""


class UnsupportedHostError(MultiverseError, RuntimeError):
    """This version of a host, or the way it was configured, is not one the adapter can work in."""


class TrainingError(MultiverseError):
    """A recipe, a data file or a model that can't be trained with."""


class RolloutError(MultiverseError, ValueError):
    """An answer that no rollout can be made of, or a file of rollouts that can't be read or written."""


class OptionError(MultiverseError, ValueError):
    """An option of a server or a field of a request has a value that is not allowed.

    Args:
        parameter: which of a request's parameters it is.
    """

    def __init__(self, message: str, parameter: str = "multiverse") -> None:
        super().__init__(message)
        self.parameter = parameter


class RunError(MultiverseError, ValueError):
    """A run over many requests that can't begin or go on: its settings, its input, its store or its endpoint."""
