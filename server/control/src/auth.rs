//! Bearer tokens: the client puts one into every call, the server accepts any of several, so that a
//! token can be rotated without an interruption.
//!
//! Owns the metadata's form and the comparison, which takes the same time wherever a wrong token
//! differs.

use std::fmt;

use subtle::{Choice, ConstantTimeEq};
use tonic::metadata::errors::InvalidMetadataValue;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

const HEADER: &str = "authorization";
const SCHEME: &str = "Bearer ";

/// Puts a token into every call of a client.
#[derive(Clone)]
pub struct BearerToken(MetadataValue<Ascii>);

impl BearerToken {
    /// An interceptor for this token; fails if it has characters that a header cannot carry.
    pub fn new(token: &str) -> Result<Self, InvalidMetadataValue> {
        let mut value: MetadataValue<Ascii> = format!("{SCHEME}{token}").parse()?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(…)")
    }
}

impl Interceptor for BearerToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(HEADER, self.0.clone());
        Ok(request)
    }
}

/// The tokens a server accepts. An empty list accepts nobody.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AcceptedTokens(Vec<String>);

impl fmt::Debug for AcceptedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AcceptedTokens({})", self.0.len())
    }
}

impl AcceptedTokens {
    /// One token per non-empty line; blanks around it do not count.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        Self(lines.map(str::to_owned).collect())
    }

    /// The first token: the one this server shows to its peers.
    pub fn first(&self) -> Option<&str> {
        self.0.first().map(String::as_str)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses a call that shows none of the tokens.
    pub fn check(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let shown = metadata.get(HEADER).and_then(|value| value.to_str().ok());
        let Some(shown) = shown.and_then(|value| value.strip_prefix(SCHEME)) else {
            return Err(Status::unauthenticated("a bearer token is required"));
        };
        let equal = |token: &String| token.as_bytes().ct_eq(shown.as_bytes());
        let any = self
            .0
            .iter()
            .map(equal)
            .fold(Choice::from(0), |any, one| any | one);
        if bool::from(any) {
            Ok(())
        } else {
            Err(Status::unauthenticated("the bearer token is not accepted"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(token: &str) -> MetadataMap {
        let request = BearerToken::new(token)
            .unwrap()
            .call(Request::new(()))
            .unwrap();
        request.metadata().clone()
    }

    #[test]
    fn old_and_new_token_are_accepted_during_a_rotation() {
        let accepted = AcceptedTokens::parse("new\n old \n\n");
        assert!(accepted.check(&shown("new")).is_ok());
        assert!(accepted.check(&shown("old")).is_ok());
        assert_eq!(accepted.first(), Some("new"));
    }

    #[test]
    fn wrong_missing_and_empty_tokens_are_refused() {
        let accepted = AcceptedTokens::parse("secret");
        for wrong in ["secre", "secrets", "", "Secret"] {
            assert!(accepted.check(&shown(wrong)).is_err(), "{wrong:?}");
        }
        assert!(accepted.check(&MetadataMap::new()).is_err());
        assert!(AcceptedTokens::parse("\n").check(&shown("")).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_file_and_any_header_are_read_or_refused(
            file in "(\\PC|[ \t\r\n]){0,40}",
            header in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40),
            scheme: bool,
        ) {
            let accepted = AcceptedTokens::parse(&file);
            let header = if scheme { [SCHEME.as_bytes(), &header].concat() } else { header };
            let mut metadata = MetadataMap::new();
            if let Ok(value) = MetadataValue::try_from(header.as_slice()) {
                metadata.insert(HEADER, value);
            }
            let shown = header.strip_prefix(SCHEME.as_bytes());
            let mut lines = file.lines().map(str::trim).filter(|line| !line.is_empty());
            let known = shown.is_some_and(|shown| lines.any(|line| line.as_bytes() == shown));
            let accepts = accepted.check(&metadata).is_ok();
            // A token that no header can carry is of no use, but harmless.
            proptest::prop_assert!(accepts <= known);
        }
    }

    #[test]
    fn a_token_is_not_shown_by_debug() {
        let token = BearerToken::new("secret").unwrap();
        let accepted = AcceptedTokens::parse("secret");
        assert!(!format!("{token:?} {accepted:?}").contains("secret"));
    }
}
