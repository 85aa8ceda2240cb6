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

# Three members at half, all and twice of what they can do: goodput and latency (docs/figures.md).
overload:
    cargo test --release -p synod-cli --test overload -- --ignored --nocapture

# Messages, bytes and syncs for each decision, for every protocol.
messages:
    cargo run --release -- simulate messages

# The store alone: applying, reading, freezing, memory (docs/adr/0003-store.md).
bench-store:
    cargo run --release -p synod-kv --example measure

# The log alone: records and syncs a second (docs/adr/0002-log.md).
bench-log:
    cargo run --release -p synod-wal --example append

# Every bit of a log flipped, one at a time; and in living clusters, one for each outcome (docs/simulator.md).
rot:
    cargo test --release -p synod-wal --test rot -- --ignored
    cargo test --release -p synod-sim --test raft -- --ignored --nocapture

# How the checker grows, as docs/checker-growth.svg.
bench-check:
    cargo run --release -p synod-check --example growth docs/checker-growth.svg

# Many simulated clusters under faults: `just sweep raft 100000` is a night's work.
sweep protocol="raft" seeds="1000":
    cargo run --release -- simulate --protocol {{protocol}} --seeds {{seeds}}

# How fast simulated time runs on one core (docs/simulator.md).
bench-sim:
    cargo run --release -p synod-sim --example speed

# One cluster lives for a simulated year, with every fault again and again (docs/simulator/year-raft.md).
year protocol="raft" days="365":
    cargo run --release -- simulate endure --protocol {{protocol}} --days {{days}} --into docs/simulator/year-{{protocol}}.md

# Our own code with one rule left out at a time, and the seed that shows it (docs/simulator/mutants-*.md).
mutants protocol="raft":
    cargo run --release -p synod-cli --features mutants -- simulate mutants --protocol {{protocol}} --into docs/simulator/mutants-{{protocol}}.md

# Figure 16 of the Raft paper, and what partial connectivity does (docs/papers/); before them the Byzantine generals.
papers: generals
    cargo run --release -- simulate papers

# The Byzantine generals, with oral and with signed messages (docs/papers/generals.md).
generals:
    cargo run --release -- simulate generals --into docs/papers/generals.md

# The eight shapes of partitions, with three, five and seven replicas.
partitions:
    cargo test --release -p synod-sim --test partitions -- --nocapture

# How long an adversary keeps two duelling proposers from choosing anything (docs/protocols/paxos.md).
duel:
    cargo run --release -p synod-protocols --example duel

# One fuzz target for so long (fuzz/fuzz_targets). Needs `cargo install cargo-fuzz` and a C++ compiler; no nightly.
fuzz target seconds="60":
    mkdir -p fuzz/target/grown/{{target}}
    cargo fuzz run -s none {{target}} fuzz/target/grown/{{target}} fuzz/corpus/{{target}} -- -max_total_time={{seconds}} -timeout=10

# Side by side with a real etcd: `just compare /usr/bin/etcd`; everything into target/compare.md and target/compare.json.
compare +etcd:
    bench/compare {{etcd}}

# etcd's own end-to-end tests that need neither TLS nor auth, against our binary. Needs Debian's golang-etcd-server-dev, golang-go, etcd-client.
e2e-etcd:
    bench/e2e-etcd

# What each protocol gives and costs, and how that grows with the members (docs/family.md).
family:
    cargo run --release -- bench family --markdown target/family.md
