use super::*;

#[test]
fn a_dictionary_of_tuples() {
    // {"a": (1, True)}, as Python's pickle writes it with protocol 2.
    let objects = read(b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01K\x01\x88\x86q\x02s.").unwrap();
    let Object::Dict(pairs) = objects.get(objects.root) else {
        panic!("no dictionary");
    };
    let (key, value) = pairs[0];
    assert_eq!(objects.text(key), Some("a"));
    let items: Vec<_> = objects.items(value).iter().map(|id| objects.get(*id)).collect();
    assert_eq!(items, [&Object::Int(1), &Object::Bool(true)]);
}

#[test]
fn a_call_is_kept_and_not_made() {
    let objects = read(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.").unwrap();
    let Object::Made { by, arguments, .. } = objects.get(objects.root) else {
        panic!("not kept");
    };
    assert_eq!(objects.global(*by), Some("os.system"));
    assert_eq!(objects.text(objects.items(*arguments)[0]), Some("true"));
}

#[test]
fn long_integers() {
    for (bytes, value) in [
        (&b"\x8a\x00."[..], Object::Int(0)),
        (b"\x8a\x02\x00\x01.", Object::Int(256)),
        (b"\x8a\x01\xff.", Object::Int(-1)),
        (b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01.", Object::Other),
    ] {
        let objects = read(bytes).unwrap();
        assert_eq!(*objects.get(objects.root), value);
    }
}

#[test]
fn what_is_malformed_is_refused() {
    for bytes in [
        &b""[..],
        b".",
        b"K",
        b"X\xff\xff\xff\xffa.",
        b"t.",
        b"h\x00.",
        b"(.",
        b"i.",
        b"}(K\x01u.",
        b"\xff",
    ] {
        read(bytes).unwrap_err();
    }
}
