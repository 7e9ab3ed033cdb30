"""What runs in the engine core: the scheduler with branches, and what it has."""
