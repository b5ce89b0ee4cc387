"""`python -m tests.chaos`: crash workers, server and connections under load; check that nothing is lost or doubled."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from baton_actors.processes.logs import LogSettings, configure

from .driver import ALL_FLOWS, Options, run_chaos
from .matrix import run_matrix


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of submits and faults; without it a random one, which is printed")
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--kills", type=int, default=12, help="SIGKILLs of workers; other faults come between them")
    parser.add_argument("--lease", type=float, default=1.0, metavar="SECONDS")
    parser.add_argument("--gap", type=float, default=0.6, metavar="SECONDS", help="mean wait between two faults")
    parser.add_argument("--servers", type=int, choices=(1, 3), default=1, help="one, or a cluster of three")
    parser.add_argument("--long", action="store_true", help="with stalls of 11 and 20 s")
    parser.add_argument("--no-disk", action="store_true", help="without a disk that is filled")
    parser.add_argument("--flows", nargs="*", default=ALL_FLOWS, choices=ALL_FLOWS)
    parser.add_argument(
        "--matrix",
        nargs="*",
        metavar="FLOW",
        help="the crash matrix instead: a death at every bus operation of these flows; all, and two deaths, without",
    )
    given = parser.parse_args()
    configure(LogSettings(format="json", level="error"))
    if given.matrix is not None:
        return matrix(given.matrix)
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    options = Options(
        seed=seed,
        runs=given.runs,
        kills=given.kills,
        lease_s=given.lease,
        gap_s=given.gap,
        flows=tuple(given.flows),
        servers=given.servers,
        long=given.long,
        full_disk=not given.no_disk,
    )
    again = f"python -m tests.chaos --seed {seed} --runs {given.runs} --kills {given.kills} --gap {given.gap:g}"
    again += f" --servers {given.servers}{' --long' if given.long else ''}{' --no-disk' if given.no_disk else ''}"
    again += f" --flows {' '.join(given.flows)}" if tuple(given.flows) != ALL_FLOWS else ""
    folder = Path(tempfile.mkdtemp(prefix=f"baton-chaos-{seed}-"))
    print(f"chaos: {again}\n  in {folder}, kept if anything is wrong", flush=True)
    started = time.monotonic()
    report = asyncio.run(run_chaos(options, folder))
    print(report)
    print(f"  took {time.monotonic() - started:.0f} s")
    if not report.violations:
        shutil.rmtree(folder)
        return 0
    for violation in report.violations[:50]:
        print(violation)
    print(f"{len(report.violations)} violations. Kept in {folder}: the store, history.jsonl, log.jsonl, workers.log.")
    print(f"Again with: {again}")
    return 1


def matrix(flows: list[str]) -> int:
    folder = Path(tempfile.mkdtemp(prefix="baton-matrix-"))
    rows = asyncio.run(run_matrix(folder, flows, deaths=(1,)) if flows else run_matrix(folder))
    for row in rows:
        print(f"  {row.flow}, {row.deaths} worker(s) die: {row.operations} operations, {row.runs} runs", end=", ")
        print("all right" if not row.violations else f"{len(row.violations)} VIOLATIONS")
        counts = Counter(row.places)
        print(f"    {', '.join(f'{count} {place}' for place, count in counts.most_common())}")
    violations = [violation for row in rows for violation in row.violations]
    if not violations:
        shutil.rmtree(folder)
        return 0
    print("\n".join(violations[:50]))
    print(f"Kept in {folder}: the store, histories, logs.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
