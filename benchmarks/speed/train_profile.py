"""Where the time of a training step goes, by operator; writes `reports/training_profile.md`.

    python benchmarks/speed/train_profile.py --program target/debug/digrap-bench

Needs onnxruntime 1.31.1, numpy and safetensors. Exports the training graph of a checkpoint (`export --gradients`), runs it
with ONNX Runtime's own profiler on random images and tokens in the shapes of easy-VQA, and adds up the time of each
operator. The optimiser's update is not part of the graph. Shares are those of the time inside operators.
"""

import argparse
import collections
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from safetensors.numpy import load_file

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = REPOSITORY / "fixtures/models/paligemma-easy-vqa"
PRODUCTS = {"MatMul", "FusedMatMul", "Gemm", "FusedGemm"}
QUESTION, ANSWER, WARM_UP, RUNS = 11, 2, 3, 20


def batch(config, size):
    """Random inputs of a batch whose rows all have the same length."""
    rng = np.random.default_rng(1)
    vision = config["vision_config"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    width = QUESTION + ANSWER - 1
    tokens = lambda *shape: rng.integers(10, 600, shape)
    return {
        "pixel_values": rng.normal(size=(size, 3, vision["image_size"], vision["image_size"])).astype(np.float32),
        "image_rows": np.arange(size), "input_ids": tokens(size, width),
        "positions": np.tile(np.arange(patches + 1, patches + 1 + width), (size, 1)),
        "prompt_ends": np.full((size, 1), patches + QUESTION),
        "answer_columns": np.arange(patches + width - ANSWER, patches + width), "labels": tokens(size, ANSWER),
    }


def profile(graph, feeds, threads):
    """Seconds by operator of a run, and the number of nodes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_profiling = threads, True
    options.profile_file_prefix = str(graph.with_suffix(""))
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    for _ in range(WARM_UP + RUNS):
        session.run(None, feeds)
    events = json.loads(Path(session.end_profiling()).read_text())
    seconds, nodes, seen = collections.Counter(), collections.Counter(), collections.Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            seen[event["name"]] += 1
            if seen[event["name"]] > WARM_UP:
                seconds[event["args"]["op_name"]] += event["dur"] / 1e6 / RUNS
                nodes[event["args"]["op_name"]] += 1
    return seconds, {name: count // RUNS for name, count in nodes.items()}


def table(options, seconds, nodes):
    total = sum(seconds.values())
    products = sum(time for name, time in seconds.items() if name in PRODUCTS)
    lines = [
        "# Where the time of a training step goes", "",
        f"Forward and backward of `{options.model.name}`, batch {options.batch}, f32, {options.threads} threads of the CPU, in "
        "ONNX Runtime's own profile. Made by `benchmarks/speed/train_profile.py`.", "",
        f"Matrix products take {100 * products / total:.0f} % of the time inside operators.", "",
        "| operator | nodes | share % |", "|---|---:|---:|",
    ]
    lines += [f"| {name} | {nodes[name]} | {100 * time / total:.1f} |" for name, time in seconds.most_common(14)]
    rest = sum(time for _, time in seconds.most_common()[14:])
    return "\n".join(lines + [f"| others | | {100 * rest / total:.1f} |"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--program", default=REPOSITORY / "target/debug/digrap-bench")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "train.onnx"
        command = [options.program, "export", "--model", options.model, "--gradients", "--loss", "loss", "--output", graph]
        subprocess.run([str(part) for part in command], check=True, capture_output=True)
        feeds = batch(json.loads((options.model / "config.json").read_text()), options.batch)
        weights = load_file(options.model / "model.safetensors")
        feeds |= {name: value.astype(np.float32) for name, value in weights.items()}
        seconds, nodes = profile(graph, feeds, options.threads)
    text = table(options, seconds, nodes)
    (REPOSITORY / "reports").mkdir(exist_ok=True)
    (REPOSITORY / "reports/training_profile.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
