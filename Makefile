# make demo and make test each set this machine up first (quick when there is nothing to do).

CARGO ?= cargo
# Reports say which commit made them.
export DIGRAP_BENCH_COMMIT := $(shell git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null)

.PHONY: help demo test setup
help:
	@echo "make demo   evaluate two small models on the ten sets of the miniature world"
	@echo "make test   run all tests"
	@echo "make setup  only install what is missing: OpenBLAS, ONNX Runtime, easy-VQA"

setup:
	@setup/setup.sh

demo: setup
	$(CARGO) run --locked -- vqa --suite miniature --model fixtures/models/miniature-ft \
		--zero-shot fixtures/models/miniature-pt

test: setup
	$(CARGO) test --locked --no-fail-fast
