# make demo and make test each set this machine up first (quick when there is nothing to do).

CARGO ?= cargo

.PHONY: help demo test setup
help:
	@echo "make demo   evaluate the bundled PaliGemma on easy-VQA (9,673 questions)"
	@echo "make test   run all tests"
	@echo "make setup  only install what is missing: OpenBLAS, ONNX Runtime, easy-VQA"

setup:
	@setup/setup.sh

demo: setup
	$(CARGO) run --locked -- vqa --model fixtures/models/paligemma-easy-vqa --dataset easy-vqa

test: setup
	$(CARGO) test --locked --no-fail-fast
