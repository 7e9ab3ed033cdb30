"""The exceptions of the package. All derive from `MultiverseError`, so a host can catch one type."""


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


class OptionError(MultiverseError, ValueError):
    """An option of a server or a field of a request has a value that is not allowed."""


class RunError(MultiverseError, ValueError):
    """A run over many requests that can't begin or go on: its settings, its input, its store or its endpoint."""
