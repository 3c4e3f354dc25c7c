use super::*;

fn tree(text: &str) -> Node {
    let mut findings = Findings::default();
    let node = parse(text, &mut findings);
    assert!(findings.is_empty(), "{findings:?}");
    node.unwrap()
}

#[test]
fn kinds_of_scalars() {
    for (text, kind) in [
        ("~", Kind::Null),
        ("null", Kind::Null),
        ("true", Kind::Bool),
        ("FALSE", Kind::Bool),
        ("yes", Kind::Text),
        ("on", Kind::Text),
        ("0", Kind::Integer),
        ("64512", Kind::Integer),
        ("-1", Kind::Integer),
        ("+1", Kind::Integer),
        ("0x7000_0000", Kind::Text),
        ("0x70", Kind::Integer),
        ("0o17", Kind::Integer),
        ("017", Kind::Text),
        ("64_512", Kind::Text),
        ("1.5", Kind::Float),
        ("1e3", Kind::Float),
        (".5", Kind::Float),
        ("-.inf", Kind::Float),
        (".nan", Kind::Float),
        ("10.244.0.0/16", Kind::Text),
        ("1.2.3", Kind::Text),
        ("9s", Kind::Text),
        ("inf", Kind::Text),
        ("12:30:45", Kind::Text),
        ("-", Kind::Text),
        ("+", Kind::Text),
    ] {
        assert_eq!(plain_kind(text), kind, "{text}");
    }
    for (text, value) in [("0x10", 16), ("0o17", 15), ("-7", -7), ("+7", 7)] {
        assert_eq!(Scalar::plain(text).integer(), Some(value), "{text}");
    }
}

#[test]
fn quotes_make_text() {
    let node = tree("{ a: 1, b: '1', c: \"1\", d: 2 }");
    let kind = |key: &str| match &node.entry(key).unwrap().value {
        Value::Scalar(scalar) => scalar.kind,
        Value::List(_) | Value::Map(_) => panic!("{key} is no scalar"),
    };
    assert_eq!(
        [kind("a"), kind("b"), kind("c"), kind("d")],
        [Kind::Integer, Kind::Quoted, Kind::Quoted, Kind::Integer]
    );
    let Value::Scalar(block) = tree("a: |\n  1\n").entry("a").unwrap().value.clone() else { panic!() };
    assert_eq!(block.kind, Kind::Quoted);
}

#[test]
fn places_and_paths() {
    let node = tree("a:\n  b:\n    - x\n    - { c: héllo, d: 7 }\n");
    let (d, exact) = node.nearest("a.b[1].d");
    assert!(exact);
    assert_eq!((d.at, d.path.as_str()), (Position { line: 4, column: 22, length: 1 }, "a.b[1].d"));
    let (c, _) = node.nearest("a.b[1].c");
    assert_eq!(c.at, Position { line: 4, column: 12, length: 5 });
    // What is not there: the last parent that is.
    assert_eq!(node.nearest("a.b[7].c").0.path, "a.b");
    assert!(!node.nearest("z").1);
    assert_eq!(node.nearest("z").0.path, "");
}

#[test]
fn an_alias_is_placed_where_it_stands() {
    let node = tree("a: &x { k: 1 }\nb: *x\n");
    let b = node.entry("b").unwrap();
    assert_eq!((b.at.line, b.path.as_str()), (2, "b"));
    assert_eq!(b.entry("k").unwrap().at.line, 1);
}

#[test]
fn merging() {
    let base = tree("a: { x: 1, y: 2 }\nl: [1, 2]\n");
    let over = tree("\n\na: { y: 3, z: 4 }\nl: [5]\nn: 6\n");
    let merged = base.merged(&over);
    assert_eq!(merged.to_json(), serde_json::json!({"a": {"x": 1, "y": 3, "z": 4}, "l": [5], "n": 6}));
    assert_eq!(merged.nearest("a.x").0.at.line, 1);
    assert_eq!(merged.nearest("a.y").0.at.line, 3);
}

#[test]
fn every_duplicate_is_found() {
    let mut findings = Findings::default();
    parse("a: 1\nb: { c: 1, c: 2, c: 3 }\na: 2\n", &mut findings);
    let lines: Vec<(u32, String)> = findings.into_iter().map(|f| (f.at.line, f.key)).collect();
    assert_eq!(lines, [(2, "b.c".to_owned()), (2, "b.c".to_owned()), (3, "a".to_owned())]);
}
