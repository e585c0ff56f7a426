use super::*;
use serde::Deserialize;
use serde_json::json;
use std::io::Cursor;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct State {
    step: u64,
    dt: f32,
    name: String,
}

fn state() -> State {
    State {
        step: u64::MAX,
        dt: 0.1,
        name: "a \"name\"\n".into(),
    }
}

fn bytes_of(checkpoint: &Checkpoint<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    checkpoint
        .write_to(&mut bytes, "memory")
        .expect("it can be saved");
    bytes
}

fn read(bytes: &[u8]) -> Result<SavedCheckpoint> {
    SavedCheckpoint::read_from(Cursor::new(bytes.to_vec()), "memory")
}

/// The problem of a file that must be refused, without the name before it.
fn refusal(bytes: &[u8]) -> String {
    let error = read(bytes).expect_err("it is refused");
    assert!(matches!(error, Error::Checkpoint { .. }), "{error:?}");
    let text = error.to_string();
    text.strip_prefix("memory: ").expect("its name").to_owned()
}

/// A file with a valid checksum.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend(xxhash_rust::xxh3::xxh3_64(&bytes).to_le_bytes());
    bytes
}

/// A file with this header, `elements` bytes of elements, and a valid checksum.
fn forged(header: &str, elements: usize) -> Vec<u8> {
    let mut bytes = b"\x89DIVVY\r\n\x01\0\0\0".to_vec();
    bytes.extend((header.len() as u32).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + elements, 0);
    sealed(bytes)
}

#[test]
fn every_bit_comes_back() -> Result<()> {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    // More than one window, except under Miri, which is slow.
    let len = if cfg!(miri) {
        100
    } else {
        (1 << 20) + rng.usize(..1000)
    };
    let words: Vec<u32> = (0..len).map(|_| rng.u32(..)).collect();
    let numbers = Array::from_vec(words.iter().map(|bits| f32::from_bits(*bits)).collect());
    let signed = Array::from_slice(&[i32::MIN, -1, i32::MAX])?;
    let empty = Array::<u32>::uninit(0)?;
    let bytes = bytes_of(
        &Checkpoint::new(&state())
            .array("numbers", &numbers)
            .array("", &empty)
            .array("signed", &signed),
    );
    let saved = read(&bytes)?;
    assert_eq!(saved.value::<State>()?, state());
    let arrays: Vec<_> = saved
        .arrays()
        .map(|a| (a.name, a.element_type.size(), a.len))
        .collect();
    assert_eq!(arrays, [("numbers", 4, len), ("", 4, 0), ("signed", 4, 3)]);
    assert_eq!(saved.array::<i32>("signed")?.to_vec()?, signed.to_vec()?);
    let mut again = Array::filled(len, 7.0f32)?;
    saved.restore("numbers", &mut again)?;
    let bits = again.to_vec()?.into_iter().map(f32::to_bits);
    assert!(bits.eq(words));
    assert!(saved.array::<u32>("")?.is_empty());
    assert_eq!(bytes_of(&Checkpoint::new(&()).array("x", &signed)), {
        let header = format!(
            r#"{{"arrays":[{{"name":"x","type":"i32","len":3}}],"divvy":"{}","value":null}}"#,
            env!("CARGO_PKG_VERSION")
        );
        let mut documented = forged(&header, 0);
        documented.truncate(documented.len() - 8);
        documented.extend(signed.to_vec()?.iter().flat_map(|x| x.to_le_bytes()));
        sealed(documented)
    });
    Ok(())
}

#[test]
fn a_stream_may_start_with_other_bytes() -> Result<()> {
    let x = Array::from_slice(&[1u32, 2])?;
    let mut bytes = b"before".to_vec();
    bytes.extend(bytes_of(&Checkpoint::new(&3).array("x", &x)));
    let mut source = Cursor::new(bytes);
    source.set_position(6);
    let saved = SavedCheckpoint::read_from(source, "memory")?;
    assert_eq!(saved.array::<u32>("x")?.to_vec()?, [1, 2]);
    assert_eq!(saved.value::<u8>()?, 3);
    Ok(())
}

