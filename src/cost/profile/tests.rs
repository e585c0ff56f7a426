//! Tests of profiles and their file.

use super::contents::{DeviceEntry, DeviceKey, seconds_since_1970};
use super::*;
use crate::cost::calibrate::Thoroughness;
use crate::cost::learned::{ClassRecord, Record};
use crate::cost::machine::{CoRun, Curve, DeviceModel, Engine, Limits, Link};
use crate::device::{DeviceId, DeviceKind};
use crate::element::ElementType;
use crate::simd::InstructionSet;
use proptest::prelude::*;
use std::fs;

const QUIET: MeasurementConditions = MeasurementConditions {
    measured: 1_700_000_000,
    thoroughness: Thoroughness::Quick,
    busy: false,
};

fn cpu_key(threads: usize) -> DeviceKey {
    DeviceKey::Cpu {
        model: "a processor".into(),
        threads,
        simd: InstructionSet::Avx2,
    }
}

fn gpu_key(driver: &str) -> DeviceKey {
    DeviceKey::Gpu {
        adapter: "a card".into(),
        driver: driver.into(),
        backend: "vulkan".into(),
    }
}

fn engine(threads: usize) -> Engine {
    let points = vec![[65536.0, 1.5e11], [16777216.0, 3e10]];
    Engine {
        threads,
        launch_seconds: 3.25e-6,
        flops_per_second: 1.172e11,
        bandwidth: Curve::new(points).expect("ascending"),
    }
}

fn cpu(threads: usize) -> DeviceModel {
    DeviceModel {
        id: DeviceId::Cpu,
        kind: DeviceKind::Cpu,
        name: "a processor".into(),
        engines: if threads > 1 {
            vec![engine(1), engine(threads)]
        } else {
            vec![engine(1)]
        },
        queued_seconds: 0.0,
        upload: None,
        download: None,
        limits: Limits::default(),
    }
}

fn gpu() -> DeviceModel {
    let link = Link::new(vec![[0.0, 1e-5], [1.2e10, 1.00001]]);
    DeviceModel {
        id: DeviceId::Gpu(0),
        kind: DeviceKind::Discrete,
        name: "a card".into(),
        engines: vec![engine(1)],
        queued_seconds: 1e-6,
        upload: link.clone(),
        download: link,
        limits: Limits {
            max_binding_bytes: Some(1 << 27),
            ..Limits::default()
        },
    }
}

/// The eight threads of a processor, and two equal cards.
fn keyed() -> Vec<Keyed> {
    let device = |id, key, copy| Keyed {
        id,
        key,
        copy,
        kept: true,
    };
    vec![
        device(DeviceId::Cpu, cpu_key(8), 0),
        device(DeviceId::Gpu(0), gpu_key("1.0"), 0),
        device(DeviceId::Gpu(1), gpu_key("1.0"), 1),
    ]
}

fn record(kernel: &str, device: DeviceId, samples: u64) -> Record {
    let class = |size: f64| ClassRecord {
        size,
        samples,
        recent: vec![0.25, -0.125],
    };
    Record {
        kernel: kernel.into(),
        element_type: Some(ElementType::F32),
        implementation: 0x0123_4567_89ab_cdef,
        device,
        threads: 1,
        beside: Vec::new(),
        moved: false,
        classes: vec![class(10.0), class(10.5), class(20.25)],
    }
}

/// Records of one device, of two equal ones, and of two together.
fn records() -> Vec<Record> {
    let mut all = vec![
        record("axpy", DeviceId::Cpu, 4),
        record("axpy", DeviceId::Gpu(0), 5),
        record("axpy", DeviceId::Gpu(1), 6),
    ];
    all.push(Record {
        beside: vec![DeviceId::Cpu, DeviceId::Gpu(1)],
        moved: true,
        ..record("axpy", DeviceId::Gpu(0), 7)
    });
    all.push(Record {
        element_type: None,
        ..record("my kernel", DeviceId::Cpu, 8)
    });
    all
}

fn corun() -> CoRun {
    CoRun {
        devices: [DeviceId::Cpu, DeviceId::Gpu(1)],
        compute: [1.25, 1.0],
        memory: [1.5, 2.0],
    }
}

fn profile() -> Profile {
    let mut profile = Profile::default();
    profile.insert(cpu_key(1), QUIET, cpu(1));
    profile.insert(cpu_key(8), QUIET, cpu(8));
    profile.insert(gpu_key("1.0"), QUIET, gpu());
    profile.insert_corun(&keyed(), &[corun()]);
    profile.insert_records(&keyed(), &records());
    profile
}

