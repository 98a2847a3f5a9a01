# make demo, make test: all the set-up a fresh machine needs. Variables:
#   PYTHON=python3.12   interpreter of the virtual environment (3.10 to 3.13)
#   VENV=.venv          its folder
#   TORCH=keep          leave torch as it is, for instance a ROCm build
# With a sourced ROS (ROS_DISTRO set) the environment sees the system's packages and no ROS
# comes from PyPI.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= default
BIN := $(VENV)/bin
EXTRAS := models,opencv,bags,scores
VENV_FLAGS :=
CONSTRAINTS := -c constraints.txt

ifneq ($(strip $(ROS_DISTRO)),)
VENV_FLAGS := --system-site-packages
else
EXTRAS := $(EXTRAS),ros
endif
ifeq ($(TORCH),keep)
VENV_FLAGS := --system-site-packages
EXTRAS := $(subst models,keep-torch,$(EXTRAS))
CONSTRAINTS :=
endif
INPUTS := setup.py constraints.txt Makefile

.PHONY: all demo test test-in-time test-rest browser check clean
all: $(VENV)/.installed

$(VENV)/.installed: $(INPUTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.[$(EXTRAS)]'
	@$(BIN)/python -c 'import torch' || { echo "no torch in $(VENV): install one there or run make without TORCH=keep" >&2; exit 1; }
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.[$(EXTRAS),test]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/caption-ros demo

# Tests of pages drive a real browser. CI gets Debian's; a user's system is left as it is, and
# without a browser these tests say that they are skipped.
browser:
	@command -v chromium >/dev/null || test -z "$$CI" || ! command -v apt-get >/dev/null || { \
	apt-get update -qq && apt-get install -y -qq chromium >/dev/null; }

# What keeps time with a camera comes first on the cores. All else takes what is left of them, two
# files side by side, the long ones first, each on one thread.
IN_TIME := test/ros test/doctor test/test_demo.py
test: $(VENV)/.installed-test browser
	@$(MAKE) --no-print-directory --keep-going --jobs=2 --output-sync=target test-in-time test-rest

test-in-time:
	$(BIN)/python -m pytest -q $(IN_TIME)

test-rest:
	OMP_NUM_THREADS=1 nice -n 19 $(BIN)/python -m pytest -q -p no:cacheprovider -n 2 \
	--dist loadfile --no-loadscope-reorder test/web test/commands test/test_tabletop.py test \
	$(IN_TIME:%=--ignore=%)

check: $(VENV)/.installed-test
	$(BIN)/python -m ruff check .

clean:
	rm -rf $(VENV) build install log demo_output *.egg-info
