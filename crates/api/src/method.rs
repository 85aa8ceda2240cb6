//! Every method of every service: one table for the gRPC server, the JSON gateway, the metrics and the tests.

use prost_reflect::{MessageDescriptor, MethodDescriptor};

use crate::descriptors;

/// Which sides of a call send many messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One request, one reply.
    Unary,
    /// One request, many replies.
    ServerStream,
    /// Many of both.
    BidiStream,
}

impl Shape {
    /// The name that gRPC metrics use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Shape::Unary => "unary",
            Shape::ServerStream => "server_stream",
            Shape::BidiStream => "bidi_stream",
        }
    }
}

macro_rules! methods {
    ($($name:ident $shape:ident $service:literal $method:literal [$($rest:literal)*])*) => {
        /// A method of a service. The order is by how often it is looked up.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[allow(missing_docs)]
        pub enum Method {
            $($name,)*
        }

        impl Method {
            /// All of them; a method's place is its discriminant.
            pub const ALL: &'static [Method] = &[$(Method::$name,)*];

            /// The method behind a gRPC path (`/package.Service/Method`).
            #[must_use]
            pub fn by_path(path: &str) -> Option<Method> {
                match path {
                    $(concat!("/", $service, "/", $method) => Some(Method::$name),)*
                    // The older name of the same service, with the same messages.
                    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => Some(Method::Reflection),
                    _ => None,
                }
            }

            /// The method behind a path of the JSON gateway (`/v3/...`).
            #[must_use]
            pub fn by_rest(path: &str) -> Option<Method> {
                match path {
                    $($($rest => Some(Method::$name),)*)*
                    _ => None,
                }
            }

            /// The gRPC path.
            #[must_use]
            pub fn path(self) -> &'static str {
                match self {
                    $(Method::$name => concat!("/", $service, "/", $method),)*
                }
            }

            /// The paths of the JSON gateway, the customary one first; none for what it does not offer.
            #[must_use]
            pub fn rest(self) -> &'static [&'static str] {
                match self {
                    $(Method::$name => &[$($rest),*],)*
                }
            }

            /// The service's full name.
            #[must_use]
            pub fn service(self) -> &'static str {
                match self {
                    $(Method::$name => $service,)*
                }
            }

            /// The method's name within its service.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Method::$name => $method,)*
                }
            }

            /// Which sides send many messages.
            #[must_use]
            pub fn shape(self) -> Shape {
                match self {
                    $(Method::$name => Shape::$shape,)*
                }
            }
        }
    };
}

methods! {
    Put Unary "etcdserverpb.KV" "Put" ["/v3/kv/put"]
    Range Unary "etcdserverpb.KV" "Range" ["/v3/kv/range"]
    Txn Unary "etcdserverpb.KV" "Txn" ["/v3/kv/txn"]
    DeleteRange Unary "etcdserverpb.KV" "DeleteRange" ["/v3/kv/deleterange"]
    Compact Unary "etcdserverpb.KV" "Compact" ["/v3/kv/compaction"]
    RangeStream ServerStream "etcdserverpb.KV" "RangeStream" []
    Watch BidiStream "etcdserverpb.Watch" "Watch" ["/v3/watch"]
    LeaseGrant Unary "etcdserverpb.Lease" "LeaseGrant" ["/v3/lease/grant"]
    LeaseRevoke Unary "etcdserverpb.Lease" "LeaseRevoke" ["/v3/lease/revoke" "/v3/kv/lease/revoke"]
    LeaseKeepAlive BidiStream "etcdserverpb.Lease" "LeaseKeepAlive" ["/v3/lease/keepalive"]
    LeaseTimeToLive Unary "etcdserverpb.Lease" "LeaseTimeToLive" ["/v3/lease/timetolive" "/v3/kv/lease/timetolive"]
    LeaseLeases Unary "etcdserverpb.Lease" "LeaseLeases" ["/v3/lease/leases" "/v3/kv/lease/leases"]
    Status Unary "etcdserverpb.Maintenance" "Status" ["/v3/maintenance/status"]
    Alarm Unary "etcdserverpb.Maintenance" "Alarm" ["/v3/maintenance/alarm"]
    Defragment Unary "etcdserverpb.Maintenance" "Defragment" ["/v3/maintenance/defragment"]
    Hash Unary "etcdserverpb.Maintenance" "Hash" ["/v3/maintenance/hash"]
    HashKv Unary "etcdserverpb.Maintenance" "HashKV" ["/v3/maintenance/hashkv"]
    Snapshot ServerStream "etcdserverpb.Maintenance" "Snapshot" ["/v3/maintenance/snapshot"]
    MoveLeader Unary "etcdserverpb.Maintenance" "MoveLeader" ["/v3/maintenance/transfer-leadership"]
    Downgrade Unary "etcdserverpb.Maintenance" "Downgrade" ["/v3/maintenance/downgrade"]
    MemberList Unary "etcdserverpb.Cluster" "MemberList" ["/v3/cluster/member/list"]
    MemberAdd Unary "etcdserverpb.Cluster" "MemberAdd" ["/v3/cluster/member/add"]
    MemberRemove Unary "etcdserverpb.Cluster" "MemberRemove" ["/v3/cluster/member/remove"]
    MemberUpdate Unary "etcdserverpb.Cluster" "MemberUpdate" ["/v3/cluster/member/update"]
    MemberPromote Unary "etcdserverpb.Cluster" "MemberPromote" ["/v3/cluster/member/promote"]
    AuthEnable Unary "etcdserverpb.Auth" "AuthEnable" ["/v3/auth/enable"]
    AuthDisable Unary "etcdserverpb.Auth" "AuthDisable" ["/v3/auth/disable"]
    AuthStatus Unary "etcdserverpb.Auth" "AuthStatus" ["/v3/auth/status"]
    Authenticate Unary "etcdserverpb.Auth" "Authenticate" ["/v3/auth/authenticate"]
    UserAdd Unary "etcdserverpb.Auth" "UserAdd" ["/v3/auth/user/add"]
    UserGet Unary "etcdserverpb.Auth" "UserGet" ["/v3/auth/user/get"]
    UserList Unary "etcdserverpb.Auth" "UserList" ["/v3/auth/user/list"]
    UserDelete Unary "etcdserverpb.Auth" "UserDelete" ["/v3/auth/user/delete"]
    UserChangePassword Unary "etcdserverpb.Auth" "UserChangePassword" ["/v3/auth/user/changepw"]
    UserGrantRole Unary "etcdserverpb.Auth" "UserGrantRole" ["/v3/auth/user/grant"]
    UserRevokeRole Unary "etcdserverpb.Auth" "UserRevokeRole" ["/v3/auth/user/revoke"]
    RoleAdd Unary "etcdserverpb.Auth" "RoleAdd" ["/v3/auth/role/add"]
    RoleGet Unary "etcdserverpb.Auth" "RoleGet" ["/v3/auth/role/get"]
    RoleList Unary "etcdserverpb.Auth" "RoleList" ["/v3/auth/role/list"]
    RoleDelete Unary "etcdserverpb.Auth" "RoleDelete" ["/v3/auth/role/delete"]
    RoleGrantPermission Unary "etcdserverpb.Auth" "RoleGrantPermission" ["/v3/auth/role/grant"]
    RoleRevokePermission Unary "etcdserverpb.Auth" "RoleRevokePermission" ["/v3/auth/role/revoke"]
    Lock Unary "v3lockpb.Lock" "Lock" ["/v3/lock/lock"]
    Unlock Unary "v3lockpb.Lock" "Unlock" ["/v3/lock/unlock"]
    Campaign Unary "v3electionpb.Election" "Campaign" ["/v3/election/campaign"]
    Proclaim Unary "v3electionpb.Election" "Proclaim" ["/v3/election/proclaim"]
    Leader Unary "v3electionpb.Election" "Leader" ["/v3/election/leader"]
    Observe ServerStream "v3electionpb.Election" "Observe" ["/v3/election/observe"]
    Resign Unary "v3electionpb.Election" "Resign" ["/v3/election/resign"]
    HealthCheck Unary "grpc.health.v1.Health" "Check" []
    HealthWatch ServerStream "grpc.health.v1.Health" "Watch" []
    Reflection BidiStream "grpc.reflection.v1.ServerReflection" "ServerReflectionInfo" []
    Testify BidiStream "synod.Witness" "Testify" []
}

