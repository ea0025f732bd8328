use proptest::prelude::*;

use super::*;
use crate::reply::encode_command;

/// Every request of `input`, given to the parser in pieces of `step` bytes, and how it ended.
fn run(input: &[u8], step: usize, limits: Limits) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
    let mut parser = RequestParser::new(limits);
    let (mut start, mut end) = (0, 0);
    let mut requests = Vec::new();
    loop {
        match parser.parse(&input[start..end]) {
            Err(error) => return (requests, Some(error)),
            Ok(Parsed::Skip { consumed }) => start += consumed,
            Ok(Parsed::Request { consumed }) => {
                let args = parser.args(&input[start..end]);
                requests.push(args.iter().map(<[u8]>::to_vec).collect());
                start += consumed;
            }
            Ok(Parsed::Incomplete { needed }) => {
                assert!(needed > 0);
                if end == input.len() {
                    return (requests, None);
                }
                end = (end + step).min(input.len());
            }
        }
    }
}

fn words(input: &str) -> Result<Vec<String>, ProtocolError> {
    let (requests, error) = run(
        format!("{input}\r\n").as_bytes(),
        1000,
        Limits::AUTHENTICATED,
    );
    match error {
        Some(error) => Err(error),
        None => Ok(requests
            .concat()
            .into_iter()
            .map(|w| String::from_utf8(w).unwrap())
            .collect()),
    }
}

fn error_of(input: &str, limits: Limits) -> String {
    run(input.as_bytes(), 3, limits)
        .1
        .map(|e| e.message().into_owned())
        .unwrap_or_default()
}

#[test]
fn pipelined_requests_come_out_one_by_one() {
    let input = b"*1\r\n$4\r\nPING\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n\r\n*0\r\n*-1\r\nGET k\nPING \"a b\"\r\n";
    let expected: Vec<Vec<Vec<u8>>> = [
        &["PING"][..],
        &["SET", "k", ""],
        &["GET", "k"],
        &["PING", "a b"],
    ]
    .iter()
    .map(|r| r.iter().map(|w| w.as_bytes().to_vec()).collect())
    .collect();
    for step in 1..input.len() {
        assert_eq!(
            run(input, step, Limits::UNAUTHENTICATED),
            (expected.clone(), None)
        );
    }
}

#[test]
fn inline_words_are_unquoted_as_redis_does() {
    assert_eq!(words("set  k\tv ").unwrap(), ["set", "k", "v"]);
    assert_eq!(
        words(r#"set "a \"b\" \x41\n\\" 'it\'s \n'"#).unwrap(),
        ["set", "a \"b\" A\n\\", "it's \\n"]
    );
    assert_eq!(words(r#"set "" ''"#).unwrap(), ["set", "", ""]);
    assert_eq!(words(r#"a"b""#).unwrap(), ["ab"]);
    assert_eq!(words(r#"set "\xzz""#).unwrap(), ["set", "xzz"]);
    for bad in [
        r#"set "a"#,
        "set 'a",
        r#"set "a"b"#,
        r#"set 'a'b"#,
        r#"set "a\"#,
    ] {
        assert_eq!(words(bad), Err(ProtocolError::UnbalancedQuotes), "{bad}");
    }
}

#[test]
fn errors_carry_the_text_of_redis() {
    let all = Limits::AUTHENTICATED;
    let few = Limits::UNAUTHENTICATED;
    let cases = [
        ("*3000000000\r\n", all, "invalid multibulk length"),
        ("*x\r\n", all, "invalid multibulk length"),
        ("*01\r\n", all, "invalid multibulk length"),
        ("*11\r\n", few, "unauthenticated multibulk length"),
        ("*1\r\n$16385\r\n", few, "unauthenticated bulk length"),
        ("*1\r\n$-10\r\n", few, "invalid bulk length"),
        ("*1\r\n$2000000000\r\n", all, "invalid bulk length"),
        ("*1\r\n$blabla\r\n", all, "invalid bulk length"),
        ("*1\r\nfoo\r\n", all, "expected '$', got 'f'"),
        (
            "*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n",
            all,
            "expected '$', got 'f'",
        ),
        ("set \"a\r\n", all, "unbalanced quotes in request"),
        (
            "1 2 3 4 5 6 7 8 9 10 11\r\n",
            few,
            "unauthenticated multibulk length",
        ),
    ];
    for (input, limits, text) in cases {
        assert_eq!(
            error_of(input, limits),
            format!("Protocol error: {text}"),
            "{input:?}"
        );
    }
    let long = "x".repeat(70_000);
    assert_eq!(
        error_of(&long, all),
        "Protocol error: too big inline request"
    );
    assert_eq!(
        error_of(&format!("*{long}"), all),
        "Protocol error: too big mbulk count string"
    );
    assert_eq!(
        error_of(&format!("*1\r\n${long}"), all),
        "Protocol error: too big bulk count string"
    );
}

#[test]
fn announced_sizes_allocate_nothing() {
    let mut parser = RequestParser::new(Limits::AUTHENTICATED);
    assert!(matches!(
        parser.parse(b"*2000000000\r\n$500000000\r\n"),
        Ok(Parsed::Incomplete { .. })
    ));
    assert!(parser.heap_bytes() < 4096);
}

#[test]
fn the_missing_bytes_of_an_argument_are_told() {
    let mut parser = RequestParser::new(Limits::AUTHENTICATED);
    let needed = parser.parse(b"*1\r\n$1000\r\nabc");
    assert_eq!(needed, Ok(Parsed::Incomplete { needed: 999 }));
}

#[test]
fn arguments_keep_the_login_limits_they_were_read_with() {
    let mut parser = RequestParser::new(Limits::UNAUTHENTICATED);
    assert!(parser.parse(b"*2\r\n$1\r\nx\r\n").is_ok());
    parser.set_limits(Limits::AUTHENTICATED);
    let input = [&b"*2\r\n$1\r\nx\r\n$20000\r\n"[..], &[b'y'; 20000], b"\r\n"].concat();
    assert_eq!(
        parser.parse(&input),
        Ok(Parsed::Request {
            consumed: input.len()
        })
    );
    assert_eq!(parser.args(&input)[1].len(), 20000);
}

fn any_request() -> impl Strategy<Value = Vec<Vec<u8>>> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..6)
}

/// Bytes that look enough like the protocol to reach deep.
fn any_garbage() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        Just(b"*".to_vec()),
        Just(b"$".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"-1".to_vec()),
        Just(b"\"".to_vec()),
        Just(b"'".to_vec()),
        Just(b"\\x4".to_vec()),
        "[0-9]{1,3}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn what_is_encoded_is_what_is_parsed(requests in proptest::collection::vec(any_request(), 1..5), step in 1usize..50) {
        let mut input = Vec::new();
        for request in &requests {
            encode_command(&mut input, request);
        }
        prop_assert_eq!(run(&input, step, Limits::AUTHENTICATED), (requests, None));
    }

    #[test]
    fn garbage_never_panics_and_the_way_it_is_cut_changes_nothing(input in any_garbage()) {
        let whole = run(&input, input.len().max(1), Limits::UNAUTHENTICATED);
        for step in 1..=input.len().min(40) {
            prop_assert_eq!(run(&input, step, Limits::UNAUTHENTICATED), whole.clone());
        }
    }
}
