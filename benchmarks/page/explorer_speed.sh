#!/usr/bin/env bash
# How long the explorer of a page takes from an input to the rendered list.
#
#     benchmarks/page/explorer_speed.sh [SAMPLES] > reports/page_speed.md
#
# Writes a page with SAMPLES made-up samples (200,000 by default) in ten datasets with the answers and distances of three
# models, opens it in headless Chromium, gives values to its filters and prints what each took. Fails where one took 200 ms.
set -euo pipefail
cd "$(dirname "$0")/../.."
rows=$(PAGE_SAMPLES=${1:-200000} cargo test --locked --test digrap -- --exact --nocapture page::filters_of_many_samples | grep '^| ')
cat <<END
# The explorer of a page

From the event of an input to the rendered list, in headless Chromium on $(getconf _NPROCESSORS_ONLN) cores; ten datasets, the
answers and distances of three models. Made by \`benchmarks/page/explorer_speed.sh\`; the target is 200 ms for a filter.

| samples | input | value | ms |
|--:|---|---|--:|
$rows
END
