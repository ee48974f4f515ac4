# Each line is a command that a person could type; `. .venv/bin/activate` first, then leave `$(BIN)/` out.
PYTHON ?= python3
# What pip is asked for first; an installed one that fits is kept.
TORCH ?= torch torchvision
BIN := .venv/bin
CONFIGS := configs/SyntheticPeople
DEMO := output/demo

.PHONY: demo test tables lint install clean

# Draw synthetic people, train in three stages, evaluate, picture.
demo: install
	$(BIN)/python datasets/prepare_synthetic.py
	$(BIN)/python tools/train_net.py --config-file $(CONFIGS)/pretrain.yaml \
		OUTPUT_DIR $(DEMO)/pretrain
	$(BIN)/python tools/train_net.py --config-file $(CONFIGS)/parts.yaml \
		MODEL.WEIGHTS $(DEMO)/pretrain/model_final.pth OUTPUT_DIR $(DEMO)/parts \
		DATASETS.TEST "()"
	$(BIN)/python tools/train_net.py --config-file $(CONFIGS)/instance_crf.yaml \
		MODEL.WEIGHTS $(DEMO)/parts/model_final.pth OUTPUT_DIR $(DEMO)

test: install
	$(BIN)/python -m pytest

# The paper's tables and what one would pick instead, one seed in under an hour. Goes on where it stopped.
tables: install
	$(BIN)/python datasets/prepare_synthetic.py --split all
	$(BIN)/python tools/reproduce_tables.py --seeds 1 --budget 10

lint: install
	$(BIN)/ruff check .

install: .venv/.installed

# The stamp is written last: an interrupted installation goes on where it stopped.
.venv/.installed: requirements.txt requirements-dev.txt setup.py pyproject.toml tools/install_detectron2.py \
		| $(BIN)/python
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "InstanceCRF needs Python 3.10 or newer, .venv has $$($(BIN)/python --version 2>&1):" \
			"move .venv away"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip || { \
		echo ".venv has no pip (uv: uv pip install --python .venv pip); or move it away"; exit 1; }
	$(BIN)/python -m pip install $(TORCH)
	$(BIN)/python -m pip install -r requirements.txt -r requirements-dev.txt
	$(BIN)/python tools/install_detectron2.py
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	touch $@

# A .venv that is there is used as it is, whoever made it.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "InstanceCRF needs Python 3.10 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
			"Name another: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { \
		echo "$(PYTHON) cannot make virtual environments." \
			"Debian, Ubuntu: apt install python3-venv"; exit 1; }
	@test ! -e .venv || test -f .venv/pyvenv.cfg || { \
		echo ".venv is there, and is no virtual environment: move it away"; exit 1; }
	$(PYTHON) -m venv .venv

# What the demo and the tests wrote, and compiled kernels; the environment stays (rm -rf .venv
# removes that too), and what lies behind links.
clean:
	test -L $(firstword $(subst /, ,$(DEMO))) || rm -rf $(DEMO)
	rm -rf datasets/synthetic_people datasets/synthetic_crowd build
	rm -rf .pytest_cache .ruff_cache .hypothesis projects/InstanceCRF/*.egg-info
	rm -rf projects/InstanceCRF/instance_crf/crf/cpu/__pycache__
	rm -rf $${XDG_CACHE_HOME:-$$HOME/.cache}/instance_crf
