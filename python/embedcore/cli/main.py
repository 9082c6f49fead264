# SPDX-License-Identifier: Apache-2.0
"""Choose the command, and turn what goes wrong into one line and an exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from .. import __version__
from . import bench, info, tour

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
_COMMANDS = (tour, bench, info)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m embedcore", description="Native kernels for embeddings."
    )
    parser.add_argument("--version", action="version", version=f"embedcore {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_to(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments, by default those of the process.

    Returns
    -------
    int
        Exit status: 0 done, 1 failed, 130 interrupted. Arguments that make no sense end the process
        with 2, as argparse does.
    """
    parser = build_parser()
    options, others = parser.parse_known_args(argv)
    if hasattr(options, "others"):
        options.others = others
    elif others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (for instance `head`); Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (OSError, ImportError) as error:
        print(f"embedcore: {error}", file=sys.stderr)
        return FAILED
    return status