#[test]
fn a_truncated_or_damaged_file_is_refused() -> Result<()> {
    let x = Array::from_slice(&[1.5f32, -2.5, 1e-40])?;
    let bytes = bytes_of(&Checkpoint::new(&state()).array("x", &x));
    for len in 0..bytes.len() {
        let problem = refusal(&bytes[..len]);
        let expected = if len == 0 { "no checkpoint" } else { "cut off" };
        assert!(problem.contains(expected), "{len}: {problem}");
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        let problem = refusal(&changed);
        let expected = match at {
            0..8 => "no checkpoint of Divvy",
            8..12 => "of version",
            _ => "damaged",
        };
        assert!(problem.contains(expected), "{at}: {problem}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(refusal(&longer).contains("damaged"));
    Ok(())
}

#[test]
fn a_forged_header_is_refused_without_allocating() {
    let array = |name: &str, ty: &str, len: &str| {
        format!(r#"{{"name":"{name}","type":"{ty}","len":{len}}}"#)
    };
    let header = |arrays: &[String]| {
        format!(
            r#"{{"arrays":[{}],"divvy":"9.9.9","value":{{}}}}"#,
            arrays.join(",")
        )
    };
    assert!(read(&forged(&header(&[array("x", "f32", "2")]), 8)).is_ok());
    for (arrays, elements, expected) in [
        (vec![array("x", "f32", "2")], 7, "cut off"),
        (vec![array("x", "f32", "2")], 9, "expected"),
        (vec![array("x", "f64", "1")], 8, "header"),
        (vec![array("x", "f32", "-1")], 8, "header"),
        (vec![array("x", "f32", "1.5")], 8, "header"),
        (vec![array("x", "f32", "1000000000000")], 8, "cut off"),
        (
            vec![array("x", "f32", "4611686018427387904")],
            8,
            "more elements",
        ),
        (
            vec![array("x", "f32", "18446744073709551615")],
            8,
            "more elements",
        ),
        (
            vec![array("x", "u32", "2305843009213693951"); 3],
            8,
            "two arrays",
        ),
        (
            vec![
                array("x", "u32", "2305843009213693951"),
                array("y", "u32", "2305843009213693951"),
                array("z", "u32", "2305843009213693951"),
            ],
            8,
            "more elements",
        ),
        (vec!["7".into()], 8, "header"),
    ] {
        let problem = refusal(&forged(&header(&arrays), elements));
        assert!(
            problem.contains(expected) && problem.contains("damaged"),
            "{arrays:?}: {problem}"
        );
    }
    let deep = "[".repeat(if cfg!(miri) { 1 << 10 } else { 1 << 19 });
    for header in ["", "{}", "[]", "\u{fffd}", &deep] {
        let problem = refusal(&forged(header, 0));
        assert!(problem.contains("header cannot be read"), "{problem}");
    }
    let mut huge = b"\x89DIVVY\r\n\x01\0\0\0\xff\xff\xff\xff".to_vec();
    huge.resize(100, 0);
    assert!(refusal(&sealed(huge)).contains("4294967295"));
    let other = b"\x89DIVVY\r\n\x02\0\0\0\0\0\0\0".to_vec();
    assert!(refusal(&sealed(other)).contains("version 2, expected 1"));
}

#[test]
fn a_mismatch_of_type_or_length_is_an_error_that_names_the_right_one() -> Result<()> {
    let x = Array::from_slice(&[1.5f32, -2.5])?;
    let saved = read(&bytes_of(&Checkpoint::new(&state()).array("x", &x)))?;
    let text = |result: Result<()>| result.expect_err("it does not fit").to_string();
    let mut longer = Array::filled(3, 9.0f32)?;
    let problem = text(saved.restore("x", &mut longer));
    assert!(
        problem.contains("has 2") && problem.contains("expected 3"),
        "{problem}"
    );
    assert_eq!(longer.to_vec()?, [9.0; 3]);
    let problem = text(saved.array::<u32>("x").map(drop));
    assert!(problem.contains("of f32, expected u32"), "{problem}");
    let problem = text(saved.array::<f32>("y").map(drop));
    assert!(problem.contains(r#"no array "y"; it has "x""#), "{problem}");
    let problem = text(saved.value::<Vec<u8>>().map(drop));
    assert!(problem.contains("Vec<u8>"), "{problem}");
    Ok(())
}

#[test]
fn an_unsavable_value_is_an_error() -> Result<()> {
    let x = Array::from_slice(&[1u32])?;
    let text = |checkpoint: Checkpoint<'_>| {
        let refused = checkpoint.write_to(Vec::new(), "memory");
        refused.expect_err("it cannot be saved").to_string()
    };
    let problem = text(Checkpoint::new(&1).array("x", &x).array("x", &x));
    assert!(problem.contains("two arrays called \"x\""), "{problem}");
    let pairs = std::collections::BTreeMap::from([((1, 2), 3)]);
    assert!(text(Checkpoint::new(&pairs)).contains("JSON"));
    let problem = text(Checkpoint::new(&"x".repeat(1 << 20)));
    assert!(problem.contains("at most 1048576"), "{problem}");
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    let problem = text(Checkpoint::new(&deep));
    assert!(problem.contains("nested"), "{problem}");
    Ok(())
}

#[test]
fn a_file_is_replaced_as_a_whole_or_not_at_all() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run.divvy");
    let x = Array::from_slice(&[1u32, 2])?;
    for step in 0..3 {
        Checkpoint::new(&step).array("x", &x).save(&path)?;
        assert_eq!(Checkpoint::open(&path)?.value::<i32>()?, step);
    }
    let refused = Checkpoint::new(&3)
        .array("x", &x)
        .array("x", &x)
        .save(&path);
    assert!(matches!(refused, Err(Error::Checkpoint { .. })));
    let saved = Checkpoint::open(&path)?;
    // An opened checkpoint does not change.
    Checkpoint::new(&9).save(&path)?;
    assert_eq!(saved.array::<u32>("x")?.to_vec()?, [1, 2]);
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("a folder").count(),
        1
    );
    let missing = Checkpoint::open(folder.path().join("none"));
    assert!(matches!(missing, Err(Error::Io { .. })));
    assert!(matches!(
        Checkpoint::open(folder.path()),
        Err(Error::Io { .. })
    ));
    Ok(())
}

#[test]
fn checkpoints_are_send_and_sync() {
    fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Checkpoint<'_>>();
    assert_send_sync::<SavedCheckpoint>();
}
