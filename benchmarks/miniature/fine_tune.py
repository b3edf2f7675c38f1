r"""Fine-tunes the miniature world's base model by several methods and seeds, and keeps what the reports are made of.

    python benchmarks/miniature/fine_tune.py

Needs Python alone, and takes some forty minutes on two idle cores. Vanilla fine-tuning, L2-SP and DiGraP train for three
epochs each with three seeds, and DiGraP with three learning rates of its projection strength for one epoch more each. The
base model and the first seed of each method are then evaluated on the suite `miniature` together with their distances from
the training set, the others without. Finished runs are not repeated, and one that was broken off goes on.

What the stores hold afterwards is written to `benchmarks/miniature/`, from which `make reports` draws `reports/shift/`
and `reports/leaderboard/` without a model: `shift.sqlite.gz` has the models with distances and the curves of DiGraP's
first run, `sweep.sqlite.gz` the sweep, `seeds.sqlite.gz` the other seeds. The script ends with an error if a command
fails, or if one of the ten datasets lacks a shift row or its interval.
"""

import argparse
import contextlib
import gzip
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BASE = "fixtures/models/miniature-pt"
METHODS = ("vanilla", "l2-sp", "digrap")
SEEDS = (1, 2, 3)
EPOCHS, SWEEP_EPOCHS = 3, 1
SWEEP = "mu=0.05,0.5,5"
MODALITIES = {"vision", "question", "joint", "answer"}


def call(options, *arguments):
    """Runs the program from the repository's root; returns what it prints."""
    command = [str(part) for part in (options.program, *arguments)]
    print(" ".join(command), file=sys.stderr)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}")
    return done.stdout


def train(options, name, method, epochs, seed, *more):
    flags = [
        "--model", BASE, "--dataset", "miniature", "--method", method, "--batch-size", 32, "--num-train-epochs", epochs,
        "--learning-rate", "5e-4", "--lr-scheduler-type", "cosine", "--max-grad-norm", 1, "--seed", seed,
        "--threads", options.threads, "--output", options.work / name,
    ]
    call(options, "train", *flags, *more)
    return options.work / name


def evaluate(options, store, models, zero_shot=(), *more):
    flags = ["--suite", "miniature", "--store", options.work / store, "--threads", options.threads]
    flags += ["--model", *models] * bool(models) + ["--zero-shot", *zero_shot] * bool(zero_shot)
    return json.loads(call(options, "vqa", *flags, *more, "--json"))


def check(run):
    """Every dataset has a row for every modality, with an interval."""
    for evaluation in run["evaluations"]:
        shifts = {shift["modality"]: shift for shift in evaluation["shifts"]}
        lacking = MODALITIES - {name for name, shift in shifts.items() if shift["interval"]}
        if lacking:
            sys.exit(f"{evaluation['model']} on {evaluation['dataset']} lacks {', '.join(sorted(lacking))}")


def keep(options, name, *stores):
    """Brings stores into one, which is compressed: the same rows give the same bytes with one version of SQLite and zlib."""
    merged = REPOSITORY / options.work / name
    merged.unlink(missing_ok=True)
    call(options, "runs", "import", *(options.work / store for store in stores), "--store", options.work / name)
    with contextlib.closing(sqlite3.connect(merged)) as store:
        store.execute("PRAGMA journal_mode = DELETE")
        store.execute("VACUUM")
    kept = REPOSITORY / "benchmarks/miniature" / f"{name}.gz"
    kept.write_bytes(gzip.compress(merged.read_bytes(), mtime=0))
    print(f"{kept.relative_to(REPOSITORY)}: {kept.stat().st_size:,} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=REPOSITORY / "target/debug/digrap-bench")
    parser.add_argument(
        "--work", type=Path, default=Path("target/fine-tuned"),
        help="folder for models and stores, below the repository's root: the reports tell its name",
    )
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    (REPOSITORY / options.work).mkdir(parents=True, exist_ok=True)
    first, *others = SEEDS
    models = [train(options, method, method, EPOCHS, first) for method in METHODS]
    sweep = train(options, "sweep", "digrap", SWEEP_EPOCHS, first, "--sweep", SWEEP)
    check(evaluate(options, "first.sqlite", models, [BASE], "--shift"))
    key, values = SWEEP.split("=")
    evaluate(options, "strengths.sqlite", [sweep / f"{key}={value}" for value in values.split(",")])
    keep(options, "shift.sqlite", "first.sqlite", "digrap/store.sqlite")
    keep(options, "sweep.sqlite", "strengths.sqlite")
    more = [train(options, f"{method}-{seed}", method, EPOCHS, seed) for seed in others for method in METHODS]
    evaluate(options, "others.sqlite", more)
    keep(options, "seeds.sqlite", "others.sqlite")


if __name__ == "__main__":
    main()
