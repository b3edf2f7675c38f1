"""Times fitting and measuring of features: ours, the matrix products in it alone, NumPy and scikit-learn.

    cargo test --locked --benches --no-run
    python benchmarks/speed/shift_side_by_side.py --program target/debug/digrap-bench \
        --bench target/debug/deps/speed-HASH --report reports/shift_speed.md

Rounds alternate between the sides, on the same cores; what is told are medians over the rounds, and ratios within a round.
Features are generated before anything is timed. Wall-clock times.

1. `benchmarks/speed/shift.rs` fits and measures 32,768 samples of 2,048 features in memory and does the rank-k updates
   (dsyrk), and the products with a whole matrix (dgemm), of as many rows alone, in one process.
2. The verb `shift` fits 40,000 samples and measures 10,000, as a whole process from and to files. NumPy and scikit-learn do
   the same from the same files; their time begins after they were imported. NumPy computes in double precision: mean,
   centred product, `linalg.pinv(hermitian=True)`, distances by a product. scikit-learn has `EmpiricalCovariance`.
3. The verb fits 443,757 samples (as many as VQAv2 has to train with) and measures 214,354 (to validate) from a file, with
   the peak of its memory. `--no-large` leaves this out; it takes 3.7 GB of disk.

Where the program would start itself again with other OpenBLAS kernels, the benchmark is given the same ones. NumPy brings
an OpenBLAS of its own.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DIMENSION, FIT, MEASURE, TRAIN, VALIDATION = 2048, 40_000, 10_000, 443_757, 214_354
MEMORY_MB = 400

PEERS = """
import json, sys, time
import numpy as np
from sklearn.covariance import EmpiricalCovariance
which, reference, test, output = sys.argv[1:]
start = time.perf_counter()
x, y = np.load(reference).astype(np.float64), np.load(test).astype(np.float64)
if which == "numpy":
    mean = x.mean(axis=0)
    x -= mean
    covariance = x.T @ x
    covariance /= len(x) - 1
    fitted = time.perf_counter()
    inverse = np.linalg.pinv(covariance, rcond=x.shape[1] * 2.0**-23, hermitian=True)
    y -= mean
    distances = np.sqrt(np.einsum("ij,ij->i", y @ inverse, y))
else:
    model = EmpiricalCovariance().fit(x)
    fitted = time.perf_counter()
    distances = np.sqrt(model.mahalanobis(y) * ((len(x) - 1) / len(x)))
np.save(output, distances)
print(json.dumps({"wall": time.perf_counter() - start, "fit": fitted - start}))
"""

GENERATE = """
import sys
import numpy as np
path, rows, columns, seed = sys.argv[1], *map(int, sys.argv[2:])
draw = np.random.default_rng(seed)
scale = np.geomspace(1, 0.1, columns).astype(np.float32)
out = np.lib.format.open_memmap(path, mode="w+", dtype="<f4", shape=(rows, columns))
for at in range(0, rows, 8192):
    part = draw.standard_normal((min(8192, rows - at), columns), dtype=np.float32)
    out[at:at + len(part)] = part * scale + np.roll(part, 1, axis=1) * 0.05 + 1
out.flush()
"""


def generate(path, rows, seed):
    subprocess.run([sys.executable, "-c", GENERATE, path, str(rows), str(DIMENSION), str(seed)], check=True)
    # Written back now, not while something is timed, and then in the page cache for every side.
    os.sync()
    with open(path, "rb") as file:
        while file.read(1 << 24):
            pass


def timed(command):
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[0]} failed with status {status}")
    return {"wall": time.monotonic() - start, "memory": usage.ru_maxrss * 1024 / 1e6, "out": out}


def kernels():
    """What `src/shift/blas.rs` chooses for a processor that OpenBLAS does not know."""
    flags = set(re.search(r"flags\s*:(.*)", Path("/proc/cpuinfo").read_text()).group(1).split())
    wide = {"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512cd"}
    return "SkylakeX" if wide <= flags else "Haswell" if {"avx2", "fma"} <= flags else None


def bench_environment(program):
    doctor = subprocess.run([program, "doctor", "--json"], capture_output=True, text=True).stdout
    fallback = "Prescott" in doctor and "OPENBLAS_CORETYPE" not in os.environ
    return {**os.environ, "OPENBLAS_CORETYPE": kernels()} if fallback and kernels() else dict(os.environ)


def seconds(table, name):
    """The fastest time of a benchmark in divan's table."""
    value, unit = re.search(rf"─ {name} +([\d.]+) (ns|µs|ms|s) ", table).groups()
    return float(value) * {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1}[unit]


