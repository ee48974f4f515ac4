# Each line is a command that a person could type; `. .venv/bin/activate` first, then leave `$(BIN)/` out.
PYTHON ?= python3
BIN := .venv/bin
CONFIGS := configs/SyntheticPeople
DEMO := output/demo

.PHONY: demo test lint install clean

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

lint: install
	$(BIN)/ruff check .

install: .venv/.installed

# The stamp is written last: an interrupted installation goes on where it stopped.
.venv/.installed: requirements.txt requirements-dev.txt setup.py pyproject.toml tools/install_detectron2.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "InstanceCRF needs Python 3.10 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
			"Name another: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { \
		echo "$(PYTHON) cannot make virtual environments." \
			"Debian, Ubuntu: apt install python3-venv"; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	$(BIN)/pip install torch torchvision
	$(BIN)/pip install -r requirements.txt -r requirements-dev.txt
	$(BIN)/python tools/install_detectron2.py
	$(BIN)/pip install --no-deps --no-build-isolation -e .
	touch $@

# What the demo and the tests wrote, and compiled kernels; the environment stays (rm -rf .venv
# removes that too).
clean:
	rm -rf $(DEMO) datasets/synthetic_people datasets/synthetic_crowd build
	rm -rf .pytest_cache .ruff_cache .hypothesis projects/InstanceCRF/*.egg-info
	rm -rf projects/InstanceCRF/instance_crf/crf/cpu/__pycache__
	rm -rf $${XDG_CACHE_HOME:-$$HOME/.cache}/instance_crf
