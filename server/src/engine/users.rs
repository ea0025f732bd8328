//! Users and their passwords. Each user may have several passwords at once, which is what lets a
//! password be rotated without a refused login: the new one is added, clients move, the old goes.
//!
//! Passwords are kept as SHA-256 digests and compared in constant time.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::command::{
    host::PasswordChange,
    session::{Login, Scope},
};

/// SHA-256 of a password.
pub type PasswordDigest = [u8; 32];

/// Most passwords one user may have at a time.
pub const MAX_PASSWORDS_PER_USER: usize = 64;

/// Name of the user that a bare `AUTH password` means.
pub const DEFAULT_USER: &str = "default";

/// All users. `default` always exists and is the first.
#[derive(Debug, Clone)]
pub struct Users {
    users: Vec<User>,
}

/// One user.
#[derive(Debug, Clone)]
pub struct User {
    /// Name, case-sensitive.
    pub name: Arc<str>,
    /// What the user may do.
    pub scope: Scope,
    /// Digests of the valid passwords, oldest first.
    pub passwords: Vec<PasswordDigest>,
    /// Whether the user needs a password at all.
    pub access: Access,
}

/// Whether a password is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody may be this user.
    Open,
    /// One of the passwords is needed.
    Password,
}

impl Default for Users {
    fn default() -> Self {
        let default = User {
            name: Arc::from(DEFAULT_USER),
            scope: Scope::Everything,
            passwords: Vec::new(),
            access: Access::Open,
        };
        Self {
            users: vec![default],
        }
    }
}

/// The digest of a password.
pub fn digest(password: &[u8]) -> PasswordDigest {
    Sha256::digest(password).into()
}

impl Users {
    /// The user called `name`.
    pub fn get(&self, name: &[u8]) -> Option<&User> {
        self.users.iter().find(|user| user.name.as_bytes() == name)
    }

    /// All users, `default` first.
    pub fn iter(&self) -> impl Iterator<Item = &User> {
        self.users.iter()
    }

    /// `requirepass`: replaces all passwords of `default`; an empty one opens it.
    pub fn set_requirepass(&mut self, password: &[u8]) {
        let digests = if password.is_empty() {
            Vec::new()
        } else {
            vec![digest(password)]
        };
        self.set_passwords(DEFAULT_USER, Scope::Everything, digests);
    }

    /// Gives the user exactly these passwords and makes the user where there was none. Without
    /// passwords the user is open if it is `default` and removed otherwise. More than
    /// [`MAX_PASSWORDS_PER_USER`]: the newest count.
    pub fn set_passwords(&mut self, name: &str, scope: Scope, mut digests: Vec<PasswordDigest>) {
        let surplus = digests.len().saturating_sub(MAX_PASSWORDS_PER_USER);
        digests.drain(..surplus);
        let access = if digests.is_empty() {
            Access::Open
        } else {
            Access::Password
        };
        if let Some(user) = self.users.iter_mut().find(|user| &*user.name == name) {
            (user.scope, user.passwords, user.access) = (scope, digests, access);
        } else if access == Access::Password {
            self.users.push(User {
                name: Arc::from(name),
                scope,
                passwords: digests,
                access,
            });
        }
        self.users
            .retain(|user| &*user.name == DEFAULT_USER || user.access == Access::Password);
    }

