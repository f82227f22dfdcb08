"""``python -m tests.fuzz``: damaged inputs for every reader, for an hour or a number of inputs."""

import argparse
import itertools
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.judging import Inputs, fault_of
from tests.fuzz.readers import COMMANDS, READERS, Reader
from tests.fuzz.worker import Worker

SHARE_OF_COMMANDS = 20
"""Rounds of the readers to one round of the commands, which take longer."""


def main() -> None:
    """Run the campaign, print the faults by kind, and exit with status 1 if there are any."""
    asked = _arguments()
    readers = [one for one in (*READERS, *COMMANDS) if not asked.only or any(word in one.name for word in asked.only)]
    if asked.replay:
        print(replayed(asked.replay) or "no fault")
        return
    print(f"seed {asked.seed}, {len(readers)} readers; faulty inputs are kept in {asked.keep}", flush=True)
    faults, number = campaign(readers, asked)
    for kind, times in faults.most_common():
        print(f"{times:5d}  {kind}")
    print(f"{number} damaged inputs, {faults.total()} faults; seed {asked.seed}")
    raise SystemExit(bool(faults))


def campaign(readers: list[Reader], asked: argparse.Namespace) -> tuple[Counter[str], int]:
    """Judge inputs in a process of its own, which is started anew when one ends it."""
    faults: Counter[str] = Counter()
    begun = time.monotonic()
    done, worker = 0, Worker(asked.seed)
    for turn in itertools.count():
        if done >= asked.cases if asked.cases else time.monotonic() - begun > asked.seconds:
            break
        reader, number = readers[turn % len(readers)], turn // len(readers)
        if reader in COMMANDS and number % SHARE_OF_COMMANDS and len(readers) > len(COMMANDS):
            continue
        done += 1
        fault, content = worker.judged(reader, number)
        if fault is not None:
            faults[f"{reader.name} {fault}"] += 1
            kept = asked.keep / reader.name / f"{asked.seed}-{number}"
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(content)
            print(f"{reader.name} {number}: {fault}", flush=True)
    worker.close()
    return faults, done


def replayed(kept: Path) -> str | None:
    """What is wrong with an input that was kept, now; the name of its folder is that of the reader."""
    reader = next(one for one in (*READERS, *COMMANDS) if one.name == kept.parent.name)
    with tempfile.TemporaryDirectory() as folder:
        return fault_of(reader, Inputs(Path(folder), 0).placed(reader, kept.read_bytes()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600, help="time to go on for")
    parser.add_argument("--cases", type=int, help="number of inputs instead of a time")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6, help="random seed; another one each time")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="folder for the inputs with faults")
    parser.add_argument("--only", nargs="*", help="parts of the names of readers")
    parser.add_argument("--replay", type=Path, help="a kept input to judge again")
    return parser.parse_args()


if __name__ == "__main__":
    main()
