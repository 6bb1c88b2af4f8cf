# The same targets for people and for CI. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# TensorFlow has no wheels for Python 3.14 yet; uv takes the first fitting interpreter it finds.
PYTHON ?= >=3.11,<3.14
DEMO_EPOCHS ?= 3
# tf-cuda where TensorFlow is to use a GPU; the images always have it.
TF_EXTRA ?= tf
PAGE ?= comparison/comparison.html
BENCH_REPORTS ?= 1000 10000

# An installed uv is used; otherwise one is put into .tools, which needs Python's venv module only.
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
SYNC = $(UV) sync --locked --quiet --python '$(PYTHON)'

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.tools/bin/uv: docker/uv.txt
	python3 -m venv .tools
	.tools/bin/python -m pip install --quiet --require-hashes --requirement docker/uv.txt
	@touch $@

.PHONY: envs
envs: .venv/.synced .venv-tf/.synced .venv-torch/.synced ## the three environments: .venv, .venv-tf, .venv-torch

.venv/.synced: pyproject.toml uv.lock | $(filter .tools/bin/uv,$(UV))
	UV_PROJECT_ENVIRONMENT=.venv $(SYNC) --extra compare --group dev
	@touch $@

.venv-tf/.synced: pyproject.toml uv.lock | $(filter .tools/bin/uv,$(UV))
	UV_PROJECT_ENVIRONMENT=.venv-tf $(SYNC) --extra $(TF_EXTRA) --group test --group types --group types-tf
	@touch $@

.venv-torch/.synced: pyproject.toml uv.lock | $(filter .tools/bin/uv,$(UV))
	UV_PROJECT_ENVIRONMENT=.venv-torch $(SYNC) --extra torch --group test --group types
	@touch $@

.PHONY: demo
demo: envs ## train lenet in both frameworks, merge the reports, show the table
	.venv/bin/python scripts/demo.py --epochs $(DEMO_EPOCHS)

# Two processes whatever the machine: each framework uses further threads of its own.
IN_PARALLEL = -n 2 --dist worksteal
CORE = tests --ignore tests/adapter --ignore tests/mnist_tf --ignore tests/mnist_torch

# MNIST that happens to be at hand has no part in these: they are what anyone can run.
.PHONY: test
test: envs ## every test but those of real MNIST and of the images: core, TensorFlow, torch
	env -u MNIST_DATA_DIR .venv/bin/python -m pytest $(CORE) -m 'not docker and not mnist' $(IN_PARALLEL) $(PYTEST_ARGS)
	env -u MNIST_DATA_DIR .venv-tf/bin/python -m pytest tests/adapter tests/mnist_tf $(IN_PARALLEL) $(PYTEST_ARGS)
	env -u MNIST_DATA_DIR .venv-torch/bin/python -m pytest tests/adapter tests/mnist_torch $(IN_PARALLEL) $(PYTEST_ARGS)

.PHONY: test-fast
test-fast: ## the tests that take seconds
	$(MAKE) test PYTEST_ARGS="-m 'not slow and not docker and not mnist' $(PYTEST_ARGS)"

.PHONY: mnist-at-hand
mnist-at-hand:
	@[ -d "$$MNIST_DATA_DIR" ] || { echo "MNIST_DATA_DIR='$$MNIST_DATA_DIR' names no folder:" \
		"set it to the one that holds MNIST's four files" >&2; exit 2; }

.PHONY: test-mnist
test-mnist: mnist-at-hand envs ## the tests of real MNIST, in the folder that MNIST_DATA_DIR names
	.venv/bin/python -m pytest $(CORE) -m 'mnist and not docker' $(PYTEST_ARGS)

# Named by the variable CHROMIUM, or found under one of these names, or installed where apt-get may.
BROWSERS = chromium chromium-browser google-chrome google-chrome-stable

.PHONY: torture
torture: envs ## kill, interrupt and starve jobs as often as docs/reliability.md says; wants root, takes most of an hour
	MNIST_JOBS_TORTURE=1 .venv/bin/python -m pytest tests/checkpoint $(PYTEST_ARGS)
	MNIST_JOBS_TORTURE=1 .venv-tf/bin/python -m pytest tests/adapter/test_survival.py \
		tests/adapter/test_train_command.py tests/adapter/test_resume.py $(PYTEST_ARGS)
	MNIST_JOBS_TORTURE=1 .venv-torch/bin/python -m pytest tests/adapter/test_survival.py \
		tests/adapter/test_train_command.py tests/adapter/test_resume.py $(PYTEST_ARGS)

