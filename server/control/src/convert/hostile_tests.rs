//! Messages of a peer that lies: any bytes in the wire's form are refused or read, never a panic, and what was read
//! is the same after another way over the wire.

use proptest::prelude::*;
use prost::Message;
use replset::{Follow, Handover, Heartbeat, Prepare, Promote};

use super::*;

/// A number as a hostile peer would choose it.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..6,
        any::<u64>(),
        Just(u64::MAX),
        Just(u64::from(u32::MAX)),
        Just(1 << 48)
    ]
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        "[a-z]{1,8}".prop_map(String::into_bytes),
        "[0-9a-f]{40}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 12),
        proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

/// Fields in the wire's form, some of them messages of their own.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let scalar = prop_oneof![
        number().prop_map(|value| (0, varint(value))),
        number().prop_map(|value| (1, value.to_le_bytes().to_vec())),
        text().prop_map(|text| (2, [varint(text.len() as u64), text].concat())),
    ];
    let fields = |value: BoxedStrategy<(u8, Vec<u8>)>| {
        let field = (1u64..14, value).prop_map(|(number, (kind, bytes))| {
            [varint(number << 3 | u64::from(kind)), bytes].concat()
        });
        proptest::collection::vec(field, 0..14).prop_map(|fields| fields.concat())
    };
    fields(scalar.boxed()).prop_recursive(3, 64, 8, move |inner| {
        let nested = inner.prop_map(|bytes| (2, [varint(bytes.len() as u64), bytes].concat()));
        let scalar = prop_oneof![
            number().prop_map(|value| (0, varint(value))),
            number().prop_map(|value| (1, value.to_le_bytes().to_vec())),
        ];
        fields(prop_oneof![scalar, nested].boxed())
    })
}

/// Reads `bytes` as the message `W` and as the request `T`; what was understood survives the wire.
fn request<W, T>(bytes: &[u8])
where
    W: Message + Default + for<'a> From<&'a T>,
    T: TryFrom<W, Error = Malformed> + PartialEq + std::fmt::Debug,
{
    let Ok(wire) = W::decode(bytes) else { return };
    if let Ok(request) = T::try_from(wire) {
        let again = W::from(&request).encode_to_vec();
        let again = T::try_from(W::decode(again.as_slice()).unwrap());
        assert_eq!(again.as_ref(), Ok(&request));
    }
}

fn answer<W: Message + Default, T>(bytes: &[u8], read: impl FnOnce(W) -> Result<T, Malformed>) {
    if let Ok(wire) = W::decode(bytes) {
        let _understood = read(wire);
    }
}

fn read_as_everything(bytes: &[u8]) {
    request::<proto::PrepareRequest, Prepare>(bytes);
    request::<proto::PromoteRequest, Promote>(bytes);
    request::<proto::FollowRequest, Follow>(bytes);
    request::<proto::HandoverRequest, Handover>(bytes);
    request::<proto::HeartbeatRequest, Heartbeat>(bytes);
    answer(bytes, set_voters);
    answer(bytes, prepare_result);
    answer(bytes, promote_result);
    answer(bytes, follow_result);
    answer(bytes, set_voters_result);
    answer(bytes, handover_result);
    answer(bytes, heartbeat_result);
    if let Ok(state) = proto::State::decode(bytes) {
        let _seen = (state.sighting(), state.fleet_id());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn anything_in_the_wires_form_is_read_or_refused(bytes in message()) {
        read_as_everything(&bytes);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        read_as_everything(&bytes);
    }
}
