#!/usr/bin/env bash
# How long the explorer of a page takes from an input to the rendered list.
#
#     benchmarks/page/explorer_speed.sh [SAMPLES] > reports/page_speed.md
#
# Writes a page with SAMPLES made-up samples (200,000 by default) in ten datasets with the answers and distances of 3 models,
# and one with those of 20; opens each in headless Chromium, gives values to its filters and prints what each took. Fails
# where one took 200 ms.
set -euo pipefail
cd "$(dirname "$0")/../.."
samples=${1:-200000}
rows=
for models in 3 20; do
    log=$(PAGE_SAMPLES=$samples PAGE_MODELS=$models cargo test --locked --test digrap -- --exact --nocapture \
        explorer::filters_of_many_samples)
    rows+=$(grep '^| ' <<<"$log")$'\n'
done
rows=${rows%$'\n'}
cat <<END
# The explorer of a page

From the event of an input to the rendered list, in headless Chromium on $(getconf _NPROCESSORS_ONLN) cores; $samples samples in ten
datasets with answers and distances. Made by \`benchmarks/page/explorer_speed.sh\`; the target is 200 ms for a filter.

| models | input | value | ms |
|--:|---|---|--:|
$rows
END
