# make demo [METHOD=fgd|mgd|cwd|pkd]   train a teacher, a student and a distilled student on a built-in data set
# make test [ARGS=…]                   run the tests            make lint   check the style
# make env                             make the environment     make clean  remove it and all caches
# make docs                            build the pages of docs/ with their code, in docs/_build
#
# Variables: PYTHON (3.11 or 3.12), VENV (.venv), TORCH (the torch to install), ARGS (more arguments).

SHELL := /bin/bash
VENV ?= .venv
METHOD ?= fgd
ARGS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.kd_det_ready

.PHONY: env demo test lint clean

env: $(READY)

$(READY): tools/make_env.sh setup.py $(wildcard requirements/*.txt)
	@VENV="$(VENV)" bash tools/make_env.sh
	@touch $@

demo: $(READY)
	@$(BIN)/python tools/demo.py --method $(METHOD) $(ARGS)

# Two processes of one thread each: these tests are small, and threads would only wait for each other.
test: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests $(ARGS)

lint: $(READY)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: docs
docs: $(READY)
	@$(BIN)/python -m pip install --quiet -r requirements/docs.txt -c <(grep -v '^torch==' requirements/constraints.txt)
	@$(BIN)/python -m sphinx -q -b html docs docs/_build
	@echo "The pages are in docs/_build/index.html"
