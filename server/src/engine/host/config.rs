//! The configuration, as CONFIG asks for it and as the operator changes it.

use std::path::PathBuf;

use control::directives::{self, Concern};

use crate::{
    command::{CommandError, host::ConfigHost},
    config::{Config, HostPort, Locality, SetError, compat, directive, rewrite, set::Changed},
    descriptors,
    engine::{Core, encoding_limits, evict},
    keyspace::Keyspace,
    logging,
    replication::state::Role,
};

impl ConfigHost for Core {
    fn config_get(&self, patterns: &[&str]) -> Vec<(String, String)> {
        self.effective_config().matching(patterns)
    }

    fn config_set(
        &mut self,
        pairs: &[(&str, &str)],
        client: Locality,
        keyspace: &mut Keyspace,
    ) -> Result<(), CommandError> {
        self.check_owner(pairs)?;
        let changed = self.config.with(pairs, client);
        let changed = changed.map_err(|error| CommandError::owned(error.to_string()))?;
        check_descriptors(&changed)?;
        self.apply_config(changed, keyspace);
        Ok(())
    }

    fn check_config_file(&self) -> Result<(), CommandError> {
        if self.config.fleet.managed {
            return Err(CommandError::new(
                "ERR CONFIG REWRITE is not allowed: the configuration file of this server is written by its operator, \
                 from spec.config of the RedisReplicaSet",
            ));
        }
        self.config_to_write().map(drop)
    }

    fn reset_stats(&mut self) {
        self.stats.reset();
    }
}

/// A CONFIG REWRITE, taken out of the engine so that the lock is not held while the file is written and synced.
pub struct ConfigRewrite {
    path: PathBuf,
    config: Config,
}

impl ConfigRewrite {
    /// Writes the file. Takes as long as the disk does.
    pub fn run(self) -> Result<(), CommandError> {
        let path = self.path.display();
        rewrite::rewrite(&self.path, &self.config).map_err(|error| {
            tracing::warn!(%path, %error, "CONFIG REWRITE failed");
            CommandError::owned(format!("ERR Rewriting config file: {error}"))
        })?;
        tracing::info!(%path, "CONFIG REWRITE executed");
        Ok(())
    }
}

impl Core {
    /// Refuses what the operator of a managed server sets itself: a change by a client would undo it.
    fn check_owner(&self, pairs: &[(&str, &str)]) -> Result<(), CommandError> {
        if !self.config.fleet.managed {
            return Ok(());
        }
        let owned = pairs.iter().find_map(|(name, _)| {
            let directive = directive::find(name)?;
            let concern = directives::concern_of(directive.name)?;
            Some(((*name).to_owned(), concern))
        });
        let Some((name, concern)) = owned else {
            return Ok(());
        };
        let problem = format!(
            "it is managed by the operator of this server: {}",
            cure(concern)
        );
        Err(CommandError::owned(
            SetError::Failed { name, problem }.to_string(),
        ))
    }

    /// What CONFIG REWRITE has to write, and where.
    pub fn config_to_write(&self) -> Result<ConfigRewrite, CommandError> {
        let path = self.config_file.clone();
        let path = path
            .ok_or_else(|| CommandError::new("ERR The server is running without a config file"))?;
        Ok(ConfigRewrite {
            path,
            config: self.effective_config(),
        })
    }

    /// Puts a changed configuration in force: tells the parts that do not read it anew each time.
    pub fn apply_config(&mut self, changed: Changed, keyspace: &mut Keyspace) {
        self.config = changed.config;
        let config = &self.config;
        for name in changed.names {
            match name {
                "requirepass" => {
                    self.users
                        .set_requirepass(config.security.requirepass.as_bytes());
                }
                "maxmemory" | "maxmemory-policy" | "lfu-log-factor" | "lfu-decay-time" => {
                    evict::apply(&config.memory, keyspace);
                }
                "repl-backlog-size" => {
                    self.replication
                        .set_backlog_limit(config.replication.backlog_bytes);
                }
                "loglevel" => logging::set_level(config.log.level),
                "proto-max-bulk-len" | "client-query-buffer-limit" => {
                    self.shared.input_limits.set(&config.net);
                }
                // The others are read where they are used, each time.
                _ => {}
            }
            tracing::info!(name, "configuration changed");
            if let Some(note) = compat::note(name) {
                tracing::warn!("{note}");
            }
        }
        self.encoding_limits = encoding_limits(&config.encoding);
    }

    /// The configuration with the master that is followed at present: REPLICAOF changes it, too.
    fn effective_config(&self) -> Config {
        let mut config = self.config.clone();
        config.replication.replica_of = match self.replication.role() {
            Role::Master => None,
            // Under an operator the role is not configuration.
            Role::Replica(_) if config.fleet.managed => None,
            Role::Replica(master) => Some(HostPort {
                host: master.host.clone(),
                port: master.port,
            }),
        };
        config
    }
}

/// Makes room for as many connections as a new `maxclients` says, as far as the hard limit of the process allows.
fn check_descriptors(changed: &Changed) -> Result<(), CommandError> {
    const NAME: &str = "maxclients";
    if !changed.names.contains(&NAME) {
        return Ok(());
    }
    let net = &changed.config.net;
    descriptors::provide(net.max_clients, net.io_threads).map_err(|shortage| {
        let problem = format!(
            "The operating system is not able to handle the specified number of clients, try with {}",
            shortage.clients
        );
        let name = NAME.to_owned();
        CommandError::owned(SetError::Failed { name, problem }.to_string())
    })
}

/// What to do instead of changing a directive of the operator.
fn cure(concern: Concern) -> &'static str {
    match concern {
        Concern::Address => {
            "members listen where their set says; see spec.services of the RedisReplicaSet"
        }
        Concern::Files => {
            "data belong on the member's volume; see spec.storage of the RedisReplicaSet"
        }
        Concern::Role => "it assigns the roles, and the RedisReplicaSet has no field for them",
        Concern::Credentials => {
            "passwords come from the Secrets that spec.auth.clientSecretName and \
             spec.auth.replicationSecretName of the RedisReplicaSet name"
        }
        Concern::Process => {
            "how the process runs is fixed, and the RedisReplicaSet has no field for it"
        }
    }
}
