//! Users and passwords, as commands ask for them.

use crate::{
    command::{
        CommandError,
        host::{AuthHost, NeedsPassword, OpenDefault, PasswordChange, UserView},
        session::Session,
    },
    engine::{Core, users::Access},
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

    fn users(&self) -> Vec<UserView> {
        let view = |user: &crate::engine::users::User| UserView {
            name: user.name.clone(),
            scope: user.scope,
            needs_password: match user.access {
                Access::Open => NeedsPassword::No,
                Access::Password => NeedsPassword::Yes,
            },
            digests: user.passwords.clone(),
        };
        self.users.iter().map(view).collect()
    }

    fn change_passwords<'a>(
        &mut self,
        changes: &[(&'a [u8], PasswordChange<'a>)],
    ) -> Result<(), (&'a [u8], String)> {
        if let (true, Some((word, _))) = (self.config.fleet.managed, changes.first()) {
            let problem = "the passwords of this server are managed by its operator";
            return Err((word, problem.to_owned()));
        }
        let mut users = self.users.clone();
        for (word, change) in changes {
            let changed = users.change_default(*change);
            changed.map_err(|problem| (*word, problem.to_owned()))?;
        }
        self.users = users;
        Ok(())
    }

    fn default_user_is_open(&self) -> OpenDefault {
        match self.users.open_login() {
            Some(_) => OpenDefault::Yes,
            None => OpenDefault::No,
        }
    }
}