/// The records for these devices, which stay in the profile.
fn known(profile: &Profile, devices: &[Keyed]) -> Vec<Record> {
    profile.clone().take_records(devices)
}

/// The same in a fixed order.
fn sorted(mut records: Vec<Record>) -> Vec<String> {
    records.sort_by(|a, b| a.kernel.cmp(&b.kernel));
    let mut all: Vec<String> = records.iter().map(|record| format!("{record:?}")).collect();
    all.sort();
    all
}

fn keep(location: &Location, key: DeviceKey, at: MeasurementConditions, model: DeviceModel) {
    let kept = location.update(|profile| profile.insert(key, at, model));
    kept.expect("it can be written");
}

#[test]
fn a_written_profile_can_be_read_back() {
    let text = profile().to_json();
    let parsed = parse(&text).expect("it was just written");
    assert_eq!(parsed.profile, profile());
    assert_eq!(parsed.ignored, [""; 0]);
    assert_eq!(sorted(known(&parsed.profile, &keyed())), sorted(records()));
    assert_eq!(parsed.profile.corun_of(&keyed()), [corun()]);
}

#[test]
fn a_person_can_read_it() {
    let text = profile().to_json();
    for line in [
        "  \"schema\": 4,",
        "      \"label\": \"cpu-8-threads\",",
        "      \"label\": \"a-card\",",
        "  \"corun\": [{\"devices\": [\"cpu-8-threads\", \"a-card#1\"], \"compute\": [1.25, 1.0], \"memory\": [1.5, 2.0]}],",
        "      \"implementation\": \"0123456789abcdef\",",
        "        {\"size\": 10.0, \"samples\": 4, \"recent\": [0.25, -0.125]},",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}

#[test]
fn figures_and_records_of_one_instruction_set_do_not_hold_for_another() {
    let mut keyed = keyed();
    let DeviceKey::Cpu { simd, .. } = &mut keyed[0].key else {
        panic!("the first is the CPU");
    };
    *simd = InstructionSet::Baseline;
    let on_cpu = |profile: &Profile, keyed: &[Keyed]| {
        let learned = known(profile, keyed).into_iter();
        learned.filter(|r| r.device == DeviceId::Cpu).count()
    };
    assert!(profile().find(&keyed[0].key).is_none());
    assert_eq!(on_cpu(&profile(), &keyed), 0);
    let before = on_cpu(&profile(), &self::keyed());
    assert!(before > 0);
    // Once measured, it has its own figures beside those of the other, and still none of the other's records.
    let mut both = profile();
    both.insert(keyed[0].key.clone(), QUIET, cpu(8));
    assert!(both.find(&keyed[0].key).is_some() && both.find(&cpu_key(8)).is_some());
    assert_eq!(on_cpu(&both, &keyed), 0);
    assert_eq!(on_cpu(&both, &self::keyed()), before);
}

#[test]
fn only_the_same_device_is_found_and_a_new_driver_replaces_the_old() {
    let mut profile = profile();
    assert!(profile.find(&cpu_key(8)).is_some() && profile.find(&cpu_key(4)).is_none());
    assert!(profile.find(&gpu_key("1.1")).is_none());
    let mut updated = keyed();
    updated[1].key = gpu_key("1.1");
    updated[2].key = gpu_key("1.1");
    assert_eq!(profile.outdated(&keyed()), [""; 0]);
    assert_eq!(profile.outdated(&updated), ["a-card"]);
    profile.insert(gpu_key("1.1"), QUIET, gpu());
    assert!(profile.find(&gpu_key("1.0")).is_none() && profile.find(&gpu_key("1.1")).is_some());
    assert_eq!(profile.devices.len(), 3);
    // Records of the old driver do not hold.
    let left = known(&profile, &updated);
    assert!(left.len() == 2 && left.iter().all(|record| record.device == DeviceId::Cpu));
    assert_eq!(profile.corun, []);
}

#[test]
fn records_outlive_figures_that_agree() {
    let mut profile = profile();
    let mut again = cpu(8);
    again.engines[1].flops_per_second *= 1.2;
    profile.insert(cpu_key(8), QUIET, again.clone());
    assert_eq!(known(&profile, &keyed()).len(), records().len());
    again.engines[1].flops_per_second *= 3.0;
    profile.insert(cpu_key(8), QUIET, again);
    let left = known(&profile, &keyed());
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn devices_of_other_runtimes_keep_their_records() {
    let mut profile = profile();
    let only_cpu = &keyed()[..1];
    assert_eq!(known(&profile, only_cpu).len(), 2);
    profile.insert_records(only_cpu, &[record("axpy", DeviceId::Cpu, 100)]);
    let all = known(&profile, &keyed());
    assert_eq!(all.len(), records().len());
    assert!(all.contains(&record("axpy", DeviceId::Cpu, 100)));
}

#[test]
fn for_each_size_the_record_with_more_samples_is_kept() {
    let mut profile = profile();
    let mut fewer = record("axpy", DeviceId::Cpu, 3);
    fewer.classes[1].samples = 9;
    fewer.classes[2].size = 30.0;
    profile.insert_records(&keyed(), &[fewer]);
    let records = known(&profile, &keyed());
    let found = records
        .iter()
        .find(|r| r.kernel == "axpy" && r.device == DeviceId::Cpu);
    let classes = found.map(|record| record.classes.iter());
    let found: Vec<(f64, u64)> = classes
        .expect("it is there")
        .map(|class| (class.size, class.samples))
        .collect();
    assert_eq!(found, [(10.0, 4), (10.5, 9), (20.25, 4), (30.0, 3)]);
}

#[test]
fn a_few_implementations_of_a_kernel_are_kept_and_the_latest_stays_longest() {
    let mut profile = Profile::default();
    profile.insert(cpu_key(8), QUIET, cpu(8));
    for implementation in [1, 2, 3, 4, 1, 5] {
        let record = Record {
            implementation,
            ..record("axpy", DeviceId::Cpu, 1)
        };
        profile.insert_records(&keyed(), &[record]);
    }
    let known: Vec<u64> = profile
        .learned
        .iter()
        .map(|entry| entry.implementation)
        .collect();
    assert_eq!(known, [3, 4, 1, 5]);
}

#[test]
fn impossible_figures_are_not_written() {
    let mut profile = profile();
    let before = profile.clone();
    let mut unsound = record("other", DeviceId::Cpu, 1);
    unsound.classes[0].recent = vec![f64::NAN];
    profile.insert_records(&keyed(), &[unsound, record("other", DeviceId::Gpu(7), 1)]);
    assert_eq!(profile, before);
    for entries in [5, 2, 0] {
        profile.keep_learned(entries);
        assert!(profile.learned.len() <= entries);
    }
}

#[test]
fn a_text_that_is_no_profile_is_refused_with_the_reason() {
    let good = profile().to_json();
    let schema = format!("\"schema\": {SCHEMA}");
    let head = format!("{{{schema}}}");
    let version = format!("\"divvy\": \"{}\"", env!("CARGO_PKG_VERSION"));
    for (from, to, says) in [
        (good.as_str(), "", "not a profile"),
        (&good, "[]", "not a profile"),
        (&good, &head, "missing field `divvy`"),
        (&schema, "\"schema\": 3", "schema version 3"),
        (&schema, "\"schema\": 999", "schema version 999"),
        ("\"devices\"", "\"gadgets\"", "missing field `devices`"),
        (&version, "\"divvy\": \"0.0.9\"", "by Divvy 0.0.9"),
    ] {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good, "{from} is in the file");
        let error = parse(&text).expect_err(to).to_string();
        assert!(error.contains(says), "{to}: {error}");
    }
}

#[test]
fn impossible_entries_are_ignored_with_the_reason_and_the_rest_is_used() {
    let good = profile().to_json();
    for (from, to, devices, learned, says) in [
        ("\"busy\"", "\"lazy\"", 2, 5, "missing field `busy`"),
        ("1.00001", "\"fast\"", 2, 2, "invalid type"),
        ("1.00001", "-1.0", 2, 2, "a link needs"),
        ("1.00001", "1e300", 2, 2, "the link of a card"),
        ("3.25e-6", "-0.1", 2, 5, "a speed of a processor"),
        ("3.25e-6", "1e9", 2, 5, "a speed of a processor"),
        ("117200000000.0", "0.0", 2, 5, "a speed of a processor"),
        ("117200000000.0", "1e-300", 2, 5, "a speed of a processor"),
        (
            "30000000000.0",
            "-1.0",
            2,
            5,
            "a curve needs positive numbers",
        ),
        (
            "65536.0",
            "99999999.0",
            2,
            5,
            "a curve needs positive numbers",
        ),
        (
            "\"threads\": 8",
            "\"threads\": 9",
            2,
            2,
            "the number of threads of a processor",
        ),
        ("\"discrete\"", "\"cpu\"", 2, 2, "the kind of a card"),
        (
            "\"label\": \"a-card\"",
            "\"label\": \"a#card\"",
            2,
            2,
            "the label of a card",
        ),
        (
            "\"label\": \"a-card\"",
            "\"label\": \"cpu-1-thread\"",
            2,
            2,
            "is there twice",
        ),
        (
            "[1.25, 1.0]",
            "[0.5, 1.0]",
            3,
            5,
            "the slow-down of cpu-8-threads and a-card#1",
        ),
        ("\"samples\": 5", "\"samples\": -5", 3, 4, "entry "),
        (
            "0.25, -0.125",
            "0.25, 1e5",
            3,
            4,
            "has a figure out of range",
        ),
        (
            "{\"size\": 10.0,",
            "{\"size\": 15.0,",
            3,
            4,
            "has a figure out of range",
        ),
        (
            "0123456789abcdef",
            "0123456789abcdefg",
            3,
            4,
            "up to 16 hexadecimal digits",
        ),
        (
            "0123456789abcdef",
            "+123",
            3,
            4,
            "up to 16 hexadecimal digits",
        ),
        (
            "\"element_type\": \"f32\"",
            "\"element_type\": \"f31\"",
            3,
            4,
            "unknown variant",
        ),
        (
            "\"beside\": [\"cpu-8",
            "\"beside\": [\"cpu-9",
            3,
            4,
            "of an unknown device",
        ),
    ] {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good, "{from} is in the file");
        let Parsed { profile, ignored } = parse(&text).expect(to);
        assert_eq!(
            (profile.devices.len(), profile.learned.len()),
            (devices, learned),
            "{from} {to} {ignored:?}"
        );
        assert!(ignored[0].contains(says), "{to}: {ignored:?}");
    }
}

