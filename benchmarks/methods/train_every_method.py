"""Trains the small PaliGemma on easy-VQA by every fine-tuning method; writes `reports/methods_easy_vqa.md`.

    python benchmarks/methods/train_every_method.py --program target/debug/digrap-bench

Needs Python alone, and the easy-VQA that `make demo` fetches. A short run from random weights gives a mediocre base. Every
method of `list methods` then fine-tunes it for as many steps with the same seed, all with one learning rate (LoRA with a higher one) and
each with its default settings: the table shows that every method runs from one command to a model that answers, and not which is
best. Every folder must be read by `vqa`, which answers all test questions. The script ends with an error if a command
fails, a run stops early or a method of the list has no row.

Base and methods hold out the same images, since their seed is the same, so no method is validated on images that it was
trained on. Finished runs in the folder `--runs` are read and not repeated: remove it after a change of the program.
"""

import argparse
import array
import json
import math
import struct
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGURATION = "fixtures/models/paligemma-small"
BASE_STEPS, TEXT_STEPS = 1200, 800
LORA = "r=8,alpha=16,targets=q_proj+k_proj+v_proj+o_proj"
FULL_RATE, LORA_RATE = "3e-4", "2e-3"
MORE_FULL = {"digrap": [["normalisation=row_cos"]]}
MORE_WITH_LORA = {"wise-ft": [["space=factors"]], "digrap": [["normalisation=row_cos"]]}


