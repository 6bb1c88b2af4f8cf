# The same targets for people and for CI. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# TensorFlow has no wheels for Python 3.14 yet. uv uses the first matching interpreter that it finds.
ANY_PYTHON := >=3.11,<3.14
# Values that a person gives reach the commands through the environment. Neither make nor a shell reads them as code.
# Only UV, DOCKER, PYTEST_ARGS and BENCH_ARGS are parts of a command line, as they are written.
override PYTHON := $(or $(value PYTHON),$(ANY_PYTHON))
override DEMO_EPOCHS := $(or $(value DEMO_EPOCHS),3)
# Use tf-cuda if TensorFlow shall use a GPU. The images always contain it.
override TF_EXTRA := $(or $(value TF_EXTRA),tf)
override PAGE := $(or $(value PAGE),comparison/comparison.html)
export PYTHON DEMO_EPOCHS TF_EXTRA PAGE

# An installed uv is used. Otherwise one is installed into .tools, which needs only Python's venv module.
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
SYNC = $(UV) sync --locked --quiet "--python=$$PYTHON"

.PHONY: help
help: ## print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.tools/bin/uv: docker/uv.txt
	python3 -m venv .tools
	.tools/bin/python -m pip install --quiet --require-hashes --requirement docker/uv.txt
	@touch $@

.PHONY: envs
envs: .venv/.synced .venv-tf/.synced .venv-torch/.synced ## create the three environments: .venv, .venv-tf, .venv-torch

.venv/.synced: pyproject.toml uv.lock | $(filter .tools/bin/uv,$(UV))
	UV_PROJECT_ENVIRONMENT=.venv $(SYNC) --extra compare --group dev
	@touch $@

.venv-tf/.synced: pyproject.toml uv.lock | $(filter .tools/bin/uv,$(UV))
	UV_PROJECT_ENVIRONMENT=.venv-tf $(SYNC) "--extra=$$TF_EXTRA" --group test --group types --group types-tf
	@touch $@

.venv-torch/.synced: pyproject.toml uv.lock | $(filter .tools/bin/uv,$(UV))
	UV_PROJECT_ENVIRONMENT=.venv-torch $(SYNC) --extra torch --group test --group types
	@touch $@

.PHONY: demo
demo: envs ## train lenet in both frameworks, merge the reports, print the table
	.venv/bin/python scripts/demo.py "--epochs=$$DEMO_EPOCHS"

# Two processes whatever the machine: each framework uses further threads of its own.
IN_PARALLEL = -n 2 --dist worksteal
CORE = tests --ignore tests/adapter --ignore tests/mnist_tf --ignore tests/mnist_torch

# These tests never use real MNIST, even if it is on this machine, so they are the same for everyone.
.PHONY: test
test: envs ## all tests except those of real MNIST and of the images
	env -u MNIST_DATA_DIR .venv/bin/python -m pytest $(CORE) -m 'not docker and not mnist' $(IN_PARALLEL) $(PYTEST_ARGS)
	env -u MNIST_DATA_DIR .venv-tf/bin/python -m pytest tests/adapter tests/mnist_tf $(IN_PARALLEL) $(PYTEST_ARGS)
	env -u MNIST_DATA_DIR .venv-torch/bin/python -m pytest tests/adapter tests/mnist_torch $(IN_PARALLEL) $(PYTEST_ARGS)

# test-fast leaves out files that mostly start programs, draw pages or build manifests, and training in TensorFlow.
NOT_FAST = tests/cli/test_closed_streams.py tests/comparison/input/test_hostile.py tests/comparison/output tests/docker \
	tests/end_to_end tests/io/test_stdio.py tests/scripts/test_merge_reports.py tests/telemetry/test_device_lookup.py \
	tests/telemetry/test_every_code.py tests/telemetry/test_monitor.py tests/telemetry/test_sampler_process.py \
	tests/telemetry/test_validity.py tests/test_workflow.py
FAST_ADAPTER = tests/adapter/test_trainer.py tests/mnist_torch/test_optimizer.py tests/mnist_torch/test_cpu_layers.py

.PHONY: test-fast
test-fast: .venv/.synced .venv-torch/.synced ## the inner loop: tests of the core and of torch that take seconds
	env -u MNIST_DATA_DIR .venv/bin/python -m pytest $(CORE) $(NOT_FAST:%=--ignore %) \
		-m 'not slow and not docker and not mnist' $(IN_PARALLEL) $(PYTEST_ARGS)
	env -u MNIST_DATA_DIR .venv-torch/bin/python -m pytest $(FAST_ADAPTER) -m 'not slow' $(IN_PARALLEL) $(PYTEST_ARGS)