#[test]
fn a_file_is_written_read_again_and_extended() {
    let folder = tempfile::tempdir().expect("a folder");
    let location = Location::Named(folder.path().join("new/profile.json"));
    assert_eq!(
        location.load(&keyed()).expect("nothing there yet"),
        Profile::default()
    );
    keep(&location, cpu_key(1), QUIET, cpu(1));
    keep(&location, cpu_key(8), QUIET, cpu(8));
    keep(&location, gpu_key("1.0"), QUIET, gpu());
    let learned = location.update(|profile| {
        profile.insert_corun(&keyed(), &[corun()]);
        profile.insert_records(&keyed(), &records());
    });
    learned.expect("it can be written");
    assert_eq!(location.load(&keyed()).expect("it was kept"), profile());
    let files = fs::read_dir(folder.path().join("new")).expect("it was made");
    let mut names: Vec<_> = files
        .map(|file| file.expect("readable").file_name())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["profile.json", "profile.json.lock"],
        "no temporary file is left"
    );
}

#[test]
fn figures_of_a_busy_machine_hold_only_for_a_while() {
    let entry = |busy, seconds: i64| DeviceEntry {
        label: "cpu".into(),
        key: cpu_key(1),
        measured: seconds_since_1970().saturating_add_signed(seconds),
        thoroughness: Thoroughness::First,
        busy,
        model: cpu(1),
    };
    for (busy, seconds, again) in [
        (false, -1_000_000, false),
        (true, -1, false),
        (true, -1000, true),
        (true, 1000, true),
    ] {
        assert_eq!(
            entry(busy, seconds).is_worth_another_try(),
            again,
            "{seconds}"
        );
    }
}

