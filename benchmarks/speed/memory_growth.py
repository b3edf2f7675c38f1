"""How much memory `digrap-bench vqa` needs for each further question.

    python benchmarks/speed/memory_growth.py --program target/debug/digrap-bench

Evaluates invented sets of two sizes, in the official layout with ten human answers a question and 100 small images
that the questions share, with one new token, and divides the difference of the peaks by that of the sizes. Needs Linux,
about 1 GB of free disk for a million questions, and no Python package. Exits with 1 where a peak grows by more than
`--target`. Sets of less than about 100,000 questions say little: what loading them takes disappears below the working
memory of the model, which the peak then shows instead.

Of the resident memory (VmRSS, its peak VmHWM) a part is pages of mapped files, RssFile, which the kernel may take back
at any time, and the rest, RssAnon, is the program's own. Both are read from /proc every 50 ms. A run is cut into three
phases: loading (of the questions) ends when the store is created, answering (with loading the model) ends when the last
answer is written to the store's write-ahead log, and scoring is what follows.
"""

import argparse
import json
import os
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGES, SIDE, SEED, INTERVAL = 100, 64, 5, 0.05
ANSWERS = "yes no red blue white black green 1 2 3 two left right dog cat tennis wood water man woman".split()
PHASES = ["loading", "answering", "scoring"]
KINDS = ["VmRSS", "RssAnon", "RssFile"]


