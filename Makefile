# `make demo` and `make test` do everything from a fresh clone: they create .venv, install and run. See `make help`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
PYTEST_ARGS ?=
DEMO_ARGS ?=
BENCH_DATA ?= $(wildcard ../shared/data)
BENCH_ARGS ?=

# A change of any of these needs a new installation; changes of Python files do not (the installation is editable).
INSTALL_SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(shell find csrc -type f 2>/dev/null)
CXX_SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.hpp' -o -name '*.cu' -o -name '*.cuh' 2>/dev/null)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv venv-dev demo test test-long test-gpu test-asan cuda-check lint format wheel bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(VENV)/.installed ## Create .venv and install etnet with everything it needs to train
venv-dev: $(VENV)/.installed-dev ## The same with the development tools

demo: $(VENV)/.installed ## Train, evaluate and segment on generated images (about two minutes)
	$(BIN)/etnet demo $(DEMO_ARGS)

test: $(VENV)/.installed-dev ## Run the tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-long: $(VENV)/.installed-dev ## Run the tests that take more than a minute each
	$(BIN)/python -m pytest -m "long and not gpu" $(PYTEST_ARGS)

test-gpu: $(VENV)/.installed-dev ## Run the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu $(PYTEST_ARGS)

# Preloaded, because Python itself is not built with them; libstdc++ too, or its exceptions escape the sanitizer.
SANITIZERS = $(shell $${CXX:-c++} -print-file-name=libasan.so) $(shell $${CXX:-c++} -print-file-name=libstdc++.so)

test-asan: $(VENV)/.installed-dev ## Run the tests of the native code under AddressSanitizer and UBSan
	$(BIN)/cmake -S . -B build/asan -DETNET_SANITIZE=ON -DETNET_CUDA=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)"
	$(BIN)/cmake --build build/asan --parallel
	LD_PRELOAD="$(SANITIZERS)" ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	  PYTHONPATH=tests ETNET_SANITIZED_MODULE="$$(ls $(CURDIR)/build/asan/_native*.so)" \
	  $(BIN)/python -m pytest -p helpers.sanitized tests/ops tests/losses tests/test_ndops.py $(PYTEST_ARGS)

# Built from scratch, because ptxas reports a kernel's registers only when it compiles it; by Ninja, because it does not
# mix what parallel compilers print.
cuda-check: $(VENV)/.installed-dev ## Compile the CUDA kernels, where nvcc is found, and refuse register spills
	@if ! command -v $${CUDACXX:-nvcc} >/dev/null; then \
	  echo "make cuda-check: nvcc was not found, so the CUDA kernels are not compiled here (name one with CUDACXX=/path/to/nvcc)"; \
	  exit 0; \
	fi; \
	set -e; \
	$(BIN)/cmake -S . -B build/cuda -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DETNET_CUDA=ON \
	  -DCMAKE_BUILD_TYPE=Release -DCMAKE_CUDA_FLAGS=-Xptxas=-v \
	  -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)"; \
	$(BIN)/cmake --build build/cuda --clean-first >build/cuda/ptxas.log 2>&1 || { cat build/cuda/ptxas.log; exit 1; }; \
	$(BIN)/python tests/helpers/ptxas.py build/cuda/ptxas.log

# Peers that cannot be installed are left out with a line that says so; the rest is measured all the same.
bench: $(VENV)/.installed-dev ## Measure speed beside other packages and write benchmarks/RESULTS.md
	PYTHON=$(CURDIR)/$(BIN)/python benchmarks/peers/setup.sh || [ $$? -eq 1 ]
	$(BIN)/python benchmarks/gpu_suite.py --device cpu --only ops,infer,train,peers --minutes 25 --out build/bench \
	  $(if $(BENCH_DATA),--data $(BENCH_DATA)) $(BENCH_ARGS); measured=$$?; \
	$(BIN)/python benchmarks/report.py --add build/bench && exit $$measured

lint: $(VENV)/.installed-dev ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)

format: $(VENV)/.installed-dev ## Rewrite the sources in the project's style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CXX_SOURCES)

wheel: $(VENV)/.installed-dev ## Build the wheel and the source archive into dist/
	$(BIN)/python -m build

clean: ## Remove .venv and everything that was built
	rm -rf $(VENV) build dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "make: $(PYTHON) is missing or older than 3.10; install Python 3.10 or newer, or name one: make PYTHON=python3.12" >&2; exit 4; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "make: $(PYTHON) cannot create environments because its venv package is missing; run: sudo apt install python3-venv" >&2; exit 4; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || { \
	  echo "make: the headers of $(PYTHON) (Python.h) are missing, the native part needs them; run: sudo apt install python3-dev" >&2; exit 4; }
	@command -v $${CXX:-c++} >/dev/null || { \
	  echo "make: no C++ compiler ($${CXX:-c++}) was found; run: sudo apt install g++" >&2; exit 4; }
	$(PYTHON) -m venv $(VENV)

# The build tools go into .venv, pinned, and the build runs without isolation: pip versions differ in how they constrain
# the packages of an isolated build.
$(VENV)/.built-with: constraints.txt | $(VENV)/bin/python
	$(PIP) install -c constraints.txt scikit-build-core pybind11 cmake ninja
	@touch $@

$(VENV)/.installed: $(INSTALL_SOURCES) $(VENV)/.built-with
	$(PIP) install -c constraints.txt --no-build-isolation -e '.[train]'
	@touch $@

$(VENV)/.installed-dev: $(INSTALL_SOURCES) $(VENV)/.built-with
	$(PIP) install -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@ $(VENV)/.installed
