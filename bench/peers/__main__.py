"""``python -m bench.peers [--full]``: measures the peers side by side and writes bench/results/."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from bench.peers.peer import DRIVERS
from bench.peers.report import lines, write
from bench.peers.rounds import Found, run
from bench.peers.scenarios import SCENARIOS
from bench.report import Line, show


def measured(*, full: bool, **chosen: object) -> Found:
    """``chosen`` may hold seconds, rounds, limit, peers, scenarios and command instead of what is usual."""
    seconds, rounds, limit = (3.0, 3, 3600.0) if full else (0.7, 3, 170.0)
    names = chosen.get("peers") or list(DRIVERS)
    wanted = chosen.get("scenarios") or [each.name for each in SCENARIOS if full or each.is_quick]
    assert isinstance(names, list)
    assert isinstance(wanted, list)
    return asyncio.run(
        run(
            names,
            [each for each in SCENARIOS if each.name in wanted],
            seconds=float(str(chosen.get("seconds") or seconds)),
            rounds=int(str(chosen.get("rounds") or rounds)),
            limit=float(str(chosen.get("limit") or limit)),
            command=str(chosen.get("command") or ("make bench-full" if full else "make bench")),
        )
    )


def suite(*, full: bool) -> list[Line]:
    """As one of the suites of ``python -m bench``. Only a full run replaces the results that are kept."""
    found = measured(full=full)
    write(found, "peers" if full else "peers-quick")
    return lines(found.document())


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--full", action="store_true", help="every scenario, and longer rounds")
    parser.add_argument("--peers", nargs="+", choices=[*DRIVERS], help="only these; ratios need logpost")
    parser.add_argument("--scenarios", nargs="+", choices=[each.name for each in SCENARIOS], help="only these")
    parser.add_argument("--seconds", type=float, help="of a round")
    parser.add_argument("--rounds", type=int, help="at most")
    parser.add_argument("--limit", type=float, help="seconds after which no round begins")
    parser.add_argument("--name", default="peers", help="of the files in bench/results/")
    options = parser.parse_args()
    command = " ".join(["python -m bench.peers", *sys.argv[1:]])
    found = measured(full=options.full, command=command, peers=options.peers, scenarios=options.scenarios,
                     seconds=options.seconds, rounds=options.rounds, limit=options.limit)  # fmt: skip
    page = write(found, options.name)
    show("Peers", lines(found.document()))
    print(f"\nwritten: {page}")


if __name__ == "__main__":
    main()
