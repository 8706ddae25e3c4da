# make demo    enhance two images; make demo IMAGE=chest.dcm enhances yours
# make test    lint, types and the fast tests; run it as often as you like
# make test-all   the tests that take minutes, which `make test` leaves out; then test-cores, test-label and fuzz
# make test-cores   its next part: the Slicer extension on the other Python and its Slicer core
# make test-label   another part: the app for MONAI Label, in an environment of its own, and Slicer's panel against it
# make test-bundles   all packed bundles in one process without this package, a table of what each can do; then every
#                     stage of each, trained in two processes
# make fuzz MINUTES=60   rounds of damaged and odd files for every reader, and of requests for the Label server; prints what
#                     each round has read, and keeps the files of what failed in build/fuzz
# make kills POINTS=300   kill commands at steps of their writing and at random moments, run them again, and say what was
#                     lost or left behind
# make test-federated-faults   what becomes of a federation whose trainers, sites or server die, are late, or have full
#                     disks; half an hour
# make check-quality   have the shipped models got worse? Needs real data: DATA=folder
# make docs    fill the tables of README, cards and figures from docs/results.json
# make wheel   dist/*.whl
# make viewer-wheel   dist/*+viewer*.whl, without what only PyTorch reads
# make sbom    dist/sbom.cdx.json: what the base environment holds, as CycloneDX
# make pins    requirements with a hash for every file, for this platform and Python, as pip reports them
# make clean   remove what the others made
# Any of them: PYTHON=python3.12 VENV=.venv312. A changed PYTHON needs another VENV, or `make clean` first.
VENV ?= .venv
PYTHON ?=
IMAGE ?=
DATA ?=
PYTEST_ARGS ?=
MINUTES ?= 60
POINTS ?= 300
# Tests run in as many processes as this. A file's tests stay in one, which makes its drawn data once. A test that kills
# its process ends the run, and is named: with another process in its place, pytest-xdist would wait for ever.
PROCESSES ?= 2
PYTEST := -m pytest -n $(PROCESSES) --dist loadfile --max-worker-restart=0
BIN := $(VENV)/bin
# MONAI Label is installed without what it asks for, which `pip check` would complain of elsewhere.
VENV_LABEL ?= $(VENV)-label

# Spinning OpenMP threads halve the speed of everything on a shared machine.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-all test-cores test-label test-bundles test-federated-faults fuzz kills check-quality docs wheel viewer-wheel sbom pins clean
.DEFAULT_GOAL := demo

$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	@.ci/environment "$(VENV)" "" "$(PYTHON)"
	@touch "$@"

$(VENV)/.installed-for-tests: pyproject.toml setup.py constraints.txt
	@.ci/environment "$(VENV)" "torch,diffusion,dicom,metrics,benchmark,openvino,tensorboard,federated,slicer,cluster,signing,dev" "$(PYTHON)"
	@touch "$(VENV)/.installed" "$@"

$(VENV_LABEL)/.installed-for-tests: pyproject.toml setup.py constraints.txt
	@.ci/environment "$(VENV_LABEL)" "torch,diffusion,dicom,label,labeltest" "$(PYTHON)"
	@touch "$@"

demo: $(VENV)/.installed
	@"$(BIN)/monai-sr" demo $(if $(IMAGE),--image "$(IMAGE)") demo_results

test: $(VENV)/.installed-for-tests
	"$(BIN)/ruff" check .
	"$(BIN)/mypy"
	"$(BIN)/python" $(PYTEST) -m "not slow" tests $(PYTEST_ARGS)
	"$(BIN)/python" $(PYTEST) -m "not slow" slicer_extension $(PYTEST_ARGS)

test-all: $(VENV)/.installed-for-tests
	"$(BIN)/python" $(PYTEST) -m slow tests slicer_extension $(PYTEST_ARGS)
	@$(MAKE) --no-print-directory -j2 --output-sync=target test-cores test-label
	@$(MAKE) --no-print-directory fuzz MINUTES=1

test-cores: $(VENV)/.installed-for-tests
	@.ci/cores "$(VENV)" $(PYTEST_ARGS)

