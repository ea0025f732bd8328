# The names that people, README and CI use. What they do is in the scripts they call; `make help` lists them.
.PHONY: help demo demo-env demo-status demo-down test lint fmt crds images cluster-tools

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: ## Redfleet on a three-node Kubernetes of this machine (root; or in the cluster of KUBECONFIG)
	@tests/cluster/demo.sh up

demo-env: ## what to eval for kubectl, helm and KUBECONFIG of the demo: eval "$(make -s demo-env)"
	@tests/cluster/demo.sh env

demo-status: ## nodes, sets and pods of the demo
	@tests/cluster/demo.sh status

demo-down: ## removes the demo with all its data
	@tests/cluster/demo.sh down

test: ## all tests: functions to peers, then on three nodes (root; or with the cluster of KUBECONFIG)
	@tests/run.sh

lint: ## formatting and lints, warnings are errors
	@tests/lint.sh

fmt: ## formats the Rust code
	cargo fmt --all

crds: ## writes the generated files anew: crds/, the chart's copy, docs/crd.md … (a test proves them fresh)
	@bash -c '. tests/cluster/lib.sh; cargo_static; REDFLEET_WRITE=1 cargo test --locked -q --workspace --test generated'

images: ## image archives of server and operator into target/images
	@tests/cluster/packages.sh cluster && tests/cluster/images.sh target/images "$$(tests/cluster/programs.sh release)" && ls -l target/images

cluster-tools: ## Kubernetes, etcd, Helm and CoreDNS from their Go modules, once, outside the checkout
	@tests/cluster/build.sh
