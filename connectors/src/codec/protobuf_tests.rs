#![allow(clippy::unwrap_used, clippy::expect_used)]

use prost_reflect::bytes::Bytes;
use prost_reflect::prost::Message as _;
use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, MessageOptions,
};

use super::super::pointer::Pointer;
use super::*;

fn field(name: &str, number: i32, kind: Type, type_name: &str, repeated: bool) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        r#type: Some(kind.into()),
        type_name: (!type_name.is_empty()).then(|| type_name.to_owned()),
        label: Some(if repeated { Label::Repeated } else { Label::Optional }.into()),
        ..FieldDescriptorProto::default()
    }
}

/// `plant.Reading`, as protoc would write it with its imports.
fn descriptors() -> Vec<u8> {
    let entry = DescriptorProto {
        name: Some("TagsEntry".into()),
        field: vec![
            field("key", 1, Type::String, "", false),
            field("value", 2, Type::Double, "", false),
        ],
        options: Some(MessageOptions {
            map_entry: Some(true),
            ..MessageOptions::default()
        }),
        ..DescriptorProto::default()
    };
    let reading = DescriptorProto {
        name: Some("Reading".into()),
        field: vec![
            field("machine", 1, Type::String, "", false),
            field("at", 2, Type::Message, ".google.protobuf.Timestamp", false),
            field("value", 3, Type::Double, "", false),
            field("state", 4, Type::Enum, ".plant.State", false),
            field("inner", 5, Type::Message, ".plant.Reading", true),
            field("tags", 6, Type::Message, ".plant.Reading.TagsEntry", true),
            field("wrapped", 7, Type::Message, ".google.protobuf.DoubleValue", false),
            field("count", 8, Type::Uint64, "", false),
            field("raw", 9, Type::Bytes, "", false),
        ],
        nested_type: vec![entry],
        ..DescriptorProto::default()
    };
    let value = |name: &str, number| EnumValueDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        ..EnumValueDescriptorProto::default()
    };
    let file = FileDescriptorProto {
        name: Some("plant.proto".into()),
        package: Some("plant".into()),
        syntax: Some("proto3".into()),
        dependency: vec![
            "google/protobuf/timestamp.proto".into(),
            "google/protobuf/wrappers.proto".into(),
        ],
        message_type: vec![reading],
        enum_type: vec![EnumDescriptorProto {
            name: Some("State".into()),
            value: vec![value("IDLE", 0), value("RUN", 1)],
            ..EnumDescriptorProto::default()
        }],
        ..FileDescriptorProto::default()
    };
    let known = DescriptorPool::global();
    let import = |name: &str| known.get_file_by_name(name).unwrap().file_descriptor_proto().clone();
    let file = vec![
        import("google/protobuf/timestamp.proto"),
        import("google/protobuf/wrappers.proto"),
        file,
    ];
    FileDescriptorSet { file }.encode_to_vec()
}

fn reading() -> MessageDescriptor {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plant.desc");
    std::fs::write(&file, descriptors()).unwrap();
    descriptor(&file, "plant.Reading").unwrap()
}

fn at(payload: &[u8], pointer: &str) -> Result<String, String> {
    let message = read(&reading(), payload)?;
    let mut query = Query::default();
    let pointer = Pointer::parse(pointer)?;
    let slot = if pointer.ends_with_each() {
        query.name(&pointer)?
    } else {
        query.value(&pointer)?
    };
    let mut found = Found::default();
    ProtobufDocument(&message).find(&query, &mut found)?;
    let shown = (0..found.count(slot.level)).map(|record| match found.get(slot, record) {
        None => "-".to_owned(),
        Some(Scalar::Text(text)) => format!("'{text}'"),
        Some(other) => format!("{other:?}"),
    });
    Ok(shown.collect::<Vec<_>>().join(","))
}

