"""``python -m bench [--full] [SUITE …]``: runs the suites, prints them, and writes bench/RESULTS.md."""

from __future__ import annotations

import argparse
import signal
import sys

from bench import groups, keys, log, push, streams
from bench.peers import __main__ as peers
from bench.report import show, write

SUITES = {
    "log": ("The log", log.run),
    "keys": ("Keys", keys.run),
    "groups": ("Consumer groups", groups.run),
    "push": ("Push", push.run),
    "streams": ("Streams", streams.run),
    "peers": ("Peers at the same durability", peers.suite),
}


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("suites", nargs="*", choices=[*SUITES, []], help="which ones; all of them by default")
    parser.add_argument("--full", action="store_true", help="longer rounds and larger backlogs")
    options = parser.parse_args()
    found = []
    for name in options.suites or SUITES:
        title, run = SUITES[name]
        lines = run(full=options.full)
        show(title, lines)
        found.append((title, lines))
    if not options.suites:
        write(found, "make bench-full" if options.full else "make bench")


if __name__ == "__main__":
    main()
