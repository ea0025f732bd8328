//! The directives that the operator sets itself. No user may: the CRD refuses them in `spec.config`, a managed server
//! in CONFIG SET. This is the one list of them, and of the CEL rules made of it.

/// What a directive of the operator is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Concern {
    /// Where members listen.
    Address,
    /// Where files are.
    Files,
    /// Who is master.
    Role,
    /// Passwords.
    Credentials,
    /// How the process runs.
    Process,
}

/// A group of directives, and the rule that refuses them, from one writing.
macro_rules! owned_directives {
    ($(#[$doc:meta])* $rule:ident, $list:ident = $first:literal $(, $name:literal)*) => {
        $(#[$doc])*
        pub const $rule: &str = concat!("self.all(k, !(k in ['", $first, "'" $(, ", '", $name, "'")*, "]))");
        const $list: &[&str] = &[$first $(, $name)*];
    };
}

owned_directives! {
    /// Refuses [`Concern::Address`] in `spec.config`.
    CONFIG_ADDRESS_RULE, ADDRESS = "port", "tls-port", "bind", "bind-source-addr", "unixsocket", "unixsocketperm", "protected-mode", "replica-announce-ip", "replica-announce-port", "slave-announce-ip", "slave-announce-port"
}
owned_directives! {
    /// Refuses [`Concern::Files`] in `spec.config`.
    CONFIG_FILES_RULE, FILES = "dir", "dbfilename", "appenddirname", "appendfilename", "include", "loadmodule", "aclfile", "rdb-del-sync-files"
}
owned_directives! {
    /// Refuses [`Concern::Role`] in `spec.config`.
    CONFIG_ROLE_RULE, ROLE = "replicaof", "slaveof", "replica-priority", "slave-priority", "replica-read-only", "slave-read-only", "cluster-enabled"
}
owned_directives! {
    /// Refuses [`Concern::Credentials`] in `spec.config`.
    CONFIG_CREDENTIAL_RULE, CREDENTIALS = "requirepass", "masterauth", "masteruser", "primaryauth", "primaryuser", "user", "accept-password"
}
owned_directives! {
    /// Refuses [`Concern::Process`] in `spec.config`.
    CONFIG_PROCESS_RULE, PROCESS = "daemonize", "supervised", "pidfile", "logfile", "syslog-enabled", "syslog-ident", "syslog-facility", "managed", "member-name", "control-port", "control-bind", "control-token-file", "metrics-port", "http-port", "lease", "lease-ms", "fleet-id"
}

/// What a directive is about that the operator sets, by its name in lower case; `None` for one that users may set.
pub fn concern_of(name: &str) -> Option<Concern> {
    let groups = [
        (ADDRESS, Concern::Address),
        (FILES, Concern::Files),
        (ROLE, Concern::Role),
        (CREDENTIALS, Concern::Credentials),
        (PROCESS, Concern::Process),
    ];
    let found = groups.into_iter().find(|(names, _)| names.contains(&name));
    found.map(|(_, concern)| concern)
}