def bench_round(bench, environment):
    table = subprocess.run([bench, "--bench", "shift"], env=environment, check=True, capture_output=True, text=True).stdout
    names = ["fit", "fit_products_alone", "measure", "measure_products_alone"]
    return {name: seconds(table, name) for name in names}


def peer(which, folder):
    out = subprocess.run([sys.executable, "-c", PEERS, which, folder / "reference.npy", folder / "test.npy",
                          folder / f"{which}.npy"], check=True, capture_output=True, text=True).stdout
    return json.loads(out)


def ours(program, folder):
    shift = [program, "shift", "--reference", folder / "reference.npy"]
    whole = timed(shift + ["--test", folder / "test.npy", "--output", folder / "ours"])
    return {"wall": whole["wall"], "fit": timed(shift + ["--save-fit", folder / "fit.safetensors"])["wall"]}


def largest_difference(folder):
    import numpy as np
    found = np.load(folder / "ours" / "test.distances.npy")
    return max(float(np.abs(found / np.load(folder / f"{name}.npy") - 1).max()) for name in ("numpy", "scikit-learn"))


def median(rounds, of):
    return statistics.median(of(part) for part in rounds)


def large(program, folder):
    generate(folder / "train.npy", TRAIN, 3)
    fitted = timed([program, "shift", "--reference", folder / "train.npy", "--save-fit", folder / "train.safetensors"])
    (folder / "train.npy").unlink()
    generate(folder / "validation.npy", VALIDATION, 4)
    measured = timed([program, "shift", "--fit", folder / "train.safetensors", "--test", folder / "validation.npy"])
    return fitted, measured


def products_lines(rounds):
    yield from ["| in memory | seconds | part of the rate of the products alone | target |", "|---|---:|---:|---:|"]
    for name, what, target in [("fit", "fitting", "80 %"), ("measure", "measuring", "80 %")]:
        share = median(rounds, lambda part: part[f"{name}_products_alone"] / part[name])
        yield f"| {what} | {median(rounds, lambda part: part[name]):.3f} | {100 * share:.0f} % | {target} |"
        yield (f"| {'dsyrk' if name == 'fit' else 'dgemm'} alone | "
               f"{median(rounds, lambda part: part[f'{name}_products_alone']):.3f} | | |")


def peer_lines(rounds):
    yield from ["| from files | fitting, seconds | fitting and measuring, seconds | ours is faster by |", "|---|---:|---:|---:|"]
    for name in ("ours", "numpy", "scikit-learn"):
        ratio = median(rounds, lambda part: part[name]["wall"] / part["ours"]["wall"])
        faster = "" if name == "ours" else f"{ratio:.2f}"
        fit = median(rounds, lambda part: part[name]["fit"])
        yield f"| {name} | {fit:.2f} | {median(rounds, lambda part: part[name]['wall']):.2f} | {faster} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--bench", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-large", action="store_true")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    program, bench = options.program.resolve(), options.bench.resolve()
    environment, load = bench_environment(program), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder / "reference.npy", FIT, 1)
        generate(folder / "test.npy", MEASURE, 2)
        rounds = []
        for _ in range(options.rounds):
            rounds.append({**bench_round(bench, environment), "ours": ours(program, folder),
                           "numpy": peer("numpy", folder), "scikit-learn": peer("scikit-learn", folder)})
        difference = largest_difference(folder)
        runs = None if options.no_large else large(program, folder)
    lines = [
        "# Fitting and measuring features", "",
        f"{DIMENSION:,} features in float32, double precision in all products, {os.cpu_count()} cores, load {load:.1f} before "
        f"the first of {options.rounds} rounds; medians. Made by `benchmarks/speed/shift_side_by_side.py`.", "",
        *products_lines(rounds), "",
        f"32,768 samples, one process. OpenBLAS kernels: {environment.get('OPENBLAS_CORETYPE', 'its own choice')}. Measuring "
        "skips zeros of a triangle, so that it can take less time than the whole product.", "",
        *peer_lines(rounds), "",
        f"{FIT:,} samples fitted, {MEASURE:,} measured; ours are whole processes, of which fitting includes eigenvectors and "
        f"writing the fit, that of the others ends with the covariance. Distances differ by {difference:.0e} at most.",
    ]
    if runs:
        lines += ["", "| streamed | samples | seconds | peak of memory | target |", "|---|---:|---:|---:|---:|"]
        for what, count, run in zip(("fitting", "measuring"), (TRAIN, VALIDATION), runs):
            lines.append(f"| {what} | {count:,} | {run['wall']:.1f} | {run['memory']:.0f} MB | {MEMORY_MB} MB |")
    report = "\n".join(lines) + "\n"
    print(report)
    if options.report:
        options.report.write_text(report)


if __name__ == "__main__":
    main()
