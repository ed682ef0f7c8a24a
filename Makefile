# make demo: environment, demo videos, train, calibrate, table, plot, predict. make test: environment, all tests.
# make lint: environment, ruff and mypy.
PYTHON ?= python3
# Processes of `make test`, of one thread each: small networks gain nothing by a second one.
TEST_PROCESSES ?= 2
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit('mutual3d needs Python 3.10 or newer; this is ' + sys.version.split()[0] + '. Try: make PYTHON=python3.11' if sys.version_info < (3, 10) else 0)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -e ".[test]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python tools/demo.py

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests --numprocesses $(TEST_PROCESSES) --dist loadfile

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build *.egg-info
