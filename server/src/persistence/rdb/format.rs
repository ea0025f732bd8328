//! The numbers of the snapshot format.
//!
//! Owns the constants that the reader and the writer share, and the picture of the layout:
//!
//! ```text
//! file   := "REDIS" version(4 digits) | "VALKEY" version(3 digits)
//!           aux* function* database* EOF crc64(8 bytes, little endian, 0 = not checked)
//! aux    := 250 string(name) string(value)
//! database := 254 length(index) [251 length(keys) length(keys with expiry)] entry*
//! entry  := [252 i64 LE ms | 253 i32 LE s] [248 length(idle) | 249 byte(frequency)]
//!           type(byte) string(key) value
//!
//! length := 00LLLLLL | 01LLLLLL LLLLLLLL | 10000000 u32 BE | 10000001 u64 BE
//! string := length bytes
//!         | 11000000 i8 | 11000001 i16 LE | 11000010 i32 LE      (an integer in decimal)
//!         | 11000011 length(packed) length(plain) packed         (LZF)
//! ```
//!
//! Versions 1–12 of Redis and 80 of Valkey are read; 10 is written, the lowest that holds every
//! type we have, so that any peer from Redis 7.0 on can load it.

/// Highest version of a `REDIS` file that is read.
pub const MAX_REDIS_VERSION: u32 = 12;
/// The version of a `VALKEY` file that is read.
pub const VALKEY_VERSION: u32 = 80;
/// The version that is written.
pub const WRITTEN_VERSION: u32 = 10;
/// The first version that ends with a checksum.
pub const FIRST_CHECKSUM_VERSION: u32 = 5;
/// Length of the magic and the version together.
pub const MAGIC_BYTES: usize = 9;

/// Part of a cluster slot that is being imported (Valkey 9); not valid in a single-shard file.
pub const OP_SLOT_IMPORT: u8 = 243;
/// Cluster slot statistics: three lengths.
pub const OP_SLOT_INFO: u8 = 244;
/// A function library: one string.
pub const OP_FUNCTION: u8 = 245;
/// A function library of a Redis 7.0 release candidate.
pub const OP_FUNCTION_PRE_GA: u8 = 246;
/// Data of a module that belong to no key.
pub const OP_MODULE_AUX: u8 = 247;
/// Seconds since the last access of the next key.
pub const OP_IDLE: u8 = 248;
/// Access frequency of the next key.
pub const OP_FREQUENCY: u8 = 249;
/// A named fact about the file.
pub const OP_AUX: u8 = 250;
/// Sizes of the database that follows.
pub const OP_RESIZE_DB: u8 = 251;
/// Deadline of the next key in milliseconds.
pub const OP_EXPIRE_MS: u8 = 252;
/// Deadline of the next key in seconds.
pub const OP_EXPIRE_SECONDS: u8 = 253;
/// The database that following keys belong to.
pub const OP_SELECT_DB: u8 = 254;
/// End of the file.
pub const OP_EOF: u8 = 255;

/// Value types, by their byte in the file.
pub mod types {
    /// A string.
    pub const STRING: u8 = 0;
    /// A list as a row of strings.
    pub const LIST: u8 = 1;
    /// A set as a row of strings.
    pub const SET: u8 = 2;
    /// A sorted set with scores in decimal.
    pub const ZSET: u8 = 3;
    /// A hash as a row of strings.
    pub const HASH: u8 = 4;
    /// A sorted set with binary scores.
    pub const ZSET_2: u8 = 5;
    /// A module's value, before the format could be skipped.
    pub const MODULE: u8 = 6;
    /// A module's value.
    pub const MODULE_2: u8 = 7;
    /// A hash as a zipmap (before Redis 2.6).
    pub const HASH_ZIPMAP: u8 = 9;
    /// A list as one ziplist.
    pub const LIST_ZIPLIST: u8 = 10;
    /// A set of integers.
    pub const SET_INTSET: u8 = 11;
    /// A sorted set as a ziplist.
    pub const ZSET_ZIPLIST: u8 = 12;
    /// A hash as a ziplist.
    pub const HASH_ZIPLIST: u8 = 13;
    /// A list as a row of ziplists.
    pub const LIST_QUICKLIST: u8 = 14;
    /// A stream (Redis 5).
    pub const STREAM: u8 = 15;
    /// A hash as a listpack.
    pub const HASH_LISTPACK: u8 = 16;
    /// A sorted set as a listpack.
    pub const ZSET_LISTPACK: u8 = 17;
    /// A list as a row of listpacks and plain nodes.
    pub const LIST_QUICKLIST_2: u8 = 18;
    /// A stream (Redis 7.0).
    pub const STREAM_2: u8 = 19;
    /// A set as a listpack.
    pub const SET_LISTPACK: u8 = 20;
    /// A stream (Redis 7.2).
    pub const STREAM_3: u8 = 21;
    /// A hash with a deadline per field: Valkey 9's; in `REDIS` files a release candidate's.
    pub const HASH_2: u8 = 22;
    /// A listpack with deadlines of a Redis 7.4 release candidate.
    pub const HASH_LISTPACK_EXPIRY_PRE_GA: u8 = 23;
    /// A hash with a deadline per field (Redis 7.4).
    pub const HASH_EXPIRY: u8 = 24;
    /// The same as a listpack of triples.
    pub const HASH_LISTPACK_EXPIRY: u8 = 25;

    /// What people call a type that this server does not have.
    pub fn name(byte: u8) -> &'static str {
        match byte {
            MODULE | MODULE_2 => "module value",
            STREAM | STREAM_2 | STREAM_3 => "stream",
            HASH_2 | HASH_LISTPACK_EXPIRY_PRE_GA | HASH_EXPIRY | HASH_LISTPACK_EXPIRY => {
                "hash with a time to live per field"
            }
            _ => "value of unknown type",
        }
    }
}

/// Container byte of a quicklist node: one plain string.
pub const QUICKLIST_PLAIN: u64 = 1;
/// Container byte of a quicklist node: a listpack.
pub const QUICKLIST_PACKED: u64 = 2;

/// First byte of a 32-bit length.
pub const LENGTH_32: u8 = 0x80;
/// First byte of a 64-bit length.
pub const LENGTH_64: u8 = 0x81;
/// First byte of a string that is an 8-bit integer.
pub const STRING_INT8: u8 = 0xc0;
/// First byte of a string that is a 16-bit integer.
pub const STRING_INT16: u8 = 0xc1;
/// First byte of a string that is a 32-bit integer.
pub const STRING_INT32: u8 = 0xc2;
/// First byte of a compressed string.
pub const STRING_LZF: u8 = 0xc3;
