"""Whether a parquet set of the size of VQAv2 streams: memory, time of loading, time to the first answer.

    python benchmarks/speed/parquet_stream.py --program target/debug/digrap-bench --report reports/parquet_stream.md

Generates 214,354 invented questions on 40,504 images, 320 x 240 JPEG noise of about 16 kB, in 68 files as the Hub's copy
of VQAv2 has them: ten answers a question, the bytes of the image in every row, row groups of 1,000 rows, snappy. Then it
evaluates `fixtures/models/paligemma-easy-vqa` on it and reads, every 50 ms, the memory of the process from /proc and the
number of answers from its store. Loading ends when the store is created. With `--huge`, the same rows are one file with
one row group.

Needs Linux, about 4 GB of free disk, and the packages `pyarrow`, `pillow` and `numpy`. Exits with 1 where the program's own
memory (RssAnon) is more than 5 % higher in the last tenth of the answers than in the fifth, when the pages that are kept
fill their budget and the allocator has settled, where loading takes more than 5 % of the run, or the first answer more than
10 seconds.
"""

import argparse
import io
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
QUESTIONS, IMAGES, FILES, GROUP, INTERVAL = 214_354, 40_504, 68, 1_000, 0.05
TEXTS = ("What color is the shape?", "Is there a circle?", "What shape is in the picture?", "Is the shape red?")
ANSWERS = ("yes", "no", "red", "circle", "blue", "2")
SCHEMA = pa.schema([
    ("question_type", pa.string()), ("multiple_choice_answer", pa.string()),
    ("answers", pa.list_(pa.struct([
        ("answer", pa.string()), ("answer_confidence", pa.string()), ("answer_id", pa.int64())]))),
    ("image_id", pa.int64()), ("answer_type", pa.string()), ("question_id", pa.int64()), ("question", pa.string()),
    ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
])


def jpeg(image_id):
    draw = np.random.default_rng(image_id)
    coarse = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    coarse = coarse.resize((320, 240), Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse, dtype=np.int16) + draw.integers(-12, 13, (240, 320, 1), dtype=np.int16)
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


def rows(start, end):
    """Rows in the order of VQAv2: the questions of an image one after the other."""
    last, image = None, b""
    for at in range(start, end):
        image_id = at * IMAGES // QUESTIONS
        if image_id != last:
            last, image = image_id, jpeg(image_id)
        answer = ANSWERS[at % len(ANSWERS)]
        others = [{"answer": answer if i < 7 else ANSWERS[(at + i) % len(ANSWERS)], "answer_confidence": "yes",
                   "answer_id": i + 1} for i in range(10)]
        yield {"question_type": "what", "multiple_choice_answer": answer, "answers": others, "image_id": image_id,
               "answer_type": "other", "question_id": at, "question": TEXTS[at % len(TEXTS)],
               "image": {"bytes": image, "path": None}}


def generate(folder, huge):
    files = 1 if huge else FILES
    for number in range(files):
        start, end = number * QUESTIONS // files, (number + 1) * QUESTIONS // files
        path = folder / f"validation-{number:05}-of-{files:05}.parquet"
        if huge:
            parts = [pa.Table.from_pylist(list(rows(at, min(at + GROUP, end))), schema=SCHEMA)
                     for at in range(start, end, GROUP)]
            pq.write_table(pa.concat_tables(parts), path, row_group_size=QUESTIONS)
            continue
        with pq.ParquetWriter(path, SCHEMA) as writer:
            for at in range(start, end, GROUP):
                writer.write_table(pa.Table.from_pylist(list(rows(at, min(at + GROUP, end))), schema=SCHEMA))


