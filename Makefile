# Every target sets up what it needs: a .venv with the versions of constraints.txt, installed again only when
# these, pyproject.toml, setup.py or the kernels change. `make PYTHON=python3.12 …` chooses the interpreter.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

# One thread: sums in a fixed order, so that a run can be repeated bit for bit.
export OMP_NUM_THREADS ?= 1

# Installed beside the tools of development; `make install EXTRAS=` brings what the package itself needs, no more.
EXTRAS ?= tensorboard,vmas,mamujoco,slurm,ray
COMMA := ,
ALL_EXTRAS = dev$(if $(EXTRAS),$(COMMA)$(EXTRAS))

DEMO ?= lbf/5x5-2p-1f-coop+masked+demo
DEMO_EPISODES ?= 512
PYTEST_ARGS ?=
BENCH_ARGS ?=

.PHONY: help install install-sc2 test trust lint format docs demo bench clean

help:
	@echo "make install   .venv with everything for development"
	@echo "make install-sc2   and the packages of SMAC and SMACv2 (not the game: docs/env-smac.md)"
	@echo "make demo      pretrain-wm, train, eval and plot on a small task, against random play"
	@echo "make test      every check and test that runs on a CPU"
	@echo "make trust     the long form of tests/trust: what docs/trust.md promises, into results/trust"
	@echo "make lint      ruff, mypy, import contract"
	@echo "make format    rewrite the code in the house style"
	@echo "make docs      rewrite docs/cli.md from the commands"
	@echo "make bench     what updates, env steps and stored episodes cost here, into results/benchmarks"
	@echo "make clean     remove .venv and caches; results stay"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt setup.py $(wildcard marl_sale/kernels/*.[ch])
	@set -e; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  for python in $(PYTHON) python3.11 python3.12 python3.13 python3 python ""; do \
	    if [ -z "$$python" ]; then \
	      echo "No Python 3.11 to 3.13 with venv and ensurepip found; name one: make PYTHON=/path/to/python" >&2; \
	      exit 2; \
	    fi; \
	    if "$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	      >/dev/null 2>&1; then break; fi; \
	  done; \
	  echo "$(VENV): new, with $$("$$python" --version)" >&2; \
	  "$$python" -m venv --clear $(VENV); \
	fi; \
	echo "$(VENV): installing; the first time takes some minutes" >&2; \
	$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check \
	  -c constraints.txt -e '.[$(ALL_EXTRAS)]'; \
	touch $@

# The packages of SMAC and SMACv2 are in no package index (`smac` is another project there): two pinned commits.
# --no-deps: they ask for an old protobuf that they do not need here.
SMAC := smac @ git+https://github.com/oxwhirl/smac@d6aab33f76abc3849c50463a8592a84f59a5ef84
SMACV2 := smacv2 @ git+https://github.com/oxwhirl/smacv2@577ab5a2cff2391f8df582da5731ea9cd6adf3c6

install-sc2: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check \
	  -c constraints.txt -e '.[$(ALL_EXTRAS),sc2]'
	$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check --no-deps "$(SMAC)" "$(SMACV2)"

test: lint
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not learning and not gpu" $(PYTEST_ARGS)

# Every promise of docs/trust.md, at full length; `make test` runs the same tests in their short form.
trust: $(INSTALLED)
	$(BIN)/python -m pytest tests/trust --long -m "" $(PYTEST_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)
	$(BIN)/python -m marl_sale_cli._docs docs/cli.md

# The four commands, each reading what the one before printed; every demo has a folder of its own.
demo: $(INSTALLED)
	@set -e; PATH="$(CURDIR)/$(BIN):$$PATH"; \
	out="results/demo/$$(date -u +%Y%m%dT%H%M%SZ)"; mkdir -p "$$out"; set -x; \
	world_model=$$(marl-sale pretrain-wm $(DEMO) --out "$$out/world-model"); \
	agent=$$(marl-sale train $(DEMO) --world-model "$$world_model" --out "$$out/agent"); \
	marl-sale eval "$$agent" --episodes $(DEMO_EPISODES) --out "$$out/evaluation" --json > "$$out/trained.json"; \
	marl-sale eval $(DEMO) --random --episodes $(DEMO_EPISODES) --out "$$out/random-play" --json > "$$out/random.json"; \
	marl-sale plot "$$agent" "$$out/evaluation" --out "$$out/report" --json > "$$out/report.json"; \
	{ set +x; } 2>/dev/null; \
	python -c "$$SUMMARY" "$$out"

define SUMMARY
import json, pathlib, sys
def read(name):
    return json.loads((pathlib.Path(sys.argv[1]) / name).read_text())["metrics"]
for who, name in (("trained", "trained.json"), ("random play", "random.json")):
    found = read(name)
    low, high = found["win_rate_ci95"]
    print(f"{who:<12} win rate {found['win_rate']:6.1%}  95 % interval {low:.1%} to {high:.1%}  ({found['episodes']} episodes, the same seeds)")
print(*("figure       " + file for file in read("report.json")["figure_files"]), sep="\n")
endef
export SUMMARY

# On a quiet machine some ten minutes; BENCH_ARGS=--quick tries whether everything runs.
bench: $(INSTALLED)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find benchmarks cli marl_sale recipes tests -name __pycache__ -type d -prune -exec rm -rf {} +
