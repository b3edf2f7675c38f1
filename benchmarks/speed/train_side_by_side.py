"""Times training steps of `digrap-bench train` and PyTorch on the same checkpoint, batch size and threads, in float32.

    python benchmarks/speed/train_side_by_side.py --program target/debug/digrap-bench

Needs torch, transformers and peft at the versions of `fixtures/requirements.txt`, a C++ compiler for `torch.compile`, and
the easy-VQA that `make demo` fetches. Both sides train on easy-VQA questions, drawn at random, with AdamW: all parameters,
and LoRA matrices of rank 8 on q, k, v and o projections with dropout 0.05. A step is forward, backward and update; images
are prepared outside of PyTorch's clock and inside of ours (by threads ahead of it). PyTorch computes scaled dot product
attention and its fused AdamW, as an ordinary fine-tuning script would; its loss is transformers' own.

The sides take turns in processes of their own; each gives the median of its steps after the first few, and its peak
resident memory above what it had before the first step (activations, gradients, moments). Ratios are taken within a round;
their median, smallest and largest are printed as Markdown and written to `reports/training_speed.md`. Other busy programs slow torch's spinning threads more than ours,
so run it on a quiet machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = REPOSITORY / "fixtures/models/paligemma-easy-vqa"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
RANK, ALPHA, DROPOUT = 8, 16, 0.05
WARM_UP = 4


def ours(options, lora, flags=()):
    """Median seconds of a step and peak memory by `digrap-bench train`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            options.program, "train", "--json", "--model", options.model, "--dataset", "easy-vqa", "--output",
            Path(folder) / "run", "--batch-size", options.batch, "--max-steps", options.steps + WARM_UP, "--validation",
            "none", "--threads", options.threads, "--lr-scheduler-type", "constant", "--learning-rate", "1e-4",
        ]
        if lora:
            command += ["--lora", f"r={RANK},alpha={ALPHA},dropout={DROPOUT},targets={'+'.join(TARGETS)}"]
        command += [*flags, *options.ours]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    pace = json.loads(done.stdout)["pace"]
    return {"step_s": pace["median_step_s"], "memory_mib": pace["peak_memory_mib"]}


def peak_mib():
    """Peak resident memory of this process so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def torch_batches(processor, options):
    """Batches as a fine-tuning script makes them: the processor's tensors with labels on the answers."""
    import random

    from easy_vqa import get_train_image_paths, get_train_questions
    from PIL import Image

    questions, answers, images = get_train_questions()
    paths = get_train_image_paths()
    rng = random.Random(1)
    for _ in range(options.steps + WARM_UP):
        chosen = rng.sample(range(len(questions)), options.batch)
        pictures = [Image.open(paths[images[index]]).convert("RGB") for index in chosen]
        texts = ["<image>" + questions[index] for index in chosen]
        yield processor(text=texts, images=pictures, suffix=[answers[index] for index in chosen], return_tensors="pt",
                        padding="longest")


def torch_side(options):
    """The same in this process by PyTorch; prints JSON."""
    import torch
    from transformers import AutoProcessor, PaliGemmaForConditionalGeneration

    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    model = PaliGemmaForConditionalGeneration.from_pretrained(options.model, dtype=torch.float32)
    if options.lora:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=DROPOUT, target_modules=TARGETS)
        model = get_peft_model(model, config)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    batches = list(torch_batches(AutoProcessor.from_pretrained(options.model), options))
    call = torch.compile(model) if options.compile else model
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, seconds = peak_mib(), []
    for batch in batches:
        start = time.perf_counter()
        loss = call(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"step_s": statistics.median(seconds[WARM_UP:]), "memory_mib": peak_mib() - before}))


def torch_process(options, lora, compiled):
    """PyTorch in a process of its own."""
    command = [sys.executable, __file__, "--torch-side", "--model", options.model, "--batch", options.batch, "--steps",
               options.steps, "--threads", options.threads]
    command += ["--lora"] * lora + ["--compile"] * compiled
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def compare(options, lora):
    """Rounds of the three sides; returns rows of the table."""
    sides = {
        "digrap-bench": lambda: ours(options, lora),
        "digrap-bench --recompute": lambda: ours(options, lora, ["--recompute"]),
        "PyTorch eager": lambda: torch_process(options, lora, False),
    }
    if not options.no_compile:
        sides["torch.compile"] = lambda: torch_process(options, lora, True)
    results = {name: [] for name in sides}
    for number in range(options.rounds):
        order = list(sides) if number % 2 == 0 else list(sides)[::-1]
        for name in order:
            results[name].append(sides[name]())
            print(f"{'LoRA' if lora else 'full'} round {number + 1}: {name} {results[name][-1]}", file=sys.stderr)
    rows = []
    for name, found in results.items():
        step = [result["step_s"] for result in found]
        memory = statistics.median(result["memory_mib"] for result in found)
        ratio = [other / own["step_s"] for other, own in zip(step, results["digrap-bench"])]
        rows.append(f"| {'LoRA' if lora else 'full'} | {name} | {1000 * statistics.median(step):.1f} | {spread(ratio)} | {memory:.0f} |")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--program", default=REPOSITORY / "target/debug/digrap-bench")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--ours", nargs="*", default=[], help="further flags of `digrap-bench train`")
    parser.add_argument("--only", choices=["full", "lora"])
    parser.add_argument("--torch-side", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--lora", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--compile", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.torch_side:
        torch_side(options)
        return
    rows = []
    for lora in (False, True):
        if options.only != ("full" if lora else "lora"):
            rows += compare(options, lora)
    text = "\n".join([
        "# Speed of a training step", "",
        f"`{Path(options.model).name}` on easy-VQA, batch {options.batch}, f32, {options.threads} threads of the CPU, AdamW; medians of "
        f"{options.steps} steps, ratios within each of {options.rounds} rounds (median, smallest to largest). Made by "
        "`benchmarks/speed/train_side_by_side.py`.", "",
        "| trained | side | ms per step | time relative to digrap-bench | peak memory above the start, MiB |",
        "|---|---|---:|---:|---:|", *rows,
    ]) + "\n"
    print(text)
    (REPOSITORY / "reports").mkdir(exist_ok=True)
    (REPOSITORY / "reports/training_speed.md").write_text(text)


if __name__ == "__main__":
    main()
