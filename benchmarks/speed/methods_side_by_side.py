"""Times training steps of every fine-tuning method against the optimiser's own; writes `reports/method_cost.md`.

    python benchmarks/speed/methods_side_by_side.py --program target/debug/digrap-bench

Needs Python alone, and the easy-VQA that `make demo` fetches. Each method fine-tunes the same checkpoint on easy-VQA: all
parameters, and LoRA matrices of rank 8 on q, k, v and o projections. Every run is a process of its own; it gives the median
of its steps and its peak resident memory above what it had before the first step. In a round all methods take turns, in
reverse in every second round, so that noise hits all alike. Ratios and differences are taken within a round; the table has
their median and their quartiles. `vanilla, again` is vanilla once more: what it differs by is noise.

Methods that learn from validation batches hold out images, and are compared with vanilla under the same validation, which
answers the held-out questions at the end. `lp-ft` and `lp-ft-c` are left out: their steps are those of `linear-probe`, then
of `vanilla` or `l2-sp`. `wise-ft` takes vanilla's steps; its interpolation comes after the last one and is not in its time.

Run it on a quiet machine. `--rounds 2 --steps 40` is a trial.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = REPOSITORY / "fixtures/models/paligemma-easy-vqa"
LORA = "r=8,alpha=16,targets=q_proj+k_proj+v_proj+o_proj"
MIB = 2**20
LEFT_OUT = {"lp-ft", "lp-ft-c"}
HEAD_ONLY = {"linear-probe", "partial-fusion"}
VALIDATED = {"tpgm", "tpgm-c"}
VARIANTS = {
    "digrap": ["normalisation=row_cos"], "spd": ["norm=mars"], "tpgm": ["norm=l2"], "l2-sp": ["form=decoupled"],
}
REFERENCE, AGAIN, VALIDATED_REFERENCE = "vanilla", "vanilla, again", "vanilla, held-out images"
TARGETED = "digrap"
TIME_TARGET, COPIES_TARGET = 5.0, 2
RESOLUTION_MIB = 1  # peaks of the same run differ by about this much


def call(options, *arguments):
    """What the program prints as JSON."""
    command = [str(part) for part in (options.program, *arguments, "--json")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)


class Case:
    """A row of the table: a method with settings, and the row that it is compared with."""

    def __init__(self, label, method, settings=(), validated=False):
        self.label, self.method, self.settings, self.validated = label, method, settings, validated
        self.reference = VALIDATED_REFERENCE if validated else REFERENCE

    def measure(self, options, lora):
        """Milliseconds of a step, peak MiB and trained parameters, of a run of its own."""
        validation = ["held-out", "--validation-share", 0.01] if self.validated else ["none"]
        with tempfile.TemporaryDirectory() as folder:
            report = call(
                options, "train", "--model", options.model, "--dataset", "easy-vqa", "--output", Path(folder) / "run",
                "--method", self.method, *["--set", *self.settings] * bool(self.settings), *["--lora", LORA] * lora,
                "--batch-size", options.batch, "--max-steps", options.steps, "--threads", options.threads,
                "--lr-scheduler-type", "constant", "--learning-rate", "1e-4", "--validation", *validation,
            )
        pace = report["pace"]
        return {"ms": 1000 * pace["median_step_s"], "mib": pace["peak_memory_mib"], "parameters": report["trained_parameters"]}


def all_cases(options):
    """The rows, in the order of `list methods`."""
    names = [method["name"] for method in call(options, "list", "methods")["methods"]]
    if unknown := (LEFT_OUT | HEAD_ONLY | VALIDATED | VARIANTS.keys()) - set(names):
        sys.exit(f"`list methods` does not have {', '.join(sorted(unknown))}")
    cases = [Case(REFERENCE, "vanilla"), Case(AGAIN, "vanilla"), Case(VALIDATED_REFERENCE, "vanilla", validated=True)]
    for name in names:
        if name != "vanilla" and name not in LEFT_OUT:
            cases.append(Case(name, name, validated=name in VALIDATED))
            cases += [Case(f"{name} {setting}", name, [setting], name in VALIDATED) for setting in VARIANTS.get(name, [])]
    return cases


def chosen_cases(options):
    cases = all_cases(options)
    if not options.methods:
        return cases
    if unknown := set(options.methods) - {case.method for case in cases}:
        sys.exit(f"no rows for {', '.join(sorted(unknown))}; there are {', '.join(dict.fromkeys(c.method for c in cases))}")
    chosen = [case for case in cases if case.method in options.methods]
    references = {REFERENCE, AGAIN} | {case.reference for case in chosen}
    return [case for case in cases if case in chosen or case.label in references]


def rounds(options, cases, lora):
    """Results of all rounds by label."""
    results = {case.label: [] for case in cases}
    cases[0].measure(options, lora)  # the first run finds files cold
    for number in range(options.rounds):
        for case in cases if number % 2 == 0 else cases[::-1]:
            found = case.measure(options, lora)
            results[case.label].append(found)
            print(f"{'LoRA' if lora else 'full'} round {number + 1}: {case.label} {found['ms']:.1f} ms {found['mib']:.0f} MiB",
                  file=sys.stderr, flush=True)
    return results


def quartiles(values):
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3


def compare(results, case):
    """Time in percent and memory in MiB over the reference: median and quartiles over the rounds."""
    pairs = list(zip(results[case.label], results[case.reference]))
    time = [100 * (own["ms"] / other["ms"] - 1) for own, other in pairs]
    memory = [own["mib"] - other["mib"] for own, other in pairs]
    return quartiles(time), quartiles(memory)


def table(cases, results):
    copy = 4 * results[REFERENCE][0]["parameters"] / MIB
    lines = [
        "| method | ms per step | time over vanilla, % | peak memory above the start, MiB | memory over vanilla, MiB | in copies of "
        "the parameters |", "|---|---:|---:|---:|---:|---:|",
    ]
    for case in cases:
        middle = lambda key: statistics.median(found[key] for found in results[case.label])
        if case.label in (REFERENCE, VALIDATED_REFERENCE):
            more = ["", "", ""]
        else:
            (low, time, high), (least, memory, most) = compare(results, case)
            more = [f"{time:+.1f} ({low:+.1f} to {high:+.1f})", f"{memory:+.1f} ({least:+.1f} to {most:+.1f})",
                    f"{memory / copy:+.1f}" if copy > RESOLUTION_MIB else "-"]
        lines.append(f"| {case.label} | {middle('ms'):.1f} | {more[0]} | {middle('mib'):.0f} | {more[1]} | {more[2]} |")
    return lines, copy


def verdicts(cases, results, copy):
    """Whether DiGraP keeps within its two targets, with what was found."""
    allowed, lines = COPIES_TARGET * copy, []
    for case in (case for case in cases if case.method == TARGETED):
        (_, time, _), (_, memory, _) = compare(results, case)
        time_kept = "met" if time <= TIME_TARGET else "not met"
        memory_kept = "met" if memory <= allowed else "not met"
        if allowed < RESOLUTION_MIB:
            memory_kept = "less than can be told apart"
        lines.append(f"- `{case.label}`: time {time:+.1f} %, {time_kept}; memory {memory:+.1f} MiB where {allowed:.1f} MiB are "
                     f"allowed, {memory_kept}.")
    if not lines:
        return []
    time, memory = compare(results, next(case for case in cases if case.label == AGAIN))
    return [
        "", f"Targets: DiGraP takes at most {TIME_TARGET:.0f} % more time than vanilla, and at most {COPIES_TARGET} copies of the "
        "trained parameters in f32 more memory: the anchor and the projected gradient. The noise to hold it against, by the "
        f"quartiles of vanilla against itself: {time[0]:+.1f} to {time[2]:+.1f} % and {memory[0]:+.1f} to {memory[2]:+.1f} MiB.",
        "", *lines,
    ]


def section(options, cases, lora):
    chosen = [case for case in cases if not (lora and case.method in HEAD_ONLY)]
    results = rounds(options, chosen, lora)
    lines, copy = table(chosen, results)
    parameters = results[REFERENCE][0]["parameters"]
    what = "LoRA (rank 8 on q, k, v and o projections)" if lora else "Full fine-tuning"
    return ["", f"## {what}", "", f"{parameters:,} trained parameters; a copy in f32 takes {copy:.2f} MiB.", "", *lines,
            *verdicts(chosen, results, copy)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--program", type=Path, default=REPOSITORY / "target/debug/digrap-bench")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--methods", nargs="*", help="only these beside vanilla")
    parser.add_argument("--only", choices=["full", "lora"])
    parser.add_argument("--output", type=Path, default=REPOSITORY / "reports/method_cost.md")
    options = parser.parse_args()
    cases = chosen_cases(options)
    lines = []
    for lora in (False, True):
        if options.only != ("full" if lora else "lora"):
            lines += section(options, cases, lora)
    text = "\n".join([
        "# Cost of the fine-tuning methods", "",
        f"`{options.model.name}` on easy-VQA, batch {options.batch}, f32, {options.threads} threads of the CPU, AdamW; median steps "
        f"of runs of {options.steps} steps. Settings are the defaults unless named. Time and memory over vanilla are taken within "
        f"each of {options.rounds} rounds (median, and quartiles in brackets). Made by "
        "`benchmarks/speed/methods_side_by_side.py`.", "",
        "`vanilla, again` is noise. tpgm and tpgm-c need validation batches: they hold out images and are compared with vanilla that "
        "does so too. The steps of lp-ft and lp-ft-c, which are left out, are those of linear-probe and then of vanilla or l2-sp. "
        "wise-ft takes vanilla's steps; it interpolates after the last one, which counts in its memory and not in its time. "
        "linear-probe and partial-fusion train fewer parameters.", *lines,
    ]) + "\n"
    print(text)
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(text)


if __name__ == "__main__":
    main()
