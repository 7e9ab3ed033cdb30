"""`python -m multiverse` is the command `multiverse`."""

from multiverse.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
