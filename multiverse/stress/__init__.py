"""Stressing a server that somebody else runs, over HTTP only: what is asked, what must come back, what must be left."""
