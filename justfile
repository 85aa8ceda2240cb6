# Everything that a person runs. `just` lists it.

_default:
    @just --list --unsorted

# Three members on loopback, ready for etcdctl.
demo:
    cargo run --release

# The whole ordinary test suite.
test:
    cargo test --workspace --release

# What must pass before a change lands.
ci:
    .ci/run

# Format and lint, as CI does.
lint:
    cargo fmt --all
    cargo clippy --workspace --all-targets -- -D warnings

# Write the golden traces anew; read the difference before committing it.
golden:
    SYNOD_UPDATE=1 cargo test --release -p synod-protocols --test golden

# Generate the etcd v3 messages from proto/ again.
codegen:
    cargo xtask codegen

# kill -9 of one, two and all members under load, fifty rounds.
crash rounds="50":
    SYNOD_CRASH_ROUNDS={{rounds}} cargo test --release -p synod-cli --test crash -- --nocapture

# The seam in one thread: commands a second through three replicas.
bench-seam:
    cargo run --release -p synod-replica --example seam

# One million keys on one member: memory, restart, a large range (docs/figures.md).
million:
    cargo test --release -p synod-cli --test million -- --ignored --nocapture

# The store alone: applying, reading, freezing, memory (docs/adr/0003-store.md).
bench-store:
    cargo run --release -p synod-kv --example measure

# The log alone: records and syncs a second (docs/adr/0002-log.md).
bench-log:
    cargo run --release -p synod-wal --example append

# Every bit of a log flipped, one at a time.
rot:
    cargo test --release -p synod-wal --test rot -- --ignored

# How the checker grows, as docs/checker-growth.svg.
bench-check:
    cargo run --release -p synod-check --example growth docs/checker-growth.svg

# Many simulated clusters under faults.
sweep protocol="raft" seeds="1000":
    cargo run --release -- simulate --protocol {{protocol}} --seeds {{seeds}}

# One fuzz target for so long (fuzz/fuzz_targets). Needs `cargo install cargo-fuzz` and a C++ compiler; no nightly.
fuzz target seconds="60":
    mkdir -p fuzz/target/grown/{{target}}
    cargo fuzz run -s none {{target}} fuzz/target/grown/{{target}} fuzz/corpus/{{target}} -- -max_total_time={{seconds}} -timeout=10
