# Everything runs in .venv, which the first target makes. Needs Python 3.11 or newer, make and git.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# The pinned torch comes as a CPU build from PyTorch's own index where one is reachable; any build of it will do.
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)

.PHONY: install demo test lint bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    a small network fitted into a budget, end to end, in about two minutes"
	@echo "make test    all tests"
	@echo "make lint    ruff and mypy"
	@echo "make bench   the figures of the README (long)"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/.installed-*
	@echo "installing into $(VENV) (a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install
	@$(BIN)/bantam demo

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/python -m benchmarks.main_job

clean:
	rm -rf demo-output bantam-data
