"""How a benchmark's command line is read: a flag for each default, a switch for each that is false. Needs no JAX."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


def read_options(document: str | None, arguments: Sequence[str] | None = None, **defaults: Any) -> argparse.Namespace:
    """The options of a benchmark, whose help is its docstring; without `arguments` those of the process."""
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        flag = f"--{name.replace('_', '-')}"
        if default is False:
            parser.add_argument(flag, action="store_true")
        else:
            parser.add_argument(flag, type=type(default), default=default)
    return parser.parse_args(arguments)