    /// One change of the passwords of `default`, as `ACL SETUSER` asks for it.
    pub fn change_default(&mut self, change: PasswordChange<'_>) -> Result<(), &'static str> {
        let Some(user) = self.users.iter_mut().find(|u| &*u.name == DEFAULT_USER) else {
            return Ok(());
        };
        match change {
            PasswordChange::Add(password) => user.add(digest(password)),
            PasswordChange::AddDigest(digest) => user.add(digest),
            PasswordChange::Remove(password) => user.remove(&digest(password)),
            PasswordChange::RemoveDigest(digest) => user.remove(&digest),
            PasswordChange::NeedNone => {
                (user.access, user.passwords) = (Access::Open, Vec::new());
                Ok(())
            }
            PasswordChange::Clear => {
                (user.access, user.passwords) = (Access::Password, Vec::new());
                Ok(())
            }
        }
    }

    /// The login of a connection that has not said anything, where `default` is open.
    pub fn open_login(&self) -> Option<Login> {
        let user = self.get(DEFAULT_USER.as_bytes())?;
        (user.access == Access::Open).then(|| user.login())
    }

    /// The login for a name and password, or `None` where they do not fit. Takes the same time
    /// whether the name or the password was wrong.
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<Login> {
        let given = digest(password);
        let user = self.get(name);
        let stored = user.map_or(&[][..], |user| &user.passwords);
        let mut found = subtle::Choice::from(0);
        for known in stored {
            found |= known.ct_eq(&given);
        }
        let user = user?;
        match user.access {
            Access::Open => Some(user.login()),
            Access::Password => bool::from(found).then(|| user.login()),
        }
    }
}

impl User {
    fn login(&self) -> Login {
        Login {
            user: self.name.clone(),
            scope: self.scope,
        }
    }

    fn add(&mut self, digest: PasswordDigest) -> Result<(), &'static str> {
        self.access = Access::Password;
        if self.passwords.contains(&digest) {
            return Ok(());
        }
        if self.passwords.len() == MAX_PASSWORDS_PER_USER {
            return Err("A user may have 64 passwords at most: remove one first");
        }
        self.passwords.push(digest);
        Ok(())
    }

    fn remove(&mut self, digest: &PasswordDigest) -> Result<(), &'static str> {
        let place = self.passwords.iter().position(|known| known == digest);
        let place =
            place.ok_or("The password you are trying to remove from the user does not exist")?;
        self.passwords.remove(place);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_passwords_are_valid_during_a_rotation_and_one_after_it() {
        let mut users = Users::default();
        assert!(users.open_login().is_some());
        users.set_requirepass(b"old");
        assert!(users.open_login().is_none());
        let both = vec![digest(b"old"), digest(b"new")];
        users.set_passwords(DEFAULT_USER, Scope::Everything, both);
        assert!(users.authenticate(b"default", b"old").is_some());
        assert!(users.authenticate(b"default", b"new").is_some());
        users.set_passwords(DEFAULT_USER, Scope::Everything, vec![digest(b"new")]);
        assert!(users.authenticate(b"default", b"old").is_none());
        assert!(users.authenticate(b"nobody", b"new").is_none());
    }

    #[test]
    fn passwords_are_added_and_removed_one_by_one() {
        let mut users = Users::default();
        let logs_in =
            |users: &Users, password: &[u8]| users.authenticate(b"default", password).is_some();
        users.change_default(PasswordChange::Add(b"a")).unwrap();
        users
            .change_default(PasswordChange::AddDigest(digest(b"b")))
            .unwrap();
        assert!(logs_in(&users, b"a") && logs_in(&users, b"b") && users.open_login().is_none());
        users.change_default(PasswordChange::Remove(b"a")).unwrap();
        assert!(users.change_default(PasswordChange::Remove(b"a")).is_err());
        users
            .change_default(PasswordChange::RemoveDigest(digest(b"b")))
            .unwrap();
        assert!(!logs_in(&users, b"b"), "without passwords nobody logs in");
        assert!(users.open_login().is_none());
        for number in 0..MAX_PASSWORDS_PER_USER as u8 {
            users
                .change_default(PasswordChange::Add(&[number]))
                .unwrap();
        }
        assert!(
            users
                .change_default(PasswordChange::Add(b"one more"))
                .is_err()
        );
        users.change_default(PasswordChange::NeedNone).unwrap();
        assert!(users.open_login().is_some());
    }

    #[test]
    fn a_user_without_passwords_is_removed_unless_it_is_default() {
        let mut users = Users::default();
        users.set_passwords("replication", Scope::Replication, vec![digest(b"r")]);
        assert_eq!(
            users.authenticate(b"replication", b"r").unwrap().scope,
            Scope::Replication
        );
        users.set_passwords("replication", Scope::Replication, Vec::new());
        assert!(users.get(b"replication").is_none());
        users.set_requirepass(b"");
        assert!(users.open_login().is_some());
    }
}