def call(options, *arguments):
    """Runs the program from the repository's root; returns what it prints as JSON."""
    command = [str(part) for part in (options.program, *arguments, "--json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)


def base_flags(options):
    return [
        "train", "--from-scratch", CONFIGURATION, "--dataset", "easy-vqa", "--batch-size", 32, "--max-steps", BASE_STEPS,
        "--learning-rate", "1e-3", "--lr-scheduler-type", "constant", "--weight-decay", 0.05,
        "--adam-beta2", 0.98, "--max-grad-norm", 1, "--sampling", f"yes/no=0;{TEXT_STEPS}:yes/no=0.6", "--seed", options.seed,
        "--threads", options.threads,
    ]


def method_flags(options, method, settings, lora):
    flags = [
        "train", "--model", options.runs / "base", "--dataset", "easy-vqa", "--method", method, "--batch-size", 16,
        "--max-steps", options.steps, "--learning-rate", LORA_RATE if lora else FULL_RATE, "--lr-scheduler-type", "cosine", "--seed", options.seed,
        "--threads", options.threads,
    ]
    return flags + ["--set", *settings] * bool(settings) + ["--lora", LORA] * lora


def test_accuracy(options, folder):
    """Accuracy on all test questions, in percent, and their number."""
    flags = ["vqa", "--model", folder, "--dataset", "easy-vqa", "--threads", options.threads, "--output", f"{folder}-answers"]
    evaluation, = call(options, *flags)["evaluations"]
    return evaluation["accuracy"], evaluation["n"]


def weights(folder):
    """The tensors of a checkpoint in f32 by name."""
    data = (folder / "model.safetensors").read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    spans = {name: tensor["data_offsets"] for name, tensor in header.items() if name != "__metadata__"}
    return {name: array.array("f", data[start + begin : start + end]) for name, (begin, end) in spans.items()}


def distance(one, other):
    """Euclidean distance of two checkpoints over all tensors."""
    return math.hypot(*(math.dist(one[name], other[name]) for name in one))


def row(options, method, settings, lora):
    """Trains and evaluates one method; returns its row of the table."""
    name = "_".join([method, *settings, *["lora"] * lora]).replace("=", "-")
    start, folder = time.monotonic(), options.runs / name
    trained = call(options, *method_flags(options, method, settings, lora), "--output", folder)
    accuracy, n = test_accuracy(options, folder)
    if trained["steps"] != options.steps or trained["accuracy"] is None or n != options.n:
        sys.exit(f"{name}: the run or its evaluation is not whole: {trained}, {n} answers")
    print(f"{name}: {accuracy:.2f} %, {time.monotonic() - start:.0f} s", flush=True)
    chosen = ", ".join(f"{key}={value}" for key, value in trained["settings"].items()) or "-"
    what = "LoRA" if lora else "full"
    moved = "-" if lora else f"{distance(options.base, weights(folder)):.2g}"
    return (f"| {method} | {chosen} | {what} | {trained['trained_parameters']:,} | {trained['steps']} | {trained['seed']} | "
            f"{trained['accuracy']:.2f} | {accuracy:.2f} | {moved} |")


def text(options, base, base_accuracy, rows):
    show = lambda flags: " ".join(f"'{part}'" if ";" in str(part) else str(part) for part in flags)
    pattern = show(method_flags(options, "METHOD", [], False)).replace(str(options.runs / "base"), "base")
    return "\n".join([
        "# Every fine-tuning method on easy-VQA", "",
        f"`{CONFIGURATION}` from random weights, then fine-tuned by each method on easy-VQA with AdamW, f32, "
        f"{options.threads} threads of the CPU, one seed. Nothing was tuned: settings are the methods' defaults and all have "
        f"the same learning rate ({FULL_RATE}, with LoRA {LORA_RATE}), so the table shows that every method trains and evaluates from one command each, and not "
        "which is best. Made by `benchmarks/methods/train_every_method.py`.", "",
        f"ID validation is the accuracy on {base['validation_questions']:,} questions about held-out images of the training set, "
        f"which neither base nor methods train on; test is the accuracy on all {options.n:,} test questions. Both in percent. "
        "Distance is that of all weights from those of the base: a method that ends at the accuracy of the base and at a distance of "
        "about 0 was held there by its default settings.", "",
        "| method | settings | trained | trained parameters | steps | seed | ID validation % | test % | distance |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
        f"| base | - | from scratch | {base['trained_parameters']:,} | {base['steps']} | {base['seed']} | {base['accuracy']:.2f} | "
        f"{base_accuracy:.2f} | 0 |",
        *rows, "",
        "lp-ft and lp-ft-c train the head for as many steps before the steps of the table, wise-ft interpolates after them. "
        "linear-probe and partial-fusion train weights of the model alone, so they have no row with LoRA.", "",
        "Commands, the base's first (`--set KEY=VALUE` where the settings differ from the defaults):", "",
        f"    digrap-bench {show(base_flags(options))} --output base",
        f"    digrap-bench {pattern} --output METHOD",
        "    digrap-bench vqa --model METHOD --dataset easy-vqa", "",
        f"with LoRA `--learning-rate {LORA_RATE} --lora {LORA}`.",
    ]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--program", type=Path, default=REPOSITORY / "target/debug/digrap-bench")
    parser.add_argument("--runs", type=Path, default=REPOSITORY / "target/methods_easy_vqa", help="folder of the runs")
    parser.add_argument("--steps", type=int, default=150, help="steps of each method")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "reports/methods_easy_vqa.md")
    options = parser.parse_args()
    options.program, options.runs = options.program.resolve(), options.runs.resolve()
    listed = call(options, "list", "methods")["methods"]
    methods = [method["name"] for method in listed]
    with_lora = [method["name"] for method in listed if method["selection"] == "chosen"]
    if unknown := (MORE_FULL.keys() | MORE_WITH_LORA.keys()) - set(methods):
        sys.exit(f"`list methods` does not have {', '.join(sorted(unknown))}")
    cases = [(method, settings, False) for method in methods for settings in [[], *MORE_FULL.get(method, [])]]
    cases += [(method, settings, True) for method in with_lora for settings in [[], *MORE_WITH_LORA.get(method, [])]]
    base = call(options, *base_flags(options), "--output", options.runs / "base")
    base_accuracy, options.n = test_accuracy(options, options.runs / "base")
    options.base = weights(options.runs / "base")
    print(f"base: {base_accuracy:.2f} %", flush=True)
    rows = [row(options, *case) for case in cases]
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(text(options, base, base_accuracy, rows))


if __name__ == "__main__":
    main()
