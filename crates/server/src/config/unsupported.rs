//! The flags of etcd that Synod knows but does not act upon, with the values that are true all the same.

use super::flag::{Flag, Kind, Support};

const fn only(name: &'static str, values: &'static [&'static str], lacks: &'static str) -> Flag {
    Flag { name, kind: Kind::Value, default: values[0], support: Support::Only { values, lacks }, help: "" }
}

const fn never(name: &'static str, lacks: &'static str) -> Flag {
    let support = Support::Only { values: &["false"], lacks };
    Flag { name, kind: Kind::Switch, default: "false", support, help: "" }
}

const fn always(name: &'static str, lacks: &'static str) -> Flag {
    let support = Support::Only { values: &["true"], lacks };
    Flag { name, kind: Kind::Switch, default: "true", support, help: "" }
}

const TLS: &str = "TLS is not supported yet";
const AUTH: &str = "authentication is not supported yet";
const DISCOVERY: &str = "discovery is not supported yet: list the members in --initial-cluster";
const PROXY: &str = "the v2 proxy is not supported";
const CORRUPTION: &str = "the periodic corruption check is not supported yet";
const LOGGING: &str = "log files and their rotation are not supported yet";
const TRACING: &str = "distributed tracing is not supported yet";
const BACKEND: &str = "there is no bbolt backend to tune";
const CATCH_UP: &str = "what is kept for members that lag is bounded in bytes, not in entries";
const V2: &str = "the v2 API is not supported";
const MEMBERS: &str = "the guards of changes of the members cannot be moved yet";

/// See the module's text.
pub(super) const UNSUPPORTED: &[Flag] = &[
    only("config-file", &[""], "a configuration file is not supported yet: use flags or ETCD_* variables"),
    only("snapshot-catchup-entries", &["5000"], CATCH_UP),
    only("experimental-snapshot-catchup-entries", &["5000"], CATCH_UP),
    only("wal-dir", &[""], "a separate folder for the log is not supported yet"),
    only("max-wals", &["5", "0"], "the log keeps exactly the segments that a restart needs"),
    only("backend-batch-interval", &["", "0s", "0", "100ms"], BACKEND),
    only("backend-batch-limit", &["0", "10000"], BACKEND),
    only("backend-bbolt-freelist-type", &["array", "map"], BACKEND),
    only("experimental-backend-bbolt-freelist-type", &["array", "map"], BACKEND),
    only("experimental-bootstrap-defrag-threshold-megabytes", &["0"], BACKEND),
    only("bootstrap-defrag-threshold-megabytes", &["0"], BACKEND),
    only("experimental-txn-mode-write-with-shared-buffer", &["true", "false"], BACKEND),
    never("experimental-memory-mlock", "locking the memory is not supported yet"),
    never("memory-mlock", "locking the memory is not supported yet"),
    always("experimental-initial-election-tick-advance", "it is called --initial-election-tick-advance"),
    only("max-learners", &["1"], MEMBERS),
    only("experimental-max-learners", &["1"], MEMBERS),
    always("enable-grpc-gateway", "the JSON gateway cannot be turned off yet"),
    only("listen-client-http-urls", &[""], "a separate port for HTTP is not supported yet"),
    only("grpc-keepalive-min-time", &["5s"], "clients may ping as often as they like"),
    only("grpc-keepalive-interval", &["2h0m0s", "2h"], "the interval of server pings cannot be changed yet"),
    only("grpc-keepalive-timeout", &["20s"], "the timeout of server pings cannot be changed yet"),
    only("warning-unary-request-duration", &["300ms"], "slow requests are not logged yet"),
    only("experimental-warning-unary-request-duration", &["300ms"], "slow requests are not logged yet"),
    only("compaction-batch-limit", &["1000"], "compaction paces itself"),
    only("experimental-compaction-batch-limit", &["1000"], "compaction paces itself"),
    only("compaction-sleep-interval", &["10ms"], "compaction paces itself"),
    only("experimental-compaction-sleep-interval", &["10ms"], "compaction paces itself"),
    only("local-address", &[""], "choosing the address of outgoing connections is not supported yet"),
    only(
        "set-member-localaddr",
        &["false"],
        "choosing the address of outgoing connections is not supported yet",
    ),
    only("feature-gates", &[""], "there are no feature gates yet"),
    never("experimental-stop-grpc-service-on-defrag", "defragmenting never interrupts the service"),
    // Lease checkpoints are replicated and kept always, as etcd 3.6 and later do by default.
    never("experimental-enable-lease-checkpoint", "lease checkpoints follow etcd 3.6's rule"),
    never("experimental-enable-lease-checkpoint-persist", "lease checkpoints follow etcd 3.6's rule"),
    never("force-new-cluster", "disaster recovery into a new cluster is not supported yet"),
    never("unsafe-no-fsync", "every acknowledged write is on disk: this cannot be turned off"),
    never("enable-pprof", "there is no Go runtime to profile"),
    only("downgrade-check-time", &["5s"], "downgrades are not supported"),
    only("experimental-downgrade-check-time", &["5s"], "downgrades are not supported"),
    // Security.
    only("cert-file", &[""], TLS),
    only("key-file", &[""], TLS),
    only("client-cert-file", &[""], TLS),
    only("client-key-file", &[""], TLS),
    never("client-cert-auth", TLS),
    only("client-crl-file", &[""], TLS),
    only("client-cert-allowed-hostname", &[""], TLS),
    only("trusted-ca-file", &[""], TLS),
    never("auto-tls", TLS),
    only("peer-cert-file", &[""], TLS),
    only("peer-key-file", &[""], TLS),
    only("peer-client-cert-file", &[""], TLS),
    only("peer-client-key-file", &[""], TLS),
    never("peer-client-cert-auth", TLS),
    only("peer-trusted-ca-file", &[""], TLS),
    only("peer-cert-allowed-cn", &[""], TLS),
    only("peer-cert-allowed-hostname", &[""], TLS),
    never("peer-auto-tls", TLS),
    only("peer-crl-file", &[""], TLS),
    never("peer-skip-client-san-verification", TLS),
    never("experimental-peer-skip-client-san-verification", TLS),
    only("self-signed-cert-validity", &["1"], TLS),
    only("cipher-suites", &[""], TLS),
    only("tls-min-version", &["TLS1.2", ""], TLS),
    only("tls-max-version", &[""], TLS),
    only("auth-token", &["simple"], AUTH),
    only("bcrypt-cost", &["10"], AUTH),
    only("auth-token-ttl", &["300"], AUTH),
    // Discovery.
    only("discovery", &[""], DISCOVERY),
    only("discovery-fallback", &["exit", "proxy"], DISCOVERY),
    only("discovery-proxy", &[""], DISCOVERY),
    only("discovery-srv", &[""], DISCOVERY),
    only("discovery-srv-name", &[""], DISCOVERY),
    only("discovery-token", &[""], DISCOVERY),
    only("discovery-endpoints", &[""], DISCOVERY),
    only("discovery-dial-timeout", &["2s"], DISCOVERY),
    only("discovery-request-timeout", &["5s"], DISCOVERY),
    only("discovery-keepalive-time", &["2s"], DISCOVERY),
    only("discovery-keepalive-timeout", &["6s"], DISCOVERY),
    never("discovery-insecure-transport", DISCOVERY),
    never("discovery-insecure-skip-tls-verify", DISCOVERY),
    only("discovery-cert", &[""], DISCOVERY),
    only("discovery-key", &[""], DISCOVERY),
    only("discovery-cacert", &[""], DISCOVERY),
    only("discovery-user", &[""], DISCOVERY),
    only("discovery-password", &[""], DISCOVERY),
    // Checks and observation.
    // True either way: a start verifies the checksum of every record and of the whole snapshot before anything is served.
    Flag { kind: Kind::Switch, ..only("initial-corrupt-check", &["false", "true"], CORRUPTION) },
    Flag { kind: Kind::Switch, ..only("experimental-initial-corrupt-check", &["false", "true"], CORRUPTION) },
    only("corrupt-check-time", &["0s", "0"], CORRUPTION),
    only("experimental-corrupt-check-time", &["0s", "0"], CORRUPTION),
    never("compact-hash-check-enabled", CORRUPTION),
    never("experimental-compact-hash-check-enabled", CORRUPTION),
    only("compact-hash-check-time", &["1m0s", "1m"], CORRUPTION),
    only("experimental-compact-hash-check-time", &["1m0s", "1m"], CORRUPTION),
    only("logger", &["zap"], "the logger is always a structured one"),
    never("enable-log-rotation", LOGGING),
    only("log-rotation-config-json", &[""], LOGGING),
    only("log-package-levels", &[""], LOGGING),
    never("debug", "use --log-level=debug"),
    never("enable-distributed-tracing", TRACING),
    only("distributed-tracing-address", &["localhost:4317"], TRACING),
    only("distributed-tracing-service-name", &["etcd"], TRACING),
    only("distributed-tracing-instance-id", &[""], TRACING),
    only("distributed-tracing-sampling-rate", &["0"], TRACING),
    never("experimental-enable-distributed-tracing", TRACING),
    only("experimental-distributed-tracing-address", &["localhost:4317"], TRACING),
    only("experimental-distributed-tracing-service-name", &["etcd"], TRACING),
    only("experimental-distributed-tracing-instance-id", &[""], TRACING),
    only("experimental-distributed-tracing-sampling-rate", &["0"], TRACING),
    // Version 2 of the API, gone upstream as well.
    never("enable-v2", V2),
    only("experimental-enable-v2v3", &[""], V2),
    only("v2-deprecation", &["write-only", "write-only-drop-data", "gone"], V2),
    only("proxy", &["off"], PROXY),
    only("proxy-failure-wait", &["5000"], PROXY),
    only("proxy-refresh-interval", &["30000"], PROXY),
    only("proxy-dial-timeout", &["1000"], PROXY),
    only("proxy-write-timeout", &["5000"], PROXY),
    only("proxy-read-timeout", &["0"], PROXY),
];
