//! The control port's credential: a file with one token per line, read again when it changes.
//!
//! The first token is the one that this server shows to its peers; all are accepted.

use std::{fs, path::PathBuf, sync::Arc};

use control::auth::{AcceptedTokens, BearerToken};
use parking_lot::RwLock;

use super::ManagedError;

/// The tokens in force.
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: Arc<PathBuf>,
    tokens: Arc<RwLock<Arc<AcceptedTokens>>>,
}

impl TokenFile {
    /// Reads the file, which must hold at least one token that a header can carry.
    pub fn open(path: PathBuf) -> Result<Self, ManagedError> {
        let failed = |problem: String| ManagedError::Token {
            path: path.clone(),
            problem,
        };
        let text = fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
        let tokens = AcceptedTokens::parse(&text);
        let first = tokens
            .first()
            .ok_or_else(|| failed("it has no token".to_owned()))?;
        BearerToken::new(first).map_err(|error| failed(error.to_string()))?;
        let tokens = Arc::new(RwLock::new(Arc::new(tokens)));
        Ok(Self {
            path: Arc::new(path),
            tokens,
        })
    }

    /// The tokens now.
    pub fn accepted(&self) -> Arc<AcceptedTokens> {
        self.tokens.read().clone()
    }

    /// Takes a changed file over; a file that cannot be read leaves the tokens as they are.
    pub fn refresh(&self) {
        let Ok(text) = fs::read_to_string(&*self.path) else {
            return;
        };
        let tokens = AcceptedTokens::parse(&text);
        if !tokens.is_empty() && tokens != **self.tokens.read() {
            tracing::info!("the control port's tokens have changed");
            *self.tokens.write() = Arc::new(tokens);
        }
    }

    /// What this server shows to its peers; `None` if the file's first token cannot be sent.
    pub fn own(&self) -> Option<BearerToken> {
        BearerToken::new(self.accepted().first()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_taken_over_and_an_emptied_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        assert!(TokenFile::open(path.clone()).is_err());
        fs::write(&path, "\n").unwrap();
        assert!(TokenFile::open(path.clone()).is_err());
        fs::write(&path, "one\n").unwrap();
        let tokens = TokenFile::open(path.clone()).unwrap();
        fs::write(&path, "two\none\n").unwrap();
        tokens.refresh();
        assert_eq!(tokens.accepted().first(), Some("two"));
        fs::write(&path, "").unwrap();
        tokens.refresh();
        assert_eq!(tokens.accepted().first(), Some("two"));
    }
}
