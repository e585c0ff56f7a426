//! Clocks, the backlog and the cache of pipelines, on a real adapter: the first there is.

use super::shader::Shader;
use super::timeline::duration;
use super::tuning::Tuning;
use super::*;
use crate::error::{Error, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A GPU with one shader to dispatch: y = a * x + y.
struct Bench {
    gpu: Arc<Gpu>,
    x: Window,
    y: Window,
    shader: Shader,
}

const ITEMS: usize = 1 << 18;

impl Bench {
    /// `None`, said aloud, if there is no GPU.
    fn open() -> Option<Self> {
        Self::open_with(&GpuOptions::default())
    }

    /// The same on a GPU that is opened in another way.
    fn open_with(options: &GpuOptions) -> Option<Self> {
        let Discovery { gpus, problems } = discover(options, |_| true);
        let required = std::env::var_os("DIVVY_REQUIRE_GPU").is_some_and(|value| value == "1");
        assert!(
            !(gpus.is_empty() && required),
            "DIVVY_REQUIRE_GPU=1, but {problems:?}"
        );
        let Some(OpenGpu { gpu, .. }) = gpus.into_iter().next() else {
            eprintln!("SKIPPED: no GPU: {problems:?}");
            return None;
        };
        let ones = vec![1.0f32; ITEMS];
        let ones: &[u8] = bytemuck::cast_slice(&ones);
        let [x, y] = [0; 2].map(|_| {
            let bytes = ones.len() as u64;
            let buffer = gpu.allocate(bytes).expect("memory of the GPU");
            gpu.upload(&buffer, 0, ones).expect("uploaded");
            Window {
                buffer,
                offset: 0,
                bytes,
            }
        });
        let shader =
            Shader::builtin("axpy", include_str!("../../../shaders/axpy.wgsl")).entry("main", &[]);
        let bench = Self { gpu, x, y, shader };
        Some(bench)
    }

    /// The same after its pipeline has been used, and enough has been waited for to know the latency.
    fn warm() -> Option<Self> {
        let bench = Self::open()?;
        for _ in 0..20 {
            let clock = bench.call(1e-4);
            bench.wait();
            clock.seal();
        }
        Some(bench)
    }

    fn dispatch(&self) -> Result<()> {
        self.dispatch_scaled(1e-9)
    }

    fn dispatch_scaled(&self, a: f32) -> Result<()> {
        let vectors = (ITEMS / 4) as u32;
        let params = [vectors, a.to_bits()];
        self.gpu.dispatch(&Dispatch {
            entry_point: self.entry_point(),
            uniforms: &[bytemuck::bytes_of(&params)],
            windows: &[self.x.clone(), self.y.clone()],
            grid: [vectors.div_ceil(64), 1, 1],
        })
    }

    fn entry_point(&self) -> EntryPoint<'_> {
        EntryPoint {
            shader: &self.shader,
            name: "main",
            constants: &[],
        }
    }

    /// Records one call of one dispatch.
    fn call(&self, predicted_seconds: f64) -> Arc<Clock> {
        let clock = Clock::new();
        self.gpu.begin(&clock, predicted_seconds);
        self.dispatch().expect("recorded");
        self.gpu.announce(&clock).expect("announced");
        clock
    }

    /// Records one call, after which nothing more belongs to its clock.
    fn whole_call(&self, predicted_seconds: f64) -> Arc<Clock> {
        let clock = self.call(predicted_seconds);
        clock.seal();
        clock
    }

    fn wait(&self) {
        self.gpu.wait_for_all().expect("done");
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn a_call_that_is_waited_for_is_timed_from_end_to_end() {
    let Some(bench) = Bench::warm() else { return };
    for _ in 0..10 {
        let started = Instant::now();
        let clock = bench.whole_call(1e-4);
        assert_eq!(clock.reading(), Reading::Pending);
        bench.wait();
        let elapsed = started.elapsed().as_secs_f64();
        // Done before anybody waited, it may have no known time. That is rare.
        if let Reading::Took {
            seconds,
            calls,
            mixed,
        } = clock.reading()
        {
            assert!(seconds > 0.0 && seconds <= elapsed, "{seconds} {elapsed}");
            assert_eq!((calls, mixed), (1, false));
            return;
        }
    }
    panic!("no clock showed a time");
}

#[test]
fn the_first_use_of_a_pipeline_is_not_timed_nor_what_shares_its_submission() {
    let Some(bench) = Bench::open() else { return };
    let clocks = [bench.whole_call(1e-4), bench.whole_call(1e-4)];
    bench.wait();
    for clock in clocks {
        assert_eq!(clock.reading(), Reading::Unknown);
    }
}

#[test]
fn the_calls_of_a_chain_share_its_time() {
    let Some(bench) = Bench::warm() else { return };
    let started = Instant::now();
    let clocks: Vec<_> = (0..500).map(|_| bench.whole_call(1e-6)).collect();
    bench.wait();
    let elapsed = started.elapsed().as_secs_f64();
    let mut sum = 0.0;
    let mut timed = 0;
    for clock in clocks {
        match clock.reading() {
            Reading::Pending => panic!("all work is done"),
            Reading::Unknown => {}
            Reading::Took {
                seconds,
                calls,
                mixed,
            } => {
                assert!(calls > 1 && !mixed, "{calls} alike");
                (sum, timed) = (sum + seconds, timed + 1);
            }
        }
    }
    // Submissions that ended unseen may have no time; most must have one.
    assert!(timed >= 250, "{timed} of 500");
    assert!(
        sum <= elapsed * 1.01 && sum >= elapsed * 0.1,
        "{sum} of {elapsed}"
    );
}

#[test]
fn unlike_calls_share_as_predicted() {
    let Some(bench) = Bench::warm() else { return };
    for _ in 0..10 {
        let (a, b) = (bench.whole_call(1e-4), bench.whole_call(3e-4));
        bench.wait();
        if let (
            Reading::Took { seconds: a, .. },
            Reading::Took {
                seconds: b, mixed, ..
            },
        ) = (a.reading(), b.reading())
        {
            assert!((b / a - 3.0).abs() < 1e-3, "{a} {b}");
            assert!(mixed);
            return;
        }
    }
    panic!("no clock showed a time");
}

#[test]
fn the_gpu_times_what_nobody_waits_for_much_as_one_who_waits() {
    let Some(bench) = Bench::warm() else { return };
    if !bench
        .gpu
        .connection
        .device()
        .features()
        .contains(stamps::FEATURES)
    {
        eprintln!("SKIPPED: no timestamps");
        return;
    }
    let (mut waited, mut unwatched) = (Vec::new(), Vec::new());
    for _ in 0..15 {
        let clock = bench.whole_call(1e-9);
        bench.wait();
        waited.extend(clock.seconds());
        let clock = bench.whole_call(1e-9);
        bench.gpu.flush().expect("submitted");
        std::thread::sleep(Duration::from_millis(30));
        bench.gpu.look();
        unwatched.extend(clock.seconds());
    }
    assert!(waited.len() > 7 && unwatched.len() > 7);
    let ratio = median(unwatched) / median(waited);
    // The time of a dispatch, not that until somebody looked.
    assert!((0.2..5.0).contains(&ratio), "{ratio}");
}

#[test]
fn without_timestamps_what_ended_unseen_is_known_if_it_was_faster_than_predicted() {
    let Some(bench) = Bench::warm() else { return };
    // No set is free.
    let taken: Vec<_> = std::iter::from_fn(|| bench.gpu.recorder().stamps().take()).collect();
    let unseen = |predicted_seconds| {
        let clock = bench.whole_call(predicted_seconds);
        bench.gpu.flush().expect("submitted");
        std::thread::sleep(Duration::from_millis(30));
        bench.gpu.look();
        clock.reading()
    };
    assert_eq!(unseen(1e-9), Reading::Unknown);
    assert!(matches!(unseen(1000.0), Reading::Took { seconds, .. } if seconds < 1000.0));
    drop(taken);
}

#[test]
fn a_transfer_for_the_reader_is_taken_off_the_calls_time() {
    let Some(bench) = Bench::warm() else { return };
    let mut bytes = vec![0u8; 4 * ITEMS];
    let mut read = |bench: &Bench| {
        let read = bench.gpu.download(&bench.y.buffer, 0, &mut bytes);
        read.expect("read");
    };
    // A disturbed copy tells nothing, and others may be at it all the time.
    let learned = (0..50).any(|_| {
        read(&bench);
        bench.gpu.connection.timeline().knows_copies()
    });
    if !learned {
        return;
    }
    let (mut plain, mut with_read) = (Vec::new(), Vec::new());
    for _ in 0..15 {
        let clock = bench.whole_call(1e-9);
        bench.wait();
        plain.extend(clock.seconds());
        let clock = bench.whole_call(1e-9);
        read(&bench);
        with_read.extend(clock.seconds());
    }
    if with_read.len() > 7 {
        let ratio = median(with_read) / median(plain);
        assert!((0.2..5.0).contains(&ratio), "{ratio}");
    }
}

#[test]
fn threads_that_record_at_once_get_no_time_rather_than_a_wrong_one() {
    let Some(bench) = Bench::warm() else { return };
    let clocks = [Clock::new(), Clock::new()];
    clocks.iter().for_each(|clock| bench.gpu.begin(clock, 1e-4));
    bench.dispatch().expect("recorded");
    for clock in &clocks {
        bench.gpu.announce(clock).expect("announced");
        clock.seal();
    }
    bench.wait();
    for clock in clocks {
        assert_eq!(clock.reading(), Reading::Unknown);
    }
    let after = bench.whole_call(1e-4);
    bench.wait();
    assert_ne!(after.reading(), Reading::Pending);
}

#[test]
fn the_backlog_is_what_was_predicted_until_it_is_done() {
    let Some(bench) = Bench::warm() else { return };
    let gpu = &bench.gpu;
    assert_eq!(gpu.backlog_seconds(), 0.0);
    bench.whole_call(1e-3);
    bench.whole_call(2e-3);
    assert_eq!(gpu.backlog_seconds(), 3e-3, "recorded");
    bench.whole_call(60.0);
    let submitted = gpu.backlog_seconds();
    assert!(submitted > 0.0 && submitted <= 60.003, "{submitted}");
    bench.wait();
    assert_eq!(gpu.backlog_seconds(), 0.0);
    for nonsense in [f64::NAN, f64::INFINITY, -1.0, f64::MAX] {
        bench.whole_call(nonsense);
        let backlog = gpu.backlog_seconds();
        assert!(backlog >= 0.0 && backlog.is_finite(), "{nonsense}");
    }
    bench.wait();
    assert_eq!(gpu.backlog_seconds(), 0.0);
}

#[test]
fn work_goes_on_though_nobody_looks() {
    let Some(bench) = Bench::warm() else { return };
    bench.whole_call(0.02);
    bench.gpu.flush().expect("submitted");
    std::thread::sleep(Duration::from_millis(25));
    assert_eq!(bench.gpu.backlog_seconds(), 0.0);
}

#[test]
fn clocks_are_settled_and_the_backlog_is_gone_however_it_ends() {
    let Some(bench) = Bench::warm() else { return };
    // Never submitted.
    let recorded = bench.whole_call(1e-4);
    // Submitted, and never waited for.
    bench.whole_call(1.0);
    let under_way = bench.whole_call(1.0);
    let left = bench.whole_call(1e-4);
    let gpu = Arc::clone(&bench.gpu);
    drop(bench);
    drop(Arc::into_inner(gpu).expect("nobody else has it"));
    for clock in [recorded, under_way, left] {
        assert_ne!(clock.reading(), Reading::Pending);
        assert_eq!(Arc::strong_count(&clock), 1);
    }
}

#[test]
fn a_buffer_that_outlives_its_gpu_does_not_keep_the_device_open() {
    let Some(bench) = Bench::warm() else { return };
    // Recorded and not submitted, submitted and not waited for: whatever is under way.
    bench.whole_call(1e-4);
    bench.gpu.flush().expect("submitted");
    bench.whole_call(1e-4);
    let buffer = bench.y.buffer.clone();
    let connection = Arc::downgrade(&bench.gpu.connection);
    let pool = Arc::downgrade(&bench.gpu.pool);
    drop(bench);
    assert!(connection.upgrade().is_none(), "the connection is closed");
    assert!(pool.upgrade().is_none(), "the pool is gone");
    drop(buffer);
}

#[test]
fn a_lost_gpu_leaves_no_clock_pending() {
    let Some(bench) = Bench::warm() else { return };
    let submitted = bench.whole_call(1.0);
    let recorded = bench.whole_call(1e-4);
    bench.gpu.connection.device().destroy();
    let error = bench.gpu.wait_for_all().expect_err("it is lost");
    assert!(matches!(error, Error::DeviceLost { .. }), "{error}");
    assert_ne!(submitted.reading(), Reading::Pending);
    assert_ne!(recorded.reading(), Reading::Pending);
    let after = Clock::new();
    bench.gpu.begin(&after, 1.0);
    bench.dispatch().ok();
    bench.gpu.announce(&after).ok();
    after.seal();
    bench.gpu.flush().expect_err("it is lost");
    assert_eq!(after.reading(), Reading::Unknown);
    assert_eq!(bench.gpu.backlog_seconds(), 0.0);
}

#[test]
fn nothing_is_left_of_many_calls() {
    let Some(bench) = Bench::warm() else { return };
    let first = bench.whole_call(1e-7);
    for _ in 0..100 {
        for _ in 0..100 {
            drop(bench.whole_call(1e-7));
        }
        bench.gpu.flush().expect("submitted");
        let under_way = bench
            .gpu
            .connection
            .timeline()
            .oldest()
            .map_or(0, |(_, count)| count);
        assert!(under_way <= 4, "{under_way}");
    }
    bench.wait();
    assert_eq!(Arc::strong_count(&first), 1);
    assert_eq!(bench.gpu.connection.timeline().oldest(), None);
}

#[test]
fn two_threads_that_need_a_pipeline_compile_it_once() {
    let Some(bench) = Bench::open() else { return };
    let both = std::sync::Barrier::new(2);
    let before = bench.gpu.pipelines.compiled();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                both.wait();
                let given = Arity {
                    arrays: 2,
                    uniforms: 1,
                };
                let compiled = bench.gpu.compile(&bench.entry_point(), given);
                compiled.expect("compiled");
            });
        }
    });
    assert_eq!(bench.gpu.pipelines.compiled(), before + 1);
    bench.dispatch().expect("recorded");
    assert_eq!(bench.gpu.pipelines.compiled(), before + 1);
}

