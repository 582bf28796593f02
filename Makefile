PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOOLS := $(VENV)/.tools
KERNELS := $(VENV)/.kernels
NATIVE := CMakeLists.txt $(shell find csrc python -type f)
PRESET ?= release
# Relative, because pip splits these at spaces. The second is for builds under pip 25.3 or later.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo compare compare-quick test test-fast nightly bench bench-gpu bench-compile wheel lint types ctest sanitize clean

demo: $(READY) $(KERNELS)
	$(BIN)/rskernels demo

# About half an hour on two cores; interrupted, it continues.
compare: $(READY) $(KERNELS)
	$(BIN)/rskernels compare --jobs 2 --report docs/results

# The same code in two minutes, for too few seeds and epochs to conclude anything.
compare-quick: $(READY) $(KERNELS)
	$(BIN)/rskernels compare --quick --overwrite --jobs 2 --out build/compare

# A worker a core, four at most, for each holds torch; who runs out of tests takes another's.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal
# What more to tell pytest: make test ARGS='-k lazy'
ARGS ?=

test: $(READY) $(KERNELS)
	$(PYTEST) $(ARGS)

# What tells at once while writing: no interpreter, statistics, training or processes.
SLOW_ROOMS := $(addprefix --ignore=tests/,cli experiments rsft statistics) --ignore=benchmarks
test-fast: $(READY) $(KERNELS)
	$(PYTEST) -m 'not (slow or triton or process)' $(SLOW_ROOMS) $(ARGS)

# With fresh draws, and with what an ordinary run leaves out.
nightly: export RSKERNELS_TEST_SEED := $(or $(RSKERNELS_TEST_SEED),$(shell date +%s))
nightly: $(READY) $(KERNELS)
	@echo RSKERNELS_TEST_SEED=$$RSKERNELS_TEST_SEED
	$(PYTEST) --maxprocesses 2 -m '' $(ARGS)

bench: $(READY) $(KERNELS)
	$(BIN)/python -m benchmarks.cpu.run
	$(BIN)/python -m benchmarks.envelope.run

# This tree beside an earlier revision, in turns: make bench-base BASE=main ARGS=--quick
.PHONY: bench-base
bench-base: $(READY) $(KERNELS)
	$(BIN)/python -m benchmarks.base.run $(or $(BASE),$(error say which revision: make bench-base BASE=REVISION)) $(ARGS)

bench-gpu: $(READY) $(KERNELS)
	$(BIN)/python -m benchmarks.gpu.run

# What the compiler makes of the GPU kernels; needs no GPU.
bench-compile: $(READY) $(KERNELS)
	$(BIN)/python -m benchmarks.gpu.compile_ahead

# The sdist, the wheel built from it, the repaired wheel, and the tests against that.
wheel: $(TOOLS)
	rm -rf dist wheelhouse
	$(BIN)/python -m build
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --wheel-dir wheelhouse dist/*.whl
	$(BIN)/python .ci/check_wheel.py dist/*.tar.gz wheelhouse/*.whl
	PYTHON=$(BIN)/python bash .ci/test_wheel wheelhouse/*.whl

lint: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	find csrc python -name '*.[ch]pp' -exec $(BIN)/clang-format --dry-run -Werror {} +
	$(BIN)/validate-pyproject pyproject.toml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet .github/workflows

types: $(TOOLS)
	$(BIN)/mypy
	$(BIN)/stubtest --allowlist .ci/stubtest-allowlist rskernels._core

ctest: $(TOOLS)
	$(BIN)/cmake --preset $(PRESET) $(CMAKE_FLAGS)
	$(BIN)/cmake --build --preset $(PRESET) --parallel $(shell nproc)
	$(BIN)/ctest --preset $(PRESET)

# The C++ tests under the sanitizers, and the byte form fuzzed for a while, with clang.
FUZZ_SECONDS ?= 30
sanitize: $(TOOLS)
	$(MAKE) ctest PRESET=asan-ubsan
	$(MAKE) ctest PRESET=tsan
	@command -v clang++ >/dev/null || { echo 'libFuzzer comes with clang: apt-get install clang libclang-rt-dev'; exit 1; }
	$(BIN)/cmake --preset fuzz
	$(BIN)/cmake --build --preset fuzz --parallel $(shell nproc)
	build/fuzz/csrc/fuzz/byte_form_fuzz -max_total_time=$(FUZZ_SECONDS) -max_len=8192 -print_final_stats=1

clean:
	rm -rf $(VENV) build dist wheelhouse
	find rskernels tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "rskernels needs Python 3.10 or later, $(PYTHON) is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(READY): pyproject.toml constraints.txt $(NATIVE) | $(BIN)/python
	$(BIN)/python -m pip install --quiet 'pip>=22.3'
	$(BIN)/python -m pip install --quiet -e '.[train,test]'
	@touch $@

$(TOOLS): $(READY)
	$(BIN)/python -m pip install --quiet -e '.[train,test,dev]'
	@touch $@

# Numba's cache sees an edit of a kernel's own file, but not of a file that it imports.
$(KERNELS): $(shell find rskernels/law rskernels/kernels -name '*.py') | $(BIN)/python
	@find rskernels -name '*.nb[ic]' -delete
	@touch $@
