# make demo    set everything up, serve the embedded model and watch it fork, decode in parallel and join: HOST=vllm|sglang
# make serve   the same server in the foreground: HOST=vllm PORT=8000
# make test    set everything up and test every promise, on both hosts; make test-all also at length (docs/developing.md)
.PHONY: demo serve test test-all test-turns test-core test-view test-oracle test-training test-curator test-eval test-vllm test-sglang test-outside test-turn-vllm test-turn-sglang verify-patches lint format bench bench-vllm bench-server bench-goodput bench-sglang-prefill bench-sglang-turns bench-sglang-plain bench-sglang-attention bench-own-cost check-own-cost bench-drafts bench-vllm-turns grpo rollouts mix weights memory soak-vllm soak-sglang model docs site dist lock clean

PY = .venvs/core/bin/python
# uv leaves it to the first import to compile; without that, each of a host's processes compiles all of it again
export PYTHONDONTWRITEBYTECODE =

HOST ?= vllm
PORT ?= 8000

demo:
	@tools/setup $(HOST)
	.venvs/$(HOST)/bin/python -m multiverse demo --host $(HOST) -o build/demo.html

serve:
	@tools/setup $(HOST)
	.venvs/$(HOST)/bin/python -m multiverse serve --host $(HOST) --port $(PORT)

TIER = -m "not long"
PYTEST = -m pytest -v --durations=5 $(TIER)

test test-turns: export OMP_NUM_THREADS ?= 1
test:  ## every promise once per host, in two rows side by side, since most of it waits for one busy core
	@tools/beside rest='$(MAKE) -k test-core test-view test-oracle test-training test-curator test-eval test-vllm' \
		sglang='$(MAKE) test-sglang'

test-all:  ## also what is marked long: the same at length; the patches for upstream; and the pages as a site
	@$(MAKE) site
	@$(MAKE) test TIER=
	@$(MAKE) verify-patches
	@$(MAKE) test-outside
	@$(MAKE) test-turns
	@$(MAKE) check-own-cost HOST=vllm
	@$(MAKE) check-own-cost HOST=sglang

test-core:  ## no torch, no host: a minute from a fresh clone
	@tools/setup core
	$(PY) $(PYTEST) tests/core tests/docs

test-view:  ## the pages of multiverse view in a real, headless Chromium
	@tools/setup browser
	$(PY) $(PYTEST) tests/view

test-oracle:  ## torch and transformers: oracle, embedded model, commands
	@tools/setup oracle
	$(PY) $(PYTEST) tests/oracle tests/models tests/cli

test-training:  ## attention views, data, recipe and runs on a random model
	@tools/setup train
	$(PY) $(PYTEST) tests/attention tests/training

test-curator:  ## the Curator over HTTP against a teacher that is a program; kills, faults, Ray
	@tools/setup curate
	$(PY) $(PYTEST) tests/curator

test-eval:  ## evaluation over HTTP against a server that is a program; recorded answers; the simulator
	@tools/setup eval
	$(PY) $(PYTEST) tests/evaluation

# another release of a host, over the installed one (docs/developing.md): VLLM=0.33.0 make test-vllm, SGLANG=0.5.22 make test-sglang
ON_VLLM = $(if $(VLLM),folder=$$(tools/overlay vllm $(VLLM)) && PYTHONPATH=$$folder)
ON_SGLANG = $(if $(SGLANG),folder=$$(tools/overlay sglang $(SGLANG)) && PYTHONPATH=$$folder)

test-vllm:  ## the conformance suite inside vLLM on this CPU; what only vLLM's workers know, in a process of its own
	@tools/setup vllm-tests
	$(ON_VLLM) .venvs/vllm/bin/python $(PYTEST) tests/conformance
	$(ON_VLLM) .venvs/vllm/bin/python $(PYTEST) tests/e2e
	$(ON_VLLM) .venvs/vllm/bin/python $(PYTEST) tests/vllm_workers

test-sglang:  ## the same suites inside SGLang on this CPU; our Triton kernels, interpreted and compiled
	@tools/setup sglang-tests
	$(ON_SGLANG) .venvs/sglang/bin/python $(PYTEST) tests/conformance
	$(ON_SGLANG) .venvs/sglang/bin/python $(PYTEST) tests/e2e
	.venvs/sglang/bin/python $(PYTEST) tests/kernels

# the short form of a host's suites: what answers are, and one stream of events over HTTP
SHORT = -m pytest -v --durations=5 $(TIER) -k "ahead or pages" tests/conformance/test_answers.py
SHORT_HTTP = -m pytest -v --durations=5 $(TIER) -k grows_into tests/e2e/test_surface_streams.py

