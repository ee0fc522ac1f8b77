"""Runs the areas named on the command line, or all: every `test_…` of theirs, side by side. Exits with 1 if one fails."""

import importlib
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NOT_AREAS = {"run", "support"}


def cases(area):
    module = importlib.import_module(area)
    return [(f"{area}.{name}", case) for name, case in vars(module).items() if name.startswith("test_")]


def attempt(named):
    name, case = named
    assert case.__doc__, f"{name} does not say what it checks"
    started = time.monotonic()
    try:
        case()
        return name, None, time.monotonic() - started
    except Exception:
        return name, traceback.format_exc(), time.monotonic() - started


def main(words):
    areas = words or sorted({file.stem for file in Path(__file__).parent.glob("*.py")} - NOT_AREAS)
    all_cases = [case for area in areas for case in cases(area)]
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, all_cases))
    for area in areas:
        of_area = [outcome for outcome in outcomes if outcome[0].startswith(area + ".")]
        good = sum(error is None for _, error, _ in of_area)
        print(f"{area}: {good} of {len(of_area)} ({sum(took for _, _, took in of_area):.1f} s)")
    failed = [(name, error) for name, error, _ in outcomes if error]
    for name, error in failed:
        print(f"FAIL {name}\n{error}")
    print(f"{len(outcomes)} cases, {len(failed)} failed: {[name for name, _ in failed]}", flush=True)
    return 1 if failed or not outcomes else 0


sys.exit(main(sys.argv[1:]))
