//! The corpus and random bytes through every body parser.

use super::*;
use crate::http::document;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn every_json_body_of_the_document_is_fuzzed() {
    let mut named = BTreeSet::new();
    let paths = document()["paths"].as_object().unwrap();
    for operation in paths.values().flat_map(|item| item.as_object().unwrap().values()) {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let choices = schema["oneOf"].as_array().into_iter().flatten();
        let references = choices.chain([schema]).filter_map(|schema| schema["$ref"].as_str());
        named.extend(references.map(|name| name.trim_start_matches("#/components/schemas/").to_owned()));
    }
    assert_eq!(named, BODIES.iter().map(|name| (*name).to_owned()).collect());
}

#[test]
fn the_corpus_is_read_or_refused() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/http");
    let mut seen = 0;
    for file in std::fs::read_dir(corpus).unwrap() {
        fuzz_http(&std::fs::read(file.unwrap().path()).unwrap());
        seen += 1;
    }
    assert!(seen >= 10, "{seen} files");
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let names = prop::sample::select(vec![
        "text",
        "content",
        "name",
        "labels",
        "limits",
        "env",
        "mode",
        "subtype",
        "behavior",
        "scope",
        "path",
        "version",
        "thinking",
        "continue",
        "permission_mode",
        "ttl_s",
        "x",
    ]);
    let words =
        prop::sample::select(vec!["", "a", "stream", "allow", "admin", "plan", "queue", "\u{0}", "\u{202e}"]);
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        words.prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(names.clone(), inner, 0..6)
                .prop_map(|map| map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn random_bytes_are_read_or_refused(data in prop::collection::vec(any::<u8>(), 0..256)) {
        fuzz_http(&data);
    }

    #[test]
    fn random_objects_are_read_or_refused(value in json()) {
        fuzz_http(&serde_json::to_vec(&value).unwrap());
    }
}
