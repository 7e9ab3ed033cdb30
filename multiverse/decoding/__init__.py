"""One request, token by token."""