#[test]
fn the_smallest_numbers_that_tune_it_change_no_result() {
    let tuning = Tuning {
        dispatches_per_submission: 1,
        work_per_submission: Duration::ZERO,
        submissions_in_flight: 0,
        noticeable_copy_bytes: 0,
        largest_piece: 4 << 10,
        smallest_piece: 4 << 10,
        reserved_download_bytes: 256,
        upload_bytes: 1,
        pieces_per_download: 1,
        parameter_bytes: 256,
        idle_bytes: 0,
        bind_groups: 1,
        stamp_sets: 0,
        latency_samples: 0,
        spare_lists: 0,
        ..Tuning::default()
    };
    let options = GpuOptions {
        tuning,
        ..GpuOptions::default()
    };
    let Some(bench) = Bench::open_with(&options) else {
        return;
    };
    // Every uniform is another one, and the arena has room for one.
    for a in 1..=10u16 {
        let clock = Clock::new();
        bench.gpu.begin(&clock, 1e-6);
        bench.dispatch_scaled(f32::from(a)).expect("recorded");
        bench.gpu.announce(&clock).expect("announced");
        clock.seal();
    }
    let mut y = vec![0.0f32; ITEMS];
    let bytes = bytemuck::cast_slice_mut(&mut y);
    let read = bench.gpu.download(&bench.y.buffer, 0, bytes);
    read.expect("read");
    assert!(y.iter().all(|y| *y == 56.0), "1 + 1 + 2 + .. + 10");
    assert_eq!(bench.gpu.backlog_seconds(), 0.0);
}

#[test]
fn what_is_no_time_is_predicted_as_none() {
    for nonsense in [f64::NAN, f64::NEG_INFINITY, -1e-9] {
        assert_eq!(duration(nonsense), Duration::ZERO);
    }
    assert_eq!(duration(0.5), Duration::from_millis(500));
    assert!(duration(1e300) <= Duration::from_secs(3600));
}