.PHONY: coverage
# Programs that tests start are not counted.
coverage: envs ## make test with the coverage of jobs/: a table, and pages in build/coverage/html
	rm -rf build/coverage
	$(MAKE) test PYTEST_ARGS="--cov --cov-append --cov-report= $(PYTEST_ARGS)"
	.venv/bin/python -m coverage html --quiet --directory build/coverage/html
	.venv/bin/python -m coverage report --format=markdown > build/coverage/summary.md
	.venv/bin/python -m coverage report

.PHONY: mnist-at-hand
mnist-at-hand:
	@[ -d "$$MNIST_DATA_DIR" ] || { echo "MNIST_DATA_DIR='$$MNIST_DATA_DIR' names no folder:" \
		"set it to the one that holds MNIST's four files" >&2; exit 2; }

.PHONY: test-mnist
test-mnist: mnist-at-hand envs ## the tests of real MNIST; MNIST_DATA_DIR is its folder
	.venv/bin/python -m pytest $(CORE) -m 'mnist and not docker' $(PYTEST_ARGS)

# Chromium is the variable CHROMIUM, or one of these names, or is installed by apt-get.
BROWSERS = chromium chromium-browser google-chrome google-chrome-stable

# Tests of which make test runs a sample, or runs in one framework only.
REPEATED = $(addprefix tests/adapter/test_,survival.py bad_environment.py train_command.py resume.py ranks.py telemetry.py types.py repeats.py)
REPEATED_tf = tests/mnist_tf/test_gpu_kernels.py

.PHONY: torture torture-core torture-tf torture-torch
torture: torture-core torture-tf torture-torch ## the repetitions of docs/reliability.md: kills, signals, full disks; needs root and an hour

torture-core: .venv/.synced
	MNIST_JOBS_TORTURE=1 .venv/bin/python -m pytest tests/checkpoint $(PYTEST_ARGS)

torture-tf torture-torch: torture-%: .venv-%/.synced
	MNIST_JOBS_TORTURE=1 .venv-$*/bin/python -m pytest $(REPEATED) $(REPEATED_$*) $(PYTEST_ARGS)

.PHONY: test-long
test-long: .venv/.synced ## 100,000 damaged reports and 1,000 simulated comparisons, gates, fleets and duels; make test runs a sample
	MNIST_JOBS_TORTURE=1 .venv/bin/python -m pytest tests/comparison/input/test_hostile.py tests/comparison/test_extreme_numbers.py \
		tests/comparison/analysis/test_error_rates.py tests/comparison/analysis/test_gate_fleet_rates.py \
		tests/comparison/analysis/test_stragglers.py tests/duel/test_stopping.py $(PYTEST_ARGS)

.PHONY: test-page
test-page: .venv/.synced ## the comparison's page in Chromium, which is installed if missing
	@[ -n "$$CHROMIUM" ] || [ -n "$$(for name in $(BROWSERS); do command -v $$name; done)" ] \
		|| { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }
	MNIST_JOBS_REQUIRE_CHROMIUM=1 .venv/bin/python -m pytest tests/comparison/output/html $(PYTEST_ARGS)

.PHONY: test-crds
test-crds: .venv/.synced ## the overlays jobset and trainjob against the schemas of JobSet and Kubeflow Trainer, which are downloaded
	.venv/bin/python -m tests.k8s.crds build/crds
	MNIST_JOBS_CRDS=build/crds .venv/bin/python -m pytest tests/k8s $(PYTEST_ARGS)

.PHONY: picture
picture: .venv/.synced ## make the README's picture from PAGE (comparison/comparison.html)
	.venv/bin/python scripts/picture.py -- "$$PAGE" docs/images/comparison.png