#[test]
fn clearing_removes_everything_or_the_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let location = Location::Named(folder.path().join("profile.json"));
    assert_eq!(
        location.clear(false).expect("nothing there"),
        Cleared::default()
    );
    let fill = || {
        location
            .update(|kept| *kept = profile())
            .expect("it can be written")
    };
    fill();
    let cleared = location.clear(true).expect("it can be written");
    assert_eq!((cleared.devices, cleared.learned), (0, 5));
    let left = location
        .read()
        .expect("readable")
        .expect("still there")
        .profile;
    assert_eq!((left.devices.len(), left.learned.len()), (3, 0));
    fill();
    let cleared = location.clear(false).expect("it can be removed");
    assert_eq!((cleared.devices, cleared.learned), (3, 5));
    assert_eq!(location.read().expect("no error"), None);
}

#[test]
fn merging_takes_newer_figures_and_more_samples() {
    let newer = MeasurementConditions {
        measured: QUIET.measured + 1,
        ..QUIET
    };
    let mut other = Profile::default();
    // In another order, so that labels differ: a card of another machine has taken the name.
    let stranger = DeviceKey::Gpu {
        adapter: "a card, another".into(),
        driver: "1".into(),
        backend: "vulkan".into(),
    };
    other.insert(stranger.clone(), QUIET, gpu());
    other.insert(gpu_key("1.0"), newer, gpu());
    other.insert(cpu_key(8), QUIET, cpu(8));
    assert_eq!(
        other.find(&gpu_key("1.0")).map(|entry| &*entry.label),
        Some("a-card-2")
    );
    other.insert_records(
        &keyed(),
        &[
            record("gemm", DeviceId::Gpu(1), 3),
            record("axpy", DeviceId::Cpu, 1),
        ],
    );
    let mut merged = profile();
    let report = merged.merge(other.clone());
    assert_eq!(report.devices, ["a-card-2", "a-card"]);
    assert_eq!((report.learned, &report.ignored[..]), (1, &[] as &[String]));
    assert_eq!(merged.devices.len(), 4);
    assert_eq!(
        merged.find(&gpu_key("1.0")).map(|entry| entry.measured),
        Some(newer.measured)
    );
    let mut expected = records();
    expected.push(record("gemm", DeviceId::Gpu(1), 3));
    assert_eq!(sorted(known(&merged, &keyed())), sorted(expected.clone()));
    assert_eq!(merged.corun_of(&keyed()), [corun()]);
    // Once more changes nothing.
    let report = merged.merge(other);
    assert_eq!(report, Merged::default());
    assert_eq!(sorted(known(&merged, &keyed())), sorted(expected));
    assert!(parse(&merged.to_json()).expect("sound").ignored.is_empty());
}

