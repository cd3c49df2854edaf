"""The report of a run: what was done to it, how close it came, how fast it was back; as text and as JSON."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, fields
from typing import Any

import msgspec

from bench.faults.context import Context
from bench.faults.history import SECOND
from bench.faults.picture import Picture
from bench.faults.verdict import INVARIANTS, Findings, Verdict

AT = "at "  # how the names of faults begin that are failpoints


@dataclass
class Totals:
    """Sums over the partitions."""

    partitions: int = 0
    audited: int = 0
    stored: int = 0
    resolved: int = 0
    deliveries: int = 0
    duplicates: int = 0
    dead: int = 0
    refused_settles: int = 0
    by_group: Counter[str] = field(default_factory=Counter)

    def add(self, other: Totals) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            setattr(self, each.name, value + getattr(other, each.name))

    def take(self, picture: Picture) -> None:
        self.partitions += 1
        audit = picture.final_audit
        self.audited += audit is not None
        self.stored += len(picture.reads[audit.cons]) if audit else 0
        # Publishes nobody was told the outcome of, and which turned out to be stored.
        self.resolved += sum(
            not published.ok for event in picture.log.values() if (published := picture.publish_of(event.val))
        )
        for group in picture.groups.values():
            self.deliveries += len(group.deliveries)
            self.by_group[group.name] += len(group.deliveries)
            self.dead += len(group.dead)
            self.refused_settles += sum(settle.type == "fail" for settle in group.settles)
            for deliveries in group.by_offset.values():
                acked = [d for d in deliveries if d.ack_ok is not None]
                epochs = {d.event.epoch for d in acked}
                self.duplicates += len(acked) - len(epochs)


def build(context: Context, findings: Findings, totals: Totals, seed: int) -> dict[str, Any]:
    counts = context.counts
    alone = defaultdict[str, list[float]](list)
    among_others = defaultdict[str, list[float]](list)
    for event in context.recoveries:
        found = alone if context.was_alone(event) else among_others
        found[event.val or "?"].append((event.t1 - event.t0) / SECOND)
    by_name = dict(sorted(Counter(fault.val or "?" for fault in context.faults).items()))
    return {
        "seed": seed,
        "seconds": round(max(0, context.end - context.begin) / SECOND, 1),
        "publishes": {name: counts[f"publish.{name}"] for name in ("ok", "fail", "info")},
        "stored": totals.stored,
        "unknownButStored": totals.resolved,
        "deliveries": totals.deliveries,
        "deliveriesByGroup": dict(sorted(totals.by_group.items())),
        "acks": {name: counts[f"ack.{name}"] for name in ("ok", "fail", "info")},
        "pulls": {name: counts[f"pull.{name}"] for name in ("ok", "fail", "info")},
        "refusedSettles": totals.refused_settles,
        "ackedTwice": totals.duplicates,
        "deadLetters": totals.dead,
        "seeks": counts["seek.ok"],
        "redrives": counts["redrive.ok"],
        "windows": context.fault_windows(),
        "faults": len(context.faults),
        "faultsByName": {name: n for name, n in by_name.items() if not name.startswith(AT)},
        "failpoints": {name.removeprefix(AT): n for name, n in by_name.items() if name.startswith(AT)},
        "standstillSeconds": [round((end - begin) / SECOND, 1) for begin, end in context.standstills()],
        "acknowledgedBeforeAKill": context.at_risk(),
        "recoverySeconds": {name: _quantiles(values) for name, values in sorted(alone.items())},
        "recoverySecondsAmongOthers": {name: _quantiles(values) for name, values in sorted(among_others.items())},
        "violations": {f"{invariant} {kind}": n for (invariant, kind), n in sorted(findings.counts.items())},
        "undecided": dict(findings.undecided),
        "witnesses": msgspec.to_builtins(findings.witnesses),
    }


def _quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "n": len(ordered),
        "p50": round(ordered[len(ordered) // 2], 2),
        "p99": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 2),
        "max": round(ordered[-1], 2),
    }


def markdown(verdict: Verdict, command: str) -> str:
    """The report as it is kept."""
    return (
        "# A run of the fault suite\n\n"
        f"`{command}`: two replicas and their Postgres, broken all the time. What is counted here and how it is judged "
        'is said in `checker.py`, `verdict.py` and `nemesis.py`; "alone" is a fault in whose recovery no other one '
        f"fell.\n\n```\n{text(verdict)}\n```\n"
    )


def text(verdict: Verdict, *, witnesses: int = 3) -> str:
    """The report for a person; ``witnesses`` of each class are shown."""
    facts = verdict.report
    lines = [
        f"verdict: {verdict.outcome.upper()}  (seed {facts['seed']}, {facts['seconds']} s)",
        *(f"  unknown: {reason}" for reason in verdict.reasons),
        f"publishes    {_pairs(facts['publishes'])}; {facts['stored']} stored ({facts['unknownButStored']} unanswered)",
        f"deliveries   {facts['deliveries']} ({_pairs(facts['deliveriesByGroup'])})",
        f"acks         {_pairs(facts['acks'])}; {facts['refusedSettles']} stale, {facts['ackedTwice']} acked twice",
        f"pulls        {_pairs(facts['pulls'])}",
        f"dead letters {facts['deadLetters']}, redriven {facts['redrives']}; seeks {facts['seeks']}",
        f"faults       {facts['faults']} in {facts['windows']} windows ({_pairs(facts['faultsByName'])})",
        f"failpoints   {_pairs(facts['failpoints'])}",
        f"standstills  {len(facts['standstillSeconds'])} of no fault's making, {sum(facts['standstillSeconds']):.1f} s",
        f"at risk      {_pairs(facts['acknowledgedBeforeAKill'])} acknowledged before a kill",
    ]
    for name, values in facts["recoverySeconds"].items():
        lines.append(f"recovery     {name}: {_pairs(values)}")
    for name, values in facts["recoverySecondsAmongOthers"].items():
        lines.append(f"recovery     {name}, among other faults: {_pairs(values)}")
    for what, count in facts["undecided"].items():
        lines.append(f"undecided    {what}: {count}")
    shown: Counter[tuple[str, str]] = Counter()
    for (invariant, kind), count in sorted(verdict.findings.counts.items()):
        lines.append(f"VIOLATION    {invariant} {kind}: {count}  ({INVARIANTS[invariant]})")
        for witness in verdict.findings.witnesses:
            if (witness.invariant, witness.kind) != (invariant, kind) or shown[invariant, kind] >= witnesses:
                continue
            shown[invariant, kind] += 1
            lines.append(f"   {witness.detail}  [{', '.join(witness.faults)}]")
            lines += [f"      {msgspec.json.encode(event).decode()}" for event in witness.events]
    return "\n".join(lines)


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "none"
