# The entry points for people and CI. Every target sets up what it needs, so none has to be run before another.
PYTHON ?= python3
BIN := .venv/bin
UV_VERSION := 0.13.9

# DeepSpeed compiles a small library at its first use on a CPU. In this folder, later runs find it.
export TORCH_EXTENSIONS_DIR := $(CURDIR)/.cache/torch_extensions
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
# Other Python environments of the machine must not affect the build or the tests.
unexport PYTHONPATH PYTHONHOME CONDA_PREFIX PYTHONDONTWRITEBYTECODE
export VIRTUAL_ENV := $(CURDIR)/.venv

# Each process makes the fixtures of its tests again, so that many help little. One that is done takes over tests of
# another.
PYTEST := $(BIN)/pytest -q --numprocesses logical --maxprocesses 4 --dist worksteal

RUST_SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find rust -path rust/fuzz -prune -o -name '*.rs' -print -o -name Cargo.toml -print)
PIP := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt

.PHONY: help setup-data setup demo-data demo test test-rust test-python slow faults compat check format stub docs transcripts fuzz bench wheel gpu-wheels clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /|/' | column -t -s '|'

.venv/.uv: scripts/check_machine.sh
	@sh scripts/check_machine.sh "$(PYTHON)"
	@echo "setting up .venv"
	@"$(PYTHON)" -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION) || \
		{ echo "error: pip could not install uv; is a Python package registry reachable from here?"; exit 1; }
	@touch $@

.venv/.data-packages: .venv/.uv constraints.txt pyproject.toml
	@echo "installing the packages of the data tools"
	@$(PIP) maturin click numpy pyarrow rich zstandard
	@touch $@

.venv/.all-packages: .venv/.data-packages
	@echo "installing torch, DeepSpeed and the packages of trainer, studies and tests"
	@$(PIP) setuptools
	@$(PIP) --requirements pyproject.toml --extra train --extra study --extra image --extra dev --extra docs
	@touch $@

.venv/.core: .venv/.data-packages $(RUST_SOURCES)
	@echo "building the Rust core"
	@$(BIN)/maturin develop --uv --release --locked > .venv/build.log 2>&1 || { cat .venv/build.log; exit 1; }
	@touch $@

setup-data: .venv/.core ## Set up the data tools, without torch.
setup: .venv/.all-packages .venv/.core ## Set up everything.

demo-data: setup-data ## Sample text, train a tokenizer, tokenize and order: under two minutes, without torch.
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh scripts/demo.sh data

demo: setup ## Run every step, from text to a report on what a model memorized.
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh scripts/demo.sh all

test: test-rust test-python ## Run every test.

test-rust: .venv/.core
	sh scripts/in_memory.sh cargo test --locked --release --quiet -p pile-core

test-python: setup
	sh scripts/in_memory.sh $(PYTEST) --durations=30

slow: setup ## Run the tests of training that take minutes each, too.
	PILE_TOOLS_SLOW=1 sh scripts/in_memory.sh $(PYTEST) tests/trainer tests/test_gpu_check.py tests/test_hostile_values.py

faults: setup ## Kill and fail every data command at every system call that changes files; `test` runs a sample of these.
	PILE_TOOLS_FAULTS=complete sh scripts/in_memory.sh $(PYTEST) tests/faults tests/trainer/test_resume.py

# Versions of transformers with which our checkpoints are compared, each in an environment of its own.
.venv-compat/%/.ready: .venv/.uv constraints.txt
	@echo "installing transformers $*"
	@$(BIN)/uv venv --quiet --clear --python "$(PYTHON)" .venv-compat/$*
	@$(BIN)/uv pip install --quiet --python .venv-compat/$*/bin/python "transformers==$*.*" numpy $$(grep '^torch==' constraints.txt)
	@touch $@

