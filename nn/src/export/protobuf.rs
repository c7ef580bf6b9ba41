//! The messages of ONNX's schema that a policy needs (<https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>), encoded by
//! hand; the schema's field numbers are beside them.

/// ONNX's element type of 32-bit floats, and of 64-bit integers.
const FLOAT: u64 = 1;
const INT64: u64 = 7;

/// A protocol-buffer message in the making: fields are a number, a wire type and a value.
#[derive(Default)]
pub struct Message(pub Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    pub fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub fn text(&mut self, field: u64, value: &str) {
        self.bytes(field, value.as_bytes());
    }
}

/// The value of a node's attribute.
pub enum Attribute {
    Int(u64),
    Ints(Vec<u64>),
}

/// `NodeProto`
pub fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, Attribute)]) -> Vec<u8> {
    const INT_TYPE: u64 = 2;
    const INTS_TYPE: u64 = 7;
    let mut message = Message::default();
    inputs.iter().for_each(|input| message.text(1, input));
    outputs.iter().for_each(|output| message.text(2, output));
    message.text(3, outputs[0]);
    message.text(4, op);
    for (name, value) in attributes {
        let mut attribute = Message::default();
        attribute.text(1, name);
        match value {
            Attribute::Int(value) => {
                attribute.number(3, *value);
                attribute.number(20, INT_TYPE);
            }
            Attribute::Ints(values) => {
                values.iter().for_each(|value| attribute.number(8, *value));
                attribute.number(20, INTS_TYPE);
            }
        }
        message.bytes(5, &attribute.0);
    }
    message.0
}

/// `TensorProto`
fn tensor(name: &str, shape: &[usize], element_type: u64, raw: &[u8]) -> Vec<u8> {
    let mut message = Message::default();
    shape.iter().for_each(|n| message.number(1, *n as u64));
    message.number(2, element_type);
    message.text(8, name);
    message.bytes(9, raw);
    message.0
}

pub fn float_tensor(name: &str, shape: &[usize], values: &[f32]) -> Vec<u8> {
    tensor(name, shape, FLOAT, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
}

pub fn int_tensor(name: &str, values: &[i64]) -> Vec<u8> {
    tensor(name, &[values.len()], INT64, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
}

/// `ValueInfoProto` of floats `[N, width]`
pub fn value_info(name: &str, width: usize) -> Vec<u8> {
    let (mut rows, mut columns, mut shape) = (Message::default(), Message::default(), Message::default());
    rows.text(2, "N");
    columns.number(1, width as u64);
    shape.bytes(1, &rows.0);
    shape.bytes(1, &columns.0);
    let (mut tensor, mut kind, mut message) = (Message::default(), Message::default(), Message::default());
    tensor.number(1, FLOAT);
    tensor.bytes(2, &shape.0);
    kind.bytes(1, &tensor.0);
    message.text(1, name);
    message.bytes(2, &kind.0);
    message.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded_as_protocol_buffers_are() {
        let mut message = Message::default();
        // The examples of the encoding's documentation: 150 in field 1, "testing" in field 2.
        message.number(1, 150);
        message.text(2, "testing");
        assert_eq!(message.0, *b"\x08\x96\x01\x12\x07testing");
    }
}
