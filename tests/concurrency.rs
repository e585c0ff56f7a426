//! Many threads on one runtime: each computes what it would compute alone, whatever the others do, and none waits for ever.

mod support;

use divvy::device::FaultPoint;
use divvy::kernels::{dot, sum};
use divvy::prelude::*;
use divvy::{DeviceId, Policy, Runtime};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::programs::{self, Step, step};

const THREADS: u64 = 16;
/// Steps of a program, most of which are calls.
const STEPS: usize = 40;
/// Without a step of any thread for so long, they wait for each other.
const STUCK: Duration = Duration::from_secs(180);

/// A number that the environment may give.
fn setting(name: &str, otherwise: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(otherwise, |text| text.parse().expect("a number"))
}

/// What the threads share.
struct Shared {
    rt: Runtime,
    words: Array<u32>,
    numbers: Array<f32>,
    word_sum: u32,
    product: f32,
    /// Steps that all threads have done.
    steps: AtomicU64,
}

impl Shared {
    fn new(rt: Runtime) -> divvy::Result<Self> {
        let words: Vec<u32> = (0..10_000u32)
            .map(|i| i.wrapping_mul(2_654_435_761))
            .collect();
        let numbers: Vec<f32> = words.iter().map(|word| (word >> 8) as f32).collect();
        let numbers = rt.array_from(&numbers)?;
        Ok(Self {
            word_sum: words.iter().fold(0, |sum, word| sum.wrapping_add(*word)),
            words: rt.array_from(&words)?,
            product: rt.run(dot(&numbers, &numbers).on(Placement::Cpu))?.value,
            numbers,
            steps: AtomicU64::new(0),
            rt,
        })
    }

    /// Runs a random program on arrays of the thread's own, and reads what all threads share between its steps.
    fn program(&self, runner: &mut TestRunner) -> Result<(), TestCaseError> {
        let sizes = prop_oneof![9 => 1..2000usize, 1 => 2000..60_000usize];
        let steps = prop::collection::vec((step(), any::<u8>(), 0.0..1.0f64), STEPS);
        let tree = (sizes, steps).new_tree(runner).expect("nothing is refused");
        let (n, steps): (usize, Vec<(Step, u8, f64)>) = tree.current();
        programs::run(&self.rt, n, &steps, |number| {
            self.steps.fetch_add(1, Ordering::Relaxed);
            if number % 8 == 0 {
                self.read(steps[number].2);
            }
        })
    }

    /// Two calls on arrays that other threads use at the same time.
    fn read(&self, share: f64) {
        let split = || match self.rt.gpus().len() {
            0 => Placement::Cpu,
            _ => Placement::Split(vec![
                (DeviceId::Gpu(0), share),
                (DeviceId::Cpu, 1.0 - share),
            ]),
        };
        let found = self.rt.run(sum(&self.words).on(split())).expect("a sum");
        assert_eq!(found.value, self.word_sum);
        let found = self
            .rt
            .run(dot(&self.numbers, &self.numbers))
            .expect("a product");
        assert_eq!(found.value.to_bits(), self.product.to_bits());
    }
}

/// Ends the process, saying so, if nobody has done a step for long.
fn watch(shared: &Shared, done: &AtomicBool) {
    let (mut steps, mut since) = (0, Instant::now());
    while !done.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(200));
        let now = shared.steps.load(Ordering::Relaxed);
        if now != steps {
            (steps, since) = (now, Instant::now());
        } else if since.elapsed() > STUCK {
            eprintln!(
                "no thread has done anything for {STUCK:?} after {steps} steps: they wait for each other"
            );
            std::process::abort();
        }
    }
}

/// Random numbers of a thread of its own.
fn runner(seed: u64, thread: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&thread.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    TestRunner::new_with_rng(Config::default(), rng)
}

