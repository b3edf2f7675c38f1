"""Selects the adversarial questions of the miniature world: those that a majority of three models fails.

    python benchmarks/miniature/select_adversarial.py --work DIR

Needs Python alone and takes about ten minutes on two cores. Each model has a size and a seed of its own, unlike those
of any model that is evaluated: it is trained from random weights on the broad mixture, then on the training part of the
in-distribution set, and answers every question of the adversarial pool. `select-miniature` writes the questions that more
than half of the models fail to `src/data/miniature/selection/miniature-adv.txt`. The models are not kept.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGURATION = REPOSITORY / "fixtures/models/miniature-pt"
SETTINGS = ("config.json", "generation_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json")
LIST = REPOSITORY / "src/data/miniature/selection/miniature-adv.txt"
POOL = "miniature-adversarial-pool"
IMAGE_NAME = "miniature_{image_id:012}.png"
# Seed, vision layers, text layers and width of the feed-forward layers.
MODELS = {"first": (101, 2, 2, 320), "second": (102, 3, 1, 256), "third": (103, 2, 3, 256)}
BROAD_STEPS, OPEN_STEPS, NARROW_STEPS = 1600, 600, 500


def call(options, *arguments):
    """Runs the program from the repository's root; returns what it prints."""
    command = [str(part) for part in (options.program, *arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}")
    return done.stdout


def write_configuration(folder, vision_layers, text_layers, width):
    """The settings of the miniature model with other sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SETTINGS:
        shutil.copy(CONFIGURATION / name, folder / name)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"] |= {"num_hidden_layers": vision_layers, "intermediate_size": width}
    config["text_config"] |= {"num_hidden_layers": text_layers, "intermediate_size": width}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def train(options, start, dataset, output, seed, steps, rate, *more):
    call(
        options, "train", *start, "--dataset", dataset, "--output", output, "--seed", seed, "--batch-size", 32,
        "--max-steps", steps, "--learning-rate", rate, "--lr-scheduler-type", "cosine", "--warmup-steps", 100,
        "--weight-decay", 0.05, "--adam-beta2", 0.98, "--max-grad-norm", 1, "--threads", 2, *more,
    )


def answers(options, name, pool):
    """The answers of a model to the pool, made where they are not there."""
    seed, *sizes = MODELS[name]
    folder = options.work / name
    results = folder / "answers/custom.results.json"
    if not results.exists():
        write_configuration(folder / "configuration", *sizes)
        sampling = ("--sampling", f"yes/no=0,number=0;{OPEN_STEPS}:yes/no=1,number=1")
        start = ("--from-scratch", folder / "configuration")
        train(options, start, "miniature-broad", folder / "broad", seed, BROAD_STEPS, "1e-3", *sampling)
        train(options, ("--model", folder / "broad"), "miniature", folder / "narrow", seed, NARROW_STEPS, "5e-4")
        call(
            options, "vqa", "--model", folder / "narrow", "--questions", pool / "questions.json", "--annotations",
            pool / "annotations.json", "--images", pool / "images", "--image-name", IMAGE_NAME, "--output", folder / "answers",
        )
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=REPOSITORY / "target/debug/digrap-bench")
    parser.add_argument("--work", type=Path, required=True, help="folder for models and answers; what is there is not repeated")
    options = parser.parse_args()
    options.program, options.work = options.program.resolve(), options.work.resolve()
    call(options, "fetch", "miniature", "--output", options.work, "--set", POOL)
    results = [answers(options, name, options.work / POOL) for name in MODELS]
    chosen = call(options, "select-miniature", "miniature-adv", "--results", *results)
    LIST.write_text(chosen)
    print(f"{len(chosen.splitlines())} questions in {LIST.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
