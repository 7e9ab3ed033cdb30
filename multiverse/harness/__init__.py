"""A server and its answers seen from outside: what evaluation, curation and the commands share."""
