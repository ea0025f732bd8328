//! Users and passwords, as commands ask for them.

use crate::{
    command::{
        CommandError,
        host::{AuthHost, OpenDefault},
        session::Session,
    },
    engine::Core,
};

const WRONG_PASSWORD: CommandError =
    CommandError::new("WRONGPASS invalid username-password pair or user is disabled.");

impl AuthHost for Core {
    fn authenticate(
        &mut self,
        session: &mut Session,
        user: &[u8],
        password: &[u8],
    ) -> Result<(), CommandError> {
        let login = self
            .users
            .authenticate(user, password)
            .ok_or(WRONG_PASSWORD)?;
        session.login = Some(login);
        Ok(())
    }

    fn default_user_is_open(&self) -> OpenDefault {
        match self.users.open_login() {
            Some(_) => OpenDefault::Yes,
            None => OpenDefault::No,
        }
    }
}
