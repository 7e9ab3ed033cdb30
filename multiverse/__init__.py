"""Multiverse: natively parallel language models on the engines you already run (arXiv 2506.09991).

This package is the engine-neutral core and imports neither torch nor a host. `multiverse.attention`,
`multiverse.oracle` and the training of `multiverse.models` need `pip install multiverse-engine[oracle]`.
"""

from multiverse.decoding.actions import Action, Close, Fallback, Finish, Fork, Join, Start
from multiverse.decoding.budgets import FinishReason, Limits
from multiverse.decoding.controller import Controller
from multiverse.decoding.document import Statistics, statistics, to_transcript
from multiverse.decoding.strand import Status, Strand, derive_seed
from multiverse.decoding.stream import BranchEvent, DocumentStream, EventStream
from multiverse.errors import (
    BindingError,
    DialectError,
    LimitError,
    MultiverseError,
    TranscriptError,
    UnsupportedHostError,
    UnsupportedModelError,
)
from multiverse.structure.binding import Binding, bind, detect
from multiverse.structure.dialects import Dialect, Tag, get_dialect, load_dialect, registry
from multiverse.structure.layout import Layout, Segment, layout
from multiverse.structure.parser import parse_ids, parse_text
from multiverse.structure.reasons import Reason
from multiverse.structure.tags import add_tags
from multiverse.structure.tree import Block, Conclusion, Outline, Path, Transcript, Violation

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