#[test]
fn values() {
    let mut message = DynamicMessage::new(reading());
    message.set_field_by_name("machine", Value::String("m1".into()));
    let timestamp = DescriptorPool::global()
        .get_message_by_name("google.protobuf.Timestamp")
        .unwrap();
    let _ = timestamp;
    let field = message.descriptor().get_field_by_name("at").unwrap();
    let mut time = DynamicMessage::new(field.kind().as_message().unwrap().clone());
    time.set_field_by_name("seconds", Value::I64(5));
    time.set_field_by_name("nanos", Value::I32(7_999));
    message.set_field_by_name("at", Value::Message(time));
    message.set_field_by_name("state", Value::EnumNumber(1));
    let field = message.descriptor().get_field_by_name("wrapped").unwrap();
    let mut wrapped = DynamicMessage::new(field.kind().as_message().unwrap().clone());
    wrapped.set_field_by_name("value", Value::F64(2.5));
    message.set_field_by_name("wrapped", Value::Message(wrapped));
    let tags =
        [("b", 2.0), ("a", 1.0), ("c", 3.0)].map(|(name, value)| (MapKey::String(name.into()), Value::F64(value)));
    message.set_field_by_name("tags", Value::Map(tags.into()));
    let inner = |value: f64| {
        let mut inner = DynamicMessage::new(reading());
        inner.set_field_by_name("value", Value::F64(value));
        Value::Message(inner)
    };
    message.set_field_by_name("inner", Value::List(vec![inner(1.5), inner(0.0)]));
    message.set_field_by_name("raw", Value::Bytes(Bytes::from_static(b"x")));
    let payload = message.encode_to_vec();
    let check = |pointer: &str, expect: &str| assert_eq!(at(&payload, pointer).unwrap(), expect, "{pointer}");
    check("/machine", "'m1'");
    check("/at", "Time(5000007)");
    check("/value", "Float(0.0)"); // it is not in the payload, and it is 0
    check("/count", "Int(0)");
    check("/state", "'RUN'");
    check("/inner/*/value", "Float(1.5),Float(0.0)");
    check("/inner/1/value", "Float(0.0)");
    check("/tags/a", "Float(1.0)");
    check("/tags/*", "'a','b','c'");
    check("/wrapped", "Float(2.5)");
    check("/raw", "Nested");
    check("/none", "-");
    assert_eq!(at(b"", "/wrapped").unwrap(), "-");
    assert_eq!(at(b"", "/value").unwrap(), "Float(0.0)");
}

#[test]
fn what_is_no_message_is_said() {
    assert!(
        at(b"\x0a\xff", "/machine")
            .unwrap_err()
            .starts_with("not a Protobuf message `plant.Reading`")
    );
    // Messages within messages, as deep as bytes go.
    let mut payload = Vec::new();
    for _ in 0..5_000 {
        let mut outer = vec![0x2a];
        prost::encoding::encode_varint(payload.len() as u64, &mut outer);
        outer.extend(payload);
        payload = outer;
    }
    assert!(at(&payload, "/value").unwrap_err().contains("recursion"));
}

#[test]
fn settings() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plant.desc");
    std::fs::write(&file, descriptors()).unwrap();
    let check = |file: &Path, message: &str, key: &str, part: &str| {
        let (found, reason) = descriptor(file, message).unwrap_err();
        assert!(found == key && reason.contains(part), "{found}: {reason}");
    };
    check(&file, "plant.Readin", "message", "did you mean `plant.Reading`?");
    check(
        &folder.path().join("none"),
        "plant.Reading",
        "descriptor",
        "No such file",
    );
    let bad = folder.path().join("bad");
    std::fs::write(&bad, b"\xff\xff").unwrap();
    check(&bad, "plant.Reading", "descriptor", "no descriptors");
}

#[test]
fn message_indexes() {
    let check = |bytes: &[u8], expect: Result<&[u8], &str>| match (skip_indexes(bytes), expect) {
        (Ok(got), Ok(expect)) => assert_eq!(got, expect),
        (Err(got), Err(part)) => assert!(got.contains(part), "{got}"),
        (got, _) => panic!("{bytes:?}: {got:?}"),
    };
    check(&[0, 9], Ok(&[9])); // the first message, in short
    check(&[2, 0, 9], Ok(&[9]));
    check(&[4, 2, 4, 9], Ok(&[9]));
    check(&[], Err("cut off"));
    check(&[4, 2], Err("cut off"));
    check(&[0xff, 0x7f, 1], Err("message indexes behind"));
}
