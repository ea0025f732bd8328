//! Snapshots on disk, as commands ask for them.

use crate::{
    command::{CommandError, host::SavingHost},
    engine::{Core, saving::Running},
    persistence::snapshot,
};

impl SavingHost for Core {
    fn begin_save(&mut self) -> Result<(), CommandError> {
        self.check_not_saving()?;
        snapshot::begin_save(self);
        Ok(())
    }

    fn check_not_saving(&self) -> Result<(), CommandError> {
        match self.saving.running {
            Running::No => Ok(()),
            Running::Since(_) => Err(CommandError::new("ERR Background save already in progress")),
        }
    }
}
