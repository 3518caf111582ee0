# Everything runs in .venv, which is made on demand; nothing is installed outside of it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --require-hashes --no-deps
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run test chaos check bench lock clean

help:
	@echo 'make run     Kafka, a worker with its web view, and simulated traffic; Ctrl-C stops it all.'
	@echo '             make run ARGS="--messages 10000 --exit" processes so many and prints a summary.'
	@echo 'make test    every test, the ones on a real broker included; ARGS go to pytest.'
	@echo 'make chaos   faults of all kinds under load; ARGS="--seed N --minutes M --nodes 3", --help for more.'
	@echo 'make check   ruff, format, mypy --strict.'
	@echo 'make bench   throughput and latency beside a bare loop; ARGS="--json FILE" keeps the figures.'
	@echo 'make lock    requirements/*.in resolved anew into the hashed locks (needs uv).'
	@echo 'make clean   remove .venv and caches; the broker'"'"'s data stay (python -m streams kafka reset).'

run: $(VENV)/.run
	@exec $(BIN)/python -m streams demo $(ARGS)

test: $(VENV)/.dev
	@exec $(BIN)/python -m pytest --numprocesses 2 --dist loadgroup $(ARGS)

chaos: $(VENV)/.dev
	@exec $(BIN)/python -m tests.chaos $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict streams agents tables

bench: $(VENV)/.dev
	@exec $(BIN)/python -m bench $(ARGS)

# The stamps are newer than the locks that they were installed from.
$(VENV)/.run: requirements/run.txt | $(VENV)/.made
	@echo 'Installing what the tracker needs into $(VENV) …'
	@$(PIP) -r requirements/run.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt | $(VENV)/.made
	@echo 'Installing what the tracker and its tests need into $(VENV) …'
	@$(PIP) -r requirements/dev.txt
	@touch $(VENV)/.run $@

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || \
	    { echo 'There is no $(PYTHON). Install Python 3.11 or newer, or name one: make PYTHON=python3.12 …'; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo 'Python 3.11 or newer is needed; $(PYTHON) is' "$$($(PYTHON) -V 2>&1)."; \
	      echo 'Install a newer one, or name it: make PYTHON=python3.12 …'; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	    { echo '$(PYTHON) has no venv module. On Debian and Ubuntu: apt-get install python3-venv'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

lock:
	@command -v uv >/dev/null || { echo 'The locks are made with uv: pip install uv'; exit 1; }
	cd requirements && for name in run dev; do \
	    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	        --custom-compile-command 'make lock' $(ARGS) $$name.in -o $$name.txt || exit 1; \
	done

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