# In its own environment an adapter is checked against its framework's real types.
ADAPTER_MYPY = bin/mypy --cache-dir .mypy_cache/$(1) jobs/mnist_$(1)/*.py tests/mnist_$(1)/*.py tests/adapter/*.py

.PHONY: check
check: envs ## linters, format, types, Dockerfile, lock file, known vulnerabilities
	$(UV) lock --check --quiet
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv-tf/$(call ADAPTER_MYPY,tf)
	.venv-torch/$(call ADAPTER_MYPY,torch)
	.venv/bin/hadolint --config docker/.hadolint.yaml docker/Dockerfile
	.venv/bin/python scripts/audit.py

.PHONY: audit
audit: .venv/.synced ## known vulnerabilities of the packages in uv.lock; needs a network
	.venv/bin/python scripts/audit.py

.PHONY: bench
bench: envs ## speed compared with the post's programs; needs a quiet machine and 15 minutes
	.venv/bin/python scripts/bench.py $(BENCH_ARGS)

# In the images, so that the machine needs only Docker. If one image fails, the other is still measured.
BENCH_GPU = build/bench-gpu
IN_IMAGE = $(DOCKER) run --rm --network none --volume "$$PWD/scripts:/opt/scripts:ro" --entrypoint python

.PHONY: bench-gpu
bench-gpu: ## speed on a GPU compared with the post's programs, in build/bench-gpu.json; needs only Docker and make images
	@mkdir -p $(BENCH_GPU)
	trap 'exit 130' INT; answers= failed=; \
	for image in $(BUILT); do \
		if $(IN_IMAGE) --gpus all $$image /opt/scripts/bench_gpu.py measure $(BENCH_ARGS) > $(BENCH_GPU)/$$image.json; \
		then answers="$$answers /answers/$$image.json" measured=$$image; else failed="$$failed $$image"; fi; \
	done; \
	if [ -n "$$answers" ]; then \
		$(IN_IMAGE) --volume "$$PWD/$(BENCH_GPU):/answers:ro" $$measured /opt/scripts/bench_gpu.py combine $$answers \
			> build/bench-gpu.new && mv build/bench-gpu.new build/bench-gpu.json || exit; \
	fi; \
	[ -z "$$failed" ] || { echo "error: not measured:$$failed; the lines above say why" >&2; exit 1; }

.PHONY: bench-shared-cpu
bench-shared-cpu: envs ## speed by thread settings while other processes use the CPUs
	.venv/bin/python scripts/bench_shared_cpu.py

.PHONY: bench-telemetry
bench-telemetry: envs ## the cost of telemetry; needs a quiet machine
	.venv/bin/python scripts/bench_telemetry.py

.PHONY: error-rates
error-rates: .venv/.synced ## how often a verdict is wrong in simulated comparisons
	.venv/bin/python scripts/error_rates.py

.PHONY: straggler-rates
straggler-rates: .venv/.synced ## how often a rank of several is wrongly called slow, and a slow one found
	.venv/bin/python scripts/straggler_rates.py

.PHONY: measure-comparison
measure-comparison: envs ## measure the README's table and the recipes' accuracies; takes 15 minutes
	.venv/bin/python scripts/measure_comparison.py

.PHONY: measure-duel
measure-duel: envs ## measure the duel of docs/duel.md, killed once; takes 6 minutes
	.venv/bin/python scripts/measure_duel.py

.PHONY: measure-ranks
measure-ranks: envs ## measure the table of docs/distributed.md; takes 15 minutes
	.venv/bin/python scripts/measure_ranks.py

.PHONY: measure-reductions
measure-reductions: envs ## measure what ranks and their reductions cost; needs a quiet machine and 20 minutes
	.venv/bin/python scripts/measure_reductions.py

.PHONY: operations-tf
operations-tf: .venv/.synced .venv-tf/.synced ## what TensorFlow's steps start on a GPU, and their kernels; needs no GPU
	.venv/bin/python scripts/operations.py tensorflow

.PHONY: parity-survey
parity-survey: envs ## the parity check over seeds, processor settings and faults; takes an hour
	.venv/bin/python -m tests.parity_survey

.PHONY: operations-torch
operations-torch: .venv/.synced .venv-torch/.synced ## count the operations of torch's step on a GPU; needs no GPU
	.venv/bin/python scripts/operations.py torch

.PHONY: figures
figures: .venv/.synced ## write figures and version into README and docs
	.venv/bin/python scripts/figures.py

.PHONY: format
format: .venv/.synced ## format the code and fix what can be fixed
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

.PHONY: schema
schema: .venv/.synced ## write the JSON Schemas of report and comparison, and the list of the report's fields
	.venv/bin/python -m jobs.report.publish
	.venv/bin/python -m tests.report.test_null_reasons
	.venv/bin/python -m jobs.comparison.publish

.PHONY: bench-merge
bench-merge: .venv/.synced ## measure merges of up to 100,000 reports: time and memory; needs 6 GB of disk
	.venv/bin/python scripts/bench_merge.py $(BENCH_ARGS)

.PHONY: manifests
manifests: .venv/.synced ## write the version into k8s/ and render k8s/base into k8s/*.yaml; needs kubectl
	.venv/bin/python scripts/render_manifests.py

.PHONY: clean
clean: ## remove the environments and all build results
	rm -rf .venv .venv-tf .venv-torch .tools build dist

-include docker/images.mk