#[test]
fn merging_older_figures_of_another_machine_state_is_refused_with_the_reason() {
    let mut changed = cpu(8);
    changed.engines[0].flops_per_second *= 10.0;
    let older = MeasurementConditions {
        measured: QUIET.measured - 1,
        ..QUIET
    };
    let mut other = Profile::default();
    other.insert(cpu_key(8), older, changed);
    other.insert_records(&keyed(), &[record("gemm", DeviceId::Cpu, 3)]);
    let mut merged = profile();
    let report = merged.merge(other);
    assert_eq!((report.devices.len(), report.learned), (0, 0));
    assert!(report.ignored[0].contains("older than those"), "{report:?}");
    assert!(
        report.ignored[1].contains("1 entries about kernels"),
        "{report:?}"
    );
    assert_eq!(merged, profile());
}

#[test]
fn a_profile_of_other_machines_is_recognized() {
    assert!(!Profile::default().is_foreign(&keyed()));
    assert!(!profile().is_foreign(&keyed()));
    let mut other = keyed();
    other.truncate(1);
    other[0].key = DeviceKey::Cpu {
        model: "another".into(),
        threads: 8,
        simd: InstructionSet::Avx2,
    };
    assert!(profile().is_foreign(&other));
}

#[test]
fn a_named_file_that_cannot_be_read_is_an_error_and_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let location = Location::Named(folder.path().into());
    let error = location
        .load(&keyed())
        .expect_err("a folder is no file")
        .to_string();
    assert!(
        error.contains(&*folder.path().to_string_lossy()) && error.contains("regular file"),
        "{error}"
    );
    assert!(location.update(|_| ()).is_err() && location.clear(false).is_err());
    assert!(folder.path().is_dir());
    // In the data directory the same is only a warning.
    assert!(
        Location::DataDir(folder.path().into())
            .load(&keyed())
            .is_ok()
    );
}

#[test]
fn a_named_file_that_is_no_profile_is_ignored_and_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("letter.txt");
    fs::write(&path, "Dear Ada,").expect("writable");
    let named = Location::Named(path.clone());
    assert_eq!(
        named.load(&keyed()).expect("only a warning"),
        Profile::default()
    );
    for refused in [named.update(|_| ()).map(drop), named.clear(false).map(drop)] {
        let error = refused.expect_err("it is not a profile").to_string();
        assert!(error.contains("letter.txt: it is not a profile"), "{error}");
    }
    assert_eq!(fs::read_to_string(&path).expect("readable"), "Dear Ada,");
    // A broken file in the data directory can only be a profile.
    let own = Location::DataDir(path);
    keep(&own, cpu_key(1), QUIET, cpu(1));
    assert_eq!(own.load(&keyed()).expect("readable").devices.len(), 1);
}

