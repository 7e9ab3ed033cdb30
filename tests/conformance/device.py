"""Where engines of tests run: on this CPU, or where `tools/gpu/accept` says."""

from __future__ import annotations

import os

DEVICE = os.environ.get("MULTIVERSE_TEST_DEVICE", "cpu")
ON_CPU = DEVICE == "cpu"
