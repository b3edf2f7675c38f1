# make demo and make test each set this machine up first (quick when there is nothing to do).

CARGO ?= cargo
# Reports say which commit made them.
export DIGRAP_BENCH_COMMIT := $(shell git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null)

.PHONY: help build demo test setup setup-test answers reports
help:
	@echo "make build       build target/debug/digrap-bench"
	@echo "make demo        evaluate two small models on the ten sets of the miniature world"
	@echo "make test        run all tests"
	@echo "make setup       only install what is missing: OpenBLAS, ONNX Runtime, easy-VQA"
	@echo "make setup-test  the same, and the browser of the tests: Chromium"
	@echo "make reports     make anew what reports/ has from the stored answers of small models"
	@echo "make answers     answer anew what the gate of .ci/run and some of those reports start from"

setup:
	@setup/setup.sh

setup-test:
	@setup/setup.sh tests

build: setup
	$(CARGO) build --locked

demo: setup
	$(CARGO) run --locked -- vqa --suite miniature --model fixtures/models/miniature-ft \
		--zero-shot fixtures/models/miniature-pt

test: setup-test
	$(CARGO) test --locked --no-fail-fast

program = target/debug/digrap-bench
answers = benchmarks/miniature/answers.jsonl

# From nothing: answers of an earlier build with the same version would count as those of this one.
answers: build
	rm -rf target/answers
	$(program) vqa --suite miniature --model fixtures/models/miniature-ft --zero-shot fixtures/models/miniature-pt \
		--output target/answers
	$(program) runs export --format jsonl --store target/answers/store.sqlite --output $(answers)

made = target/reports

reports: build
	rm -rf $(made) reports/leaderboard reports/baseline reports/shift
	mkdir -p $(made)
	for store in shift sweep seeds; do \
		gzip -dc benchmarks/miniature/$$store.sqlite.gz >$(made)/$$store.sqlite || exit 1; \
	done
	$(program) runs import $(answers) $(made)/shift.sqlite $(made)/seeds.sqlite --store $(made)/store.sqlite --complete
	$(program) leaderboard --suite miniature --store $(made)/store.sqlite --output reports/leaderboard
	$(program) compare --suite miniature --baseline reports/baseline --current '$(made)/store.sqlite#miniature-ft' --bless
	$(program) figures --suite miniature --store $(made)/shift.sqlite $(made)/sweep.sqlite --output reports/shift
	rm reports/shift/distances-*.png
	$(program) figures --paper --output reports/shift/paper