#[test]
fn a_newer_profile_stays_for_the_newer_version() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("profile.json");
    let newer = "{\"schema\": 999, \"divvy\": \"9.0.0\", \"moons\": []}";
    fs::write(&path, newer).expect("writable");
    let location = Location::DataDir(path.clone());
    assert_eq!(
        location.load(&keyed()).expect("only a warning"),
        Profile::default()
    );
    assert!(location.update(|_| ()).is_err() && location.clear(false).is_err());
    assert_eq!(fs::read_to_string(&path).expect("readable"), newer);
}

#[test]
fn a_file_that_is_too_large_is_no_profile() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("profile.json");
    let file = fs::File::create(&path).expect("writable");
    file.set_len(17 << 20).expect("writable");
    let location = Location::DataDir(path);
    let error = location.read().expect_err("it is too large").to_string();
    assert!(error.contains("too large"), "{error}");
    assert_eq!(
        location.load(&keyed()).expect("only a warning"),
        Profile::default()
    );
}

#[test]
fn concurrent_writers_lose_nothing_and_leave_whole_files() {
    const WRITERS: usize = 4;
    const KERNELS: usize = 10;
    let folder = tempfile::tempdir().expect("a folder");
    let location = Location::DataDir(folder.path().join("profile.json"));
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let location = &location;
            scope.spawn(move || {
                keep(location, cpu_key(writer + 9), QUIET, cpu(writer + 9));
                keep(location, cpu_key(8), QUIET, cpu(8));
                for kernel in 0..KERNELS {
                    let learned = record(&format!("{writer}-{kernel}"), DeviceId::Cpu, 1);
                    let kept = location.update(|p| p.insert_records(&keyed(), &[learned]));
                    kept.expect("it can be written");
                    let parsed = location.read().expect("never half a file");
                    assert!(parsed.is_some_and(|parsed| parsed.ignored.is_empty()));
                }
            });
        }
    });
    let all = location.load(&keyed()).expect("readable");
    assert_eq!(all.learned.len(), WRITERS * KERNELS);
    assert_eq!(all.devices.len(), WRITERS + 1);
    assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 2);
}

/// Whether every number that the planner will see is usable.
fn is_sound(profile: &Profile) -> bool {
    let records = known(profile, &keyed());
    let mut factors = profile
        .corun
        .iter()
        .flat_map(|pair| pair.compute.iter().chain(&pair.memory));
    profile.devices.iter().all(|entry| entry.check().is_ok())
        && records.iter().all(Record::is_sound)
        && factors.all(|factor| *factor >= 1.0 && factor.is_finite())
}

proptest! {
    #[test]
    fn any_text_is_refused_without_panic(text in ".{0,200}") {
        prop_assert!(parse(&text).is_err());
    }

    #[test]
    fn a_corrupted_profile_is_refused_or_sound(at in 0usize..40_000, with in prop::collection::vec(any::<u8>(), 0..4), cut in any::<bool>()) {
        let mut bytes = profile().to_json().into_bytes();
        let at = at % bytes.len();
        let end = if cut { bytes.len() } else { (at + with.len()).min(bytes.len()) };
        bytes.splice(at..end, with);
        if let Ok(profile) = parse(&String::from_utf8_lossy(&bytes)) {
            prop_assert!(is_sound(&profile.profile));
        }
    }

    #[test]
    fn only_possible_figures_are_read(which in 0usize..512, value in prop_oneof![
        Just("null".to_owned()), Just("NaN".to_owned()), Just("1e999".to_owned()), Just("-0.5".to_owned()),
        Just("0".to_owned()), Just("true".to_owned()), any::<f64>().prop_map(|x| format!("{x:e}")), any::<i64>().prop_map(|x| x.to_string())
    ]) {
        // Replaces one number of the file by the value.
        let text = profile().to_json();
        let starts: Vec<usize> = text.match_indices(|c: char| c.is_ascii_digit())
            .map(|(at, _)| at)
            .filter(|at| !text[..*at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-'))
            .collect();
        let start = starts[which % starts.len()];
        let length = text[start..].find(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-')).expect("it goes on");
        let text = format!("{}{}{}", &text[..start], value, &text[start + length..]);
        if let Ok(profile) = parse(&text) {
            prop_assert!(is_sound(&profile.profile), "{}", text);
        }
    }
}