test-turn-vllm test-turn-sglang: test-turn-%:  ## a host's short form on another release that is supported, each day another one: RELEASE=0.31.0
	@tools/setup $*-tests
	folder=$$(tools/overlay $* $(or $(RELEASE),$$(tools/turn $*))) && export PYTHONPATH=$$folder && echo "on $$folder" && \
		.venvs/$*/bin/python $(SHORT) && .venvs/$*/bin/python $(SHORT_HTTP)

test-turns:  ## both at the same time
	@tools/beside vllm='$(MAKE) test-turn-vllm' sglang='$(MAKE) test-turn-sglang'

verify-patches:  ## patches/ on copies of the installed hosts: each applies, its test passes there, and so does a part of our suite
	@tools/setup vllm-tests
	@tools/setup sglang-tests
	patches/verify

test-outside:  ## contracts: what outside software does that our code or pages rely on, in the environments of all steps
	@for step in train curate eval vllm-tests sglang-tests; do tools/setup $$step || exit 1; done
	$(PY) $(PYTEST) tests/outside/core
	.venvs/vllm/bin/python $(PYTEST) tests/outside/vllm tests/outside/clients
	.venvs/sglang/bin/python $(PYTEST) tests/outside/sglang tests/outside/clients

lint:
	@tools/setup core
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format:
	@tools/setup core
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench:  ## prints and writes benchmarks/results/core.json
	@tools/setup core
	$(PY) benchmarks/core.py

bench-vllm:  ## a random model of 100 M parameters inside vLLM; writes benchmarks/results/vllm_speed.json
	@tools/setup vllm
	.venvs/vllm/bin/python benchmarks/vllm_speed.py
	.venvs/vllm/bin/python benchmarks/vllm_plain.py

bench-server:  ## multiverse bench on a random model of 47 M parameters, half an hour; HOST=vllm|sglang; benchmarks/results/bench-HOST
	@tools/setup $(HOST)
	.venvs/$(HOST)/bin/python benchmarks/random_model.py build/random-47m --hidden 576 --layers 12
	.venvs/$(HOST)/bin/python -m multiverse bench --host $(HOST) --model build/random-47m \
		-o benchmarks/results/bench-$(HOST) --answers 5 --scale 0.05 $(if $(TRANSCRIPTS),--transcripts $(TRANSCRIPTS)) \
		--dtype bfloat16 $(BENCH_$(HOST))

BENCH_vllm = --tokens 256,512,1024 --widths 2,4,16 --batches 1,4,16,64,128 --lengths 16,64,128 \
	--max-model-len 4096 --max-num-seqs 256
BENCH_sglang = --tokens 512 --widths 4,8,32 --batches 1,32,128 --lengths 16,64 \
	--context-length 4096 --max-total-tokens 65536 --max-running-requests 256

GOODPUT_vllm = --rates 0.8,1.6,2 --dtype bfloat16 --max-model-len 4096 --max-num-seqs 256
GOODPUT_sglang = --rates 0.2,0.4,0.6 --dtype bfloat16 --attention-backend multiverse \
	--context-length 4096 --max-total-tokens 65536 --max-running-requests 256
bench-goodput:  ## policies that admit branches: HOST=vllm|sglang, a random model of 47 M parameters, 13 minutes; benchmarks/results/goodput-HOST
	@tools/setup $(HOST)
	.venvs/$(HOST)/bin/python benchmarks/random_model.py build/random-47m --hidden 576 --layers 12
	.venvs/$(HOST)/bin/python -m multiverse bench --host $(HOST) --model build/random-47m -o benchmarks/results/goodput-$(HOST) \
		--only goodput --prompt 32 --span 50 $(GOODPUT_$(HOST))
	.venvs/$(HOST)/bin/python benchmarks/goodput.py benchmarks/results/goodput-$(HOST) --record $(if $(filter sglang,$(HOST)),--suffix _sglang)

bench-sglang-prefill:  ## a prompt with blocks in one forward and by replay; writes benchmarks/results/sglang_prefill.json
	@tools/setup sglang
	PYTHONPATH=tests/conformance .venvs/sglang/bin/python benchmarks/sglang_prefill.py

bench-sglang-turns:  ## what forks and joins cost SGLang's scheduler beside forwards; writes benchmarks/results/sglang_turns.json
	@tools/setup sglang
	.venvs/sglang/bin/python benchmarks/random_model.py build/random-47m --hidden 576 --layers 12
	PYTHONPATH=tests/conformance .venvs/sglang/bin/python benchmarks/sglang_turns.py

