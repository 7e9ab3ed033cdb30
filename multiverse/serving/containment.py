"""An exception while one request is handled ends that request, and nothing else (invariant I7).

Adapters hand every piece of work on a tree to a `Guard`. What it catches, it logs once, with the request's id and the
traceback, and gives the tree to the adapter, which ends it with an error (HTTP 500) and takes back all that it held: at
once where that is safe, else as soon as the host's own loop is left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Tree = TypeVar("Tree")
Result = TypeVar("Result")


class Guard(Generic[Tree]):
    """Runs what is done about one tree.

    Args:
        fail: ends a tree with an error; must stand being called again for a tree that has failed before.
        name: the id of a tree's request, for the log.
        log: the host's.
    """

    def __init__(self, fail: Callable[[Tree], None], name: Callable[[Tree], str], log: logging.Logger) -> None:
        self._fail = fail
        self._name = name
        self._log = log

    def run(self, tree: Tree, handler: Callable[..., Result], *args: Any, otherwise: Result) -> Result:
        """What `handler(*args)`, which is about `tree`, returns; `otherwise` if it raises, and then the tree fails."""
        try:
            return handler(*args)
        except Exception as error:
            self.caught(tree, error)
            return otherwise

    def caught(self, tree: Tree, error: Exception) -> None:
        """`tree` fails because of `error`, which the caller has caught itself: for places where each token passes."""
        name = self._attempt(self._name, tree)
        self._log.error("multiverse: request %s ended with an error: %r", name, error, exc_info=error)
        self._attempt(self._fail, tree)

    def aside(self, handler: Callable[..., Result], *args: Any, otherwise: Result) -> Result:
        """As `run`, for work that is not about one tree, such as figures: if it raises, that is logged, no more."""
        try:
            return handler(*args)
        except Exception as error:
            self._log.error("multiverse: %s failed: %r", _title(handler), error, exc_info=error)
            return otherwise

    def _attempt(self, handler: Callable[[Tree], Result], tree: Tree) -> Result | None:
        """Even a failure of a failure harms nobody else."""
        return self.aside(handler, tree, otherwise=None)


def _title(handler: Callable[..., Any]) -> str:
    return getattr(handler, "__qualname__", repr(handler))