/// Has every thread run programs while `go_on` says so to the number of its steps. Returns what went wrong.
fn run(shared: &Shared, seed: u64, go_on: impl Fn(usize) -> bool + Sync) -> Vec<String> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| watch(shared, &done));
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let go_on = &go_on;
                scope.spawn(move || {
                    let mut runner = runner(seed, thread);
                    let (mut steps, mut problems) = (0, Vec::new());
                    while go_on(steps) {
                        let program = AssertUnwindSafe(|| shared.program(&mut runner));
                        match catch_unwind(program) {
                            Ok(Ok(())) => {}
                            Ok(Err(wrong)) => problems.push(format!("thread {thread}: {wrong}")),
                            Err(_) => problems.push(format!("thread {thread} panicked")),
                        }
                        steps += STEPS;
                    }
                    problems
                })
            })
            .collect();
        let problems = threads
            .into_iter()
            .map(|thread| thread.join().expect("it is caught"));
        let problems = problems.flatten().collect();
        done.store(true, Ordering::Relaxed);
        problems
    })
}

/// `DIVVY_CALLS` says how many calls each thread makes, otherwise 2,000.
#[test]
fn sixteen_threads_on_one_runtime_compute_what_each_would_alone() {
    let shared = Shared::new(support::build(Runtime::builder())).expect("memory");
    support::has_gpu(&shared.rt);
    let seed = setting("DIVVY_SEED", fastrand::u64(..));
    let calls = setting("DIVVY_CALLS", 2000) as usize;
    eprintln!("seed {seed}");
    let problems = run(&shared, seed, |steps| steps < calls);
    assert!(problems.is_empty(), "seed {seed}: {problems:#?}");
}

/// The same for long, while GPUs fail in every way: `scripts/soak.sh`.
#[test]
#[ignore = "takes ten minutes: scripts/soak.sh"]
fn soak() {
    let verifying = Runtime::builder().policy(Policy::default().verify(0.05));
    let shared = Shared::new(support::build(verifying)).expect("memory");
    let seed = setting("DIVVY_SEED", fastrand::u64(..));
    let limit = Duration::from_secs(setting("DIVVY_SOAK_SECONDS", 600));
    println!("seed {seed}, {} s, {THREADS} threads", limit.as_secs());
    let (started, done) = (Instant::now(), AtomicBool::new(false));
    let faults = AtomicU64::new(0);
    let problems = std::thread::scope(|scope| {
        if support::has_gpu(&shared.rt) {
            scope.spawn(|| fail_now_and_then(&shared.rt, seed, &done, &faults));
        }
        let problems = run(&shared, seed, |_| started.elapsed() < limit);
        done.store(true, Ordering::Relaxed);
        problems
    });
    let steps = shared.steps.load(Ordering::Relaxed);
    println!("steps        {steps}, most of them calls");
    println!("faults       {}", faults.load(Ordering::Relaxed));
    println!("mismatches   {}", problems.len());
    println!(
        "peak memory  {}",
        peak_memory().unwrap_or("is not told here".into())
    );
    assert!(problems.is_empty(), "seed {seed}: {problems:#?}");
}

/// Has the first GPU fail in some way a few times a second, and opens it again.
fn fail_now_and_then(rt: &Runtime, seed: u64, done: &AtomicBool, count: &AtomicU64) {
    const POINTS: [FaultPoint; 4] = [
        FaultPoint::Device,
        FaultPoint::Allocation,
        FaultPoint::Submission,
        FaultPoint::Mapping,
    ];
    let mut rng = fastrand::Rng::with_seed(seed);
    while !done.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(rng.u64(50..500)));
        let point = POINTS[rng.usize(..POINTS.len())];
        rt.faults(0, |faults| faults.fail(point, rng.u64(..50)))
            .expect("there is a GPU");
        count.fetch_add(1, Ordering::Relaxed);
        if !rt.lost_gpus().is_empty() {
            rt.reopen_gpus();
        }
    }
}

/// The most memory that the process has had, as Linux tells it.
fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().to_owned())
}