bench-sglang-plain:  ## what the plugin costs SGLang's scheduler when nobody forks; writes benchmarks/results/sglang_plain.json
	@tools/setup sglang
	.venvs/sglang/bin/python benchmarks/random_model.py build/random-47m --hidden 576 --layers 12
	PYTHONPATH=tests/conformance .venvs/sglang/bin/python benchmarks/sglang_plain.py

bench-sglang-attention:  ## decode steps with our attention backend and with torch_native; benchmarks/results/figures.json
	@tools/setup sglang
	.venvs/sglang/bin/python benchmarks/random_model.py build/random-47m --hidden 576 --layers 12
	PYTHONPATH=tests/conformance .venvs/sglang/bin/python benchmarks/sglang_attention.py --record --suite

bench-own-cost:  ## CPU time per token of a host's code with and without the plugin: HOST=vllm|sglang; OTHER=checkout of another commit; COUNT=instructions (valgrind)
	@tools/setup $(HOST)
	.venvs/$(HOST)/bin/python benchmarks/own_cost.py --host $(HOST) $(COUNT:%=--%) $(OTHER)

check-own-cost:  ## fails if a token takes 3 % more instructions than when that was recorded: HOST=vllm|sglang; needs valgrind
	@tools/setup $(HOST)
	.venvs/$(HOST)/bin/python benchmarks/own_cost.py --host $(HOST) --instructions --check

bench-vllm-turns:  ## steps that a fork and a join take in vLLM where the model writes the goal; benchmarks/results/figures.json
	@tools/setup vllm
	.venvs/vllm/bin/python benchmarks/random_model.py build/random-47m --hidden 576 --layers 12
	PYTHONPATH=benchmarks .venvs/vllm/bin/python benchmarks/vllm_turns.py build/random-47m --record

bench-drafts:  ## steps per answer with drafts, with branches, with both, in vLLM; what the plugin costs plain ones, by callgrind; benchmarks/results/figures.json
	@tools/setup vllm
	.venvs/vllm/bin/python benchmarks/drafts.py --record
	.venvs/vllm/bin/python benchmarks/drafts_plain.py --record

mix:  ## 5,000 mixed requests and an operator, for each way of scheduling: HOST=vllm|sglang; benchmarks/results/mixed.json
	@tools/setup $(HOST)
	.venvs/$(HOST)/bin/python benchmarks/mix.py --record

grpo:  ## does a model learn when to fork? half an hour of a CPU, inside vLLM; benchmarks/results/grpo.json
	@tools/setup vllm
	@tools/setup train
	$(PY) benchmarks/grpo.py --record

rollouts:  ## 1,000 rollouts of a server whose weights change, against a trainer's forward: HOST=vllm|sglang
	@tools/setup $(HOST)
	.venvs/$(HOST)/bin/python benchmarks/rollouts.py --record

weights:  ## 50 updates of the weights, each in the middle of 16 trees: HOST=vllm|sglang; benchmarks/results/mixed.json
	@tools/setup $(HOST)
	.venvs/$(HOST)/bin/python benchmarks/weights.py --record

memory:  ## memory of a server over 4,000 requests with trees: HOST=vllm|sglang; benchmarks/results/mixed.json
	@tools/setup $(HOST)
	.venvs/$(HOST)/bin/python benchmarks/memory.py --record

soak-vllm soak-sglang: soak-%:  ## random operations, 2,000 requests twice, half an hour; benchmarks/results/HOST_soak.json
	@tools/setup $*
	PYTHONPATH=tests/conformance .venvs/$*/bin/python benchmarks/soak.py
	PYTHONPATH=tests/conformance .venvs/$*/bin/python benchmarks/soak.py --late

model:  ## trains the embedded model from random weights into build/tiny, 70 minutes of a core, and measures it
	@tools/setup train
	$(PY) -m multiverse.models.rows build/arithmetic --train 24000 --grow 0.4375
	$(PY) -m multiverse train recipes/tiny.yaml
	$(PY) -m multiverse.models.evaluate --model build/tiny

docs:  ## draws the pictures of docs/ and writes the dashboard
	@tools/setup docs
	$(PY) docs/plot_layout.py
	$(PY) docs/plot_rooms.py
	$(PY) docs/plot_dashboard.py

site:  ## the pages of docs/ as a site in build/site; a dead link, or a page outside of the navigation, is an error
	@tools/setup site
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

dist:  ## sdist and wheel, checked, installed with each host's extra into an empty environment, served and asked there
	tools/dist

lock:  ## the newest releases that fit pyproject.toml, into tools/locks
	tools/lock

clean:
	rm -rf .venvs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
