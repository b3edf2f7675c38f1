r"""Fine-tunes the miniature world's base model by several methods and draws what shift does to them; writes `reports/shift/`.

    python benchmarks/miniature/figures.py --work DIR

Needs Python alone, and takes some twenty minutes on two idle cores. Vanilla fine-tuning, L2-SP and DiGraP train for three
epochs each, and DiGraP with three learning rates of its projection strength for one epoch more each. The base model and the
three are then evaluated on the suite `miniature` together with their distances, those of the sweep without. All figures are
drawn from the stores afterwards: `digrap-bench figures` reads no model. Finished runs in DIR are not repeated, and one that
was broken off goes on.

PNG files of the histograms are not kept. The script ends with an error if a command fails, if one of the ten datasets lacks a
shift row or its interval, or if a second drawing differs by a byte from the first.
"""

import argparse
import filecmp
import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BASE = "fixtures/models/miniature-pt"
METHODS = ("vanilla", "l2-sp", "digrap")
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


def train(options, name, method, epochs, *more):
    flags = [
        "--model", BASE, "--dataset", "miniature", "--method", method, "--batch-size", 32, "--num-train-epochs", epochs,
        "--learning-rate", "5e-4", "--lr-scheduler-type", "cosine", "--max-grad-norm", 1, "--seed", 1,
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


def draw(options, output):
    stores = [options.work / name for name in ("store.sqlite", "sweep.sqlite", "digrap/store.sqlite")]
    call(options, "figures", "--suite", "miniature", "--store", *stores, "--output", output)
    call(options, "figures", "--paper", "--output", output / "paper")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=REPOSITORY / "target/debug/digrap-bench")
    parser.add_argument("--work", type=Path, required=True, help="folder for models and stores")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "reports/shift")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    models = [train(options, method, method, EPOCHS) for method in METHODS]
    sweep = train(options, "sweep", "digrap", SWEEP_EPOCHS, "--sweep", SWEEP)
    check(evaluate(options, "store.sqlite", models, [BASE], "--shift"))
    key, values = SWEEP.split("=")
    evaluate(options, "sweep.sqlite", [sweep / f"{key}={value}" for value in values.split(",")])
    again = options.work / "again"
    draw(options, options.output)
    draw(options, again)
    names = [path.relative_to(again) for path in again.rglob("*") if path.is_file()]
    differing = filecmp.cmpfiles(options.output, again, [str(name) for name in names], shallow=False)
    if differing[1] or differing[2]:
        sys.exit(f"drawn twice, these differ: {', '.join(differing[1] + differing[2])}")
    # Large, and the page shows the SVG files.
    for path in options.output.glob("distances-*.png"):
        path.unlink()
    print(f"{len(names)} files in {options.output}, drawn twice to the same bytes")


if __name__ == "__main__":
    main()
