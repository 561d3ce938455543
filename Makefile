# Two commands do everything on a fresh machine with Python and make: `make demo` and `make test`; `make notebooks` explains.
PYTHON ?= python3
# A plain `pip install torch` takes whatever is newest; this pair is what the figures in the README were measured with.
TORCH ?= torch==2.14.1 torchvision==0.29.1
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test slow notebooks style clean

demo: $(VENV)/train.ready
	$(BIN)/hf-swin finetune --out runs/digits

test: style
	$(BIN)/pytest -n 2 -m "not slow"

# What takes longer; CI runs it after `make test`. One at a time, because training uses both cores. Where torchao is
# installed it writes to stderr at every import, and other tests read what commands write there: it has a place of its own.
slow: $(VENV)/dev.ready
	$(BIN)/pytest -m slow
	$(BIN)/pip install --quiet --no-deps --target $(VENV)/int8 torchao
	PYTHONPATH=$(VENV)/int8 $(BIN)/pytest tests/test_optimization.py -k eight_bits

# Each claim of the notebooks is an assertion in a cell. They train on one thread, so two at a time.
notebooks: $(VENV)/dev.ready
	$(BIN)/pytest --nbmake --nbmake-timeout=600 -n 2 --durations=0 notebooks

# Lines marked `trf-ignore: TRF057` do without transformers' auto_docstring, which takes a model's name from its folder
# under transformers/models and calls ours None.
style: $(VENV)/dev.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mlinter hf_swin

$(VENV)/train.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable '.[train]'
	touch $@

$(VENV)/dev.ready: $(VENV)/train.ready
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs
