#!/usr/bin/env bash
# How long the explorer of a page takes from an input to the rendered list.
#
#     benchmarks/page/explorer_speed.sh [SAMPLES]
#
# Writes a page with SAMPLES made-up samples (200,000 by default) in ten datasets with the answers and distances of three
# models, opens it in headless Chromium, gives values to its filters and prints what each took. Fails where one took 200 ms.
# `reports/page_speed.md` holds what it printed.
set -euo pipefail
cd "$(dirname "$0")/../.."
PAGE_SAMPLES=${1:-200000} cargo test --locked --test digrap -- --exact --nocapture page::filters_of_many_samples
