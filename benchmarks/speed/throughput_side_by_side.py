"""Times `digrap-bench vqa` and transformers on the same checkpoint and the same easy-VQA questions.

    python benchmarks/speed/throughput_side_by_side.py --program target/debug/digrap-bench

Needs torch, transformers and Pillow at the versions of `fixtures/requirements.txt`, and the easy-VQA that `make demo`
fetches. Two sets: the test part as it is, about ten questions per image, and one with an image file of its own for each
question. Both sides run on the CPU with the same number of threads, in float32, greedily, with 64 questions per batch.

The transformers side is an ordinary batched loop in the order of the questions: images opened with Pillow, processor
with left padding, scaled dot product attention, `generate`, `batch_decode`. It uses whichever backend of its image
processor is faster here (torchvision's only takes part where torchvision is installed) and answers one batch to warm up
before its clock starts. Both loops are timed from the first batch to the last with the model loaded; the processes are
timed as well, start and loading included. The sides take turns, and each of their runs is compared with the mean of the
two of ours around it. Medians are printed as Markdown.

Other programs do not slow both sides alike: with a second busy process on two processors, torch's threads, which spin
while they wait for each other, were seen to take 20 times as long. So a run starts when the machine is quiet, and one
during which other programs used more than 5 % of the processors is repeated, as long as `--patience` allows; what they
used at most is in the table. A set with a run that stayed disturbed gets no ratio. All this is read from /proc/stat, so
the script runs on Linux.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = REPOSITORY / "fixtures/models/paligemma-easy-vqa"
DATA = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
BATCH, NEW_TOKENS, SEPARATE_IMAGES = 64, 20, 4_000
QUICK = {"rounds": 1, "limit": 2_048}
QUIET = 0.05
BACKENDS = ["pil", "torchvision"]


def easy_vqa(root):
    """Questions of the test part as (text, answer, image file)."""
    records = json.loads((root / "test/questions.json").read_text())
    return [(text, answer, root / f"test/images/{image}.png") for text, answer, image in records]


def with_separate_images(records, folder):
    """Questions spread evenly over `records`, each with its own copy of its image, as files in the official layout."""
    count = min(SEPARATE_IMAGES, len(records))
    chosen = [records[index * len(records) // count] for index in range(count)]
    images = folder / "images"
    images.mkdir()
    questions, annotations, copies = [], [], []
    for number, (text, answer, image) in enumerate(chosen):
        copies.append((text, answer, images / f"{number}.png"))
        shutil.copyfile(image, copies[-1][2])
        key = {"question_id": number, "image_id": number}
        questions.append({**key, "question": text})
        answers = [{"answer": answer, "answer_confidence": "yes", "answer_id": human} for human in range(1, 11)]
        annotations.append({**key, "answers": answers})
    (folder / "questions.json").write_text(json.dumps({"questions": questions}))
    (folder / "annotations.json").write_text(json.dumps({"annotations": annotations}))
    arguments = ["--questions", folder / "questions.json", "--annotations", folder / "annotations.json",
                 "--images", images, "--image-name", "{image_id}.png"]
    return copies, arguments


def busy_seconds():
    """Processor time this machine has spent on anything since it started."""
    user, nice, system, _, _, irq, softirq, steal = Path("/proc/stat").read_text().split()[1:9]
    return sum(map(int, (user, nice, system, irq, softirq, steal))) / os.sysconf("SC_CLK_TCK")


def share_of_processors(seconds, wall):
    return max(0.0, seconds / (wall * os.cpu_count()))


def wait_for_quiet(deadline):
    while True:
        before, started = busy_seconds(), time.monotonic()
        time.sleep(1)
        share = share_of_processors(busy_seconds() - before, time.monotonic() - started)
        if share <= QUIET or time.monotonic() > deadline:
            return


def timed(command):
    with tempfile.TemporaryFile("w+") as complaints:
        before, started = busy_seconds(), time.monotonic()
        command = [str(part) for part in command]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True)
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall, processor = time.monotonic() - started, usage.ru_utime + usage.ru_stime
        others = share_of_processors(busy_seconds() - before - processor, wall)
        if status:
            complaints.seek(0)
            code = os.waitstatus_to_exitcode(status)
            sys.exit(f"{command[0]} failed with exit code {code}:\n{complaints.read()}")
    return {"process": wall, "processor": processor, "others": others, "out": out}


def undisturbed(given, name, side, run):
    """The first run while the machine was quiet; when patience ends without one, the least disturbed."""
    deadline = time.monotonic() + given.patience
    runs = []
    while not runs or (runs[-1]["others"] > QUIET and time.monotonic() < deadline):
        wait_for_quiet(deadline)
        runs.append(run())
        print("{}, {}: {pace:.1f} questions/s, process {process:.1f} s, {processor:.1f} s of processor, accuracy "
              "{accuracy:.2f}; others used {others:.1%}".format(name, side, **runs[-1]), file=sys.stderr)
    return min(runs, key=lambda run: run["others"])


def run_ours(given, arguments):
    # A store of its own, for answers that a store holds are not computed again.
    with tempfile.TemporaryDirectory() as output:
        command = [given.program, "--json", "vqa", "--model", given.model, *arguments, "--output", output,
                   "--batch-size", BATCH, "--threads", given.threads, "--dtype", "f32", "--decode", "greedy",
                   "--max-new-tokens", NEW_TOKENS]
        run = timed(command + (["--limit", given.limit] if given.limit else []))
        results = json.loads(next(Path(output).glob("*.results.json")).read_text())
    evaluation = json.loads(run["out"])["evaluations"][0]
    pace = evaluation["pace"]
    assert pace["reused"] == 0 and pace["answered"] == len(results), pace
    # Both sets number their questions by position.
    answers = [result["answer"] for result in sorted(results, key=lambda result: result["question_id"])]
    return {**run, "pace": pace["questions_per_second"], "idle": pace["idle_share"], "answers": answers,
            "accuracy": evaluation["accuracy"]}


def run_theirs(given, records, backend, folder):
    job = {"model": str(given.model), "threads": given.threads, "backend": backend,
           "questions": [(text, str(image)) for text, _, image in records]}
    file = folder / "job.json"
    file.write_text(json.dumps(job))
    run = timed([sys.executable, "-W", "ignore", __file__, "--transformers", file])
    printed = json.loads(run["out"])
    marks = [answer == truth for answer, (_, truth, _) in zip(printed["answers"], records, strict=True)]
    return {**run, "pace": len(records) / printed["seconds"], "answers": printed["answers"],
            "accuracy": 100 * sum(marks) / len(marks)}


def answer_with_transformers(file):
    """The other side, in a process of its own: answers the questions of a job file and prints answers and time."""
    import torch
    import transformers
    from PIL import Image
    from transformers import AutoImageProcessor, AutoProcessor, PaliGemmaForConditionalGeneration

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    job = json.loads(Path(file).read_text())
    torch.set_num_threads(job["threads"])
    model = PaliGemmaForConditionalGeneration.from_pretrained(
        job["model"], dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    processor = AutoProcessor.from_pretrained(job["model"], padding_side="left")
    processor.image_processor = AutoImageProcessor.from_pretrained(job["model"], backend=job["backend"])

    def opened(path):
        with Image.open(path) as image:
            return image.convert("RGB")

    def answer(batch):
        inputs = processor(text=["<image>" + text for text, _ in batch], images=[opened(path) for _, path in batch],
                           padding=True, return_tensors="pt")
        inputs.pop("labels", None)
        tokens = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        texts = processor.batch_decode(tokens[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)
        return [text.strip() for text in texts]

    questions, answers = job["questions"], []
    with torch.inference_mode():
        answer(questions[:BATCH])
        started = time.monotonic()
        for start in range(0, len(questions), BATCH):
            answers += answer(questions[start:start + BATCH])
        seconds = time.monotonic() - started
    print(json.dumps({"seconds": seconds, "answers": answers}))


def backend_seconds(model, backend, threads, images):
    """Time the image processor of transformers takes for these images, in batches; none without the backend."""
    import torch
    import transformers
    from PIL import Image
    from transformers import AutoImageProcessor

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(threads)
    processor = AutoImageProcessor.from_pretrained(model, backend=backend)
    if type(processor).__name__.endswith("Pil") != (backend == "pil"):
        return None
    loaded = [Image.open(path).convert("RGB") for path in images]
    batches = [loaded[start:start + BATCH] for start in range(0, len(loaded), BATCH)]
    processor(batches[0], return_tensors="pt")
    rounds = []
    for _ in range(5):
        started = time.monotonic()
        for batch in batches:
            processor(batch, return_tensors="pt")
        rounds.append(time.monotonic() - started)
    return min(rounds)


def faster_backend(given, records):
    images = [image for _, _, image in records[:4 * BATCH]]
    seconds = {backend: backend_seconds(given.model, backend, given.threads, images) for backend in BACKENDS}
    for backend, taken in seconds.items():
        told = "not installed" if taken is None else f"{1e6 * taken / len(images):.0f} us per image"
        print(f"image processor of transformers, {backend}: {told}", file=sys.stderr)
    return min((backend for backend in BACKENDS if seconds[backend] is not None), key=seconds.get)


def alternate(given, name, records, arguments, backend):
    """Ours, theirs, ours, theirs, ..., ours."""
    records = records[:given.limit]
    ours, theirs = [], []

    with tempfile.TemporaryDirectory() as folder:
        def run(side):
            if side is ours:
                return undisturbed(given, name, "ours", lambda: run_ours(given, arguments))
            return undisturbed(given, name, "theirs", lambda: run_theirs(given, records, backend, Path(folder)))

        for side in [ours] + [theirs, ours] * given.rounds:
            side.append(run(side))
    return row(name, len(records), ours, theirs)


def row(name, count, ours, theirs):
    def median(runs, key):
        return statistics.median(run[key] for run in runs)

    def ratios(key):
        around = [(before[key] + after[key]) / 2 for before, after in zip(ours, ours[1:])]
        return [mean / run[key] for mean, run in zip(around, theirs)]

    def spread(values):
        if others > QUIET:
            return "disturbed"
        return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"

    def differences(run):
        return sum(mine != other for mine, other in zip(run["answers"], theirs[0]["answers"], strict=True))

    differ = max(differences(run) for run in ours)
    varying = sum(run["answers"] != runs[0]["answers"] for runs in (ours, theirs) for run in runs)
    others = max(run["others"] for run in ours + theirs)
    cells = [name, f"{count:,}", f"{median(ours, 'pace'):.0f}", f"{median(theirs, 'pace'):.0f}", spread(ratios("pace")),
             f"{median(ours, 'process'):.1f}", f"{median(theirs, 'process'):.1f}",
             spread([1 / ratio for ratio in ratios("process")]), f"{median(ours, 'processor'):.1f}",
             f"{median(theirs, 'processor'):.1f}", f"{100 * median(ours, 'idle'):.1f} %", f"{differ}",
             f"{100 * others:.1f} %"]
    if varying:
        print(f"{name}: {varying} runs answered otherwise than the first of their side", file=sys.stderr)
    return "| " + " | ".join(cells) + " |"


HEADER = """\
| questions | n | ours, questions/s | theirs, questions/s | times faster | ours, process s | theirs, process s \
| times faster | ours, processor s | theirs, processor s | ours, idle share | answers that differ \
| others' use of processors, at most |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"""


