//! Files of `torch.save` before version 1.6.

/// The pickles before the object: magic number, version, facts of the machine.
const BEGIN: &[u8] = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\
    \x80\x02}q\x00(X\x10\x00\x00\x00protocol_versionq\x01M\xe9\x03X\r\x00\x00\x00little_endianq\x02\x88u.";

fn text(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap().to_le_bytes();
    [b"X", &length[..], text.as_bytes()].concat()
}

/// A `state_dict` with tensors of two dimensions, each in a storage of its own: name, class of the storage, dimensions.
pub fn file(tensors: &[(&str, &str, [u8; 2])]) -> Vec<u8> {
    let mut bytes = BEGIN.to_vec();
    bytes.extend(b"\x80\x02ccollections\nOrderedDict\n)R(");
    for (at, (name, class, [rows, columns])) in tensors.iter().enumerate() {
        bytes.extend(text(name));
        bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        bytes.extend(text("storage"));
        bytes.extend(format!("ctorch\n{class}\n").into_bytes());
        bytes.extend(text(&format!("{at}")));
        bytes.extend(text("cpu"));
        bytes.extend([b'K', rows * columns]);
        bytes.extend(b"NtQK\x00");
        bytes.extend([b'K', *rows, b'K', *columns, 0x86, b'K', *columns]);
        bytes.extend(b"K\x01\x86\x89ccollections\nOrderedDict\n)RtR");
    }
    bytes.extend(b"u.\x80\x02](");
    for at in 0..tensors.len() {
        bytes.extend(text(&format!("{at}")));
    }
    bytes.extend(b"e.");
    for (_, class, [rows, columns]) in tensors {
        let elements = usize::from(rows * columns);
        let width = match *class {
            "LongStorage" => 8,
            "HalfStorage" => 2,
            _ => 4,
        };
        bytes.extend((elements as u64).to_le_bytes());
        bytes.resize(bytes.len() + elements * width, 0);
    }
    bytes
}
