# make run     set up what is missing, build, start Tarn, run the demonstration, leave Tarn running
#              (ARGS="--listen 127.0.0.1:8282" are flags of tarn up)
# make test    set up what is missing, check the code, run every test
# make check   format, vet, staticcheck and the plan of the house
# make bench-NAME ARGS="-json -case REGEX"   run bench/NAME
# make pg-regress ARGS="-suite REGEX"        Postgres 15's own tests, on a volume and on ext4
# make soak ARGS="-minutes N -seed N"        transfers, forks, restores, kills, full disks; every child checked
# make conformance-sdk      every method of the published SDK, checked or listed (docs/compatibility.md)
# make fuzz-api             generated requests to every call of the API (MAX=10 SEED=1), by its document
# make interop              Delta tables beside Apache Spark, both ways (gets 500 MB the first time)
# make docs    write docs/cli.md and docs/configuration.md anew from the commands
# make stop    stop what `make run` started
# make clean   remove what was built; data stays

SHELL := /bin/bash
.DEFAULT_GOAL := build
.PHONY: build run stop test check setup setup-test pg-regress soak interop conformance-sdk fuzz-api docs clean

# Where data goes. A clone that other users cannot reach (root's home) cannot
# hold it, because Postgres runs as an unprivileged user: scripts/setup.sh has
# then linked build to a reachable place, and data goes beside it.
TARN_DATA ?= $(if $(shell test -L build && echo linked),$(realpath build)/tarn-data,$(CURDIR)/tarn-data)
export TARN_DATA

setup:
	@scripts/setup.sh run

setup-test:
	@scripts/setup.sh test

build: setup
	@test -x build/tarn || echo "building Tarn (the first time takes a minute or two)"
	go build -o build/tarn ./cmd/tarn

run: build
	@build/tarn up --detach $(ARGS)
	@build/tarn demo

stop:
	@if [ -x build/tarn ]; then build/tarn down; else echo "build/tarn is not built: nothing to stop"; fi

check: setup-test
	@unformatted=$$(gofmt -l *.go bench client cmd e2e examples internal); if [ -n "$$unformatted" ]; then echo "not formatted (gofmt -w):"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	build/bin/staticcheck ./...
	go test -count=1 .

test: setup-test build check
	go test -count=1 -timeout 40m ./...

bench-%: build
	@go run ./bench/$* $(ARGS)

pg-regress: setup-test
	@source=$$(scripts/pg-regress.sh) && go run ./bench/pgregress -source "$$source" $(ARGS)

soak: build
	@go run ./e2e/soak -tarn build/tarn $(ARGS)

docs:
	@unset $${!TARN_@}; dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && go build -o "$$dir/tarn" ./cmd/tarn && \
	for page in cli configuration; do "$$dir/tarn" help --reference $$page > "$$dir/page" && cp "$$dir/page" docs/$$page.md || exit 1; done

conformance-sdk: setup-test
	go test -count=1 -v -run TestEveryMethodOfThePublishedSDK ./e2e

fuzz-api: build
	@scripts/fuzz-api.sh

interop: setup-test
	@scripts/interop.sh

clean:
	rm -rf build/tarn build/bin build/venv build/postgres-18 build/duckdb build/schemathesis build/fuzz-api build/pg-regress build/*.log
