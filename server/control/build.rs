//! Compiles `proto/control.proto` with protox, so that no `protoc` is needed, and says as text what the contract is.

use std::{env, error::Error, fs, path::Path};

use protox::prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, MethodDescriptorProto, ServiceDescriptorProto,
    field_descriptor_proto::Label,
};

/// Before every name of ours in a descriptor.
const PACKAGE: &str = ".redfleet.control.v1.";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/control.proto");
    let descriptors = protox::compile(["proto/control.proto"], ["proto"])?;
    let contract: Vec<String> = descriptors.file.iter().flat_map(contract).collect();
    let target = env::var_os("OUT_DIR").ok_or("cargo tells where to write")?;
    fs::write(
        Path::new(&target).join("contract.txt"),
        contract.join("\n") + "\n",
    )?;
    // Passwords must not reach a log: `src/lib.rs` writes Debug for these two.
    let secret =
        ["AcceptedPassword", "ReplicationCredential"].map(|message| format!("{PACKAGE}{message}"));
    tonic_prost_build::configure()
        .skip_debug(secret)
        .compile_fds(descriptors)?;
    Ok(())
}

/// Everything that the two ends of a connection must agree on, in lines that each stand for themselves.
fn contract(file: &FileDescriptorProto) -> Vec<String> {
    let mut lines: Vec<String> = file.service.iter().flat_map(calls).collect();
    lines.extend(file.message_type.iter().flat_map(|m| message("", m)));
    lines.extend(file.enum_type.iter().flat_map(|e| values("", e)));
    lines
}

fn calls(service: &ServiceDescriptorProto) -> Vec<String> {
    let stream = |streams: bool| if streams { "stream " } else { "" };
    let call = |method: &MethodDescriptorProto| {
        format!(
            "rpc {}.{}({}{}) returns ({}{})",
            service.name(),
            method.name(),
            stream(method.client_streaming()),
            short(method.input_type()),
            stream(method.server_streaming()),
            short(method.output_type()),
        )
    };
    service.method.iter().map(call).collect()
}

/// The message, its fields, and what is declared within.
fn message(outer: &str, message: &DescriptorProto) -> Vec<String> {
    let name = format!("{outer}{}", message.name());
    let mut lines = vec![format!("message {name}")];
    for range in &message.reserved_range {
        let numbers = range.start()..range.end();
        lines.extend(numbers.map(|number| format!("reserved {name} = {number}")));
    }
    lines.extend(message.field.iter().map(|f| field(&name, message, f)));
    let within = format!("{name}.");
    for inner in &message.nested_type {
        lines.extend(self::message(&within, inner));
    }
    for inner in &message.enum_type {
        lines.extend(values(&within, inner));
    }
    lines
}

fn field(message: &str, of: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let label = match field.label() {
        Label::Repeated => "repeated ",
        Label::Optional | Label::Required if field.proto3_optional() => "optional ",
        Label::Optional | Label::Required => "",
    };
    let kind = match field.type_name() {
        "" => field
            .r#type()
            .as_str_name()
            .trim_start_matches("TYPE_")
            .to_lowercase(),
        name => short(name).to_owned(),
    };
    // A field that may be absent is for descriptors the only one of a choice.
    let choice = field
        .oneof_index
        .filter(|_| !field.proto3_optional())
        .and_then(|index| of.oneof_decl.get(usize::try_from(index).ok()?))
        .map(|choice| format!(" in oneof {}", choice.name()))
        .unwrap_or_default();
    format!(
        "field {message}.{} = {}: {label}{kind}{choice}",
        field.name(),
        field.number()
    )
}

fn values(outer: &str, of: &EnumDescriptorProto) -> Vec<String> {
    let name = format!("{outer}{}", of.name());
    let value = |value: &EnumValueDescriptorProto| {
        format!("value {name}.{} = {}", value.name(), value.number())
    };
    let mut lines = vec![format!("enum {name}")];
    lines.extend(of.value.iter().map(value));
    lines
}

fn short(name: &str) -> &str {
    name.strip_prefix(PACKAGE).unwrap_or(name)
}
