# make run    build and start one box, data in ./data        make test     all tests, with what they need installed
# make build  bin/s3d                                       make soak     the long forms of the crash tests
# make bench  figures of this machine                       make preflight  formatting, lints, documentation
# make deb    dist/predastore_*.deb                         make appliance-test  the package on machines under systemd
# make bench-fuse  figures of the mount beside ext4, s3fs and rclone mount
# make docker_s3d  a container image     make docker_compose_up, docker_compose_down  one box in it; BOXES=3: three
# make cluster  three boxes on this machine, data in ./boxes   make bench-cluster  figures of clusters beside one box

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := build

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
DATA ?= data

CLUSTER ?= boxes

DOCKER ?= docker
BOXES ?= 1
BOX = $(if $(filter 3,$(BOXES)),box-1,predastore)
CA = /var/lib/predastore/keys/$(if $(filter 3,$(BOXES)),cluster-ca.pem,ca.pem)
COMPOSE ?= $(DOCKER) compose -p predastore-$(BOXES) -f packaging/container/$(if $(filter 3,$(BOXES)),compose.cluster.yaml,compose.yaml)

.PHONY: run build deb appliance-test dev cluster test test-deps preflight bench bench-cluster bench-fuse soak fuzz clean \
	docker_s3d docker_compose_up docker_compose_down

build:
	@$(CARGO) build --release -p predastore-appliance
	mkdir -p bin
	install -m 755 $(TARGET)/release/s3d bin/s3d.new
	mv bin/s3d.new bin/s3d

run: build
	@echo
	@echo "Predastore serves https://localhost:8443 with its data in $(DATA); Ctrl-C ends it. In another shell, here:"
	@echo
	@echo '  eval "$$(bin/s3d credentials --env -data-dir $(DATA))"'
	@echo '  aws s3 mb s3://first'
	@echo '  aws s3 cp README.md s3://first/'
	@echo '  aws s3 ls s3://first'
	@echo
	exec bin/s3d -data-dir $(DATA)

cluster: build
	exec appliance/cluster.sh $(CLUSTER)

# Unoptimised, talkative, quick to build.
dev:
	exec $(CARGO) run -p predastore-appliance -- -data-dir $(DATA) -log-level info,predastore=debug,predastore_s3=debug

test-deps:
	tests/install-deps.sh $(abspath $(TARGET))

# The suites drive the development build, with its assertions: one build of everything serves all tests.
# Ends with the sum of all suites; the log stays in target/test.log.
test: test-deps
	@status=0
	$(CARGO) build --workspace
	S3D_BIN=$(abspath $(TARGET))/debug/s3d $(CARGO) test --workspace --no-fail-fast 2>&1 | tee $(TARGET)/test.log || status=$$?
	awk '/^test result:/ { passed += $$4; failed += $$6; ignored += $$8 } \
	     END { printf "%d passed, %d failed, %d ignored\n", passed, failed, ignored }' $(TARGET)/test.log
	exit $$status

preflight:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --workspace --no-deps --document-private-items

bench: build
	appliance/bench.sh

bench-cluster: build
	appliance/bench-cluster.sh

# As root; installs what it needs and is not there.
bench-fuse: test-deps build
	appliance/bench-fuse.sh

