r"""Measures what each shift of the miniature world costs a fine-tuned model; writes `reports/miniature_shift.md`.

    python benchmarks/miniature/shift.py --model RUN --work DIR

Needs Python alone. The program writes every set twice as official VQA files: at strength 1, as suites evaluate it, and at
strength 0, the unshifted questions that it was made from. The model answers both, this script scores the answers by an
implementation of its own, and compares each set with its matched questions:

- an object removed (`iv`, `cv`): the question about the edited picture with the same question about the original one;
- rephrasings: each with its original;
- answer priors (`cp`): with the in-distribution questions, and with these weighted so that their most frequent answers are
  distributed as those of the set;
- counterexamples (`ce`): with the questions of the same pool that were not selected; adversarial questions (`adv`): with
  those of their pool that were not selected, and with plain questions about the same pictures;
- far sets: with the in-distribution set.

Differences are shifted minus matched, in percentage points, each with a 95 % interval that counts a picture as one draw. A
loss is an interval below zero; flips are compared with those of an unedited picture, of which there are none. At strength 0
the interval has to hold zero. The script ends with an error if a command fails or an answer is missing; an effect that is
absent is reported and is no error. RUN is the base model, fine-tuned without any protection, which takes some three minutes:

    digrap-bench train --model fixtures/models/miniature-pt --dataset miniature --method vanilla --batch-size 32 \
        --max-steps 2000 --learning-rate 5e-4 --lr-scheduler-type cosine --max-grad-norm 1 --seed 1 --threads 2 --output RUN
"""

import argparse
import collections
import json
import math
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE_NAME = "miniature_{image_id:012}.png"
PLAIN = "miniature"
NUMBERS = "zero one two three four five six seven eight nine ten".split()
ARTICLES = {"a", "an", "the"}
# The records of sets that were answered, by name and strength.
KNOWN = {}
NORMAL_QUANTILE = 1.959963984540054


