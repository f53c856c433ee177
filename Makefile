# Everything a developer runs. `make help` lists it.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := $(VENV)/.demo
# -qq shows pip's errors alone. With -q, pip also warns about the settings of the machine it runs on.
PIP_OPTIONS := --disable-pip-version-check -qq
PIP := $(BIN)/pip $(PIP_OPTIONS)
# torch for the CPU. PyPI's torch for Linux brings gigabytes of CUDA: 'TORCH_INDEX=' asks for that.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# Two cores: more threads than that only wait for one another.
export OMP_NUM_THREADS ?= 2

.DEFAULT_GOAL := help

# Python compiles what it imports by itself, so pip does not compile everything. An index that cannot
# be reached is left out at once: then another one, or a folder of wheels, has torch.
$(DEMO): pyproject.toml constraints.txt
	@echo "Installing what the demo needs into $(VENV): 1.0 GiB, half a minute on a fast network."
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --no-compile -c constraints.txt --no-deps --retries 0 \
		$(addprefix --extra-index-url ,$(TORCH_INDEX)) torch
	@$(PIP) install --no-compile -c constraints.txt -e ".[demo]"
	@touch $@

$(READY): $(DEMO)
	@echo "Installing what the tests and tools need into $(VENV): 1.7 GiB more, two minutes on a fast network."
	@$(PIP) install --no-compile -c constraints.txt -e ".[dev]"
	@touch $@

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(READY) ## make .venv with everything in it

.PHONY: demo
demo: $(DEMO) ## the main job, from pictures to a verified search (minutes)
	$(BIN)/samespace demo

.PHONY: test
test: $(READY) ## the fast tests (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile \
		-m "not slow" --ignore tests/web

.PHONY: test-slow
test-slow: $(READY) ## the end-to-end tests that take minutes
	$(BIN)/python -m pytest -q -m slow

TFLITE := .venv-tflite
$(TFLITE)/.ready: pyproject.toml constraints-tflite.txt
	test -x $(TFLITE)/bin/python || $(PYTHON) -m venv $(TFLITE)
	$(TFLITE)/bin/pip $(PIP_OPTIONS) install -c constraints-tflite.txt -e ".[tflite-runtime]" pytest
	touch $@

.PHONY: test-tflite-runtime
test-tflite-runtime: $(READY) $(TFLITE)/.ready ## the edge runtime on tflite-runtime, in its own environment
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.make_bundle build/tflite.bundle onnx-fp32 \
		tflite-fp32 tflite-fp16 tflite-dynamic tflite-int8
	SAMESPACE_TFLITE_BUNDLE=build/tflite.bundle \
		$(TFLITE)/bin/python -m pytest -q --noconftest -o addopts= tests/edge_runtime/test_tflite_runtime.py

# torchvision's wheel is built for CUDA and comes without its dependencies; its Python is enough.
TIMM := build/timm
$(TIMM)/.ready: Makefile | $(READY)
	rm -rf $(TIMM)
	$(PIP) install --no-deps --target $(TIMM) timm==1.0.31 torchvision==0.28.0
	touch $@

.PHONY: test-timm
test-timm: $(TIMM)/.ready ## a backbone of timm through the exporter
	OMP_NUM_THREADS=1 PYTHONPATH=$(TIMM) $(BIN)/python -m pytest -q tests/export/test_timm.py

# The package carries the server itself; it has no place among what the SDK needs. Its tests mostly
# wait for it, so two run at a time, each with servers of its own.
MILVUS := .venv-milvus
$(MILVUS)/.ready: constraints-milvus.txt
	test -x $(MILVUS)/bin/python || $(PYTHON) -m venv $(MILVUS)
	$(MILVUS)/bin/pip $(PIP_OPTIONS) install -r constraints-milvus.txt
	touch $@

MILVUS_PORT ?= 19530
.PHONY: milvus
milvus: $(MILVUS)/.ready ## a Milvus on this machine, for development; Ctrl+C stops it
	@$(MILVUS)/bin/python -m tests.milvus_server --port $(MILVUS_PORT)

.PHONY: test-milvus
test-milvus: $(READY) $(MILVUS)/.ready ## what a gallery promises, in a folder and in a real Milvus
	SAMESPACE_TEST_MILVUS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 \
		tests/sdk/test_gallery_contract.py tests/sdk/test_milvus.py \
		tests/sdk/test_service_milvus.py

NPM := edge_runtime/web
PAGE := sdk/samespace/service/web/vendor
.PHONY: web
web: ## the scripts of the service's web page (needs node)
	cd $(NPM) && npm ci --no-audit --no-fund && npm run build
	rm -rf $(PAGE) && mkdir -p $(PAGE)/samespace-edge $(PAGE)/onnxruntime
	cp $(NPM)/dist/*.js $(NPM)/LICENSE $(PAGE)/samespace-edge/
	cp $(addprefix $(NPM)/node_modules/onnxruntime-web/,package.json \
		dist/ort.wasm.bundle.min.mjs dist/ort-wasm-simd-threaded.wasm) $(PAGE)/onnxruntime/
	gzip -9kn $(PAGE)/onnxruntime/*.wasm $(PAGE)/onnxruntime/*.mjs

CHROMIUM ?= /usr/bin/chromium
.PHONY: test-web
test-web: $(READY) ## the browser package, in Chromium (needs node and Debian's chromium)
	cd edge_runtime/web && npm ci --no-audit --no-fund && \
		PYTHON=$(CURDIR)/$(BIN)/python CHROMIUM=$(CHROMIUM) npm test
	$(MAKE) web
	CHROMIUM=$(CHROMIUM) $(BIN)/python -m pytest -q tests/web

.PHONY: lint
lint: $(READY) ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m benchmarks.tables --check

.PHONY: format
format: $(READY) ## bring the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: docs
docs: $(READY) ## write the tables in docs/ from benchmarks/results/
	$(BIN)/python -m benchmarks.tables
	$(BIN)/python -m benchmarks.plots

.PHONY: bench
bench: $(READY) ## measure overhead and opening (minutes; writes benchmarks/results/)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.overhead
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.open

.PHONY: nightly
nightly: $(READY) ## the demo in full and .ci/run, in a clone; writes benchmarks/results/
	$(BIN)/python -m benchmarks.nightly

.PHONY: clean
clean: ## remove what demo and tests left here; the .venv stays
	rm -rf demo-out build .venv-tflite .venv-milvus edge_runtime/web/node_modules edge_runtime/web/dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