impl Method {
    /// Whether a call may take as long as other clients like: the waiting is the call.
    #[must_use]
    pub fn waits_for_others(self) -> bool {
        matches!(self, Method::Lock | Method::Campaign)
    }

    /// Whether a stream of this method ends only when somebody ends it.
    #[must_use]
    pub fn is_endless(self) -> bool {
        self.shape() == Shape::BidiStream || matches!(self, Method::Observe | Method::HealthWatch)
    }

    /// The description of the method.
    #[must_use]
    pub fn descriptor(self) -> MethodDescriptor {
        let service = descriptors().get_service_by_name(self.service());
        let method =
            service.and_then(|service| service.methods().find(|method| method.name() == self.name()));
        method.expect("the table names only methods that the .proto files have: a test compares them")
    }

    /// The description of what it takes.
    #[must_use]
    pub fn input(self) -> MessageDescriptor {
        self.descriptor().input()
    }

    /// The description of what it gives.
    #[must_use]
    pub fn output(self) -> MessageDescriptor {
        self.descriptor().output()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The table and the `.proto` files name the same methods with the same shapes; nothing is forgotten.
    #[test]
    fn the_table_is_complete() {
        let described: BTreeSet<String> = descriptors()
            .services()
            .flat_map(|service| {
                service
                    .methods()
                    .map(|method| format!("/{}/{}", service.full_name(), method.name()))
                    .collect::<Vec<_>>()
            })
            .collect();
        let listed: BTreeSet<String> = Method::ALL.iter().map(|method| method.path().to_owned()).collect();
        assert_eq!(listed, described);
        for (place, &method) in Method::ALL.iter().enumerate() {
            assert_eq!(method as usize, place);
            let descriptor = method.descriptor();
            let shape = match (descriptor.is_client_streaming(), descriptor.is_server_streaming()) {
                (false, false) => Shape::Unary,
                (false, true) => Shape::ServerStream,
                (true, _) => Shape::BidiStream,
            };
            assert_eq!(method.shape(), shape, "{method:?}");
        }
    }

    /// Every path finds the method that it belongs to, and no path belongs to two.
    #[test]
    fn paths_lead_back() {
        let mut seen = BTreeSet::new();
        for &method in Method::ALL {
            assert_eq!(Method::by_path(method.path()), Some(method));
            for rest in method.rest() {
                assert_eq!(Method::by_rest(rest), Some(method));
                assert!(seen.insert(*rest), "{rest} twice");
            }
        }
        assert_eq!(Method::by_path("/etcdserverpb.KV/Nope"), None);
        assert_eq!(Method::by_rest("/v3/kv/nope"), None);
    }
}
