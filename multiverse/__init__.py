"""Multiverse: natively parallel language models on the engines you already run (arXiv 2506.09991).

This package is the engine-neutral core and imports neither torch nor a host. `multiverse.attention`,
`multiverse.oracle` and the training of `multiverse.models` need `pip install multiverse-engine[oracle]`.
"""

from multiverse.actions import Action, Close, Fallback, Finish, Fork, Join, Start
from multiverse.binding import Binding, bind, detect
from multiverse.budgets import FinishReason, Limits, Reason
from multiverse.controller import Controller
from multiverse.dialects import Dialect, Tag, get_dialect, load_dialect, registry
from multiverse.document import Statistics, statistics, to_transcript
from multiverse.errors import (
    BindingError,
    DialectError,
    LimitError,
    MultiverseError,
    TranscriptError,
    UnsupportedHostError,
    UnsupportedModelError,
)
from multiverse.layout import Layout, Segment, layout
from multiverse.parser import parse_ids, parse_text
from multiverse.strand import Status, Strand, derive_seed
from multiverse.stream import BranchEvent, DocumentStream, EventStream
from multiverse.tags import add_tags
from multiverse.tree import Block, Conclusion, Outline, Path, Transcript, Violation

__version__ = "0.1.0"

__all__ = [
    "Action",
    "Binding",
    "BindingError",
    "Block",
    "BranchEvent",
    "Close",
    "Conclusion",
    "Controller",
    "Dialect",
    "DialectError",
    "DocumentStream",
    "EventStream",
    "Fallback",
    "Finish",
    "FinishReason",
    "Fork",
    "Join",
    "Layout",
    "LimitError",
    "Limits",
    "MultiverseError",
    "Outline",
    "Path",
    "Reason",
    "Segment",
    "Start",
    "Statistics",
    "Status",
    "Strand",
    "Tag",
    "Transcript",
    "TranscriptError",
    "UnsupportedHostError",
    "UnsupportedModelError",
    "Violation",
    "add_tags",
    "bind",
    "derive_seed",
    "detect",
    "get_dialect",
    "layout",
    "load_dialect",
    "parse_ids",
    "parse_text",
    "registry",
    "statistics",
    "to_transcript",
]
