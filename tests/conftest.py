"""What all tests share: the directory itself on the path, so that `toy`, `strategies` and `slow` can be imported."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
