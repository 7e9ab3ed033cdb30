"""Pages that show answers."""
