"""Times `digrap-bench score` and the official evaluator on the same 214,354 invented questions.

    python benchmarks/speed/score_side_by_side.py --official DIR/VQA --program target/debug/digrap-bench

DIR/VQA is a checkout of GT-Vision-Lab/VQA at a013f0043c1e2cdc995922dfe257f7149aa9af06. Its Python 2 print statements are
turned into calls; otherwise it runs as published, as a program of its own that reads the same three files. Times are of
the whole process, start and loading included: wall-clock, and processor time over all threads. Memory is its peak.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COUNT, SEED = 214_354, 5
PARTS = ["questions", "annotations", "results"]
COMMON = ("yes no red blue white black 1 2 3 two The dog cat left right t-shirt U.S.A. can't cant tennis wood 1,000 "
          "none nothing green brown grass water man woman").split()

OFFICIAL = r"""
import json, re, sys
folder, questions, annotations, results = sys.argv[1:]
source = open(folder + "/PythonEvaluationTools/vqaEvaluation/vqaEval.py", encoding="utf-8").read()
source = re.sub(r'^(\s*)print (".*")$', r"\1print(\2)", source, flags=re.MULTILINE)
module = {}
exec(compile(source, "vqaEval.py", "exec"), module)
class Loaded:
    def __init__(self, records):
        self.qa = {record["question_id"]: record for record in records}
        self.ids = [record["question_id"] for record in records]
    def getQuesIds(self):
        return self.ids
json.load(open(questions))
truth, predicted = Loaded(json.load(open(annotations))["annotations"]), Loaded(json.load(open(results)))
assert set(truth.ids) == set(predicted.ids)
run = module["VQAEval"](truth, predicted, n=2)
run.updateProgress = lambda progress: None
run.evaluate()
json.dump(run.accuracy, open(results + ".official", "w"))
"""


def answer(rng):
    words = [rng.choice(COMMON)]
    while rng.random() < 0.2:
        words.append(rng.choice(COMMON))
    if rng.random() < 0.05:
        words.append(str(rng.randrange(10**6)))
    text = " ".join(words)
    return text + rng.choice([".", "!", ""]) if rng.random() < 0.05 else text


def generate(folder):
    rng = random.Random(SEED)
    questions, annotations, results = [], [], []
    for index in range(COUNT):
        usual = answer(rng)
        texts = [usual if rng.random() < 0.6 else answer(rng) for _ in range(10)] if rng.random() < 0.7 else [usual] * 10
        key = {"image_id": index * 40_504 // COUNT, "question_id": 1000 + index}
        questions.append({**key, "question": f"What is number {index} in the picture?"})
        annotations.append({
            "question_type": f"what {index % 65}",
            "multiple_choice_answer": usual,
            "answers": [{"answer": text, "answer_confidence": rng.choice(["yes", "maybe"]), "answer_id": number}
                        for number, text in enumerate(texts, 1)],
            "answer_type": ["yes/no", "number", "other"][index % 3],
            **key,
        })
        results.append({"question_id": key["question_id"], "answer": usual if rng.random() < 0.5 else answer(rng)})
    contents = [{"data_subtype": "val2014", "questions": questions}, {"annotations": annotations}, results]
    for name, content in zip(PARTS, contents):
        (folder / f"{name}.json").write_text(json.dumps(content))


def timed(command):
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[0]} failed with status {status}")
    return {"wall": time.monotonic() - started, "processor": usage.ru_utime + usage.ru_stime,
            "memory": usage.ru_maxrss / 1024, "out": out}


def line(name, run, accuracy):
    return (f"{name:<19} {run['wall']:7.2f} s  {run['processor']:7.2f} s of processor  {run['memory']:5.0f} MiB  "
            f"accuracy {accuracy:.2f}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--official", type=Path)
    arguments.add_argument("--program", type=Path)
    arguments.add_argument("--generate", type=Path, help="only write the three files to this folder")
    given = arguments.parse_args()
    if given.generate:
        generate(given.generate)
        return
    with tempfile.TemporaryDirectory() as name:
        # A process of its own: a child's peak memory starts at that of the process which starts it.
        subprocess.run([sys.executable, __file__, "--generate", name], check=True)
        questions, annotations, results = [str(Path(name) / f"{part}.json") for part in PARTS]
        theirs = timed([sys.executable, "-W", "ignore", "-c", OFFICIAL, str(given.official), questions, annotations,
                        results])
        printed = json.loads(Path(results + ".official").read_text())
        ours = timed([str(given.program), "score", "--questions", questions, "--annotations", annotations,
                      "--results", results, "--json"])
    summary = json.loads(ours["out"])
    print(line("official evaluator", theirs, printed["overall"]))
    print(line("digrap-bench score", ours, round(summary["accuracy"], 2)))
    pairs = [(printed["perAnswerType"], "by_answer_type"), (printed["perQuestionType"], "by_question_type")]
    same = all(round(summary[key][kind]["accuracy"], 2) == value for part, key in pairs for kind, value in part.items())
    same = same and round(summary["accuracy"], 2) == printed["overall"]
    print(f"times faster: {theirs['wall'] / ours['wall']:.1f}; all {1 + sum(len(part) for part, _ in pairs)} printed accuracies "
          f"{'agree' if same else 'DIFFER'}")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
