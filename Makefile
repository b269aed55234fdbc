# The set-up is made on demand in .venv; it needs python3 (3.10 or later), a C++ compiler and make.
PYTHON ?= python3
BIN := .venv/bin
# What .venv gets, where nvcc is found: code that runs on every GPU since Turing, by the driver's compiler where need be.
CUDA_ARCHITECTURES ?= 7.5+PTX;9.0
# The oldest torch that is supported.
OLDEST_TORCH := 2.11.0
COMPAT := build/compat
SOURCES := setup.py pyproject.toml advkernels/env.py $(wildcard csrc/*.h csrc/*.cpp csrc/*/*)

# Here nothing that can be built is left out in silence.
export ADVKERNELS_BUILD_NATIVE ?= 1
export ADVKERNELS_BUILD_CUDA ?= $(if $(shell command -v nvcc),1,0)

.PHONY: demo test compat lint bench gpu cuda format clean

demo: .venv/installed
	$(BIN)/freefast compare --preset demo

test: .venv/installed
	$(BIN)/pytest -n 2 --dist worksteal

# What is installed under the oldest torch passes all tests there; its operators, the same files, theirs under the newest.
compat: .venv/installed $(COMPAT)/venv/installed
	rm -rf $(COMPAT)/source $(COMPAT)/site && mkdir -p $(COMPAT)/source $(COMPAT)/site
	cp -r $(filter-out build runs,$(wildcard *)) $(COMPAT)/source
	rm -f $(COMPAT)/source/advkernels/*.so
	TORCH_CUDA_ARCH_LIST=9.0 $(COMPAT)/venv/bin/pip install --quiet --no-build-isolation torch==$(OLDEST_TORCH) \
		"$(COMPAT)/source[test]"
	cd $(COMPAT)/source && PYTHONSAFEPATH=1 ../venv/bin/pytest -n 2 --dist worksteal
	cp -r $(COMPAT)/venv/lib/python*/site-packages/advkernels $(COMPAT)/venv/lib/python*/site-packages/freefast $(COMPAT)/site
	PYTHONPATH=$(COMPAT)/site $(BIN)/pytest tests/advkernels --built-under=$(OLDEST_TORCH)

lint: .venv/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/clang-format --dry-run -Werror $(wildcard csrc/*.* csrc/*/*.*)

format: .venv/installed
	$(BIN)/ruff check --fix . && $(BIN)/ruff format . && $(BIN)/clang-format -i $(wildcard csrc/*.* csrc/*/*.*)

bench: .venv/installed
	$(BIN)/pytest benchmarks -p no:randomly --benchmark-columns=min,median,iqr,rounds

# Machine code for every architecture, and the registers of every kernel.
cuda: .venv/installed
	ADVKERNELS_BUILD_CUDA=1 $(BIN)/python setup.py build_ext --inplace && $(BIN)/python tests/cuda/cubin.py

gpu:
	$(PYTHON) benchmarks/gpu.py $(GPU_OPTIONS)

clean:
	rm -rf .venv build *.egg-info advkernels/*.so advkernels/not_built*.txt

.venv/installed: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet "torch>=2.11" torchvision "setuptools>=77" wheel pybind11 ninja
	TORCH_CUDA_ARCH_LIST="$(CUDA_ARCHITECTURES)" $(BIN)/pip install --quiet --no-build-isolation --editable ".[dev]"
	touch $@

$(COMPAT)/venv/installed:
	$(PYTHON) -m venv $(COMPAT)/venv
	$(COMPAT)/venv/bin/pip install --quiet torch==$(OLDEST_TORCH) "setuptools>=77" wheel pybind11 ninja
	touch $@
