//! The hash of the elements of collections.
//!
//! Owns: the process-wide seed. Called by: `main` once with a random seed before anything is
//! stored (the keyspace draws no randomness itself), and by the tables of this folder. Without a
//! seed, as in tests, hashes are the same in every run.
//!
//! Invariant: the seed does not change after the first hash, else tables would lose elements.

use std::{
    hash::{BuildHasher, Hasher},
    sync::OnceLock,
};

use foldhash::{
    SharedSeed,
    quality::{FoldHasher, SeedableRandomState},
};

static STATE: OnceLock<SeedableRandomState> = OnceLock::new();

fn state([own, common]: [u64; 2]) -> SeedableRandomState {
    static SHARED: OnceLock<SharedSeed> = OnceLock::new();
    let shared = SHARED.get_or_init(|| SharedSeed::from_u64(common));
    SeedableRandomState::with_seed(own, shared)
}

/// Whether [`install_seed`] was in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seeding {
    /// The seed is in use from now on.
    Installed,
    /// Something was hashed, or another seed installed, before: nothing changed.
    TooLate,
}

/// Makes `seed` (random, unknown to clients) the seed of all hashes of this process.
pub fn install_seed(seed: [u64; 2]) -> Seeding {
    let mut installed = Seeding::TooLate;
    STATE.get_or_init(|| {
        installed = Seeding::Installed;
        state(seed)
    });
    installed
}

/// The hash of an element. All 64 bits are usable.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hasher: FoldHasher<'static> = STATE.get_or_init(|| state([0, 0])).build_hasher();
    hasher.write(bytes);
    hasher.finish()
}
