# make demo, make test: a fresh clone and Python 3.11 or later are enough; everything else is made here.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
SEEDS ?= 1000
COUNT ?= 1000000

.PHONY: help demo test lint format unit requirements stories docs bench lab phones sim fuzz install clean

help:
	@echo "make demo            calls move between uplinks, on this machine, without root"
	@echo "make test            lint and every test this machine can run (at most 15 minutes)"
	@echo "make lint            ruff, mypy --strict, import rules"
	@echo "make unit            the fast tests only"
	@echo "make bench           throughput and cost beside other servers"
	@echo "make lab             every shipped scenario of failing uplinks, in real time"
	@echo "make phones          every test with real phones, the long ones too (about half an hour)"
	@echo "make sim SEEDS=N     N simulated worlds with loss and failing uplinks (1000)"
	@echo "make fuzz COUNT=N    N broken messages through parser and nodes (1000000)"
	@echo "make requirements    which requirement is proven by how many tests"
	@echo "make stories         and by which: what users complain of elsewhere, simulated and with real programs"
	@echo "make docs            write docs/configuration.md anew"
	@echo "make clean           remove what was made"

install: $(STAMP)

$(STAMP): pyproject.toml scripts/make-venv
	@PYTHON="$(PYTHON)" scripts/make-venv .venv
	@touch $@

demo: $(STAMP)
	$(BIN)/sipnemo demo $(ARGS)

test: $(STAMP)
	@scripts/install-test-programs
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench
	$(BIN)/mypy src tests
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix src tests bench
	$(BIN)/ruff format src tests bench

unit: $(STAMP)
	$(BIN)/python -m pytest -q tests/unit $(ARGS)

requirements: $(STAMP)
	@$(BIN)/python -m pytest -q --collect-only --requirements | grep -E '^(MH|RO|R)-?[0-9]'

stories: $(STAMP)
	@$(BIN)/python -m pytest -q --collect-only --stories | grep -E '^(R[0-9]| {19})'

docs: $(STAMP)
	$(BIN)/python -m sipnemo.app.reference docs/configuration.md

bench: $(STAMP)
	@scripts/install-test-programs
	@for bench in core signalling moves media_plane; do \
		echo "== bench/$$bench.py"; $(BIN)/python bench/$$bench.py $(ARGS) || exit 1; done

lab: $(STAMP)
	SIPNEMO_LAB=all $(BIN)/python -m pytest -q tests/netns/test_lab.py $(ARGS)

phones: $(STAMP)
	@scripts/install-test-programs
	SIPNEMO_LONG=1 $(BIN)/python -m pytest -q tests/interop $(ARGS)

sim: $(STAMP)
	SIPNEMO_SEEDS=$(SEEDS) $(BIN)/python -m pytest -q tests/sim $(ARGS)

fuzz: $(STAMP)
	SIPNEMO_FUZZ=$(COUNT) $(BIN)/python -m pytest -q tests/fuzz $(ARGS)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist demo-report lab-report
	find src tests -name __pycache__ -prune -exec rm -rf {} +