compat: setup .venv-compat/4/.ready .venv-compat/5/.ready ## Compare logits and folders with transformers 4 and 5, in both directions.
	@rm -rf .cache/compat && mkdir -p .cache/compat
	@cat docs/*.md > .cache/compat/text.txt
	@$(BIN)/pile-tools train-tokenizer .cache/compat/text.txt -o .cache/compat/tokenizer.json --vocab-size 600 --quiet
	@$(BIN)/python scripts/compat/ours.py write .cache/compat .cache/compat/tokenizer.json
	@for version in 4 5; do \
		.venv-compat/$$version/bin/python scripts/compat/theirs.py .cache/compat && \
		$(BIN)/python scripts/compat/ours.py read .cache/compat $$version || exit 1; \
	done

check: setup ## Check formatting, lints and types.
	cargo fmt --all --check
	cargo fmt --manifest-path rust/fuzz/Cargo.toml --check
	cargo clippy --locked --release --workspace --all-targets -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest pile_tools._core

format: .venv/.all-packages ## Format all sources.
	cargo fmt --all
	cargo fmt --manifest-path rust/fuzz/Cargo.toml
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup ## Build the site in site/: guide, command and API reference, with a search that works without a server.
	@$(BIN)/sphinx-build --fail-on-warning --fresh-env --quiet --jobs auto -c docs -d .cache/docs . site
	@echo "open site/index.html"

transcripts: setup ## Write what the commands print now to the README and docs/; TRAIN=1 trains the README's model too.
	PILE_TOOLS_TRANSCRIPTS=$(if $(TRAIN),write-all,write) $(BIN)/pytest -q tests/transcripts -k says_what_happens

stub: setup-data ## Copy the docstrings of the Rust core to its stub.
	$(BIN)/python scripts/stub.py

# The fuzz targets, one for each parser of untrusted bytes. `make fuzz TARGET=record SECONDS=60` runs one of them.
TARGET ?= $(basename $(notdir $(wildcard rust/fuzz/fuzz_targets/*.rs)))
SECONDS ?= 600
fuzz: ## Fuzz each parser for SECONDS=600; TARGET= selects some. Needs a nightly compiler.
	@cargo fuzz --version > /dev/null 2>&1 || cargo install --locked --quiet cargo-fuzz
	@cd rust/fuzz && cargo run --quiet --release --example seeds
	@for target in $(TARGET); do \
		echo "fuzzing $$target for $(SECONDS) s"; \
		dictionary=$(CURDIR)/rust/fuzz/dictionaries/$$target.txt; \
		test -f $$dictionary && dictionary=-dict=$$dictionary || dictionary=; \
		cargo +nightly fuzz run --fuzz-dir rust/fuzz $$target -- -max_total_time=$(SECONDS) -max_len=16384 \
			-timeout=20 -detect_leaks=0 -rss_limit_mb=4096 -print_final_stats=1 $$dictionary || exit 1; \
	done

.venv-bench/.peers: .venv/.uv benches/peers.txt constraints.txt
	@echo "installing the peers in .venv-bench"
	@"$(PYTHON)" -m venv .venv-bench
	@sed '/^#/d' benches/peers.txt | while read -r peer; do \
		$(BIN)/uv pip install --quiet --python .venv-bench/bin/python --constraint constraints.txt "$$peer" || \
		echo "left out because it cannot be installed: $$peer"; done
	@$(BIN)/uv venv --quiet --clear --python "$(PYTHON)" .venv-bench/text-dedup
	@$(BIN)/uv pip install --quiet --python .venv-bench/text-dedup/bin/python 'text-dedup==0.4.*' || \
		{ echo "left out because it cannot be installed: text-dedup"; rm -rf .venv-bench/text-dedup; }
	@touch $@

.venv-bench/.core: .venv-bench/.peers .venv/.data-packages $(RUST_SOURCES) $(shell find python -name '*.py')
	@echo "building pile-tools with the profile of its wheels"
	@rm -rf .venv-bench/wheels
	@$(BIN)/maturin build --quiet --locked --profile dist --out .venv-bench/wheels
	@$(BIN)/uv pip install --quiet --python .venv-bench/bin/python --constraint constraints.txt \
		--reinstall-package pile-tools .venv-bench/wheels/*.whl
	@touch $@

bench: .venv-bench/.core ## Compare with peers and write benches/RESULTS.md. Needs SHARDS= and TOKENIZER=; takes JOBS=, ROUNDS=, DOCUMENTS= and the paths in benches/run.py.
	.venv-bench/bin/python -m benches.run $(SHARDS) $(TOKENIZER) $(if $(JOBS),--jobs $(JOBS)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(DOCUMENTS),--documents $(DOCUMENTS)) \
		$(if $(GPT_NEOX),--gpt-neox $(GPT_NEOX)) $(if $(PLANTED),--planted $(PLANTED)) \
		$(if $(DUPLODOCUS),--duplodocus $(DUPLODOCUS)) $(if $(DEDUPLICATE_TEXT),--deduplicate-text $(DEDUPLICATE_TEXT)) \
		$(if $(VQGAN_CLIP),--vqgan-clip $(VQGAN_CLIP))

wheel: .venv/.data-packages ## Build a wheel that installs without cargo and without torch.
	$(BIN)/maturin build --locked --profile dist --out dist

# Of everything that travels to a bare machine with a GPU: the sources need 8 MB more.
GPU_MIB := 56
gpu-wheels: .venv/.all-packages ## Prepare the wheels that scripts/gpu_check.sh installs on a machine with Python 3.12 and PyTorch.
	@rm -rf .gpu-wheels
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --dest .gpu-wheels --only-binary=:all: --no-deps \
		--python-version 3.12 --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
		--constraint constraints.txt --requirement scripts/gpu_packages.txt
	@DS_BUILD_OPS=0 DS_ACCELERATOR=cpu $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --wheel-dir .gpu-wheels \
		--no-deps --no-build-isolation --no-binary deepspeed --constraint constraints.txt deepspeed
	@$(BIN)/maturin build --quiet --locked --profile dist --out .gpu-wheels
	@test $$(du -sm .gpu-wheels | cut -f1) -le $(GPU_MIB) || { du -sh .gpu-wheels; echo "error: more than $(GPU_MIB) MiB"; exit 1; }
	@ls -l .gpu-wheels

clean: ## Remove everything that these targets make.
	rm -rf .venv .venv-bench .venv-compat .cache target rust/fuzz/target demo dist site