def compare(given):
    import torch
    import transformers

    records = easy_vqa(given.root)
    backend = faster_backend(given, records)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        shared = ["--dataset", "easy-vqa", "--root", given.root]
        rows.append(alternate(given, "easy-VQA test", records, shared, backend))
        copies, separate = with_separate_images(records, Path(folder))
        rows.append(alternate(given, "one per image", copies, separate, backend))
    print(f"{BATCH} questions per batch, {given.threads} threads on {os.cpu_count()} processors, f32, greedy; rounds: "
          f"{given.rounds}; transformers {transformers.__version__} on torch {torch.__version__} with the {backend} "
          "image processor\n")
    print("\n".join([HEADER, *rows]))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--program", type=Path, default=REPOSITORY / "target/debug/digrap-bench")
    arguments.add_argument("--model", type=Path, default=MODEL)
    arguments.add_argument("--root", type=Path, default=DATA / "digrap-bench/datasets/easy-vqa",
                           help="folder of easy-VQA")
    arguments.add_argument("--rounds", type=int, help="runs of the transformers side for each set [default: 3]")
    arguments.add_argument("--limit", type=int, help="only the first questions of each set")
    arguments.add_argument("--patience", type=float, default=300, help="seconds to wait for one undisturbed run")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--quick", action="store_true", help=f"by default {QUICK}")
    arguments.add_argument("--transformers", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    for name, value in (QUICK if given.quick else {"rounds": 3}).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    if given.transformers:
        answer_with_transformers(given.transformers)
    else:
        compare(given)


if __name__ == "__main__":
    main()
