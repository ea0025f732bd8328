//! The one table of commands: every family's specs, found by name in any case.

use std::sync::LazyLock;

use resp::Args;

use super::{
    CommandSpec, acl, config, connection, expiry, hash, introspection, keys, list, object,
    replication, saving, server, set, sorted_set, string, transaction,
};

/// A command or subcommand with what is derived from its place in the table.
#[derive(Debug)]
pub struct CommandEntry {
    /// The description.
    pub spec: &'static CommandSpec,
    /// `get`, or `config|get` for a subcommand.
    pub full_name: String,
    /// Position in statistics arrays, below [`Table::len`].
    pub id: usize,
    /// Subcommands.
    pub subcommands: Vec<CommandEntry>,
}

/// All commands.
#[derive(Debug)]
pub struct Table {
    entries: Vec<CommandEntry>,
    /// Open addressing, a power of two of slots: position in `entries` + 1, 0 for empty.
    slots: Vec<u16>,
    len: usize,
}

/// Every family, in the order in which `COMMAND` lists them.
const FAMILIES: &[&[CommandSpec]] = &[
    string::COMMANDS,
    keys::COMMANDS,
    expiry::COMMANDS,
    object::COMMANDS,
    list::COMMANDS,
    hash::COMMANDS,
    set::COMMANDS,
    sorted_set::COMMANDS,
    transaction::COMMANDS,
    connection::COMMANDS,
    acl::COMMANDS,
    server::COMMANDS,
    config::COMMANDS,
    introspection::COMMANDS,
    replication::COMMANDS,
    saving::COMMANDS,
];

/// Number of slots: several times the number of commands, so that most names are alone in theirs.
const SLOTS: usize = 2048;

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::new(FAMILIES));

/// The table of this server.
pub fn table() -> &'static Table {
    &TABLE
}

impl Table {
    fn new(families: &[&'static [CommandSpec]]) -> Self {
        let mut table = Table {
            entries: Vec::new(),
            slots: vec![0; SLOTS],
            len: 0,
        };
        for spec in families.iter().flat_map(|family| family.iter()) {
            let entry = table.make(spec, None);
            table.entries.push(entry);
            let mut slot = slot_of(spec.name.as_bytes());
            while table.slots[slot] != 0 {
                slot = (slot + 1) % SLOTS;
            }
            table.slots[slot] = table.entries.len() as u16;
        }
        table
    }

    fn make(&mut self, spec: &'static CommandSpec, container: Option<&str>) -> CommandEntry {
        let id = self.len;
        self.len += 1;
        let full_name = match container {
            Some(container) => format!("{container}|{}", spec.name),
            None => spec.name.to_owned(),
        };
        let subcommands = spec
            .subcommands
            .iter()
            .map(|sub| self.make(sub, Some(spec.name)));
        CommandEntry {
            spec,
            full_name,
            id,
            subcommands: subcommands.collect(),
        }
    }

    /// Number of commands and subcommands.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: a server without commands does not start.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The commands in the order of the families, without subcommands.
    pub fn commands(&self) -> &[CommandEntry] {
        &self.entries
    }

    /// Commands and subcommands, in the order of their ids.
    pub fn all(&self) -> impl Iterator<Item = &CommandEntry> {
        self.entries
            .iter()
            .flat_map(|entry| std::iter::once(entry).chain(&entry.subcommands))
    }

    /// The command called `name`, in any case.
    pub fn command(&self, name: &[u8]) -> Option<&CommandEntry> {
        let mut slot = slot_of(name);
        loop {
            let entry = &self.entries[usize::from(self.slots[slot]).checked_sub(1)?];
            if entry.spec.name.as_bytes().eq_ignore_ascii_case(name) {
                return Some(entry);
            }
            slot = (slot + 1) % SLOTS;
        }
    }

    /// The command or subcommand that a request names; the container where the second argument names no subcommand.
    pub fn find(&self, args: Args<'_>) -> Option<&CommandEntry> {
        let entry = self.command(args.get(0)?)?;
        if entry.subcommands.is_empty() {
            return Some(entry);
        }
        let Some(name) = args.get(1) else {
            return Some(entry);
        };
        Some(entry.subcommand(name).unwrap_or(entry))
    }
}

impl CommandEntry {
    /// Whether its second argument has to name a subcommand.
    pub fn is_container(&self) -> bool {
        !self.subcommands.is_empty()
    }

    /// The subcommand called `name`, in any case.
    pub fn subcommand(&self, name: &[u8]) -> Option<&CommandEntry> {
        self.subcommands
            .iter()
            .find(|sub| sub.spec.name.as_bytes().eq_ignore_ascii_case(name))
    }
}

/// Home slot of a name: its first and last eight bytes, folded to lower case.
fn slot_of(name: &[u8]) -> usize {
    let mut head = [0u8; 8];
    let mut tail = [0u8; 8];
    let n = name.len().min(8);
    head[..n].copy_from_slice(&name[..n]);
    tail[..n].copy_from_slice(&name[name.len() - n..]);
    let fold = |bytes: [u8; 8]| u64::from_le_bytes(bytes) | 0x2020_2020_2020_2020;
    let mixed = (fold(head) ^ fold(tail).rotate_left(23) ^ name.len() as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 53) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_by_its_name_in_any_case() {
        let table = table();
        assert!(table.len() < SLOTS / 2);
        for entry in table.commands() {
            let upper = entry.spec.name.to_ascii_uppercase();
            assert_eq!(
                table.command(upper.as_bytes()).unwrap().id,
                entry.id,
                "{upper}"
            );
        }
        assert!(table.command(b"no-such-command").is_none());
        assert!(table.command(b"").is_none());
    }

    #[test]
    fn every_command_is_documented_and_consistent() {
        for entry in table().all() {
            let spec = entry.spec;
            let name = &entry.full_name;
            assert!(!spec.summary.is_empty(), "{name} has no summary");
            assert_ne!(spec.arity, 0, "{name} has no arity");
            let both = super::super::Flags::WRITE.with(super::super::Flags::READONLY);
            assert!(!spec.flags.contains(both), "{name} is both read and write");
            assert_eq!(spec.name, spec.name.to_ascii_lowercase());
        }
    }
}
