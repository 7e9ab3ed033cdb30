"""`multiverse bench`: how long a server takes, with branches and without, for answers whose shapes are forced."""
