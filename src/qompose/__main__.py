"""`python -m qompose` is `qompose`."""

from qompose.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