def call(options, *arguments):
    """Runs the program from the repository's root."""
    command = [str(part) for part in (options.program, *arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr}")


def compared(text):
    """An answer as the official evaluator compares it; answers of this world have no punctuation."""
    words = [word for word in text.lower().split() if word not in ARTICLES]
    return " ".join("0" if word == "none" else str(NUMBERS.index(word)) if word in NUMBERS else word for word in words)


def accuracy(answer, given):
    """Official VQA accuracy of one answer, 0 to 1."""
    if len(set(given)) > 1:
        answer, given = compared(answer), [compared(one) for one in given]
    matches = sum(one == answer for one in given)
    return sum(min(1, (matches - (one == answer)) / 3) for one in given) / len(given)


class Record:
    """A question with its answers, the model's among them."""

    def __init__(self, question, annotation, answer):
        self.id, self.image = question["question_id"], question["image_id"]
        self.original = question.get("rephrasing_of")
        self.given = [one["answer"] for one in annotation["answers"]]
        self.truth = collections.Counter(self.given).most_common(1)[0][0]
        self.answer = answer
        self.accuracy = accuracy(answer, self.given)
        # Edited pictures are named after the original one.
        self.picture = str(self.image).split("_")[0].lstrip("0")


def load(folder, results):
    questions = json.loads((folder / "questions.json").read_text())["questions"]
    annotations = json.loads((folder / "annotations.json").read_text())["annotations"]
    answers = {(one["question_id"], one.get("image_id")): one["answer"] for one in json.loads(results.read_text())}

    def answer(question):
        number, image = question["question_id"], question["image_id"]
        found = answers.get((number, image), answers.get((number, None)))
        return found if found is not None else sys.exit(f"{results} has no answer to question {number}")

    return [Record(question, annotation, answer(question)) for question, annotation in zip(questions, annotations)]


def evaluate(options, name, strength):
    """The records of a set at a strength."""
    if (name, strength) not in KNOWN:
        folder = options.work / f"strength-{strength:g}" / name
        if not folder.exists():
            call(options, "fetch", "miniature", "--output", folder.parent, "--set", name, "--strength", strength)
        files = ("--questions", folder / "questions.json", "--annotations", folder / "annotations.json")
        images = ("--images", folder / "images", "--image-name", IMAGE_NAME)
        # The program keeps answers by the model's weights: what is there is read, and that of another model is not.
        call(options, "vqa", "--model", options.model, *files, *images, "--output", folder / "answers")
        KNOWN[name, strength] = load(folder, folder / "answers/custom.results.json")
    return KNOWN[name, strength]


def interval(terms):
    """Mean and half width of its 95 % interval over (picture, value, weight), pictures being independent draws."""
    total = sum(weight for _, _, weight in terms)
    mean = sum(value * weight for _, value, weight in terms) / total
    sums = collections.Counter()
    for picture, value, weight in terms:
        sums[picture] += weight * (value - mean)
    count = len(sums)
    spread = math.sqrt(sum(one * one for one in sums.values()) * count / max(count - 1, 1)) / total
    return mean, NORMAL_QUANTILE * spread


def paired(pairs):
    """Difference of accuracy within pairs of (changed, matched) records."""
    return interval([(changed.picture, changed.accuracy - matched.accuracy, 1) for changed, matched in pairs])


def unpaired(changed, matched, weights=None):
    """Difference of the mean accuracies of two sets of different pictures."""
    weights = weights or [1] * len(matched)
    one, one_half = interval([(record.picture, record.accuracy, 1) for record in changed])
    other, other_half = interval([(record.picture, record.accuracy, weight) for record, weight in zip(matched, weights)])
    return one - other, math.hypot(one_half, other_half)


def flips(pairs, expected):
    """Share of pairs whose two answers are not as the two truths are to each other."""
    return interval([(changed.picture, float(not expected(changed, matched)), 1) for changed, matched in pairs])


def same(changed, matched):
    return changed.answer == matched.answer


def one_fewer(changed, matched):
    """The answers differ as the truths do."""
    numbers = [one.isdigit() for one in (changed.answer, matched.answer, changed.truth, matched.truth)]
    step = all(numbers) and int(matched.answer) - int(changed.answer) == int(matched.truth) - int(changed.truth)
    return step if all(numbers) else changed.answer == matched.answer and changed.truth == matched.truth


def to_originals(records, plain):
    originals = {record.id: record for record in plain}
    return [(record, originals[record.id]) for record in records]


def to_rephrased(records):
    originals = {record.id: record for record in records if record.original is None}
    return [(record, originals[record.original]) for record in records if record.original is not None]


def prior_weights(changed, matched):
    """Weights under which the answers of `matched` are distributed as those of `changed`."""
    wanted = collections.Counter(record.truth for record in changed)
    there = collections.Counter(record.truth for record in matched)
    return [wanted[record.truth] / there[record.truth] for record in matched]


def row(name, label, measured, is_flips):
    """One line of the report: the effect at strength 1 and at strength 0. Flips rise where accuracies fall."""
    cells = []
    for mean, half in measured:
        cells.append(f"{100 * mean:+.2f} ({100 * (mean - half):+.2f} to {100 * (mean + half):+.2f})")
    (mean, half), (control, control_half) = measured
    loss = mean if is_flips else -mean
    verdict = "a loss" if loss > half else "a gain" if loss < -half else "none that shows"
    if abs(control) > control_half + 1e-12:
        verdict += ", but a difference without the shift as well"
    return f"| {name} | {label} | {cells[0]} | {cells[1]} | {verdict} |"


def rows(options):
    plain = evaluate(options, PLAIN, 1)
    lines = []

    def both(name, label, effect, is_flips=False):
        measured = [effect(evaluate(options, name, strength)) for strength in (1, 0)]
        lines.append(row(name, label, measured, is_flips))

    def unselected(name, pool, strength):
        """The questions of a pool that neither form of a set holds."""
        held = {record.id for one in (1, 0) for record in evaluate(options, name, one)}
        return [record for record in evaluate(options, pool, strength) if record.id not in held]

    both("miniature-iv", "answers that changed, of edited questions", lambda set_: flips(to_originals(set_, plain), same), True)
    both("miniature-iv", "accuracy against the original", lambda set_: paired(to_originals(set_, plain)))
    both("miniature-cv", "answers not one fewer", lambda set_: flips(to_originals(set_, plain), one_fewer), True)
    both("miniature-cv", "accuracy against the original", lambda set_: paired(to_originals(set_, plain)))
    both("miniature-rephrasings", "accuracy against the original", lambda set_: paired(to_rephrased(set_)))
    both("miniature-cp", "accuracy against ID", lambda set_: unpaired(set_, plain))
    label = "accuracy against ID with its answers"
    both("miniature-cp", label, lambda set_: unpaired(set_, plain, prior_weights(set_, plain)))
    rest = unselected("miniature-ce", "miniature-pool", 1)
    both("miniature-ce", "accuracy against the rest of its pool", lambda set_: unpaired(set_, rest))
    pool = "miniature-adversarial-pool"
    chosen = evaluate(options, "miniature-adv", 1)
    rest = {strength: unselected("miniature-adv", pool, strength) for strength in (1, 0)}
    both(
        "miniature-adv", "accuracy against the rest of its pool",
        lambda set_: unpaired(set_, rest[1 if set_ is chosen else 0]),
    )
    matched = {record.id: record for record in evaluate(options, "miniature-adv", 0)}
    both(
        "miniature-adv", "accuracy against plain questions about the same pictures",
        lambda set_: paired([(record, matched[record.id]) for record in set_]),
    )
    for name in ("miniature-text", "miniature-viz", "miniature-ok"):
        both(name, "accuracy against ID", lambda set_: unpaired(set_, plain))
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=REPOSITORY / "target/debug/digrap-bench")
    parser.add_argument("--model", type=Path, required=True, help="fine-tuned model folder")
    parser.add_argument("--work", type=Path, required=True, help="folder for sets and answers")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "reports/miniature_shift.md")
    options = parser.parse_args()
    options.program, options.model, options.work = (path.resolve() for path in (options.program, options.model, options.work))
    lines = rows(options)
    text = "\n".join([
        "# What each shift of the miniature world costs",
        "",
        "Model: `fixtures/models/miniature-pt` after vanilla fine-tuning of all weights on `miniature`, by the command in "
        "`benchmarks/miniature/shift.py`, which made this report. Percentage points, shifted minus matched; for "
        "flips, percent of the pairs. In brackets 95 % intervals over pictures. Strength 0 asks the questions that the set was "
        "made from without the shift.",
        "",
        "| set | measured | strength 1 | strength 0 | verdict |",
        "|---|---|---|---|---|",
        *lines,
        "",
    ])
    options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