# Slicer's panel has its core in one environment and the server in the other.
test-label: $(VENV_LABEL)/.installed-for-tests $(VENV)/.installed-for-tests
	"$(VENV_LABEL)/bin/python" -m pytest monailabel_app $(PYTEST_ARGS)
	"$(VENV_LABEL)/bin/python" -m pytest tests/fuzz -k label $(PYTEST_ARGS)
	SUPERRESOLUTION_LABEL_PYTHON="$(abspath $(VENV_LABEL))/bin/python" "$(BIN)/python" -m pytest \
	    slicer_extension/SuperResolution/Testing/Python/test_label_exchange.py $(PYTEST_ARGS)

test-bundles: $(VENV)/.installed-for-tests
	"$(BIN)/python" -m pytest -q -s tests/packing/test_together.py tests/training/test_two_processes.py $(PYTEST_ARGS)

# New cases in each round. One that ends its process ends the round.
FUZZ := -m pytest -q tests/fuzz --hypothesis-profile=fuzz --hypothesis-show-statistics
fuzz: $(VENV_LABEL)/.installed-for-tests $(VENV)/.installed-for-tests
	@trap 'exit 130' INT; end=$$(($$(date +%s) + 60 * $(MINUTES))); result=0; while [ $$(date +%s) -lt $$end ]; do \
	    "$(VENV_LABEL)/bin/python" $(FUZZ) -k "damaged and label" || result=1; \
	    "$(BIN)/python" $(FUZZ) -k "damaged and not label" -n $(PROCESSES) --max-worker-restart=0 || result=1; \
	done; exit $$result

kills: $(VENV)/.installed-for-tests
	"$(BIN)/python" -m tests.kills.run --points $(POINTS)

test-federated-faults: $(VENV)/.installed-for-tests
	"$(BIN)/python" -m pytest -q tests/federated/faults $(PYTEST_ARGS)

# Bundles share the cores, as the tests do.
check-quality: export OMP_NUM_THREADS ?= 1
check-quality: $(VENV)/.installed-for-tests
	@test -n "$(DATA)" || { echo "Say where the real data is: make check-quality DATA=folder" >&2; exit 2; }
	@ls -d configs/chest_* | xargs -P $(PROCESSES) -I {} \
	    "$(BIN)/monai-sr" evaluate {} --data "$(DATA)" --split test --limit 12 --at-least metadata
	"$(BIN)/python" docs/results.py check monai-sr benchmark quality --data "$(DATA)" --out build/films --overwrite \
	    --protocol chest_xray_films --bundles chest_xray_blind --limit 4 --workers $(PROCESSES)
	"$(BIN)/python" docs/results.py check monai-sr benchmark quality --data "$(DATA)" --out build/scans --overwrite \
	    --protocol chest_ct_scans --bundles chest_ct_blind --limit 1 --workers $(PROCESSES)

docs: $(VENV)/.installed
	"$(BIN)/python" docs/results.py fill

wheel: $(VENV)/.installed-for-tests
	"$(BIN)/python" -m build --wheel

viewer-wheel: $(VENV)/.installed-for-tests
	MONAI_SR_WHEEL=viewer "$(BIN)/python" -m build --wheel

sbom: $(VENV)/.installed
	@test -x "$(VENV)-sbom/bin/cyclonedx-py" || { "$(BIN)/python" -m venv "$(VENV)-sbom" && \
	    "$(VENV)-sbom/bin/pip" install -qq --disable-pip-version-check -c constraints.txt cyclonedx-bom; }
	@mkdir -p dist
	"$(VENV)-sbom/bin/cyclonedx-py" environment --pyproject pyproject.toml --output-reproducible --validate \
	    -o dist/sbom.cdx.json "$(BIN)/python"

pins: $(VENV)/.installed
	@.ci/pins "$(BIN)/python" dicom

clean:
	rm -rf "$(VENV)" "$(VENV)-cores" "$(VENV_LABEL)" "$(VENV)-sbom" build dist mutants demo_results *.egg-info .hypothesis .pytest_cache .mypy_cache .ruff_cache
