# Everything that is made here needs only python3 (3.11 or later) and make; the rest goes into .venv.
# Choose another Python by `make test PYTHON=python3.12`, pass pytest's options by `make test ARGS="-k net"`.

PYTHON ?= python3
ARGS ?=
CUDA ?= 13
VENV := .venv
BIN := $(VENV)/bin
MPICH := .venv-mpich
PIP_INSTALL := $(BIN)/pip --disable-pip-version-check --quiet install
# Where PyPI's torch for Linux brings gigabytes of CUDA, this index has the CPU build; empty: PyPI alone.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Without bytecode each of the hundreds of processes that tests start would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE
.NOTPARALLEL: # two pips must not work in one environment
.PHONY: help demo test check fuzz faults mpich gpu bench proto clean

help: ## print this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

demo: $(VENV)/.installed-demo ## train on handwritten digits with two ranks, in a minute
	@$(BIN)/dtrain demo

test: $(VENV)/.installed-test ## run all tests that need no GPU
	@echo "Running the tests"
	@CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.installed-check ## run ruff, mypy and the house rules
	@echo "Checking style (ruff)"
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@echo "Checking types (mypy)"
	@$(BIN)/mypy
	@echo "Checking the house rules (tests/house)"
	@$(BIN)/python -m pytest -q tests/house

fuzz: $(VENV)/.installed-test ## read 20,000 damaged files of each format, in some 15 minutes
	@DTRAIN_FUZZ_INPUTS=$${DTRAIN_FUZZ_INPUTS:-20000} $(BIN)/python -m pytest tests/test_fuzz.py -o faulthandler_timeout=7200 $(ARGS)

faults: $(VENV)/.installed-test ## let 200 faults befall jobs, and hosts lose each other, in some 30 minutes
	@DTRAIN_FAULTS=$${DTRAIN_FAULTS:-200} $(BIN)/python -m pytest tests/test_faults.py tests/test_hosts.py -o faulthandler_timeout=600 $(ARGS)

mpich: $(MPICH)/.installed ## make a second environment, with MPICH, which some tests then use

gpu: $(VENV)/.installed-cuda ## run the tests that need a GPU, in less than 9 minutes; CUDA=12 for older drivers
	@$(BIN)/python -m pytest tests/gpu $(ARGS)

bench: $(VENV)/.installed-bench ## print the figures of tests/bench
	@$(BIN)/python tests/bench $(ARGS)

proto: ## generate caffe_pb2 from caffe.proto
	@dtrain/proto/generate.sh

clean: ## remove .venv, caches and what pip built; data and snapshots stay
	@rm -rf $(VENV) $(MPICH) build *.egg-info .hypothesis .*_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment, one stamp for each set of extras; a changed pyproject.toml installs anew.
$(VENV)/.installed-demo: EXTRAS := mpi,demo
$(VENV)/.installed-test: EXTRAS := test
$(VENV)/.installed-check: EXTRAS := test,check
$(VENV)/.installed-cuda: EXTRAS := test,cuda$(CUDA)
$(VENV)/.installed-bench: EXTRAS := test,bench
$(VENV)/.installed-bench: PIP_INSTALL += $(TORCH_INDEX:%=--extra-index-url %)

$(VENV)/.installed-%: $(VENV)/.made-by-$(notdir $(PYTHON)) pyproject.toml
	@echo "Installing dtrain[$(EXTRAS)] into $(VENV)"
	@$(PIP_INSTALL) --editable '.[$(EXTRAS)]'
	@touch $@

# Both MPIs have an mpirun of their own, so they can't share an environment.
$(MPICH)/.installed: pyproject.toml
	@echo "Installing dtrain with MPICH into $(MPICH)"
	@$(PYTHON) -m venv $(MPICH)
	@$(MPICH)/bin/pip --disable-pip-version-check --quiet install --editable . 'mpi4py>=4.1,<5' 'mpich>=5,<6' 'pytest>=8.2,<10' 'hypothesis>=6.100,<7'
	@touch $@

# The name of the Python is in the stamp's, so that another PYTHON gets a fresh environment.
$(VENV)/.made-by-$(notdir $(PYTHON)):
	@$(PYTHON) -V >/dev/null 2>&1 || { echo "make: $(PYTHON) is not there or does not run; \
	install Python 3.11 or later, or name it: make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: dtrain needs Python 3.11 \
	or later, $(PYTHON) is $$($(PYTHON) -V 2>&1); name a newer one: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) has no venv module; \
	on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	@echo "Creating $(VENV) with $$($(PYTHON) -V)"
	@if ls $(VENV)/.made-by-* >/dev/null 2>&1; then rm -rf $(VENV); fi
	@$(PYTHON) -m venv $(VENV)
	@touch $@
