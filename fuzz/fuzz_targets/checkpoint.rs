//! Any bytes are refused as a checkpoint, or all that is in it can be read and saved again.
#![no_main]

use divvy::array::ElementType;
use divvy::checkpoint::{Checkpoint, SavedCheckpoint};
use libfuzzer_sys::fuzz_target;
use std::io::Cursor;
use xxhash_rust::xxh3::xxh3_64;

fuzz_target!(|bytes: &[u8]| {
    read(bytes.to_vec());
    // No random change gets past the checksum.
    let mut sealed = bytes.to_vec();
    sealed.extend(xxh3_64(bytes).to_le_bytes());
    read(sealed);
});

fn read(bytes: Vec<u8>) {
    let file_bytes = bytes.len();
    let Ok(saved) = SavedCheckpoint::read_from(Cursor::new(bytes), "fuzz") else {
        return;
    };
    let value: serde_json::Value = saved.value().expect("it was read with the header");
    let mut elements = 0;
    for array in saved.arrays() {
        elements += array.len;
        let len = match array.element_type {
            ElementType::F32 => saved.array::<f32>(array.name).map(|array| array.len()),
            ElementType::U32 => saved.array::<u32>(array.name).map(|array| array.len()),
            ElementType::I32 => saved.array::<i32>(array.name).map(|array| array.len()),
            other => panic!("elements of {other}"),
        };
        assert_eq!(len.expect("it is there"), array.len);
    }
    assert!(4 * elements < file_bytes);
    let mut again = Vec::new();
    let checkpoint = Checkpoint::new(&value);
    checkpoint
        .write_to(&mut again, "fuzz")
        .expect("what was read can be saved");
}