def memory(process):
    """Own and mapped memory of a process in MB; none where it has ended."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return None
    fields = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("RssAnon", "RssFile"))}
    return [int(fields[name]) / 1024 for name in ("RssAnon", "RssFile")] if len(fields) == 2 else None


def answered(store):
    """Number of answers in a store that another process writes."""
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=0.2) as connection:
            return connection.execute("SELECT count(*) FROM answer").fetchone()[0]
    except sqlite3.Error:
        return 0


def run(options, root, output):
    command = [options.program.resolve(), "vqa", "--model", REPOSITORY / "fixtures/models/paligemma-easy-vqa",
               "--dataset", "vqav2", "--root", root, "--output", output, "--max-new-tokens", "4", "--json"]
    if options.limit:
        command += ["--limit", str(options.limit)]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    store, loaded, first, samples, counted = output / "store.sqlite", None, None, [], 0.0
    # The document is shorter than what a pipe holds.
    while process.poll() is None:
        now = time.monotonic() - start
        if loaded is None and store.exists():
            loaded = now
        count = samples[-1][1] if samples else 0
        if loaded is not None and (first is None or now - counted > 1):
            count, counted = answered(store), now
            first = now if first is None and count else first
        if usage := memory(process):
            samples.append((now, count, *usage))
        time.sleep(INTERVAL)
    wall = time.monotonic() - start
    document = json.loads(process.stdout.read())
    if process.returncode:
        sys.exit("the program failed")
    return wall, loaded, first, samples, document["evaluations"][0]


def tenths(samples, total):
    """The highest own and mapped memory in each tenth of the answers."""
    parts = [[sample for sample in samples if part * total // 10 <= sample[1] < (part + 1) * total // 10]
             for part in range(10)]
    return [[max((sample[kind] for sample in part), default=float("nan")) for kind in (2, 3)] for part in parts]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--root", type=Path, help="keep the set here, or use the one that is there")
    parser.add_argument("--huge", action="store_true", help="one file with one row group")
    parser.add_argument("--limit", type=int, help="answer only so many questions; all are loaded")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = options.root or Path(scratch) / "set"
        if not list(root.glob("*.parquet")):
            root.mkdir(parents=True, exist_ok=True)
            generate(root, options.huge)
        size = sum(path.stat().st_size for path in root.glob("*.parquet"))
        files = len(list(root.glob("*.parquet")))
        output = Path(scratch) / "output"
        output.mkdir()
        wall, loaded, first, samples, evaluation = run(options, root, output)
    count = options.limit or QUESTIONS
    parts = tenths(samples, count)
    pace = evaluation["pace"]
    whole = wall if count == QUESTIONS else loaded + QUESTIONS / pace["questions_per_second"]
    share, growth = 100 * loaded / whole, 100 * (parts[9][0] / parts[4][0] - 1)
    peak = max(sample[2] for sample in samples)
    layout = "one file with one row group" if options.huge else f"{files} files with row groups of {GROUP:,} rows"
    asked = (" --huge" if options.huge else "") + (f" --limit {count}" if options.limit else "")
    lines = [
        "# A parquet set of the size of VQAv2", "",
        f"{QUESTIONS:,} questions on {IMAGES:,} images, {size / 1e9:.2f} GB in {layout}; `paligemma-easy-vqa` answers "
        f"{'all' if count == QUESTIONS else f'the first {count:,}'} on {pace['replicas']} threads. Made by "
        f"`benchmarks/speed/parquet_stream.py{asked}`.",
        "", "| what | value | target |", "|---|---:|---:|",
        f"| loading | {loaded:.2f} s | |",
        f"| {'the run' if count == QUESTIONS else 'all questions at the measured pace'} | {whole:.0f} s | |",
        f"| share of loading | {share:.2f} % | 5 % |",
        f"| first answer after | {first:.2f} s | 10 s |",
        f"| questions per second | {pace['questions_per_second']:.0f} | |",
        f"| own memory, last tenth against the fifth | {growth:+.1f} % | +5 % |",
        f"| peak of own memory | {peak:.0f} MB | |", "",
        "Highest memory in each tenth of the answers, in MB: the program's own (RssAnon), and pages of mapped files "
        "(RssFile), which the kernel may take back.", "",
        "| tenth | " + " | ".join(str(part + 1) for part in range(10)) + " |", "|---|" + "---:|" * 10,
        "| own | " + " | ".join(f"{part[0]:.0f}" for part in parts) + " |",
        "| mapped | " + " | ".join(f"{part[1]:.0f}" for part in parts) + " |",
    ]
    report = "\n".join(lines) + "\n"
    print(report)
    if options.report:
        options.report.write_text(report)
    sys.exit(share > 5 or first > 10 or growth > 5)


if __name__ == "__main__":
    main()
