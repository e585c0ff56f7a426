fn main() {
    let mut all = vec![];
    let top: usize = std::env::var("TOP")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0);
    for f in std::env::args().skip(1) {
        let m = match divvy::device::sim::SimulatedMachine::load(&f) {
            Ok(m) => m,
            Err(e) => {
                println!("{f}: {e:?}");
                continue;
            }
        };
        let outlines = |name: &str, n: usize| {
            let e = divvy::kernels::catalog::find(name)?;
            Some((e.outline)(n, e.dtypes[0]))
        };
        let seeds: u64 = std::env::var("SEEDS")
            .ok()
            .and_then(|v| v.parse().ok())
            .unwrap_or(1);
        for seed in 1..=seeds {
            let o = divvy::dispatch::replay::replay(
                &m,
                &outlines,
                &divvy::dispatch::replay::Options {
                    seed,
                    ..Default::default()
                },
                || (),
            )
            .unwrap();

            let mut cs: Vec<_> = o.cases.iter().collect();
            cs.sort_by(|a, b| {
                let k = |c: &&divvy::dispatch::replay::Case| {
                    c.rows[0].score.warm.seconds - c.rows[0].score.warm.best_seconds
                };
                k(b).total_cmp(&k(a))
            });
            let r = &o.rows[0].score;
            println!(
                "{} cold {:.3} warm {:.3} worst {:.2} expl {:.3} total {:.1} rec {:?}",
                o.machine,
                r.cold.regret().unwrap(),
                r.warm.regret().unwrap(),
                r.worst_warm.unwrap(),
                r.exploration_share(),
                r.warm.best_seconds,
                o.recovery
                    .iter()
                    .map(|x| (x.regret * 1e3).round() / 1e3)
                    .collect::<Vec<_>>()
            );
            for c in cs.iter().take(top) {
                let s = &c.rows[0].score;
                println!(
                    "   {} {} {:?}: warm share {:.4} ratio {:.3} cold {:.2} best {:.2e}: {} | chosen {} expl {:.3}",
                    c.kernel,
                    c.n,
                    c.residency,
                    (s.warm.seconds - s.warm.best_seconds) / r.warm.best_seconds,
                    s.warm.seconds / s.warm.best_seconds,
                    s.cold.regret().unwrap(),
                    c.best_seconds,
                    p(&c.best),
                    p(&c.chosen),
                    s.exploration_share()
                );
            }
            if top > 0 {
                let mut w = cs.clone();
                w.sort_by(|a, b| {
                    b.rows[0]
                        .score
                        .worst_warm
                        .partial_cmp(&a.rows[0].score.worst_warm)
                        .unwrap()
                });
                for c in w.iter().take(3) {
                    let s = &c.rows[0].score;
                    println!(
                        "   WORST {} {} {:?} ratio {:.3} best {:.2e} {} | {} expl {:.3}",
                        c.kernel,
                        c.n,
                        c.residency,
                        s.worst_warm.unwrap(),
                        c.best_seconds,
                        p(&c.best),
                        p(&c.chosen),
                        s.exploration_share()
                    );
                }
                let mut w = cs.clone();
                w.sort_by(|a, b| {
                    let k = |c: &&divvy::dispatch::replay::Case| {
                        c.rows[0].score.cold.seconds - c.rows[0].score.cold.best_seconds
                    };
                    k(b).total_cmp(&k(a))
                });
                for c in w.iter().take(3) {
                    let s = &c.rows[0].score;
                    println!(
                        "   COLD {} {} {:?} cold {:.3} share {:.3} best {:.2e} {} | {}",
                        c.kernel,
                        c.n,
                        c.residency,
                        s.cold.regret().unwrap(),
                        (s.cold.seconds - s.cold.best_seconds) / r.cold.best_seconds,
                        c.best_seconds,
                        p(&c.best),
                        p(&c.chosen)
                    );
                }
            }
            all.push(o);
        }
    }
    // mean over machines, and how many fail
    let n = all.len() as f64;
    let mean = |f: &dyn Fn(&divvy::dispatch::replay::Row) -> f64| {
        all.iter().map(|o| f(&o.rows[0])).sum::<f64>() / n
    };
    let q = |f: &dyn Fn(&divvy::dispatch::replay::Row) -> f64, q: f64| {
        let mut v: Vec<f64> = all.iter().map(|o| f(&o.rows[0])).collect();
        v.sort_by(f64::total_cmp);
        v[((v.len() - 1) as f64 * q) as usize]
    };
    let warm = |r: &divvy::dispatch::replay::Row| r.score.warm.regret().unwrap();
    let cold = |r: &divvy::dispatch::replay::Row| r.score.cold.regret().unwrap();
    let worst = |r: &divvy::dispatch::replay::Row| r.score.worst_warm.unwrap();
    let ex = |r: &divvy::dispatch::replay::Row| r.score.exploration_share();
    println!(
        "MEAN cold {:.4} warm {:.4} worst {:.3} expl {:.4}; median cold {:.4} warm {:.4} worst {:.3}; p90 cold {:.3} warm {:.3} worst {:.2} expl {:.3}",
        mean(&cold),
        mean(&warm),
        mean(&worst),
        mean(&ex),
        q(&cold, 0.5),
        q(&warm, 0.5),
        q(&worst, 0.5),
        q(&cold, 0.9),
        q(&warm, 0.9),
        q(&worst, 0.9),
        q(&ex, 0.9)
    );
    let rec: Vec<f64> = all
        .iter()
        .flat_map(|o| o.recovery.iter().map(|r| r.regret))
        .collect();
    println!(
        "recovery {:?}",
        rec.iter()
            .map(|x| (x * 1e3).round() / 1e3)
            .collect::<Vec<_>>()
    );
    for r in divvy::dispatch::replay::fleet(&all) {
        println!(
            "{:12} cold {:.3} warm {:.3} worst {:.2} expl {:.3}",
            r.policy,
            r.score.cold.regret().unwrap(),
            r.score.warm.regret().unwrap(),
            r.score.worst_warm.unwrap(),
            r.score.exploration_share()
        );
    }
}
fn p(v: &[divvy::dispatch::replay::PartShare]) -> String {
    v.iter()
        .map(|p| format!("{} {:.2}", p.device, p.share))
        .collect::<Vec<_>>()
        .join("+")
}
