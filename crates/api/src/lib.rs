//! The etcd v3 interface as Rust types: messages, methods, and descriptions that can be read at run time.
//!
//! The messages are generated from `proto/*.proto` (`cargo xtask codegen`) and committed. [`Method`] is the table of
//! every method of every service: its gRPC path, its REST paths, its shape. The generated clients stand behind the
//! cargo feature `client`; server traits are left out on purpose, because the server has one boundary for all methods.

mod method;

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

pub use method::{Method, Shape};

macro_rules! generated {
    ($(#[$doc:meta] $name:ident = $file:literal;)*) => {$(
        #[$doc]
        #[allow(missing_docs, clippy::all, unreachable_pub)]
        pub mod $name {
            include!(concat!("gen/", $file));
        }
    )*};
}

generated! {
    /// Users, roles and permissions.
    authpb = "authpb.rs";
    /// The services of an etcd server and their messages.
    etcdserverpb = "etcdserverpb.rs";
    /// gRPC's standard health check.
    health = "grpc.health.v1.rs";
    /// Key-value pairs and their changes.
    mvccpb = "mvccpb.rs";
    /// gRPC's standard server reflection.
    reflection = "grpc.reflection.v1.rs";
    /// Elections as a service.
    v3electionpb = "v3electionpb.rs";
    /// What members of a PBFT cluster testify to a proxy.
    synod = "synod.rs";
    /// Locks as a service.
    v3lockpb = "v3lockpb.rs";
}

/// The compiled descriptions of all `.proto` files, as a serialised `FileDescriptorSet`.
pub static FILE_DESCRIPTORS: &[u8] = include_bytes!("gen/descriptors.bin");

/// The same, linked and ready to be asked.
pub fn descriptors() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        DescriptorPool::decode(FILE_DESCRIPTORS).expect("the committed descriptions are what protox wrote")
    });
    &POOL
}