# The large forms; tests/README.md has the table. At least 500 kills and 100 shutdowns of a file system. Takes hours, and
# 80 GB of disk: 64 PUTs of 1 GiB at once.
soak: export PREDASTORE_TEST_KILLS ?= 300
soak: export PREDASTORE_TEST_SYNC_KILLS ?= 300
soak: export PREDASTORE_TEST_START_STRIDE ?= 1
soak: export PREDASTORE_TEST_SHUTDOWNS ?= 120
soak: export PREDASTORE_TEST_CLUSTER_KILLS ?= 100
soak: export PREDASTORE_TEST_CLUSTER_SHUTDOWNS ?= 40
soak: export PREDASTORE_TEST_LOSS_ROUNDS ?= 30
soak: export PREDASTORE_TEST_FLIPS ?= 1000
soak: export PREDASTORE_TEST_SPACE_STEPS ?= 3000
soak: export PREDASTORE_TEST_SPACE_SECONDS ?= 900
soak: export PREDASTORE_TEST_ROLLING_ROUNDS ?= 10
soak: export PREDASTORE_TEST_LINEAR_OPERATIONS ?= 2000000
soak: export PREDASTORE_TEST_PARTITIONS ?= 20
soak: export PREDASTORE_TEST_PAUSE_SECONDS ?= 60
soak: export PREDASTORE_TEST_FORGED ?= 1000
soak: export PREDASTORE_TEST_PUT_MIB ?= 1024
soak: export PREDASTORE_TEST_LARGE ?= 1
soak: export PREDASTORE_TEST_TREE ?= 3000
soak: export PREDASTORE_TEST_PAGE_SIZES ?= 1000
soak: export PREDASTORE_TEST_CROWD_SECONDS ?= 60
soak: export PREDASTORE_TEST_FSX_SECONDS ?= 3600
soak: export PREDASTORE_TEST_FIO_MIB ?= 512
soak: export PREDASTORE_TEST_STRESS_SECONDS ?= 30
soak: export PREDASTORE_TEST_SQLITE_TRANSACTIONS ?= 5000
soak: export PREDASTORE_TEST_MODEL_STEPS ?= 20000
soak: export PREDASTORE_TEST_RENAME_KEYS ?= 1000000
soak: export PREDASTORE_TEST_EVENT_KILLS ?= 200
soak: export PREDASTORE_TEST_MOUNT_KILLS ?= 1000
soak: export PREDASTORE_TEST_MOUNT_DEATHS ?= 10
soak: export PREDASTORE_TEST_OPEN_FILES ?= 100000
soak: export PREDASTORE_TEST_MOUNT_SHUTDOWNS ?= 100
soak: export PREDASTORE_TEST_MOUNT_MINUTES ?= 600
soak: test-deps build
	S3D_BIN=$(abspath bin/s3d) $(CARGO) test -p predastore-tests --no-fail-fast -- --nocapture

# Each fuzz target for FUZZ_SECONDS.
fuzz:
	tests/fuzz/run.sh $(or $(FUZZ_SECONDS),120)

clean:
	$(CARGO) clean
	rm -rf bin

# dist/predastore_*.deb and its debugging symbols, with the toolchain that is there.
deb:
	dpkg-checkbuilddeps -Ppkg.predastore.rustup
	dpkg-buildpackage -us -uc -b -Ppkg.predastore.rustup
	mkdir -p dist
	mv ../predastore_*.deb ../predastore-dbgsym_*.deb ../predastore_*.changes ../predastore_*.buildinfo dist/

# Of `make test` the part that installs the package, with the program that is built for users.
appliance-test: test-deps build
	S3D_BIN=$(abspath bin/s3d) $(CARGO) test -p predastore-tests --test appliance -- --nocapture

# Of what git has, as it stands here.
docker_s3d:
	git ls-files -z | tar -c --null -T - | $(DOCKER) build -t predastore -f packaging/container/Dockerfile -

docker_compose_up:
	$(DOCKER) image inspect predastore >/dev/null 2>&1 || $(MAKE) docker_s3d
	$(COMPOSE) up -d
	@echo
	@echo "S3 on https://localhost:$(if $(filter 3,$(BOXES)),8441 to 8443,8443). What its clients need to know; the authority's file is in there:"
	@echo
	@echo '  $(COMPOSE) exec -T $(BOX) predastore credentials --env'
	@echo '  $(COMPOSE) exec -T $(BOX) cat $(CA) >ca.pem'
	@echo '  export AWS_CA_BUNDLE=ca.pem'

# Its volumes stay: `docker volume ls`.
docker_compose_down:
	$(COMPOSE) down
