"""Trees for trainers: what an engine decoded, token by token, as data (`docs/rl.md`)."""

from multiverse.training.rollouts.files import from_dict, read, to_dict, write
from multiverse.training.rollouts.flat import Flat, flatten
from multiverse.training.rollouts.readers import Reader
from multiverse.training.rollouts.rows import Advantages, Prediction, Row, join, to_row
from multiverse.training.rollouts.sharing import share
from multiverse.training.rollouts.tree import SCHEMA, Rollout, RolloutStrand

__all__ = [
    "SCHEMA",
    "Advantages",
    "Flat",
    "Prediction",
    "Reader",
    "Rollout",
    "RolloutStrand",
    "Row",
    "flatten",
    "from_dict",
    "join",
    "read",
    "share",
    "to_dict",
    "to_row",
    "write",
]
