"""Ours and its peers side by side on this machine's processor.

Every network is compiled from its `.nn` file and exported to ONNX from its PyTorch twin with the same weights; each
contender runs in a process of its own with the same number of threads. Their outputs are checked first. Then they take
turns in blocks, and what counts is the ratio of medians, the peer's time over ours: above 1, ours is faster.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import machine
from duel import KNOWS, Contender, ContenderError, duel, precision_of
from generated import generate
from prepare import Prepared, prepare_apart, version
from results import OURS, TOLERANCES, Outcome, Row, as_json, record, show, today
from workloads import NETWORKS, QUICK, WORKLOADS, Workload

PEERS = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "torch": "torch",
    "torch.compile": "torch",
}
"""Contenders besides ours, each with the package it needs."""
EVERYTHING = (*NETWORKS, "random")
REFEREE = ("torch", "onnx", "safetensors")
"""Packages that expected outputs and the peers' files are made with."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="five networks, two peers, fewer blocks")
    add("--models", help="networks or workloads (resnet50,mlp-b64), or `list`")
    add("--peers", help=f"of {','.join(PEERS)}; default: all, or with --quick the first two")
    add("--threads", type=int, default=2, help="of every contender (default: 2)")
    add("--rounds", type=int, help="blocks of each contender that must count (default: 30 or 10)")
    add("--seconds", type=float, help="time for one workload, about (default: 40 or 8)")
    add(
        "--random",
        type=int,
        metavar="SEED",
        help="of `random`: ten shapes, three networks (default: the date)",
    )
    add(
        "--precision",
        choices=list(TOLERANCES),
        default="f32",
        help="of ours, and of the peers that have it: bf16 is for OpenVINO alone (default: f32)",
    )
    add("--target", default="native", help="what ours is compiled for (default: native)")
    add(
        "--reuse",
        action="store_true",
        help="take compiled modules as they are, even of another compiler",
    )
    add(
        "--urgent",
        action="store_true",
        help="real-time priority for the timed blocks: on a busy machine, as root",
    )
    add("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    add("--json", type=Path, metavar="FILE", help="write all numbers to a file")
    given = parser.parse_args()
    given.rounds = given.rounds or (10 if given.quick else 30)
    given.seconds = given.seconds or (8.0 if given.quick else 40.0)
    given.random = int(time.strftime("%Y%m%d")) if given.random is None else given.random
    return given


def chosen_workloads(given: argparse.Namespace) -> list[Workload]:
    """What to measure. Raises SystemExit for an unknown name."""
    known: dict[str, list[Workload]] = {"random": generate(given.random)}
    for w in WORKLOADS.values():
        known.setdefault(w.name, []).append(w)
        known.setdefault(w.model, []).append(w)
    names = given.models.split(",") if given.models else QUICK if given.quick else EVERYTHING
    if names == ["list"]:
        print("\n".join(w.name for group in known.values() for w in group if len(group) > 1))
        raise SystemExit(0)
    if unknown := [n for n in names if n not in known]:
        raise SystemExit(f"no such network or workload: {', '.join(unknown)} (--models list)")
    return [w for n in names for w in known[n]]


def chosen_peers(given: argparse.Namespace) -> list[str]:
    """The peers asked for that are installed; says which are not."""
    usual = [p for p in PEERS if given.precision != "bf16" or p in KNOWS["bf16"]]
    asked = given.peers.split(",") if given.peers else usual[: 2 if given.quick else None]
    if unknown := [p for p in asked if p not in PEERS]:
        raise SystemExit(f"no such peer: {', '.join(unknown)} (there are {', '.join(PEERS)})")
    for peer in asked:
        if not version(PEERS[peer]):
            say(f"{peer} is not installed and left out (pip install '.[bench]')")
    return [p for p in asked if version(PEERS[p])]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def start(
    kind: str, files: Prepared, given: argparse.Namespace
) -> tuple[Contender | None, Outcome]:
    """A contender whose outputs have been compared with the expected ones."""
    precision = precision_of(kind, files.precision)
    try:
        contender = Contender(kind, files, given.threads, urgent=given.urgent)
    except ContenderError as error:
        return None, Outcome(problem=str(error))
    try:
        return contender, Outcome(error=contender.error(files.expected), precision=precision)
    except ContenderError as error:
        contender.close()
        return None, Outcome(problem=str(error))


def measure(workload: Workload, peers: Iterable[str], given: argparse.Namespace) -> Row:
    """Builds, checks and times one workload."""
    row = Row(workload.name)
    try:
        files = prepare_apart(workload, given.target, given.precision, reuse=given.reuse)
    except RuntimeError as error:
        row.outcomes[OURS] = Outcome(problem=str(error))
        return row
    row.compile_seconds = files.note(files.module).get("seconds")
    contenders: list[Contender] = []
    try:
        for kind in (OURS, *peers):
            contender, row.outcomes[kind] = start(kind, files, given)
            if contender is not None:
                contenders.append(contender)
        for kind, times in duel(contenders, given.rounds, given.seconds).items():
            row.outcomes[kind].times = times
    except ContenderError as error:
        row.outcomes[OURS].problem = f"while timing: {error}"
    finally:
        for contender in contenders:
            contender.close()
    return row


def main() -> int:
    given = arguments()
    workloads = chosen_workloads(given)
    if missing := [p for p in REFEREE if not version(p)]:
        say(f"outputs are checked with {', '.join(missing)}: pip install '.[bench]'")
        return 2
    peers = chosen_peers(given)
    rows, stolen = [], machine.stolen()
    for i, workload in enumerate(workloads, 1):
        say(f"[{i}/{len(workloads)}] {workload.name}")
        rows.append(measure(workload, peers, given))
    facts = {
        "machine": f"{machine.processor()}; {machine.memory()}",
        "versions": machine.versions(PEERS[p] for p in peers),
        "settings": f"{given.precision}, {given.threads} threads, target {given.target}, {given.rounds} blocks each"
        + (", at real-time priority" if given.urgent else ""),
        "seed of the random ones": str(given.random),
        "stolen by the hypervisor": f"{(machine.stolen() - stolen) / 100:.1f} s in this run",
    }
    show(rows, peers)
    if given.json:
        given.json.write_text(json.dumps(as_json(rows, facts), indent=1), encoding="utf-8")
    if given.record:
        record(rows, peers, facts, today())
    return any(OURS not in r.outcomes or not r.outcomes[OURS].counts for r in rows)


if __name__ == "__main__":
    sys.exit(main())