.PHONY: test-long
test-long: .venv/.synced ## 100,000 damaged reports, and verdicts on 1,000 pairs of sides: a sample of them is in make test
	MNIST_JOBS_TORTURE=1 .venv/bin/python -m pytest tests/comparison/input/test_hostile.py \
		tests/comparison/analysis/test_error_rates.py $(PYTEST_ARGS)

.PHONY: test-page
test-page: .venv/.synced ## the comparison's page in a real Chromium, which is installed if missing
	@[ -n "$$CHROMIUM" ] || [ -n "$$(for name in $(BROWSERS); do command -v $$name; done)" ] \
		|| { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }
	MNIST_JOBS_REQUIRE_CHROMIUM=1 .venv/bin/python -m pytest tests/comparison/output/html $(PYTEST_ARGS)

.PHONY: picture
picture: .venv/.synced ## the README's picture, from a comparison's page: PAGE=comparison/comparison.html
	.venv/bin/python scripts/picture.py $(PAGE) docs/images/comparison.png

# In its own environment an adapter is checked against its framework's real types.
ADAPTER_MYPY = bin/mypy --cache-dir .mypy_cache/$(1) jobs/mnist_$(1)/*.py tests/mnist_$(1)/*.py tests/adapter/*.py

.PHONY: check
check: envs ## lint, format, types, Dockerfile, vulnerabilities, and is the lock current
	$(UV) lock --check --quiet
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv-tf/$(call ADAPTER_MYPY,tf)
	.venv-torch/$(call ADAPTER_MYPY,torch)
	.venv/bin/hadolint --config docker/.hadolint.yaml docker/Dockerfile
	.venv/bin/python scripts/audit.py

.PHONY: audit
audit: .venv/.synced ## known vulnerabilities of what uv.lock names, where the advisories can be reached
	.venv/bin/python scripts/audit.py

.PHONY: bench
bench: envs ## speed against the post's own loops, and what limits it; wants a quiet machine, takes 15 minutes
	.venv/bin/python scripts/bench.py $(BENCH_ARGS)

.PHONY: bench-shared-cpu
bench-shared-cpu: envs ## speed while other processes use the CPUs, by thread settings
	.venv/bin/python scripts/bench_shared_cpu.py

.PHONY: bench-telemetry
bench-telemetry: envs ## what telemetry costs: epochs with and without it, in pairs; wants a quiet machine
	.venv/bin/python scripts/bench_telemetry.py

.PHONY: error-rates
error-rates: .venv/.synced ## how often a verdict is wrong, on simulated comparisons
	.venv/bin/python scripts/error_rates.py

.PHONY: measure-comparison
measure-comparison: envs ## the comparison that README shows, and the recipes' accuracies; takes 15 minutes
	.venv/bin/python scripts/measure_comparison.py

.PHONY: parity-survey
parity-survey: envs ## parity over seeds, processor settings and planted faults: docs/fairness.md; takes an hour
	.venv/bin/python -m tests.parity_survey

.PHONY: figures
figures: .venv/.synced ## write the figures in README and docs from docs/results
	.venv/bin/python scripts/figures.py

.PHONY: format
format: .venv/.synced ## format the code and mend what can be mended
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

.PHONY: schema
schema: .venv/.synced ## publish the JSON Schemas of the report and of the comparison
	.venv/bin/python -m jobs.report.publish
	.venv/bin/python -m jobs.comparison.publish

.PHONY: bench-merge
bench-merge: .venv/.synced ## measure merges of thousands of generated reports: seconds and peak memory
	.venv/bin/python scripts/bench_merge.py --reports $(BENCH_REPORTS)

.PHONY: manifests
manifests: .venv/.synced ## render k8s/base into k8s/*.yaml; needs kubectl
	.venv/bin/python scripts/render_manifests.py

.PHONY: clean
clean: ## remove the environments and what was built
	rm -rf .venv .venv-tf .venv-torch .tools build dist

-include docker/images.mk
