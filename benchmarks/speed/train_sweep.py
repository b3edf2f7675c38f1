"""Times training steps over batch sizes and numbers of layers; writes `reports/training_cost.md` and `.svg`.

    python benchmarks/speed/train_sweep.py --program target/debug/digrap-bench

Needs the easy-VQA that `make demo` fetches, and matplotlib 3.11. Models are random ones of the configuration
`fixtures/models/paligemma-small`, with as many layers in either tower as stated. Each point is the median step of a run of its
own; rounds take turns, and the smallest of the rounds counts, since other programs only ever slow a step down. The cost is
linear where a straight line through the points, fitted by least squares, leaves small residuals: the largest one is stated
relative to the line.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGURATION = REPOSITORY / "fixtures/models/paligemma-small"
REPORTS = REPOSITORY / "reports"
BATCHES, LAYERS = (8, 16, 32, 64, 96, 128), (1, 2, 3, 4, 6, 8)
DEFAULT_BATCH, DEFAULT_LAYERS = 32, 3
WARM_UP = 4


def step(options, batch, layers):
    """Median milliseconds of a step."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        shutil.copytree(CONFIGURATION, model)
        config = json.loads((model / "config.json").read_text())
        for part in ("vision_config", "text_config"):
            config[part]["num_hidden_layers"] = layers
        (model / "config.json").write_text(json.dumps(config))
        command = [
            options.program, "train", "--json", "--from-scratch", model, "--dataset", "easy-vqa", "--output",
            Path(folder) / "run", "--batch-size", batch, "--max-steps", options.steps + WARM_UP, "--validation", "none",
            "--threads", options.threads, "--lr-scheduler-type", "constant",
        ]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    return 1000 * json.loads(done.stdout)["pace"]["median_step_s"]


def fit(points):
    """Intercept, slope and the largest residual relative to the line."""
    x, y = np.array(list(points)), np.array(list(points.values()))
    slope, intercept = np.polyfit(x, y, 1)
    line = intercept + slope * x
    return intercept, slope, np.abs(y / line - 1).max()


def plot(sweeps):
    figure, panes = pyplot.subplots(1, len(sweeps), figsize=(9, 3.4), sharey=False)
    for pane, (name, points) in zip(panes, sweeps.items()):
        intercept, slope, _ = fit(points)
        x = np.array([0, max(points)])
        pane.plot(x, intercept + slope * x, color="#767676", linewidth=1)
        pane.plot(list(points), list(points.values()), "o", color="#0072b2")
        pane.set_xlabel(name)
        pane.set_ylabel("milliseconds per step")
        pane.set_xlim(left=0)
        pane.set_ylim(bottom=0)
        pane.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    matplotlib.rcParams["svg.hashsalt"] = "training_cost"
    figure.savefig(REPORTS / "training_cost.svg", metadata={"Date": None})


def table(options, sweeps):
    lines = [
        "# Cost of a training step",
        "",
        f"Full fine-tuning of `fixtures/models/paligemma-small` on easy-VQA with AdamW, f32, {options.threads} threads of the CPU; "
        f"batch {DEFAULT_BATCH} and {DEFAULT_LAYERS} layers in either tower unless stated. Made by "
        "`benchmarks/speed/train_sweep.py`.",
        "",
        "![Milliseconds per step over batch size and over layers](training_cost.svg)",
    ]
    for name, points in sweeps.items():
        intercept, slope, residual = fit(points)
        lines += ["", f"| {name} | ms per step |", "|---:|---:|"]
        lines += [f"| {x} | {y:.1f} |" for x, y in points.items()]
        lines += ["", f"Line: {intercept:.1f} ms + {slope:.2f} ms each; largest residual {100 * residual:.1f} % of it."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--program", default=REPOSITORY / "target/debug/digrap-bench")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cases = [("batch size", batch, (batch, DEFAULT_LAYERS)) for batch in BATCHES]
    cases += [("layers in either tower", layers, (DEFAULT_BATCH, layers)) for layers in LAYERS]
    sweeps = {}
    for _ in range(options.rounds):
        for name, x, arguments in cases:
            points = sweeps.setdefault(name, {})
            points[x] = min(points.get(x, float("inf")), step(options, *arguments))
            print(name, x, f"{points[x]:.1f} ms", flush=True)
    REPORTS.mkdir(exist_ok=True)
    plot(sweeps)
    (REPORTS / "training_cost.md").write_text(table(options, sweeps))


if __name__ == "__main__":
    main()