def png(rng):
    """A 64x64 RGB image of two plain halves."""
    colours = [bytes(rng.randrange(256) for _ in range(3)) for _ in range(2)]
    rows = b"".join(b"\0" + colours[row * 2 // SIDE] * SIDE for row in range(SIDE))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def write_list(path, name, records):
    """A JSON object of one list, written record by record."""
    with path.open("w") as file:
        file.write('{"' + name + '": [')
        for number, record in enumerate(records):
            file.write((",\n" if number else "\n") + json.dumps(record))
        file.write("\n]}\n")


def generate(folder, count):
    rng = random.Random(SEED)
    (folder / "images").mkdir()
    for image in range(IMAGES):
        (folder / f"images/{image}.png").write_bytes(png(rng))

    def key(index):
        return {"image_id": index % IMAGES, "question_id": index}

    def annotation(index):
        answers = [{"answer": text, "answer_confidence": "yes", "answer_id": human}
                   for human, text in enumerate(rng.choices(ANSWERS, k=10), 1)]
        kinds = {"question_type": "what is the", "answer_type": "other", "multiple_choice_answer": answers[0]["answer"]}
        return {**key(index), **kinds, "answers": answers}

    questions = ({**key(index), "question": f"what is the colour of shape {index:07} here?"} for index in range(count))
    write_list(folder / "questions.json", "questions", questions)
    write_list(folder / "annotations.json", "annotations", map(annotation, range(count)))


def status(pid):
    """Resident memory of a process in bytes; empty when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    fields = dict(line.split(":", 1) for line in lines)
    return {kind: int(fields[kind].split()[0]) * 1024 for kind in [*KINDS, "VmHWM"] if kind in fields}


def last_write(store, before):
    """Time of the last write to the write-ahead log, which closing the store removes; none before there is one."""
    try:
        return store.with_name(store.name + "-wal").stat().st_mtime_ns
    except FileNotFoundError:
        return before


def sample(process, store):
    """One (last write to the store, memory) every 50 ms until the process ends, its wait status, and what it used."""
    samples, written = [], None
    while True:
        pid, status_at_end, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            return samples, status_at_end, usage
        memory = status(process.pid)
        written = last_write(store, written)
        if "VmHWM" in memory:
            samples.append((written, memory))
        time.sleep(INTERVAL)


def phase_of(number, samples):
    if samples[number][0] is None:
        return "loading"
    return "scoring" if samples[number][0] == samples[-1][0] else "answering"


def measure(given, folder, count):
    store = folder / "store.sqlite"
    command = [given.program, "--json", "vqa", "--model", given.model, "--questions", folder / "questions.json",
               "--annotations", folder / "annotations.json", "--images", folder / "images",
               "--image-name", "{image_id}.png", "--batch-size", 64, "--max-new-tokens", 1,
               "--threads", given.threads, "--store", store]
    started = time.monotonic()
    with (folder / "out.json").open("w") as out:
        process = subprocess.Popen([str(part) for part in command], stdout=out)
        samples, status_at_end, usage = sample(process, store)
    if status_at_end:
        code = os.waitstatus_to_exitcode(status_at_end)
        sys.exit(f"{given.program} failed on {count:,} questions with exit code {code}")
    evaluation = json.loads((folder / "out.json").read_text())["evaluations"][0]
    assert evaluation["n"] == evaluation["pace"]["answered"] == count, evaluation
    parts = {phase: [] for phase in PHASES}
    for number, (_, memory) in enumerate(samples):
        parts[phase_of(number, samples)].append(memory)
    late = parts["answering"][len(parts["answering"]) // 2:]
    result = {
        "count": count, "wall": time.monotonic() - started, **evaluation["pace"],
        # The peak that the kernel reports at the end covers what falls between two samples.
        "peak": max(usage.ru_maxrss * 1024, samples[-1][1]["VmHWM"]),
        "anonymous peak": max(memory["RssAnon"] for _, memory in samples),
    }
    for kind in KINDS:
        for phase in PHASES:
            result[f"{phase}, peak {kind}"] = max((memory[kind] for memory in parts[phase]), default=None)
        result[f"answering, median {kind}"] = statistics.median(memory[kind] for memory in late)
    result["seconds"] = [INTERVAL * len(parts[phase]) for phase in PHASES]
    return result


def report(given, runs):
    small, large = runs
    between = large["count"] - small["count"]
    rows = ["peak", "anonymous peak"] + [f"{phase}, peak {kind}" for phase in PHASES for kind in KINDS]
    rows += [f"answering, median {kind}" for kind in KINDS]
    print(f"| memory | {small['count']:,} questions | {large['count']:,} questions | growth per question |")
    print("|---|---:|---:|---:|")
    for name in rows:
        if small[name] is None or large[name] is None:
            continue
        values = " | ".join(f"{run[name] / 2**20:.1f} MiB" for run in runs)
        print(f"| {name} | {values} | {(large[name] - small[name]) / between:.0f} bytes |")
    grown = {name: (large[name] - small[name]) / between for name in ("peak", "anonymous peak")}
    missed = [name for name, growth in grown.items() if growth > given.target]
    verdict = "MISSED by the " + " and the ".join(missed) if missed else "kept"
    print(f"\ntarget of {given.target:g} bytes per question: {verdict}")
    return not missed


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--program", type=Path, default=REPOSITORY / "target/debug/digrap-bench")
    arguments.add_argument("--model", type=Path, default=REPOSITORY / "fixtures/models/paligemma-tiny-a")
    arguments.add_argument("--sizes", default="100000,1000000", help="smaller and larger number of questions")
    arguments.add_argument("--target", type=float, default=400, help="bytes per question that the peaks may grow by")
    arguments.add_argument("--threads", type=int, default=2)
    given = arguments.parse_args()
    sizes = sorted(int(size) for size in given.sizes.split(","))
    if len(set(sizes)) != 2 or sizes[0] < 1:
        arguments.error("--sizes takes two different numbers of questions")
    runs = []
    for count in sizes:
        with tempfile.TemporaryDirectory() as name:
            generate(Path(name), count)
            runs.append(measure(given, Path(name), count))
        seconds = ", ".join(f"{phase} {taken:.1f} s" for phase, taken in zip(PHASES, runs[-1]["seconds"]))
        print("{count:,} questions: {wall:.0f} s ({0}), {questions_per_second:.0f} questions/s, idle share "
              "{idle_share:.1%}".format(seconds, **runs[-1]), file=sys.stderr)
    sys.exit(0 if report(given, runs) else 1)


if __name__ == "__main__":
    main()
